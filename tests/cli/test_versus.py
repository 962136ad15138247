"""`fl-inmetro runs test` as a user calls it."""

import json

import pytest

from tests.cli.command_line import call
from tests.quantile_runs import quantile_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    quantile_run(place, clients=4)
    quantile_run(place, clients=4)
    return place


def test_two_rows_of_one_run(root):
    answer = call(
        *("runs", "test", "latest", "--model", "mlp", "--against-model", "ha4"),
        FL_INMETRO_RUNS=str(root),
    )
    assert answer.code == 0
    assert "A is better than B by more than chance." in answer.out
    assert "1,344 points of 4 clients on 14 days" in answer.out
    assert "MLP, federated" in answer.out
    said = call(
        *("runs", "test", "latest", "--model", "mlp", "--against-model", "ha4"),
        FL_INMETRO_RUNS=str(root),
        FL_INMETRO_LANG="pt-BR",
    )
    assert "A é melhor que B além do acaso." in said.out


def test_json_of_two_runs(root):
    names = sorted(path.name for path in root.iterdir())
    answer = call("runs", "test", *names, "--model", "ridge", "--json", "--runs", root)
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found["ours"] == {"run": names[0], "model": "ridge", "training": "federated"}
    assert found["theirs"] == {"run": names[1], "model": "ridge", "training": "federated"}
    # The same forecasts: no difference, and no variance to hold it to.
    assert found["difference"] == 0
    assert found["p_value"] is None
    assert found["clear"] is False
    assert set(found) == {
        *("ours", "theirs", "nmae", "other_nmae", "difference", "low", "high", "statistic"),
        *("p_value", "lag", "clients", "days", "points", "clear"),
    }


def test_faults_are_coded(root):
    answer = call("runs", "test", "latest", "--model", "gru", "--runs", root)
    assert answer.code != 0
    assert answer.faults[0]["code"] == "FL710"
    # The best baseline of this run keeps no forecasts.
    answer = call("runs", "test", "latest", "--runs", root)
    assert answer.faults[0]["code"] == "FL710"
    assert "keeps no forecasts" in answer.faults[0]["what"]

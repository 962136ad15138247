"""`fl-inmetro reconcile` as a user calls it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fl_inmetro.hierarchy import METHODS
from tests.cli.command_line import call, documented

GROUPS = "client_id,feeder\na,F1\nb,F1\nc,F2\n"


@pytest.fixture(scope="module")
def place(metered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    (folder / "groups.csv").write_text(GROUPS)
    return folder


def words(metered, place, *more):
    groups = ("--groups", place / "groups.csv", "--runs", metered / "runs")
    return ("reconcile", "latest", *groups, "--calibration-days", 3, *more)


def test_all_methods_in_one_table(metered, place):
    answer = call(*words(metered, place))
    assert answer.code == 0, answer.err
    for name in (*METHODS, "before", "total (1)", "feeder (2)", "client (3)"):
        assert name in answer.out
    assert "Errors from 3 days" in answer.out
    assert "as a meter at the feeder would measure" in answer.out
    said = call(*words(metered, place), "--lang", "pt-BR")
    assert "antes" in said.out
    assert "cliente (3)" in said.out


def test_json_and_file(metered, place):
    file = place / "made.parquet"
    answer = call(*words(metered, place, "--json", "-o", file, "--method", "wls-var"))
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert sorted(found) == documented("reconcile")
    assert sorted(found["rows"][0]) == documented("reconcile.rows")
    assert {row["method"] for row in found["rows"]} == {"base", "wls-var"}
    assert found["levels"] == {"total": 1, "feeder": 2, "client": 3}
    assert found["scored"]["instants"] == 4 * 24
    table = pq.read_table(file)
    assert set(table["client_id"].to_pylist()) == {"total", "feeder:F1", "feeder:F2", *"abc"}

    def of(name):
        own = table.filter(pc.field("client_id") == name).sort_by("target_time_utc")
        return own["mean"].to_numpy()

    np.testing.assert_allclose(of("a") + of("b"), of("feeder:F1"))
    np.testing.assert_allclose(of("feeder:F1") + of("feeder:F2"), of("total"))
    # The clients' forecasts are a file that `score` reads, with the nMAE of the table.
    clients = place / "clients.parquet"
    pq.write_table(table.filter(pc.field("level") == "client"), clients)
    config = metered / "run.toml"
    scored = call("score", clients, "--data", metered / "meters.csv", "--config", config, "--json")
    assert scored.code == 0, scored.err
    (row,) = [r for r in found["rows"] if (r["method"], r["level"]) == ("wls-var", "client")]
    assert json.loads(scored.out)["scores"]["nmae"] == pytest.approx(row["nmae"])


def test_forecasts_of_the_nodes_from_a_file(metered, place):
    # Sums of the clients' forecasts: what adds up already is left as it is.
    (run,) = (metered / "runs").iterdir()
    rows = pq.read_table(run / "forecasts.parquet").filter(pc.field("training") == "federated")
    members = {"total": ["a", "b", "c"], "feeder:F1": ["a", "b"], "feeder:F2": ["c"]}
    parts = []
    for node, names in members.items():
        own = rows.filter(pc.is_in(rows["client_id"].cast(pa.string()), pa.array(names)))
        own = own.group_by(["issue_time_utc", "target_time_utc"]).aggregate([("mean", "sum")])
        assert own.num_rows == 7 * 24
        own = own.rename_columns(["issue_time_utc", "target_time_utc", "mean"])
        parts.append(own.append_column("client_id", pa.array([node] * own.num_rows)))
    base = place / "base.parquet"
    pq.write_table(pa.concat_tables(parts), base)
    answer = call(*words(metered, place, "--json", "--base", base))
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["filled"] == {}
    scores = {(row["method"], row["level"]): row for row in found["rows"]}
    for level in found["levels"]:
        assert scores["base", level]["gap"] == pytest.approx(0, abs=1e-12)
        for method in set(METHODS) - {"top-down"}:
            nmae = scores["base", level]["nmae"]
            assert scores[method, level]["nmae"] == pytest.approx(nmae)
    # One node fewer.
    pq.write_table(pa.concat_tables(parts[:2]), base)
    answer = call(*words(metered, place, "--base", base))
    assert answer.code == 6
    assert answer.faults[0]["code"] == "FL716"
    assert "feeder:F2" in answer.faults[0]["what"]


def test_faults_are_coded(metered, place):
    (place / "other.csv").write_text("client_id,feeder\na,F1\nz,F1\n")
    runs = ("--runs", metered / "runs")
    answer = call("reconcile", "latest", "--groups", place / "other.csv", *runs)
    assert answer.code == 6
    assert answer.faults[0]["code"] == "FL715"
    assert call(*words(metered, place, "--method", "magic")).code == 2
    assert call(*words(metered, place, "--node-model", "magic")).code == 2
    answer = call(*words(metered, place, "--calibration-days", 30))
    assert answer.faults[0]["code"] == "FL716"


def test_clients_in_no_group_are_named(metered, place):
    (place / "some.csv").write_text("client_id,feeder\na,F1\nb,F2\n")
    groups = ("--groups", place / "some.csv", "--runs", metered / "runs", "--calibration-days", 3)
    answer = call("reconcile", "latest", *groups)
    assert answer.code == 0, answer.err
    assert "1 clients of the run are in no group and left out: c" in answer.err

"""`fl-inmetro importance` and `fl-inmetro explain RUN`, as a user calls them."""

from __future__ import annotations

import json

import pytest

from fl_inmetro.cli.importance import _print
from fl_inmetro.explain.importance import WHY
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.shelf import find_run
from tests.cli.command_line import call, documented


@pytest.fixture(scope="module")
def run(compared) -> tuple[list[str], str, str]:
    """The options that name the run, one of its clients, and a test day."""
    root, answer = compared
    assert answer.code == 0, answer.err
    record = RunRecord.open(find_run(root, "latest"))
    client = next(iter(record.manifest["data"]["clients"]))
    day = record.manifest["window"]["test"]["first_issue_utc"][:10]
    return ["latest", "--runs", str(root)], client, day


def test_importance_tells_of_every_client_and_of_the_fleet(run, tmp_path):
    options, client, _ = run
    asked = ("--model", "mlp", "--training", "federated", "--repeats", "2")
    answer = call("importance", *options, *asked, "--json", "-o", tmp_path)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert (told["model"], told["training"], told["by"]) == ("mlp", "federated", "group")
    assert sorted(told) == documented("importance")
    assert all(sorted(row) == documented("importance.rows") for row in told["rows"])
    assert told["simulated"] is True
    assert len(told["clients"]) == 3
    assert [row["block"] for row in told["clients"][client]["rows"]] == [
        row["block"] for row in told["rows"]
    ]
    assert json.loads((tmp_path / "importance.json").read_text()) == told
    assert (tmp_path / "importance.html").read_text().startswith("<!DOCTYPE html>")
    by_feature = call(
        "importance", *options, *asked, "--by", "feature", "--client", client, "--json"
    )
    told = json.loads(by_feature.out)
    assert list(told["clients"]) == [client]
    assert "lag_1d" in {row["block"] for row in told["rows"]}


def test_importance_in_words(run):
    options, _, _ = run
    plain = call("importance", *options, "--repeats", "2", "--lang", "pt")
    assert plain.code == 0, plain.err
    assert "DADOS SIMULADOS" in plain.out
    assert "Parte da entrada" in plain.out
    other = call("importance", *options, "--client", "nobody")
    assert other.code == 5
    assert "FL360" in other.err


def test_one_permutation_has_no_mean_and_no_deviation(run):
    options, client, _ = run
    asked = ("--model", "mlp", "--client", client, "--repeats", "1")
    for lang, said in (("en", "(one permutation)"), ("pt", "(uma permutação)")):
        answer = call("importance", *options, *asked, "--lang", lang)
        assert answer.code == 0, answer.err
        told = " ".join(answer.out.split())
        assert said in told
        assert "±" not in told.partition(said)[0]


def test_reasons_are_said_in_the_readers_language(capsys):
    result = {"left_out": {f"c-{why}": why for why in WHY}, "simulated": False}
    result |= {"run": "r", "model": "mlp", "training": "federated", "clients": {}}
    rise = {"block": "lags", "nmae": 0.1, "nmae_sd": 0.01, "pinball": 0.1, "pinball_sd": 0.01}
    result |= {"rows": [rise]}
    result |= {"nmae": 0.1, "pinball": 0.1, "repeats": 2, "by": "group"}
    said = {}
    for lang in ("en", "pt-BR"):
        _print(result, [], lang)
        said[lang] = capsys.readouterr().err
    assert all(why in said["en"] for why in WHY.values())
    assert "a execução não tem modelo para ele" in said["pt-BR"]
    assert not any(why in said["pt-BR"] for why in WHY.values())


def test_a_forecast_is_taken_apart(run, tmp_path):
    options, client, day = run
    asked = ("--client", client, "--issue", day)
    answer = call("explain", *options, *asked, "--json", "-o", tmp_path)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert sorted(told) == documented("explain")
    assert all(sorted(row) == documented("explain.rows") for row in told["rows"])
    assert told["client"] == client
    assert told["complete"] is True
    assert len(told["rows"]) == 24
    for row in told["rows"]:
        assert sum(row["terms"].values()) == pytest.approx(row["forecast_kwh"], abs=1e-9)
    assert json.loads((tmp_path / "explanation.json").read_text()) == told
    assert (tmp_path / "explanation.html").read_text().startswith("<!DOCTYPE html>")


def test_an_hour_in_words(run):
    options, client, day = run
    answer = call(
        "explain", *options, "--client", client, "--issue", day, "--hour", "18", "--lang", "en"
    )
    assert answer.code == 0, answer.err
    assert f"{day} 18:00: " in answer.out
    assert "gives" in answer.out
    assert f"{day} 17:00" not in answer.out


def test_other_readings_can_be_named(run):
    options, client, day = run
    asked = ("--client", client, "--issue", day, "--json")
    own = json.loads(call("explain", *options, *asked).out)
    again = call("explain", *options, *asked, "--data", "simulator")
    assert again.code == 0, again.err
    assert json.loads(again.out) == own


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (("--client", "x"), 2, "--issue"),
        (("--hour", "18"), 2, "--client and --issue go together"),
        (("--model", "mlp"), 2, "--client and --issue go together"),
        (("--set", "data.source=simulator"), 2, "--client and --issue go together"),
        (("--issue", "2024-01-01"), 2, "--client"),
        (("--client", "nobody", "--issue", "2024-01-01"), 5, "FL360"),
    ],
)
def test_what_is_missing_is_said(run, asked, code, said):
    options, _, _ = run
    answer = call("explain", *options, *asked)
    assert answer.code == code
    assert said in answer.err


def test_a_level_that_the_model_has_not_is_fl361(run):
    options, client, day = run
    answer = call("explain", *options, "--client", client, "--issue", day, "--level", "0.77")
    assert answer.code == 5
    assert "FL361" in answer.err


def test_a_code_has_its_page_still():
    answer = call("explain", "FL362", "--lang", "en")
    assert answer.code == 0
    assert answer.out.startswith("FL362: There is no forecast to take apart")

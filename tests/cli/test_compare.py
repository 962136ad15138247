"""`fl-inmetro compare`: the rows, what moved, and that a comparison is one of like with like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import TINY, call, documented


def test_compare_json_has_the_documented_rows(compared):
    _, answer = compared
    assert answer.code == 0, answer.err
    assert answer.out.count("\n") == 1
    found = json.loads(answer.out)
    assert sorted(found) == documented("run")
    rows = {(row["model"], row["training"]): row for row in found["rows"]}
    assert list(rows) == [
        ("sn168", "baseline"),
        ("mlp", "local"),
        ("mlp", "federated"),
        ("mlp", "centralised"),
    ]
    keys = set(documented("run.rows"))
    assert set(rows["mlp", "federated"]) == set(rows["mlp", "centralised"]) == keys
    alone = keys - {"better_than_local", "harmed"}
    assert set(rows["mlp", "local"]) == alone
    assert set(rows["sn168", "baseline"]) == alone - {"validation_nmae"}
    record = RunRecord.open(Path(found["path"]))
    assert found["rows"] == record.scores()
    assert record.kind == "compare"


def test_bytes_are_what_had_to_leave_the_meters(compared):
    rows = {row["training"]: row for row in json.loads(compared[1].out)["rows"]}
    assert rows["baseline"]["bytes"] == rows["local"]["bytes"] == 0
    # Three clients without gaps, 53 days before the seven of the test, 24 readings of 8 bytes each.
    assert rows["centralised"]["bytes"] == 3 * 53 * 24 * 8
    assert rows["federated"]["bytes"] > 0


def test_better_than_local_is_counted_over_the_clients(compared):
    (path,) = compared[0].iterdir()
    record = RunRecord.open(path)
    alone = {r["client_id"]: r["nmae"] for r in record.client_scores("mlp", "local")}
    for training in ("federated", "centralised"):
        scores = record.client_scores("mlp", training)
        share = sum(r["nmae"] < alone[r["client_id"]] for r in scores) / len(scores)
        (row,) = [r for r in record.scores() if r["training"] == training]
        assert row["better_than_local"] == pytest.approx(share)
        harmed = sum(r["nmae"] > 1.01 * alone[r["client_id"]] for r in scores) / len(scores)
        assert row["harmed"] == pytest.approx(harmed)


def test_nmae_of_a_row_is_the_mean_over_its_clients(compared):
    (path,) = compared[0].iterdir()
    record = RunRecord.open(path)
    for row in record.scores():
        scores = record.client_scores(row["model"], row["training"])
        assert len(scores) == 3
        assert row["nmae"] == pytest.approx(sum(r["nmae"] for r in scores) / 3)
        total = sum(r["mae_kwh"] * r["points"] for r in scores)
        assert row["mae_kwh"] == pytest.approx(total / row["points"])


def test_only_baselines_is_a_comparison_too(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ("--set", 'compare.models=["ha4", "sn24"]', "--runs", tmp_path / "runs", "--json")
    answer = call("compare", tmp_path / "tiny.toml", *words)
    assert answer.code == 0, answer.err
    assert [row["model"] for row in json.loads(answer.out)["rows"]] == ["ha4", "sn24"]

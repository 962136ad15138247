"""`fl-inmetro run`: what is printed, what is left in the run directory, what each option does."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from fl_inmetro.cli.tables import plain_scores
from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import TINY, call, documented, environment, words_for

PROMISED = ("nmae", "wmape", "mae_kwh", "rmse_kwh", "mase", "bytes", "seconds")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_run_json_is_one_object_with_the_documented_keys(tiny, tmp_path):
    answer = call("run", tiny, "--runs", tmp_path / "runs", "--json")
    assert answer.code == 0
    assert answer.out.count("\n") == 1
    found = json.loads(answer.out)
    assert sorted(found) == documented("run")
    record = RunRecord.open(Path(found["path"]))
    assert (found["run"], found["status"]) == (record.id, "completed")
    assert found["simulated"] is True
    assert Path(found["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    rows = found["rows"]
    assert [(row["model"], row["training"]) for row in rows] == [
        ("sn24", "baseline"),
        ("sn168", "baseline"),
        ("ha4", "baseline"),
        ("persistence_ensemble", "baseline"),
        ("mlp", "federated"),
    ]
    documented_keys = set(documented("run.rows")) - {"better_than_local", "harmed"}
    for row, kept in zip(rows, record.scores(), strict=True):
        trained = {"validation_nmae"} if row["training"] != "baseline" else set()
        assert set(row) == documented_keys - {"validation_nmae"} | trained
        assert row == kept
        assert all(math.isfinite(row[name]) for name in PROMISED)
        # Three clients, seven days of 24 hours.
        assert (row["clients"], row["points"]) == (3, 3 * 7 * 24)
        assert isinstance(row["bytes"], int)
    assert [row["bytes"] for row in rows[:4]] == [0] * 4
    assert rows[4]["bytes"] > 0


def test_the_table_ends_with_the_report_and_what_to_try_next(tiny, tmp_path):
    answer = call("run", tiny, "--runs", tmp_path / "runs", COLUMNS="80")
    assert answer.code == 0
    (path,) = (tmp_path / "runs").iterdir()
    lines = answer.out.splitlines()
    assert lines[0] == "SIMULATED DATA: no meter was involved."
    assert f"Report: {path / 'report.html'}" in lines
    proposed = [shlex.split(line)[1:] for line in lines if line.startswith("  fl-inmetro ")]
    assert [words[0] for words in proposed] == ["runs", "compare", "forecast"]
    record = RunRecord.open(path)
    for row in record.scores():
        (line,) = [one for one in lines if one.startswith(row["model"] + " ")]
        assert f"{row['nmae']:.4f}" in line
    best = min(record.scores(), key=lambda row: row["nmae"])["model"]
    assert any(line.startswith(f"{best} *") for line in lines)
    # The commands that are proposed work as they stand (the comparison has tests of its own).
    output = tmp_path / "forecast.parquet"
    assert call(*proposed[0]).code == 0
    assert call(*[output if word == "forecast.parquet" else word for word in proposed[2]]).code == 0
    assert output.exists()


def test_portuguese_throughout(tiny, tmp_path):
    answer = call("run", tiny, "--runs", tmp_path / "runs", "--lang", "pt-BR")
    assert "DADOS SIMULADOS" in answer.out
    assert "Janela de teste" in answer.out
    assert "A seguir, por exemplo" in answer.out
    assert "rodada 2/2  perda 0," in answer.err
    assert "round" not in answer.err
    (path,) = (tmp_path / "runs").iterdir()
    assert '<html lang="pt-BR">' in (path / "report.html").read_text(encoding="utf-8")
    again = call("run", tiny, "--runs", tmp_path / "env", FL_INMETRO_LANG="pt-BR")
    assert again.out.splitlines()[0] == answer.out.splitlines()[0]


def test_overrides_and_seed_reach_the_frozen_configuration(tiny, tmp_path):
    words = ("--set", "federation.num-server-rounds=1", "--set", "model=ridge", "--seed", "11")
    found = json.loads(call("run", tiny, *words, "--json", FL_INMETRO_RUNS=str(tmp_path / "r")).out)
    config = RunRecord.open(Path(found["path"])).config
    assert (config.federation.num_server_rounds, config.model, config.seed) == (1, "ridge", 11)
    assert Path(found["path"]).parent == tmp_path / "r"
    assert found["rows"][-1]["model"] == "ridge"


def test_the_same_seed_gives_the_same_scores_and_another_does_not(tiny, tmp_path):
    rows = []
    for seed in (3, 3, 4):
        words = ("--seed", seed, "--runs", tmp_path / "runs", "--json")
        rows.append(json.loads(call("run", tiny, *words).out)["rows"][-1])
    for row in rows:
        del row["seconds"]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_what_is_not_finite_is_null_and_what_counts_is_whole():
    row = {"model": "m", "nmae": math.nan, "mase": math.inf, "bytes": 12.0, "mae_kwh": 1.0}
    plain = plain_scores({**row, "points": None})
    assert json.dumps(plain, allow_nan=False) == (
        '{"model": "m", "nmae": null, "mase": null, "bytes": 12, "mae_kwh": 1.0, "points": null}'
    )


@pytest.mark.parametrize("words", [["data", "ls", "--json"], ["explain", "FL202"], ["--help"]])
def test_a_reader_that_goes_away_leaves_no_noise(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        words_for(*words), env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)

"""`fl-inmetro backtest` on a small simulated fleet."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fl_inmetro.backtest.study import Step, Study
from fl_inmetro.cli.app import app
from fl_inmetro.errors import Fault, RunError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import documented

SMALL = (
    "data.simulator.clients=3",
    "data.simulator.days=60",
    "window.validation-days=5",
    "window.train-days=0",
    "window.issue-time=06:00",
    "window.lead-h=18",
    "federation.num-server-rounds=2",
    "models.mlp.hidden=[4]",
    'compare.models=["sn168", "ha4", "mlp"]',
    'compare.training=["local", "federated"]',
)
OPTIONS = [part for value in SMALL for part in ("--set", value)]
DAYS = ("--first", "2024-02-10", "--last", "2024-02-17", "--refit-days", "5", "--seeds", "0,1")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["backtest", *OPTIONS, *DAYS, *arguments])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("backtest")
    return folder, run("--runs", str(folder / "runs"), "-o", str(folder), "--json")


def test_json_holds_what_the_file_holds(done: tuple[Path, Result]) -> None:
    folder, result = done
    assert result.exit_code == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    kept = json.loads((folder / "backtest.json").read_text(encoding="utf-8"))
    files = {"file": str(folder / "backtest.json"), "report": str(folder / "backtest.html")}
    assert said == {**kept, **files}
    assert sorted(said) == documented("backtest")
    for table in ("rows", "slices", "tests"):
        assert said[table]
        assert all(sorted(row) == documented(f"backtest.{table}") for row in said[table])
    assert said["complete"] is True
    assert [(fold["first"], fold["last"]) for fold in said["folds"]] == [
        ("2024-02-10", "2024-02-14"),
        ("2024-02-15", "2024-02-17"),
    ]
    assert said["window"] == {
        "issue_time": "06:00", "timezone": "America/Sao_Paulo", "lead_h": 18, "horizon_h": 24,
    }  # fmt: skip
    # Eight days of 24 hours of three clients.
    assert {row["points"] for row in said["rows"]} == {8 * 24 * 3}
    assert len(list((folder / "runs" / "backtest-run-s0").iterdir())) == 4
    html = (folder / "backtest.html").read_text(encoding="utf-8")
    assert "Backtest" in html


def test_the_same_command_again_trains_nothing(done: tuple[Path, Result]) -> None:
    folder, first = done
    again = run("--runs", str(folder / "runs"), "--lang", "pt")
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count("já existe") == 4
    assert "rodada" not in again.stderr
    assert "fold 1/4" in first.stderr
    assert "there already" not in first.stderr
    row = next(line for line in again.stdout.splitlines() if line.startswith("HA4"))
    assert "," in row
    assert "nMAE da frota" in again.stdout
    assert "25–30 h" in again.stdout


def broken_off(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four folds the second does not end."""
    real = Study.carry_out

    def carry_out(self: Study, step: Step, *others: Any) -> RunRecord:
        if step == self.steps()[1]:
            raise error
        return real(self, step, *others)

    monkeypatch.setattr(Study, "carry_out", carry_out)


def test_after_an_error_what_is_done_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(RunError(Fault("FL704", "the disk is full")), monkeypatch)
    result = run("--runs", str(tmp_path))
    assert isinstance(result.exception, RunError)
    assert result.exception.faults[0].code == "FL704"
    assert any(line.startswith("HA4") for line in result.stdout.splitlines())
    assert "Not all folds are done" in result.stdout


def test_the_command_to_go_on_with_is_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(Interrupted(), monkeypatch)
    given = ("--runs", str(tmp_path / "r"), "--out", str(tmp_path / "o"), "--json", "--lang", "en")
    result = run(*given)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["complete"] is False
    line = next(line for line in result.stderr.splitlines() if "fl-inmetro backtest" in line)
    said = shlex.split(line[line.index("fl-inmetro backtest") :])
    for option, value in (("--runs", "r"), ("--out", "o")):
        assert said[said.index(option) + 1] == str(tmp_path / value)
    assert said[said.index("--lang") + 1] == "en"
    assert "--json" in said
    monkeypatch.undo()
    again = CliRunner().invoke(app, said[1:])
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["complete"] is True


def test_a_day_that_is_none_is_told(tmp_path: Path) -> None:
    wrong = run("--runs", str(tmp_path), "--first", "2024-02-30")
    assert wrong.exit_code != 0
    assert wrong.exception is not None
    assert "backtest.first" in str(wrong.exception)

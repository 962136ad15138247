"""`--debug`: the first client that fails ends the command, which names it, round and step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fl_inmetro.learning import cohort
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import TINY, call
from tests.engines import ENGINES

both_engines = pytest.mark.parametrize("engine", ENGINES)

#: A step so large that the loss of the next one is not finite.
DIVERGES = ("--set", "models.mlp.optimizer=sgd", "--set", "models.mlp.eta-l=1e30")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@both_engines
def test_a_loss_that_is_not_finite(tiny, tmp_path, engine):
    words = ("run", tiny, *DIVERGES, "--set", f"engine={engine}", "--runs", tmp_path / "runs")
    answer = call(*words, "--debug")
    (fault,) = answer.faults
    assert (answer.code, fault["code"], answer.out) == (5, "FL312", "")
    assert "the loss is" in fault["what"]
    assert "--debug" in fault["hint"]
    assert "Traceback" not in answer.err
    (path,) = (tmp_path / "runs").iterdir()
    record = RunRecord.open(path)
    assert record.status == "failed"
    first = min(record.manifest["data"]["clients"])
    assert fault["where"] == f"client `{first}`, round 1, step 1"
    # Without it nobody is named: all replies are refused, and the round has too few.
    answer = call(*words)
    (fault,) = answer.faults
    assert fault["code"] == "FL302"


@both_engines
def test_an_exception(tiny, tmp_path, engine, monkeypatch):
    """The network of two of three clients cannot be run: the first of them is named."""
    owner = GradientLearner if engine == "loop" else cohort
    name = "penalties" if engine == "loop" else "gradients_of"

    def broken(*args: object) -> None:
        raise ArithmeticError("no such operation")

    monkeypatch.setattr(owner, name, broken)
    words = ("run", tiny, "--set", f"engine={engine}", "--runs", tmp_path / "runs")
    answer = call(*words, "--debug")
    (fault,) = answer.faults
    assert fault["code"] == "FL312"
    assert "ArithmeticError: no such operation" in fault["what"]
    assert re.fullmatch(r"client `sim-home-\d+`, round 1, step 0", fault["where"])
    answer = call(*words)
    (fault,) = answer.faults
    assert fault["code"] == "FL302"
    failed = [RunRecord.open(path) for path in sorted((tmp_path / "runs").iterdir())]
    reasons = [row["reason"] for record in failed for row in record.rejected()]
    assert len(reasons) == 3
    assert all("ArithmeticError: no such operation" in reason for reason in reasons)


@both_engines
def test_a_run_in_which_nothing_fails_is_the_same_run(tiny, tmp_path, engine):
    found = []
    for debug in ((), ("--debug",)):
        root = tmp_path / f"runs{len(debug)}"
        words = ("--set", f"engine={engine}", "--runs", root)
        assert call("run", tiny, *words, *debug).code == 0
        (path,) = root.iterdir()
        found.append([row["nmae"] for row in RunRecord.open(path).scores()])
    assert found[0] == found[1]


def test_the_fault_is_explained_in_both_languages():
    for lang, word in (("en", "client"), ("pt-BR", "cliente")):
        answer = call("explain", "FL312", "--lang", lang)
        assert answer.code == 0
        assert word in answer.out

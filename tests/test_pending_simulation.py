"""Pending state and rounds by the clock on Flower's simulation (Ray), as in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_inmetro.federation import messages
from fl_inmetro.federation.flower_compat import OFFLINE_ENVIRONMENT
from fl_inmetro.federation.grids import LoopGrid
from tests.federation.hand import Hand
from tests.federation.troubled import MADE, OPEN, REFUSED, REPEATED, ROUNDS, Trouble, federation
from tests.learning.ragged import workers

pytestmark = pytest.mark.flower

ROOT = Path(__file__).resolve().parents[1]


def simulated(tmp_path: Path, which: str) -> dict[str, Any]:
    """What `main` has written from a simulation of its own."""
    out = tmp_path / "found.json"
    environment = os.environ | OFFLINE_ENVIRONMENT
    environment |= {"PYTHONPATH": str(ROOT), "FLWR_HOME": str(tmp_path / "flwr")}
    environment |= {"RAY_DISABLE_DOCKER_CPU_WARNING": "1", "OMP_NUM_THREADS": "1"}
    # Imported, not run as a program: Ray's workers must find the functions by their module.
    code = (
        "import pathlib, sys; from tests.federation.troubled import main; "
        "main(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), which],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert out.exists(), done.stderr[-4000:]
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_clients_in_other_processes_learn_what_counted(tmp_path: Path) -> None:
    found = simulated(tmp_path, "trouble")
    assert found["started"] == [1, 2, 2, 3, 4]
    assert [3, "c1"] in found["rejected"]
    grid = Hand(LoopGrid(workers(MADE)), messages.TRAIN, Trouble(REPEATED | REFUSED))
    # Replies come in any order there; the bits are those of the same replies in this process.
    assert found == federation(grid)


def test_rounds_close_by_the_clock_there_too(tmp_path: Path) -> None:
    found = simulated(tmp_path, "clock")
    # All are in time: the bits of a federation that waits for everybody.
    waiting = federation(LoopGrid(workers(OPEN)), "fedavg", made=OPEN)
    assert found["deadline"] == waiting
    # Of seven four are wanted and six asked; whoever else comes is no offender.
    first = found["over-selection"]
    assert first["selected"] == [6] * ROUNDS
    assert all(4 <= replied <= 6 for replied in first["replied"])
    assert set(first["codes"]) <= {"FL310"}
    assert first["strikes"] == 0

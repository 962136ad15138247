"""The zoo's benchmark measures what it says: sizes, what is sent, and the table's cells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import zoo  # noqa: E402

from fl_inmetro.plan import prepare  # noqa: E402

ARGS = argparse.Namespace(seed=0, rounds=1, set={"context_h": 48})


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setitem(zoo.SETS, "simulator", {"test_days": 7, "validation_days": 7})
    return zoo.every(prepare(zoo.config_of("simulator", "ridge", ARGS)), 4)


def test_a_row_has_its_figures(simulated):
    assert len(simulated.clients) == 3  # the first, fifth and ninth of ten
    config = zoo.config_of("simulator", "cyclenet", ARGS)
    row = zoo.measured(config, simulated, test=False)
    # 48 · 64 + 64, 64 · 24 + 24, and a cycle of 168 that is not sent.
    assert row["parameters_sent"] == 3136 + 1560
    assert row["parameters"] == 3136 + 1560 + 168
    # Down for training and for validation, up once: three times four bytes each, and three clients.
    assert row["bytes_per_round"] == pytest.approx(3 * 3 * 4 * row["parameters_sent"], rel=0.1)
    assert "nmae" not in row
    (line,) = zoo.table([row]).splitlines()[2:]
    assert line.startswith("| cyclenet | 4,864 |")
    assert line.endswith(f"| {row['validation_nmae']:.4f} |")

"""How often the ladder is used on healthy data: hardly ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fl_inmetro.config import load
from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.ailments import ailments
from fl_inmetro.plan import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.data
@pytest.mark.skipif("FL_INMETRO_DATA" not in os.environ, reason="FL_INMETRO_DATA names no folder")
@pytest.mark.parametrize(
    ("example", "windows", "ailing"), [("cambridge-full", 4582, 4), ("fontana-full", 784, 0)]
)
def test_healthy_meters_are_the_models(example, windows, ailing):
    prepared = prepare(load(EXAMPLES / f"{example}.toml", []))
    found = [
        reason
        for client in prepared.clients.values()
        for part in client.test
        for reason in ailments(part, Fallback())
    ]
    assert len(found) == windows
    assert sum(reason is not None for reason in found) == ailing

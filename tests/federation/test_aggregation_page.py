"""The table of docs/aggregation.md is the table of the program: parts, numbers, samplers, gate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fl_inmetro.config.federation import Federation
from fl_inmetro.config.strategy import STRATEGY_NAMES, Gate, Strategy
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.selection import SAMPLERS
from fl_inmetro.federation.server_optimizers import SERVER_OPTIMIZERS, SETTINGS_OF

PAGE = (Path(__file__).parents[2] / "docs" / "aggregation.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """The cells of the table whose first column has this title."""
    table = PAGE[PAGE.index(f"| {first_column} |") :].split("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def plain(cell: str) -> str:
    return cell.strip("`")


STRATEGIES = {plain(row[0]): row for row in rows("`name`")}


def test_every_strategy_has_its_line_and_its_words():
    assert tuple(STRATEGIES) == STRATEGY_NAMES
    for name in STRATEGY_NAMES:
        assert re.search(rf"^\*\*.*`{name}`.*\*\*", PAGE, re.M), f"`{name}` is not explained"


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_parts_and_numbers_are_those_of_the_program(name):
    composition = compose(Strategy(name=name))
    _, rule, optimizer, *_, numbers = STRATEGIES[name]
    assert (plain(rule), plain(optimizer)) == (composition.rule, composition.server_optimizer)
    said = re.findall(r"`([a-z0-9-]+)` ([0-9.]+)", numbers)
    assert said or not numbers or "(" in numbers
    server = SERVER_OPTIMIZERS[composition.server_optimizer](composition.filled)
    for key, value in said:
        setting = key.replace("-", "_")
        if setting in SETTINGS_OF[composition.server_optimizer]:
            assert float(value) == getattr(server, setting), key
        else:
            assert float(value) == getattr(composition.filled, setting), key
    for key in re.findall(r"`([a-z0-9-]+)` \(", numbers):
        assert getattr(composition.filled, key.replace("-", "_")) is None
    # Whatever the entry brings of its own, and what its server optimiser reads, is in the line.
    keys = {key.replace("-", "_") for key in re.findall(r"`([a-z0-9-]+)`", numbers)}
    assert set(composition.recipe.numbers) <= keys
    if composition.server_optimizer != "sgd":
        assert set(SETTINGS_OF[composition.server_optimizer]) <= keys


def test_the_samplers():
    assert {plain(row[0]) for row in rows("`sampler`")} == set(SAMPLERS)


def test_when_a_round_closes():
    said = {plain(row[0]).replace("-", "_"): row[1] for row in rows("when")}
    known = Federation().model_dump()
    assert {"over_selection", "deadline_s", "quorum", "timeout_s"} < said.keys() <= known.keys()
    for key, shown in said.items():
        if known[key] is None:
            assert shown in ("none", "that of `[gate]`")
        else:
            assert float(shown) == known[key], key


def test_the_gate():
    said = {plain(row[0]).replace("-", "_"): row[1] for row in rows("setting")}
    defaults = Gate().model_dump()
    assert said.keys() == defaults.keys()
    for key, value in defaults.items():
        shown = f"{value:g}" if isinstance(value, float) else str(value).lower()
        assert said[key] == shown, key

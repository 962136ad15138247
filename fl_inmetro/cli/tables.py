"""Scores as a terminal table that can be read without colour."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.metrics import QUANTILE_SCORES
from fl_inmetro.metrics.protocol import PROTOCOL_SCORES

#: Columns of a place without a width.
_UNLIMITED = 10_000

#: Columns that give way on a narrow terminal, first to go first; the report has them all.
_OPTIONAL = (
    "worst_decile_nmae",
    "wmape",
    "rmse_kwh",
    "nrmse",
    "seconds",
    "mase",
    "coverage_80",
    "pinball",
    "harmed",
    "better_than_local",
)
_COUNTS = ("clients", "points", "bytes", "protocol_points", "protocol_missing")
#: Scores of a published protocol, in its own words.
_PROTOCOL = tuple(name for names in PROTOCOL_SCORES.values() for name in names)
_COLUMNS = (
    "nmae",
    "wmape",
    "mae_kwh",
    "rmse_kwh",
    "nrmse",
    "mase",
    "pinball",
    "coverage_80",
    "worst_decile_nmae",
    "better_than_local",
    "harmed",
    "bytes",
    "seconds",
)

#: Columns that are there when a row has them.
_IF_ANY = frozenset({*_PROTOCOL, "pinball", "coverage_80", "better_than_local", "harmed"})

#: Shares, written in per cent.
_SHARES = frozenset({"coverage_80", "coverage_80_in_70_90", "better_than_local", "harmed"})


def print_scores(rows: Sequence[dict[str, Any]], lang: Language) -> None:
    """Print the comparison table on stdout: as wide as the terminal, all columns into a pipe."""
    # A pipe or a file has no width, so nothing has to give way there; COLUMNS gives it one.
    free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=_UNLIMITED if free else None, highlight=False)
    table, notes = score_table(rows, lang, console.width)
    console.print(text("cli.table.title", lang), style="italic")
    print_whole(table, console)
    for note in notes:
        console.print(note, style="dim italic", markup=False)


def print_whole(table: Table, console: Console) -> None:
    """Print a table without cutting a cell: lines wider than the terminal are left to it."""
    given = console.width
    whole = console.options.update(max_width=_UNLIMITED)
    console.width = max(given, console.measure(table, options=whole).maximum)
    try:
        console.print(table, crop=False)
    finally:
        console.width = given


def score_table(
    rows: Sequence[dict[str, Any]], lang: Language, width: int
) -> tuple[Table, list[str]]:
    """Return the comparison table and the notes below it.

    The best nMAE is marked with `*`. The table is at most `width` columns wide, unless what must
    not give way (names, nMAE, MAE, bytes) is wider; the notes say which columns gave way.
    """
    best = min((row["nmae"] for row in rows if row["nmae"] is not None), default=None)
    cells: dict[str, list[str]] = {
        "model": [row["model"] + (" *" if _is(row["nmae"], best) else "") for row in rows],
        "training": [text(f"cli.training.{row['training']}", lang) for row in rows],
    }
    for name in (*_PROTOCOL, *_COLUMNS):
        if name not in _IF_ANY or any(row.get(name) is not None for row in rows):
            cells[name] = [_cell(row.get(name), name, lang) for row in rows]
    heads = {name: text(f"cli.table.{name}", lang) for name in cells}
    dropped = []
    for name in _OPTIONAL:
        if _width(cells, heads) <= width:
            break
        if name in cells:
            del cells[name]
            dropped.append(heads[name])
    # One blank of padding and one of the box's divider: the two that `_width` counts.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in cells:
        justify: Literal["left", "right"] = "left" if name in ("model", "training") else "right"
        table.add_column(heads[name], justify=justify, no_wrap=True)
    for number_, row in enumerate(rows):
        style = "bold" if _is(row["nmae"], best) else None
        table.add_row(*(Text(column[number_]) for column in cells.values()), style=style)
    return table, [*_notes(cells, dropped, lang), *_coverage(rows, lang)]


def _coverage(rows: Sequence[dict[str, Any]], lang: Language) -> list[str]:
    """Say so when rows rest on different points: a forecast that does not exist is not scored."""
    points = sorted({int(row["points"]) for row in rows if row.get("points") is not None})
    clients = sorted({int(row["clients"]) for row in rows if row.get("clients") is not None})
    if len(points) < 2:
        return []
    spans = {
        name: " … ".join(number(end, 0, lang) for end in dict.fromkeys((values[0], values[-1])))
        for name, values in (("points", points), ("clients", clients))
    }
    return [text("cli.table.coverage", lang, **spans)]


def _is(nmae: float | None, best: float | None) -> bool:
    return nmae is not None and nmae == best


def _width(cells: Mapping[str, Sequence[str]], heads: Mapping[str, str]) -> int:
    """Return the width of the table: its widest cells, and two blanks between columns."""
    return sum(max(map(cell_len, [heads[n], *cells[n]])) for n in cells) + 2 * (len(cells) - 1)


def _notes(cells: Mapping[str, Sequence[str]], dropped: Sequence[str], lang: Language) -> list[str]:
    explainable = (
        "nmae",
        "pinball",
        "coverage_80",
        "worst_decile_nmae",
        "better_than_local",
        "harmed",
        "bytes",
    )
    explained = [n for n in explainable if n in cells]
    lines = [text(f"cli.table.explain.{name}", lang) for name in explained]
    if dropped:
        lines.append(text("cli.table.dropped", lang, columns=", ".join(dropped)))
    return lines


def plain_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of scores for JSON: what is not finite is null, what counts is whole."""
    result: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            result[name] = None
        else:
            result[name] = int(value) if name in _COUNTS and value is not None else value
    return result


def fleet_table(scores: Mapping[str, float], lang: Language) -> Table:
    """Return one fleet's scores, one per line; those of quantiles only where there are any."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for name, value in scores.items():
        if name in QUANTILE_SCORES and value != value:
            continue
        label = text(f"cli.table.{name}", lang)
        whole = name in _COUNTS
        table.add_row(label, number(value, 0, lang) if whole else _score(value, name, lang))
    return table


def size(n_bytes: float | None, lang: Language) -> str:
    """Write a number of bytes with a unit.

    >>> size(1536.0, "en")
    '1.5 kB'
    """
    if n_bytes is None:
        return "–"
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{number(value, 0 if unit == 'B' else 1, lang)} {unit}"


def _cell(value: float | None, name: str, lang: Language) -> str:
    if name == "bytes":
        return size(value, lang)
    return _score(value, name, lang)


def _score(value: float | None, name: str, lang: Language) -> str:
    if value is None or value != value:
        return "–"
    if name in _SHARES:
        return number(100 * value, 1 if name in ("coverage_80", "harmed") else 0, lang) + " %"
    if name == "seconds":
        return number(value, 1, lang)
    if name.endswith("_kwh"):
        # Four significant digits serve a home and a subsystem alike.
        digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
        return number(value, digits, lang)
    return number(value, 4, lang)

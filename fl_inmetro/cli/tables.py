"""Scores as a terminal table that can be read without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table

from fl_inmetro.i18n import Language, number, text

#: Columns that give way on a narrow terminal, first to go first; the report has them all.
_OPTIONAL = ("rmse_kwh", "worst_decile_nmae", "wmape", "seconds", "mase")
_COLUMNS = (
    "nmae",
    "wmape",
    "mae_kwh",
    "rmse_kwh",
    "mase",
    "worst_decile_nmae",
    "better_than_local",
    "bytes",
    "seconds",
)


def score_table(rows: Sequence[dict[str, Any]], lang: Language, width: int) -> Table:
    """Return the comparison table, best nMAE marked with `*`, at most `width` columns wide."""
    best = min((row["nmae"] for row in rows if row["nmae"] is not None), default=None)
    cells: dict[str, list[str]] = {
        "model": [row["model"] + (" *" if row["nmae"] == best else "") for row in rows],
        "training": [text(f"cli.training.{row['training']}", lang) for row in rows],
    }
    for name in _COLUMNS:
        if name != "better_than_local" or any(row.get(name) is not None for row in rows):
            cells[name] = [_cell(row.get(name), name, lang) for row in rows]
    heads = {name: text(f"cli.table.{name}", lang) for name in cells}
    dropped = []
    for name in _OPTIONAL:
        if sum(max(map(len, [heads[n], *cells[n]])) + 3 for n in cells) <= width:
            break
        del cells[name]
        dropped.append(heads[name])
    table = Table(
        title=text("cli.table.title", lang),
        title_justify="left",
        caption=_caption(cells, dropped, lang),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in cells:
        justify: Literal["left", "right"] = "left" if name in ("model", "training") else "right"
        table.add_column(heads[name], justify=justify, no_wrap=True)
    for number_, row in enumerate(rows):
        style = "bold" if row["nmae"] == best else None
        table.add_row(*(column[number_] for column in cells.values()), style=style)
    return table


def _caption(cells: Mapping[str, Sequence[str]], dropped: Sequence[str], lang: Language) -> str:
    explained = [
        n for n in ("nmae", "worst_decile_nmae", "better_than_local", "bytes") if n in cells
    ]
    lines = [text(f"cli.table.explain.{name}", lang) for name in explained]
    if dropped:
        lines.append(text("cli.table.dropped", lang, columns=", ".join(dropped)))
    return "\n".join(lines)


def fleet_table(scores: dict[str, float], lang: Language) -> Table:
    """Return one fleet's scores, one per line."""
    table = Table(show_header=False)
    for name, value in scores.items():
        label = text(f"cli.table.{name}", lang)
        whole = name in ("clients", "points")
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
    if name == "better_than_local":
        return "–" if value is None else number(100 * value, 0, lang) + " %"
    return _score(value, name, lang)


def _score(value: float | None, name: str, lang: Language) -> str:
    if value is None or value != value:
        return "–"
    if name == "seconds":
        return number(value, 1, lang)
    if name.endswith("_kwh"):
        # Four significant digits serve a home and a subsystem alike.
        digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
        return number(value, digits, lang)
    return number(value, 4, lang)

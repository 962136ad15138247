"""Scores as a terminal table that can be read without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fl_inmetro.i18n import Language, number, text


def score_table(rows: Sequence[dict[str, Any]], lang: Language) -> Table:
    """Return the comparison table, best nMAE marked with `*`."""
    best = min((row["nmae"] for row in rows if row["nmae"] is not None), default=None)
    with_local = any(row.get("better_than_local") is not None for row in rows)
    table = Table(title=text("cli.table.title", lang), title_justify="left", caption_justify="left")
    table.add_column(text("cli.table.model", lang), no_wrap=True)
    table.add_column(text("cli.table.training", lang), no_wrap=True)
    names = ["nmae", "wmape", "mae_kwh", "rmse_kwh", "mase", "worst_decile_nmae"]
    for name in names:
        table.add_column(text(f"cli.table.{name}", lang), justify="right")
    if with_local:
        table.add_column(text("cli.table.better_than_local", lang), justify="right")
    for name in ("bytes", "seconds"):
        table.add_column(text(f"cli.table.{name}", lang), justify="right")
    for row in rows:
        mark = " *" if row["nmae"] == best else ""
        cells = [row["model"] + mark, text(f"cli.training.{row['training']}", lang)]
        cells += [_score(row.get(name), name, lang) for name in names]
        if with_local:
            share = row.get("better_than_local")
            cells.append("–" if share is None else number(100 * share, 0, lang) + " %")
        cells += [size(row.get("bytes"), lang), _score(row.get("seconds"), "seconds", lang)]
        table.add_row(*cells, style="bold" if mark else None)
    table.caption = text("cli.table.caption", lang)
    return table


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

"""Small pieces of HTML in which everything that comes from data is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

#: Tables with more rows than this are folded away behind their caption.
LONG = 16


@dataclass(frozen=True)
class Column:
    """A table column: its header, and whether it holds numbers (set right-aligned)."""

    title: str
    numeric: bool = True


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    *,
    fold: bool | None = None,
) -> str:
    """Return an HTML table whose first column heads the rows; cells are text and are escaped.

    Args:
        caption: Plain text, read out before the table.
        columns: One per cell of a row.
        rows: Cells as text.
        fold: Put the table into `<details>`; None folds tables longer than `LONG`.
    """
    head = "".join(
        f'<th scope="col"{_numeric(column)}>{escape(column.title)}</th>' for column in columns
    )
    body = "".join(
        "<tr>"
        + f'<th scope="row"{_numeric(columns[0])}>{escape(str(row[0]))}</th>'
        + "".join(
            f"<td{_numeric(column)}>{escape(str(cell))}</td>"
            for column, cell in zip(columns[1:], row[1:], strict=True)
        )
        + "</tr>\n"
        for row in rows
    )
    # tabindex: a box that scrolls sideways must be reachable by keyboard (WCAG 2.1.1).
    box = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n<table>'
        f"<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
    if fold is None:
        fold = len(rows) > LONG
    if not fold:
        return box
    return f"<details><summary>{escape(caption)} ({len(rows)})</summary>\n{box}</details>\n"


def pairs(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values, without column headers worth showing."""
    body = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>\n'
        for key, value in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f'<table class="pairs"><caption>{escape(caption)}</caption>\n<tbody>\n{body}</tbody>'
        "</table></div>\n"
    )


def figure(identifier: str, title: str, note: str, alt: str, plot: Any) -> str:
    """Return a titled figure; `plot` is a Plotly figure, drawn by the script of the page."""
    data = script_json(json.loads(plot.to_json()))
    height = int(plot.layout.height)
    return (
        f'<h3>{escape(title)}</h3>\n<p class="note">{escape(note)}</p>\n'
        f'<figure><div class="plot" id="{identifier}" role="img" aria-label="{escape(alt)}" '
        f'style="height:{height}px"></div>'
        f'<script type="application/json" id="{identifier}-data">{data}</script></figure>\n'
    )


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def bullets(items: Iterable[str]) -> str:
    """Return a list of sentences."""
    return "<ul>\n" + "".join(f"<li>{escape(item)}</li>\n" for item in items) + "</ul>\n"


def code(content: str) -> str:
    """Return a block of preformatted text."""
    return f'<pre tabindex="0"><code>{escape(content)}</code></pre>\n'


def _numeric(column: Column) -> str:
    return ' class="n"' if column.numeric else ""

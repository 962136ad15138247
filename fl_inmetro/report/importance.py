"""What a model rests on as one HTML page; pure functions of what `importance` tells as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, catalogue, number, text
from fl_inmetro.report import palette
from fl_inmetro.report.html import banner, page
from fl_inmetro.report.markup import Column, bullets, figure, table
from fl_inmetro.report.words import line_label, ratio
from fl_inmetro.runs.layout import write_whole

Result = Mapping[str, Any]

#: Up to so many clients are drawn, those with the largest nMAE; the table has all.
MOST_ROWS = 40

#: Up to so many parts of the input are drawn, those that matter most.
MOST_BLOCKS = 24

#: From no increase to the largest: one hue, so that light and dark say it without colour.
_SHADES = [[0.0, "#FFFFFF"], [0.5, "#56B4E9"], [1.0, "#00334E"]]


def write(result: Result, path: Path, lang: Language) -> Path:
    """Write the page to a file and return its path.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    write_whole(path, render(result, lang).encode())
    return path


def render(result: Result, lang: Language) -> str:
    """Return the page."""
    parts = [
        ("meaning", bullets(sentences(result, lang)).replace("<ul>", '<ul class="answer">', 1)),
        ("fleet", _fleet(result, lang)),
        ("clients", _clients(result, lang)),
        ("reading", bullets(text(f"explain.note.{key}", lang) for key in _READING)),
    ]
    banners = ""
    if result["simulated"]:
        banners = banner(text("report.simulated", lang), text("report.simulated_text", lang))
    titled = [(key, text(f"explain.section.{key}", lang), content) for key, content in parts]
    return page(
        text("explain.title_importance", lang), subject(result, lang), titled, lang, banners
    )


def subject(result: Result, lang: Language) -> str:
    """Say whose model it is."""
    model = line_label(result["model"], result["training"], lang)
    return text("explain.subject", lang, model=model, run=result["run"])


def block_label(name: str, lang: Language) -> str:
    """Return the display name of a part of the input; a feature keeps its own.

    >>> block_label("lags", "en"), block_label("past_day_5", "en"), block_label("lag_1d", "en")
    ('same hour, last 14 days', 'day −5', 'lag_1d')
    """
    named: Mapping[str, str] = catalogue("explain", lang)["block"]
    day = re.fullmatch(r"past_day_(\d+)", name)
    if day and name not in named:
        return named["past_day"].format(day=day[1])
    return named.get(name, name)


def by_size(rows: Sequence[Result]) -> list[Result]:
    """Return the parts of the input, the most important first."""
    return sorted(rows, key=lambda row: -(row["nmae"] or 0.0))


def sentences(result: Result, lang: Language) -> list[str]:
    """Say what matters most, and what does not."""
    found = by_size(result["rows"])
    said = [
        text(
            "explain.first",
            lang,
            name=block_label(found[0]["block"], lang),
            rise=ratio(found[0]["nmae"], lang),
            nmae=ratio(result["nmae"], lang),
            to=ratio(result["nmae"] + found[0]["nmae"], lang),
        )
    ]
    idle = [
        block_label(row["block"], lang)
        for row in found
        if row["nmae_sd"] is not None and row["nmae"] <= 2 * row["nmae_sd"]
    ]
    if idle:
        said.append(text("explain.nothing", lang, names=", ".join(idle)))
    return said


def rows_of(told: Result, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of the table of a client or the fleet."""
    keys = ["nmae", "nmae_sd"]
    if told["pinball"] is not None:
        keys += ["pinball", "pinball_sd"]
    heads = [
        Column(text("explain.column.block", lang), numeric=False),
        *(Column(text(f"explain.column.{key}", lang)) for key in keys),
    ]
    rows = [
        [block_label(row["block"], lang), *(_ratio(row[key], lang) for key in keys)]
        for row in by_size(told["rows"])
    ]
    return heads, rows


def clients_of(result: Result, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of the table of clients and parts of the input."""
    blocks = [row["block"] for row in by_size(result["rows"])]
    heads = [
        Column(text("explain.column.client", lang), numeric=False),
        Column(text("explain.column.own", lang)),
        *(Column(block_label(block, lang)) for block in blocks),
    ]
    rows = []
    for name, told in result["clients"].items():
        own = {row["block"]: row["nmae"] for row in told["rows"]}
        rises = (_ratio(own[block], lang) for block in blocks)
        rows.append([name, ratio(told["nmae"], lang), *rises])
    return heads, rows


def importance_figure(result: Result, lang: Language) -> go.Figure:
    """Bars of the increase of the fleet's nMAE, with whiskers over the permutations."""
    shown = by_size(result["rows"])[:MOST_BLOCKS][::-1]  # Plotly stacks categories upwards
    names = [escape(block_label(row["block"], lang)) for row in shown]
    drawn = go.Figure()
    drawn.add_bar(
        orientation="h",
        y=names,
        x=[row["nmae"] for row in shown],
        error_x={
            "type": "data",
            "array": [row["nmae_sd"] or 0.0 for row in shown],
            "color": palette.BLACK,
        },
        marker=palette.fill(palette.BLUE, ""),
        hoverinfo="x+y",
    )
    drawn.update_layout(palette.layout(lang, 110 + 30 * len(shown), bargap=0.3, showlegend=False))
    drawn.update_xaxes(title=text("explain.axis.nmae", lang), zeroline=True)
    drawn.update_yaxes(categoryorder="array", categoryarray=names, showgrid=False)
    return drawn


def clients_figure(result: Result, lang: Language) -> go.Figure:
    """Shades of the increase of each client's own nMAE: a row per client, a column per part.

    The cells are bars of length one, stacked: the plain bundle of Plotly has no heat maps.
    """
    told = sorted(result["clients"].items(), key=lambda item: -(item[1]["nmae"] or 0.0))
    told = told[:MOST_ROWS][::-1]
    blocks = [row["block"] for row in by_size(result["rows"])[:MOST_BLOCKS]]
    names = [escape(name) for name, _ in told]
    drawn = go.Figure()
    for block in blocks:
        own = [
            next((row["nmae"] for row in one["rows"] if row["block"] == block), None)
            for _, one in told
        ]
        label = escape(block_label(block, lang))
        drawn.add_bar(
            orientation="h",
            y=names,
            x=[1] * len(names),
            name=label,
            marker={"color": own, "coloraxis": "coloraxis", "line": {"width": 0}},
            hovertext=[f"{n}: {label} {_signed(v, lang)}" for n, v in zip(names, own, strict=True)],
            hoverinfo="text",
            showlegend=False,
        )
    drawn.update_layout(palette.layout(lang, 210 + 20 * len(names), bargap=0, barmode="stack"))
    most = max(
        (row["nmae"] or 0.0 for _, one in told for row in one["rows"] if row["block"] in blocks),
        default=0.0,
    )
    drawn.update_layout(
        coloraxis={
            "colorscale": _SHADES,
            "cmin": 0.0,
            "cmax": max(most, 1e-9),
            "colorbar": {"title": {"text": "nMAE +"}, "thickness": 14},
        }
    )
    labels = [escape(block_label(block, lang)) for block in blocks]
    drawn.update_xaxes(
        tickvals=[k + 0.5 for k in range(len(labels))],
        ticktext=labels,
        tickangle=-45,
        range=[0, len(labels)],
        showgrid=False,
    )
    drawn.update_yaxes(categoryorder="array", categoryarray=names, showgrid=False, dtick=1)
    return drawn


_READING = ("permutation", "correlated", "base", "privacy", "model_only")


def _ratio(value: float | None, lang: Language) -> str:
    """Write a score; one that rounds to zero has no sign."""
    return ratio(value if value is None else round(value, 4) + 0.0, lang)


def _signed(value: float | None, lang: Language) -> str:
    return "–" if value is None else ("+" if value >= 0 else "") + number(value, 4, lang)


def _fleet(result: Result, lang: Language) -> str:
    title = text("explain.figure.importance", lang)
    top = ", ".join(
        f"{block_label(row['block'], lang)} {_signed(row['nmae'], lang)}"
        for row in by_size(result["rows"])[:5]
    )
    note = text("explain.note.importance", lang)
    drawn = figure(
        "fig-importance", title, note, f"{title}: {top}", importance_figure(result, lang)
    )
    return drawn + table(text("report.table_of", lang, name=title), *rows_of(result, lang))


def _clients(result: Result, lang: Language) -> str:
    title = text("explain.figure.clients", lang)
    most = {
        name: block_label(by_size(told["rows"])[0]["block"], lang)
        for name, told in result["clients"].items()
    }
    common = max(set(most.values()), key=lambda name: list(most.values()).count(name))
    count = list(most.values()).count(common)
    alt = f"{title}: {common} – {count}/{len(most)}"
    note = text("explain.note.clients", lang)
    drawn = figure("fig-clients", title, note, alt, clients_figure(result, lang))
    return drawn + table(text("report.table_of", lang, name=title), *clients_of(result, lang))

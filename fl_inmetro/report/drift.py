"""The page of a watch: what was told, a figure for each alarmed client, how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report import palette
from fl_inmetro.report.html import banner, page
from fl_inmetro.report.markup import Column, bullets, figure, pairs, table
from fl_inmetro.report.words import line_label, percent, whole
from fl_inmetro.runs.layout import write_whole

Summary = Mapping[str, Any]

#: Figures of a page; all alarms stand in the table.
MOST_FIGURES = 40

_COLUMNS = ("who", "kind", "day", "onset", "size", "again", "advice")
_NUMBERS = frozenset({"size", "again"})

#: Sums of the charts, as they look in a figure.
_LOOKS: dict[str, tuple[str, palette.Dash]] = {
    "level_up": (palette.BLUE, "solid"),
    "level_down": (palette.BLUE, "dot"),
    "error_up": (palette.VERMILLION, "solid"),
    "shape_up": (palette.GREEN, "dash"),
    "shape_down": (palette.GREEN, "dot"),
}


def write(summary: Summary, lines: Mapping[str, Any], path: Path, lang: Language) -> Path:
    """Write the page to a file and return its path.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    write_whole(path, render(summary, lines, lang).encode())
    return path


def render(summary: Summary, lines: Mapping[str, Any], lang: Language) -> str:
    """Return the page.

    Args:
        summary: What `fl-inmetro drift --json` prints.
        lines: `Report.lines()`: the sums of those who told something.
        lang: Language of the page.
    """
    alarms = summary["alarms"]
    advice = dict.fromkeys(one["advice"] for one in alarms)
    said = [sentence(summary, lang), *(text(f"drift.advice.{one}", lang) for one in advice)]
    caption = text("drift.page.alarms", lang)
    rows = [cells(one, lang) for one in alarms]
    parts = [
        ("meaning", bullets(said).replace("<ul>", '<ul class="answer">', 1)),
        ("alarms", table(caption, heads(lang), rows) if rows else ""),
        ("charts", _figures(summary, lines, lang)),
        ("settings", pairs(text("drift.page.settings", lang), _settings(summary, lang))),
        ("reading", bullets(text(f"drift.page.note.{key}", lang) for key in _READING)),
    ]
    titled = [(key, text(f"drift.page.section.{key}", lang), body) for key, body in parts]
    banners = ""
    if summary["simulated"]:
        banners = banner(text("report.simulated", lang), text("report.simulated_text", lang))
    return page(text("drift.page.title", lang), summary["run"], titled, lang, banners)


def sentence(summary: Summary, lang: Language) -> str:
    """Say in one sentence what was found."""
    first, last = summary["days"]
    fleet = any(one["client_id"] is None for one in summary["alarms"])
    key = "quiet" if not summary["alarms"] else "fleet" if fleet else "some"
    # The number that the verb goes by.
    if (summary["clients"] if key == "quiet" else summary["alarmed"]) == 1:
        key += "_one"
    return text(
        f"drift.found.{key}",
        lang,
        first=first,
        last=last,
        clients=whole(summary["clients"], lang),
        alarmed=whole(summary["alarmed"], lang),
    )


def heads(lang: Language) -> list[Column]:
    """Return the head of the table of alarms."""
    return [Column(text(f"drift.column.{name}", lang), name in _NUMBERS) for name in _COLUMNS]


def cells(alarm: Mapping[str, Any], lang: Language) -> list[str]:
    """Return a row of the table of alarms."""
    if alarm["kind"] in ("flat", "missing"):
        size = text("drift.days", lang, n=whole(alarm["size"], lang))
    else:
        share = 100 * alarm["size"]
        size = ("+" if share > 0 else "") + percent(share, lang).replace("-", "−")
    return [
        who(alarm["client_id"], lang),
        text(f"drift.kind.{alarm['kind']}", lang),
        alarm["day"],
        alarm["onset"],
        size,
        whole(alarm["again"], lang),
        text(f"drift.short.{alarm['advice']}", lang),
    ]


def who(client_id: str | None, lang: Language) -> str:
    """Return whom an alarm is about."""
    return text("drift.fleet", lang) if client_id is None else client_id


def sums_figure(
    lines: Mapping[str, Any], alarms: Sequence[Mapping[str, Any]], lang: Language
) -> go.Figure:
    """Draw one client's sums in units of their limits, and its alarms at 1."""
    drawn = go.Figure()
    for kind, values in lines["sums"].items():
        colour, dash = _LOOKS[kind]
        drawn.add_scatter(
            x=lines["days"],
            y=[round(value, 3) for value in values],
            name=text(f"drift.kind.{kind}", lang),
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2},
        )
    drawn.add_scatter(
        x=[one["day"] for one in alarms],
        y=[1.0] * len(alarms),
        name=text("drift.page.alarm", lang),
        mode="markers",
        marker={"symbol": "triangle-down", "size": 13, "color": palette.BLACK},
        hovertext=[text(f"drift.kind.{one['kind']}", lang) for one in alarms],
        hoverinfo="text+x",
    )
    drawn.add_hline(y=1, line={"color": palette.BLACK, "dash": "dash", "width": 1})
    drawn.update_layout(palette.layout(lang, 340))
    drawn.update_xaxes(title=text("drift.page.axis.day", lang))
    if lang == "pt-BR":  # plotly's own names of months are English; the year stands where it begins
        drawn.update_xaxes(tickformat="%d/%m\n%Y", hoverformat="%d/%m/%Y")
    drawn.update_yaxes(title=text("drift.page.axis.sum", lang), rangemode="tozero")
    return drawn


_READING = ("sums", "rank", "holidays", "independent", "leaves")


def _figures(summary: Summary, lines: Mapping[str, Any], lang: Language) -> str:
    by_client: dict[str | None, list[Mapping[str, Any]]] = {}
    for one in summary["alarms"]:
        by_client.setdefault(one["client_id"], []).append(one)
    content = ""
    for place, (name, own) in enumerate(list(by_client.items())[:MOST_FIGURES]):
        title = who(name, lang)
        alt = "; ".join(
            f"{title}: {text('drift.kind.' + one['kind'], lang)}, {one['day']}" for one in own
        )
        drawn = sums_figure(lines[name or ""], own, lang)
        note = text("drift.page.figure", lang)
        content += figure(f"drift-{place}", title, note, alt, drawn)
    if len(by_client) > MOST_FIGURES:
        left = whole(len(by_client) - MOST_FIGURES, lang)
        content += bullets([text("drift.page.more", lang, n=left)])
    return content


def _settings(summary: Summary, lang: Language) -> list[tuple[str, str]]:
    values = {
        "model": line_label(summary["model"], summary["training"], lang),
        "source": summary["source"],
        "reference": " – ".join(summary["reference"]),
        "days": " – ".join(summary["days"]),
        "every": number(summary["alarm_every_days"], 0, lang),
        "shift": number(summary["shift"], 2, lang),
    }
    return [(text(f"drift.page.setting.{key}", lang), value) for key, value in values.items()]

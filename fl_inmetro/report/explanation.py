"""What a forecast is made of as one HTML page, and in words; functions of what `explain` tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, catalogue, number, text
from fl_inmetro.report import palette
from fl_inmetro.report.html import banner, page
from fl_inmetro.report.importance import block_label
from fl_inmetro.report.markup import Column, bullets, figure, table
from fl_inmetro.report.words import MISSING, line_label, significant
from fl_inmetro.runs.layout import write_whole

Result = Mapping[str, Any]

#: Bases of a model's correction, as the terms name them.
BASES = ("profile", "last_reading")

#: Groups that say much the same often take back what another gives: in words they are one.
FAMILY_OF: Mapping[str, str] = {
    **dict.fromkeys(("day_profiles", "slots", "dispersion", "longer", "known_days"), "weeks"),
    **dict.fromkeys(("past_same_weekday", "past_older"), "weeks"),
    **dict.fromkeys(("lags", "recent", "lately", "silence", "past_day_1", "past_day_2"), "days"),
    **dict.fromkeys(("calendar", "season", "month"), "calendar"),
    **dict.fromkeys(("weather", "daylight"), "weather"),
}

#: So many terms are named in a sentence, and drawn; the others are added up.
NAMED, DRAWN = 3, 8

_PATTERNS = ("", "/", "x", ".", "\\", "-", "|", "+")


def write(result: Result, path: Path, lang: Language) -> Path:
    """Write the page to a file and return its path.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    write_whole(path, render(result, lang).encode())
    return path


def render(result: Result, lang: Language) -> str:
    """Return the page."""
    said = [sentence(result, row, lang) for row in told_rows(result)]
    parts = [
        ("meaning", bullets(said).replace("<ul>", '<ul class="answer">', 1)),
        ("terms", _terms(result, lang)),
        ("reading", bullets([*made_how(result, lang), *_notes(lang)])),
    ]
    banners = ""
    if result["simulated"]:
        banners = banner(text("report.simulated", lang), text("report.simulated_text", lang))
    titled = [(key, text(f"explain.section.{key}", lang), content) for key, content in parts]
    return page(
        text("explain.title_explanation", lang), subject(result, lang), titled, lang, banners
    )


def subject(result: Result, lang: Language) -> str:
    """Say whose forecast it is."""
    return text(
        "explain.subject_one",
        lang,
        client=result["client"],
        issue=f"{result['issue_time_utc'][:16].replace('T', ' ')} UTC",
        model=line_label(result["model"], result["training"], lang),
        run=result["run"],
    )


def told_rows(result: Result) -> list[Result]:
    """Return the steps to tell of in words: those of the hour asked for, else the highest one."""
    hour = result["hour"]
    if hour is not None:
        return [row for row in result["rows"] if int(row["local"][11:13]) == hour]
    return [max(result["rows"], key=lambda row: float(row["forecast_kwh"]))]


def sentence(result: Result, row: Result, lang: Language) -> str:
    """Say what one step's forecast is made of: the base, the largest terms, and all else.

    Terms of one family are added up.
    """
    terms: dict[str, float] = {}
    for name, value in row["terms"].items():
        family = FAMILY_OF.get(name, name)
        terms[family] = terms.get(family, 0.0) + value
    digits = _digits(row["forecast_kwh"])
    day = text(f"explain.day.{row['day_type']}", lang)
    parts = [
        text(f"explain.base_{name}", lang, day=day, kwh=number(terms.pop(name), digits, lang))
        for name in BASES
        if name in terms
    ]
    largest = sorted(terms, key=lambda name: -abs(terms[name]))
    # What would be written as zero is not worth naming.
    named = [name for name in largest[:NAMED] if abs(terms[name]) >= 0.5 * 10.0**-digits]
    parts += [
        f"{_family_label(name, lang)} {signed(terms.pop(name), digits, lang)}" for name in named
    ]
    if abs(left := sum(terms.values())) >= 0.5 * 10.0**-digits:
        parts.append(text("explain.others", lang, kwh=signed(left, digits, lang)))
    level = result["level"]
    at = ""
    if level is not None and level != 0.5:
        at = text("explain.at_level", lang, level=number(level, 3, lang).rstrip("0"))
    return text(
        "explain.sentence",
        lang,
        when=row["local"],
        kwh=number(row["forecast_kwh"], digits, lang),
        level=at,
        parts="; ".join(parts),
    )


def made_how(result: Result, lang: Language) -> list[str]:
    """Say how the terms were made, and whether they add up."""
    share = f"{significant(100 * result['residual_share'], lang)} %"
    key = "explain.steps" if result["steps"] else "explain.exact"
    said = [text(key, lang, steps=result["steps"], share=share)]
    if not result["complete"]:
        said.append(text("explain.unfinished", lang, rest=block_label("rest", lang)))
    return [*said, text("explain.against", lang)]


def rows_of(
    result: Result, lang: Language, rows: Sequence[Result] | None = None, *, brief: bool = False
) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of the table of terms; those that are zero all day are left out.

    All numbers have as many digits behind the mark as leave three significant ones to the largest.
    `brief`: only the first row of a day has its date.
    """
    shown = result["rows"] if rows is None else rows
    names = [n for n in result["terms"] if any(row["terms"][n] for row in result["rows"])]
    names = [n for n in names if n != "rest" or not result["complete"]]
    known = any(row["observed_kwh"] is not None for row in shown)
    heads = [
        Column(text("explain.column.hour", lang), numeric=False),
        *([Column(text("explain.column.observed", lang))] if known else []),
        Column(text("explain.column.forecast", lang)),
        *(Column(block_label(name, lang)) for name in names),
    ]
    digits = _digits(
        max(abs(v) for row in shown for v in (row["forecast_kwh"], *row["terms"].values()))
        if shown
        else 0.0
    )
    begins = [row["local"] for row in shown]
    if brief:
        begins = [
            _without_date(now, last) for now, last in zip(begins, ["", *begins], strict=False)
        ]
    cells = [
        [
            begin,
            *([_measured(row["observed_kwh"], digits, lang)] if known else []),
            number(row["forecast_kwh"], digits, lang),
            *(signed(row["terms"][name], digits, lang, base=name in BASES) for name in names),
        ]
        for begin, row in zip(begins, shown, strict=True)
    ]
    return heads, cells


def terms_figure(result: Result, lang: Language) -> go.Figure:
    """Stacked bars of the terms of each step, the forecast as a line, what was measured."""
    rows = result["rows"]
    when = [row["local"] for row in rows]
    size = {name: sum(abs(row["terms"][name]) for row in rows) for name in result["terms"]}
    largest = sorted((n for n in size if n not in BASES), key=lambda name: -size[name])
    bases = [name for name in size if name in BASES]
    shown = [*bases, *[name for name in largest[: DRAWN - len(bases)] if size[name] > 0]]
    series = {block_label(n, lang): [row["terms"][n] for row in rows] for n in shown}
    colours = palette.model_colours(list(series))
    others = [n for n in size if n not in shown and size[n] > 0]
    if others:
        rest = text("explain.axis.other", lang)
        series[rest] = [sum(row["terms"][n] for n in others) for row in rows]
        colours[rest] = "#767676"
    drawn = go.Figure()
    for place, (name, values) in enumerate(series.items()):
        pattern = _PATTERNS[place % len(_PATTERNS)]
        drawn.add_bar(
            x=when, y=values, name=escape(name), marker=palette.fill(colours[name], pattern)
        )
    drawn.add_scatter(
        x=when,
        y=[row["forecast_kwh"] for row in rows],
        name=text("explain.axis.forecast", lang),
        mode="lines+markers",
        line={"color": palette.BLACK, "width": 2},
        marker={"symbol": "circle", "size": 6},
    )
    if any(row["observed_kwh"] is not None for row in rows):
        drawn.add_scatter(
            x=when,
            y=[row["observed_kwh"] for row in rows],
            name=text("explain.axis.observed", lang),
            mode="markers",
            marker={"symbol": "diamond-open", "size": 9, "color": palette.BLACK},
        )
    drawn.update_layout(palette.layout(lang, 560, barmode="relative", bargap=0.15))
    drawn.update_xaxes(
        title=text("explain.axis.hour", lang), type="category", nticks=12, showgrid=False
    )
    drawn.update_yaxes(title=text("explain.axis.kwh", lang), zeroline=True)
    return drawn


def signed(value: float, digits: int, lang: Language, *, base: bool = False) -> str:
    """Write a term with its sign (a base without); a minus is a minus, not a hyphen.

    >>> signed(0.31, 2, "pt-BR"), signed(-0.1, 1, "en"), signed(1.9, 1, "en", base=True)
    ('+0,31', '−0.1', '1.9')
    """
    written = number(abs(value), digits, lang)
    if not any(digit in written for digit in "123456789"):
        return written
    if value < 0:
        return f"−{written}"
    return written if base else f"+{written}"


def _family_label(name: str, lang: Language) -> str:
    named: Mapping[str, str] = catalogue("explain", lang)["family"]
    return named.get(name) or block_label(name, lang)


def _without_date(local: str, before: str) -> str:
    """Return a time with blanks for its date where the row before is of the same day.

    >>> _without_date("2024-02-25 01:00", "2024-02-25 00:00")
    '           01:00'
    """
    day = local[:10]
    return local.replace(day, " " * len(day), 1) if before[:10] == day else local


def _measured(value: float | None, digits: int, lang: Language) -> str:
    return MISSING if value is None else number(value, digits, lang)


def _digits(value: float) -> int:
    """Return digits behind the mark, three significant ones of the forecast in all."""
    size = abs(value)
    return next((digits for digits in range(6) if size * 10**digits >= 100), 6)


def _notes(lang: Language) -> list[str]:
    return [text(f"explain.note.{key}", lang) for key in ("against", "path", "model_only")]


def _terms(result: Result, lang: Language) -> str:
    title = text("explain.figure.terms", lang)
    first = told_rows(result)
    alt = f"{title}: {sentence(result, first[0], lang)}" if first else title
    note = text("explain.note.terms", lang)
    drawn = figure("fig-terms", title, note, alt, terms_figure(result, lang))
    named = text("report.table_of", lang, name=title)
    return drawn + table(named, *rows_of(result, lang), fold=False)

"""The page of a backtest, and its tables as any output has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report import palette
from fl_inmetro.report.html import banner, page
from fl_inmetro.report.markup import Column, bullets, figure, table
from fl_inmetro.report.words import (
    MISSING,
    byte_count,
    duration,
    line_label,
    model_label,
    percent,
    ratio,
    significant,
    training_label,
    whole,
)
from fl_inmetro.runs.layout import write_whole
from fl_inmetro.runs.record import BASELINE

Summary = dict[str, Any]

#: Tables of all rows, and the scores of each: one of all would be wider than a terminal.
TABLES = {
    "errors": ("nmae", "nrmse", "pinball", "coverage_80", "worst_decile_nmae", "harmed"),
    "fleet": ("fleet_nmae", "peak_hit", "peak_size", "fleet_peak_hit", "fleet_peak_size"),
    "cost": (),
}
SCORES = tuple(name for names in TABLES.values() for name in names)

#: Scores that are shares.
_SHARES = frozenset(
    {"coverage_80", "harmed", "peak_hit", "peak_size", "fleet_peak_hit", "fleet_peak_size"}
)
SLICES = ("age", "month", "lead", "weekday")

#: A figure with more lines than this is not read; the table below it has them all.
_MOST_LINES = 6


def write(summary: Summary, path: Path, lang: Language) -> Path:
    """Write the page to a file and return its path.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    write_whole(path, render(summary, lang).encode())
    return path


def render(summary: Summary, lang: Language) -> str:
    """Return the page; `summary` is what `backtest.summary_of` gives, with at least one row."""
    parts = [
        ("meaning", bullets(findings(summary, lang)).replace("<ul>", '<ul class="answer">', 1)),
        ("rows", "".join(_table_of(summary, part, lang) for part in TABLES)),
        ("chance", _chance(summary, lang)),
        *((by, _slice(summary, by, lang)) for by in SLICES),
        ("folds", table(_section("folds", lang), *folds(summary, lang))),
        ("limits", bullets(limits(summary, lang))),
    ]
    titled = [(key, _section(key, lang), content) for key, content in parts]
    banners = ""
    if summary["simulated"]:
        banners += banner(text("report.simulated", lang), text("report.simulated_text", lang))
    if not summary["complete"]:
        banners += banner(_section("incomplete", lang), text("backtest.incomplete", lang))
    identifier = f"{summary['name']} · {summary['source']}"
    return page(text("backtest.title", lang), identifier, titled, lang, banners)


def subject(summary: Summary, lang: Language) -> str:
    """Say what was done."""
    done, window = summary["folds"], summary["window"]
    return text(
        f"backtest.subject.{'warm' if summary['warm_start'] else 'anew'}",
        lang,
        first=done[0]["first"],
        last=done[-1]["last"],
        time=window["issue_time"] or MISSING,
        zone=window["timezone"] or MISSING,
        from_h=f"{window['lead_h']:g}",
        to_h=f"{window['lead_h'] + window['horizon_h']:g}",
        folds=len(done),
        days=summary["refit_days"],
        seeds=len(summary["seeds"]),
    )


def findings(summary: Summary, lang: Language) -> list[str]:
    """Return what the rows say, in sentences; every number is one of theirs."""
    ordered = _ordered(summary)
    if not ordered:
        return []
    best = ordered[0]
    said = [text("backtest.meaning.best", lang, row=_name(best, lang), nmae=_value(best, lang))]
    against = [one for one in summary["tests"] if _against(one) == _key(best)]
    ties = [_name(one, lang) for one in against if not one["clear"]]
    if against:
        key = "ties" if ties else "clear"
        said.append(text(f"backtest.meaning.{key}", lang, rows="; ".join(ties)))
    for one in summary["tests"]:
        pair = {one["training"], one["against_training"]}
        if one["model"] != one["against_model"] or pair != {"federated", "centralised"}:
            continue
        sign = 1.0 if one["training"] == "federated" else -1.0
        rival = next(r for r in ordered if _key(r) == (one["model"], "centralised"))
        share = 100 * sign * (one["difference"] or 0.0) / rival["nmae"]
        words = {"model": model_label(one["model"], lang), "percent": _signed(share, lang)}
        sure = text(f"backtest.meaning.{'sure' if one['clear'] else 'unsure'}", lang)
        said.append(text("backtest.meaning.centralised", lang, **words, sure=sure))
    learners = [row for row in ordered if row["training"] != BASELINE]
    if learners and (age := _aging(summary, learners[0])):
        first, last = (percent(100 * one["ratio"], lang) for one in age)
        words = {"row": _name(learners[0], lang), "young": first, "old": last}
        said.append(text("backtest.meaning.age", lang, **words, days=age[1]["slice"]))
    return said


def limits(summary: Summary, lang: Language) -> list[str]:
    """Return what must not be read into the tables."""
    names = ["tests", "age", "months", "spread"]
    if len(summary["seeds"]) < 2:
        names.append("one_seed")
    return [text(f"backtest.limits.{name}", lang) for name in names]


def rows(summary: Summary, part: str, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of one of `TABLES`; ± is the spread over the seeds."""
    scores = [n for n in TABLES[part] if any(row[n] is not None for row in summary["rows"])]
    costs = ("clients", "points", "bytes", "seconds") if part == "cost" else ()
    heads = [*_name_columns(lang), *(_column(name, lang) for name in (*scores, *costs))]
    written = {
        "clients": lambda row: whole(row["clients"], lang),
        "points": lambda row: whole(row["points"], lang),
        "bytes": lambda row: byte_count(row["bytes"], lang),
        "seconds": lambda row: duration(row["seconds"], lang),
    }
    cells = [
        [
            model_label(row["model"], lang),
            training_label(row["training"], lang),
            *(_score(row, name, lang) for name in scores),
            *(written[name](row) for name in costs),
        ]
        for row in summary["rows"]
    ]
    return heads, cells


def slice_rows(summary: Summary, by: str, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of a table of slices: nMAE; of ages also its ratio."""
    keys = _keys(summary, by)
    found = {(s["slice"], _key(s)): s for s in summary["slices"] if s["by"] == by}
    heads = [*_name_columns(lang), *(Column(_slice_label(by, key, lang)) for key in keys)]
    cells = []
    for row in summary["rows"]:
        own = [found.get((key, _key(row))) for key in keys]
        values = [_slice_cell(one, by, lang) for one in own]
        names = [model_label(row["model"], lang), training_label(row["training"], lang)]
        cells.append([*names, *values])
    return heads, cells


def chance(summary: Summary, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of the table of tests."""
    heads = [
        Column(text("backtest.column.row", lang), numeric=False),
        Column(text("backtest.column.against", lang), numeric=False),
        *(_column(key, lang) for key in ("difference", "interval", "p_value", "lag", "days")),
        Column(text("backtest.column.clear", lang), numeric=False),
    ]
    cells = [
        [
            _name(one, lang),
            line_label(one["against_model"], one["against_training"], lang),
            ratio(one["difference"], lang),
            f"{ratio(one['low'], lang)} … {ratio(one['high'], lang)}",
            significant(one["p_value"], lang),
            whole(one["lag"], lang),
            whole(one["days"], lang),
            text(f"report.word.{'yes' if one['clear'] else 'no'}", lang),
        ]
        for one in summary["tests"]
    ]
    return heads, cells


def folds(summary: Summary, lang: Language) -> tuple[list[Column], list[list[str]]]:
    """Return the head and rows of the table of folds."""
    names = ("fold", "train_first", "train_last", "first", "last", "clients", "runs")
    heads = [Column(text(f"backtest.column.{n}", lang), n in ("fold", "clients")) for n in names]
    cells = [
        [
            str(fold["number"] + 1),
            fold["train_first"] or MISSING,
            fold["train_last"] or MISSING,
            fold["first"],
            fold["last"],
            whole(fold["clients"], lang),
            ", ".join(fold["runs"].values()) or MISSING,
        ]
        for fold in summary["folds"]
    ]
    return heads, cells


def slice_figure(summary: Summary, by: str, lang: Language) -> go.Figure:
    """Draw the nMAE of the best rows along the slices; for ages, in units of the baseline's."""
    keys = _keys(summary, by)
    value = _what(summary, by)
    drawn = go.Figure()
    shown = [_key(row) for row in _ordered(summary)[:_MOST_LINES]]
    colours = palette.model_colours([model for model, _ in shown])
    for model, training in shown:
        own = {
            s["slice"]: s
            for s in summary["slices"]
            if s["by"] == by and _key(s) == (model, training)
        }
        look = palette.training_look(training)
        drawn.add_scatter(
            x=[_slice_label(by, key, lang) for key in keys],
            y=[own[key][value] if key in own else None for key in keys],
            name=line_label(model, training, lang),
            mode="lines+markers",
            line={"color": colours[model], "dash": look.dash, "width": 2},
            marker={"symbol": look.marker, "size": 8},
        )
    drawn.update_layout(palette.layout(lang, 420))
    drawn.update_xaxes(title=text(f"backtest.slice.{by}.axis", lang), type="category")
    drawn.update_yaxes(title=text(f"backtest.axis.{value}", lang))
    return drawn


# ------------------------------------------------------------------------------ internals
def _table_of(summary: Summary, part: str, lang: Language) -> str:
    said = subject(summary, lang) if part == "errors" else text(f"backtest.table.{part}", lang)
    return table(said, *rows(summary, part, lang), fold=False)


def _chance(summary: Summary, lang: Language) -> str:
    if not summary["tests"]:
        return ""
    return table(_section("chance", lang), *chance(summary, lang), fold=False)


def _slice(summary: Summary, by: str, lang: Language) -> str:
    title, note = (text(f"backtest.slice.{by}.{key}", lang) for key in ("title", "note"))
    best = _ordered(summary)[:1]
    alt = f"{title}. " + "; ".join(
        f"{_slice_label(by, one['slice'], lang)}: {ratio(one['nmae'], lang)}"
        for row in best
        for one in summary["slices"]
        if one["by"] == by and _key(one) == _key(row)
    )
    drawn = figure(f"fig-{by}", title, note, alt, slice_figure(summary, by, lang))
    caption = text("report.table_of", lang, name=title)
    return drawn + table(caption, *slice_rows(summary, by, lang))


def _what(summary: Summary, by: str) -> str:
    known = any(one["ratio"] is not None for one in summary["slices"])
    return "ratio" if by == "age" and known else "nmae"


def _ordered(summary: Summary) -> list[dict[str, Any]]:
    scored = [row for row in summary["rows"] if row["nmae"] is not None]
    return sorted(scored, key=lambda row: float(row["nmae"]))


def _aging(summary: Summary, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first and the last age of a row, where both can be compared with a baseline."""
    own = [s for s in summary["slices"] if s["by"] == "age" and _key(s) == _key(row)]
    known = [s for s in own if s["ratio"] is not None]
    return [known[0], known[-1]] if len(known) > 1 else []


def _keys(summary: Summary, by: str) -> list[str]:
    """Return the slices in their order: ages and hours by number, months by date."""
    found = {one["slice"] for one in summary["slices"] if one["by"] == by}
    if by == "month":
        return sorted(found)
    return sorted(found, key=lambda key: float(key.split("-")[0]))


def _slice_label(by: str, key: str, lang: Language) -> str:
    if by == "weekday":
        return text(f"backtest.weekday.{key}", lang)
    if by == "month":
        return key
    return f"{key.replace('-', '–')} {text(f'backtest.slice.{by}.unit', lang)}"


def _slice_cell(one: dict[str, Any] | None, by: str, lang: Language) -> str:
    if one is None:
        return MISSING
    written = ratio(one["nmae"], lang)
    if by != "age" or one["ratio"] is None:
        return written
    return f"{written} ({percent(100 * one['ratio'], lang)})"


def _score(row: dict[str, Any], name: str, lang: Language) -> str:
    mean, spread = row[name], row[f"{name}_sd"]
    if mean is None:
        return MISSING
    factor, digits = (100.0, 1) if name in _SHARES else (1.0, 4)
    written = number(factor * mean, digits, lang)
    if spread is not None:
        written += f" ± {number(factor * spread, digits, lang)}"
    return f"{written} %" if name in _SHARES else written


def _value(row: dict[str, Any], lang: Language) -> str:
    return _score(row, "nmae", lang)


def _signed(share: float, lang: Language) -> str:
    return f"{'+' if share > 0 else ''}{number(share, 1, lang)}"


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["model"], row["training"]


def _against(one: dict[str, Any]) -> tuple[str, str]:
    return one["against_model"], one["against_training"]


def _name(row: dict[str, Any], lang: Language) -> str:
    return line_label(row["model"], row["training"], lang)


def _name_columns(lang: Language) -> list[Column]:
    return [Column(text(f"backtest.column.{n}", lang), False) for n in ("model", "training")]


def _column(key: str, lang: Language) -> Column:
    return Column(text(f"backtest.column.{key}", lang))


def _section(key: str, lang: Language) -> str:
    return text(f"backtest.section.{key}", lang)

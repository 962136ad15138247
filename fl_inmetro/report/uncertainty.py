"""Whether the intervals hold what they promise: reliability, coverage by client and by hour."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, text
from fl_inmetro.metrics.calibration import Calibration, calibration
from fl_inmetro.metrics.scores import COVERAGE_BAND
from fl_inmetro.report import palette, view
from fl_inmetro.report.captions import columns, figure_title, note, table_title
from fl_inmetro.report.markup import figure, table
from fl_inmetro.report.results import ends
from fl_inmetro.report.words import line_label, percent, whole
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord

#: Up to so many clients, the coverage of each is drawn with its name.
NAMED = 30

_NOMINAL = 0.8
_GREY = "#767676"


def found_in(record: RunRecord) -> Calibration | None:
    """Return the calibration of the line the report is about; None where it has no quantiles."""
    line = view.main_line(record)
    score = view.score_of(record, line)
    # Asked first: the file of forecasts is large.
    if line is None or score is None or score.get("coverage_80") is None:
        return None
    rows = record.forecasts(line.model, line.training)
    return calibration(points_of(rows), clock(record)) if rows is not None else None


def clock(record: RunRecord) -> str:
    """Return the time zone in which the run's days begin."""
    return str(record.manifest.get("window", {}).get("timezone") or "UTC")


def reliability(found: Calibration, lang: Language) -> go.Figure:
    """Observed against nominal frequency by level; on the dashed diagonal they are the same."""
    drawn = go.Figure()
    drawn.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        name=text("report.axis.diagonal", lang),
        line={"color": _GREY, "dash": "dash", "width": 2},
        hoverinfo="skip",
    )
    drawn.add_scatter(
        x=[100 * level for level in found.levels],
        y=(100 * found.observed).tolist(),
        mode="lines+markers",
        name=text("report.axis.frequency", lang),
        line={"color": palette.BLUE, "width": 2},
        marker={"symbol": "circle", "size": 9},
        hovertemplate="%{x:.1f} %: %{y:.1f} %<extra></extra>",
    )
    drawn.update_layout(palette.layout(lang, 460))
    drawn.update_xaxes(
        title=text("report.axis.nominal", lang), range=[0, 102], ticksuffix=" %", dtick=10
    )
    drawn.update_yaxes(
        title=text("report.axis.not_above", lang), range=[0, 102], ticksuffix=" %", dtick=10
    )
    return drawn


def coverage_by_client(found: Calibration, lang: Language) -> go.Figure | None:
    """Each client's share of readings in the 80 % interval, sorted; shape and colour by band."""
    if not np.isfinite(found.coverage).all():
        return None
    low, high = COVERAGE_BAND
    inside = (low <= found.coverage) & (found.coverage <= high)
    drawn = go.Figure()
    parts = (
        ("report.axis.in_band", inside, palette.BLUE, "circle"),
        ("report.axis.out_of_band", ~inside, palette.VERMILLION, "x"),
    )
    for key, mine, colour, symbol in parts:
        places = np.flatnonzero(mine)
        if places.size:
            drawn.add_scatter(
                x=(places + 1).tolist(),
                y=(100 * found.coverage[places]).tolist(),
                mode="markers",
                name=text(key, lang, count=whole(places.size, lang)),
                marker={"color": colour, "symbol": symbol, "size": 8},
                hovertext=[escape(found.clients[k]) for k in places],
                hovertemplate="%{hovertext}: %{y:.1f} %<extra></extra>",
            )
    size = len(found.clients)
    lines = ((_NOMINAL, "dash", "report.axis.nominal_80"), (low, "dot", ""), (high, "dot", ""))
    for level, dash, key in lines:
        drawn.add_scatter(
            x=[0.4, size + 0.6],
            y=[100 * level] * 2,
            mode="lines",
            name=text(key, lang) if key else "",
            showlegend=bool(key),
            line={"color": _GREY, "dash": dash, "width": 1.5},
            hoverinfo="skip",
        )
    drawn.update_layout(palette.layout(lang, 440))
    drawn.update_yaxes(
        title=text("report.axis.inside_short", lang),
        ticksuffix=" %",
        range=[min(60.0, 100 * float(found.coverage.min()) - 3), 102],
    )
    drawn.update_xaxes(title=text("report.axis.clients_by_coverage", lang), range=[0.4, size + 0.6])
    if size <= NAMED:
        drawn.update_xaxes(
            tickvals=list(range(1, size + 1)),
            ticktext=[escape(n if len(n) <= 18 else f"{n[:17]}…") for n in found.clients],
            tickangle=-60,
        )
    return drawn


def by_hour(found: Calibration, lang: Language) -> go.Figure | None:
    """Coverage (above) and relative width (below) of the 80 % interval by local hour."""
    if not np.isfinite(found.hour_coverage).any():
        return None
    hours = np.flatnonzero(np.isfinite(found.hour_coverage)).tolist()
    drawn = go.Figure()
    drawn.add_scatter(
        x=[-0.5, 23.5],
        y=[100 * _NOMINAL] * 2,
        mode="lines",
        name=text("report.axis.nominal_80", lang),
        line={"color": _GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    drawn.add_scatter(
        x=hours,
        y=(100 * found.hour_coverage[hours]).tolist(),
        mode="lines+markers",
        name=text("report.axis.inside", lang),
        line={"color": palette.BLUE, "width": 2},
        marker={"symbol": "circle", "size": 8},
    )
    drawn.add_scatter(
        x=hours,
        y=[100 * w if np.isfinite(w) else None for w in found.hour_width[hours]],
        yaxis="y2",
        mode="lines+markers",
        name=text("report.axis.width", lang),
        line={"color": palette.ORANGE, "width": 2, "dash": "dot"},
        marker={"symbol": "square", "size": 8},
    )
    lowest = 100 * float(np.nanmin(found.hour_coverage))
    drawn.update_layout(palette.layout(lang, 520))
    drawn.update_layout(
        xaxis={
            "title": text("report.axis.hour", lang),
            "anchor": "y2",
            "dtick": 2,
            "range": [-0.5, 23.5],
            "zeroline": False,
        },
        yaxis={
            "title": text("report.axis.inside_short", lang),
            "domain": [0.5, 1.0],
            "ticksuffix": " %",
            "range": [min(60.0, lowest - 3), 102],
        },
        yaxis2={
            "title": text("report.axis.width_short", lang),
            "domain": [0.0, 0.42],
            "ticksuffix": " %",
            "rangemode": "tozero",
            "gridcolor": "#E2E2E2",
            "ticks": "outside",
            "automargin": True,
            "anchor": "x",
        },
    )
    return drawn


def uncertainty(record: RunRecord, lang: Language) -> str:
    """The section of a report: figures and tables; empty where there are no quantiles."""
    line = view.main_line(record)
    found = found_in(record)
    if line is None or found is None:
        return ""
    label = line_label(line.model, line.training, lang)

    def percents(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[str]:
        return [percent(100 * float(value), lang) for value in values]

    title = figure_title("reliability", lang)
    rows = list(
        zip(percents(np.array(found.levels)), percents(found.observed), strict=True),
    )
    alt = f"{title}: " + "; ".join(f"{nominal} → {seen}" for nominal, seen in rows)
    remark = note("reliability", lang, model=label, points=whole(found.points, lang))
    content = figure("fig-reliability", title, remark, alt, reliability(found, lang))
    content += table(
        table_title("reliability", lang), columns(("nominal", "observed_share"), lang), rows
    )
    each = coverage_by_client(found, lang)
    if each:
        title = figure_title("coverage", lang)
        low, high = COVERAGE_BAND
        share = float(((low <= found.coverage) & (found.coverage <= high)).mean())
        remark = note("coverage", lang, share=percent(100 * share, lang))
        content += figure("fig-coverage", title, remark, f"{title}: {remark}", each)
        cells = [found.clients, percents(found.coverage), percents(found.width)]
        shown, hint = ends([list(row) for row in zip(*cells, strict=True)], lang)
        heads = columns(("client", "coverage_80", "width_80"), lang)
        content += hint + table(table_title("coverage", lang), heads, shown)
    hourly = by_hour(found, lang)
    if hourly:
        title = figure_title("hours", lang)
        hours = np.flatnonzero(np.isfinite(found.hour_coverage))
        cells = [
            [f"{hour:02d}" for hour in hours],
            percents(found.hour_coverage[hours]),
            percents(found.hour_width[hours]),
        ]
        alt = f"{title}: " + "; ".join(f"{h} h {c}" for h, c in zip(*cells[:2], strict=True))
        remark = note("hours", lang, timezone=clock(record))
        content += figure("fig-hours", title, remark, alt, hourly)
        content += table(
            table_title("hours", lang),
            columns(("hour", "coverage_80", "width_80"), lang),
            list(zip(*cells, strict=True)),
        )
    return content

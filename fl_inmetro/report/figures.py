"""Pure functions from a run record to a Plotly figure; None where the run has nothing to draw."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from fl_inmetro.i18n import Language, number, text
from fl_inmetro.report import palette, view
from fl_inmetro.report.weeks import weeks
from fl_inmetro.report.words import line_label, model_label, scale_bytes, training_label
from fl_inmetro.runs.record import RunRecord

#: Up to so many clients, the bars of the gain figure carry the clients' names.
NAMED_BARS = 30


def comparison(record: RunRecord, lang: Language) -> go.Figure | None:
    """Bars of test nMAE by model and training, best on top; colour and pattern by training."""
    rows = [row for row in record.scores() if row.get("nmae") is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: -row["nmae"])  # Plotly stacks categories upwards
    figure = go.Figure()
    for training in dict.fromkeys(row["training"] for row in reversed(rows)):
        mine = [row for row in rows if row["training"] == training]
        look = palette.training_look(training)
        figure.add_bar(
            orientation="h",
            name=escape(training_label(training, lang)),
            y=[escape(line_label(row["model"], training, lang)) for row in mine],
            x=[row["nmae"] for row in mine],
            text=[number(row["nmae"], 4, lang) for row in mine],
            textposition="outside",
            cliponaxis=False,
            marker=palette.fill(look.colour, look.pattern),
            hoverinfo="y+text",
        )
    highest = max(row["nmae"] for row in rows)
    figure.update_layout(palette.layout(lang, 110 + 34 * len(rows), bargap=0.25, barmode="overlay"))
    figure.update_xaxes(
        title=text("report.axis.nmae_test", lang), range=[0, highest * 1.15], rangemode="tozero"
    )
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[escape(line_label(row["model"], row["training"], lang)) for row in rows],
        showgrid=False,
    )
    return figure


def training_curves(record: RunRecord, lang: Language) -> go.Figure | None:
    """Validation nMAE (above) and training loss (below) by round, with the best baseline dashed.

    Colour says the model, dash and marker say the training. The baseline is of the test window.
    """
    found = view.curves(record)
    if not found:
        return None
    colours = palette.model_colours([curve.line.model for curve in found])
    figure = go.Figure()
    for curve in found:
        look = palette.training_look(curve.line.training)
        style: dict[str, Any] = {
            "name": escape(line_label(curve.line.model, curve.line.training, lang)),
            "legendgroup": f"{curve.line.model} {curve.line.training}",
            "mode": "lines+markers" if curve.rounds.size <= 40 else "lines",
            "line": {"color": colours[curve.line.model], "dash": look.dash, "width": 2},
            "marker": {"symbol": look.marker, "size": 8},
        }
        rounds = curve.rounds.tolist()
        figure.add_scatter(x=rounds, y=_plain(curve.nmae), **style)
        figure.add_scatter(x=rounds, y=_plain(curve.loss), yaxis="y2", showlegend=False, **style)
    last = max(int(curve.rounds[-1]) for curve in found)
    first = min(int(curve.rounds[0]) for curve in found)
    baseline = view.baseline_line(record)
    score = view.score_of(record, baseline)
    if baseline and score:
        figure.add_scatter(
            x=[first, max(last, first + 1)],
            y=[score["nmae"]] * 2,
            mode="lines",
            name=text("report.axis.baseline_on_test", lang, name=model_label(baseline.model, lang)),
            line={"color": "#555555", "dash": "longdash", "width": 2},
        )
    figure.update_layout(palette.layout(lang, 620))
    figure.update_layout(
        xaxis={"title": text("report.axis.round", lang), "anchor": "y2", "dtick": _step(last)},
        yaxis={"title": text("report.axis.nmae_validation", lang), "domain": [0.47, 1.0]},
        yaxis2={
            "title": text("report.axis.loss", lang),
            "domain": [0.0, 0.39],
            "gridcolor": "#E2E2E2",
            "ticks": "outside",
            "automargin": True,
            "anchor": "x",
        },
    )
    return figure


def client_spread(record: RunRecord, lang: Language) -> go.Figure | None:
    """Distribution of nMAE over the clients, one row per model: 10-90 % thin, 25-75 % thick."""
    found = list(reversed(view.spreads(record)))
    if not found:
        return None
    labels = [escape(line_label(s.line.model, s.line.training, lang)) for s in found]
    figure = go.Figure()
    ranges = ((0, 4, 2, "report.axis.p10_p90"), (1, 3, 10, "report.axis.p25_p75"))
    for low, high, width, name in ranges:
        x: list[float | None] = []
        y: list[str | None] = []
        for spread, label in zip(found, labels, strict=True):
            x += [float(spread.quantiles[low]), float(spread.quantiles[high]), None]
            y += [label, label, None]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=text(name, lang),
            line={"color": palette.SKY if width > 5 else palette.BLUE, "width": width},
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[float(s.quantiles[2]) for s in found],
        y=labels,
        mode="markers+text",
        name=text("report.axis.median", lang),
        text=[number(float(s.quantiles[2]), 3, lang) for s in found],
        textposition="top center",
        textfont={"size": 12},
        marker={"color": palette.BLACK, "symbol": "diamond", "size": 9},
    )
    figure.update_layout(palette.layout(lang, 130 + 42 * len(found)))
    highest = max(float(s.quantiles[-1]) for s in found)
    figure.update_xaxes(title=text("report.axis.nmae_client", lang), range=[0, highest * 1.05])
    figure.update_yaxes(categoryorder="array", categoryarray=labels, range=[-0.6, len(found) - 0.4])
    return figure


def federation_gain(record: RunRecord, lang: Language) -> go.Figure | None:
    """Each client's gain of federated over local-only training, sorted; losses hatched."""
    line = view.main_line(record)
    found = view.gains(record, line.model) if line else []
    if not found:
        return None
    figure = go.Figure()
    parts = (
        ("report.axis.better", True, palette.BLUE, ""),
        ("report.axis.worse", False, palette.VERMILLION, "/"),
    )
    named = len(found) <= NAMED_BARS
    for key, positive, colour, pattern in parts:
        mine = [(i, g) for i, g in enumerate(found, 1) if (g.percent >= 0) is positive]
        if not mine:
            continue
        figure.add_bar(
            x=[i for i, _ in mine],
            y=[g.percent for _, g in mine],
            name=text(key, lang, count=len(mine)),
            hovertext=[escape(g.client_id) for _, g in mine],
            hovertemplate="%{hovertext}: %{y:.1f} %<extra></extra>",
            marker=palette.fill(colour, pattern if len(found) <= 200 else ""),
        )
    figure.update_layout(palette.layout(lang, 440, bargap=0.1 if named else 0, barmode="overlay"))
    figure.update_yaxes(title=text("report.axis.gain", lang), ticksuffix=" %")
    figure.update_xaxes(
        title=text("report.axis.clients_sorted", lang), range=[0.4, len(found) + 0.6]
    )
    if named:
        figure.update_xaxes(
            tickvals=list(range(1, len(found) + 1)),
            ticktext=[escape(_short(g.client_id)) for g in found],
            tickangle=-60,
        )
    return figure


def bytes_by_round(record: RunRecord, lang: Language) -> go.Figure | None:
    """Bytes to and from the clients by round, of the federated model the report is about."""
    line = view.main_line(record)
    curve = next((c for c in view.curves(record) if c.line == line), None)
    if curve is None or curve.line.training != "federated":
        return None
    if not (curve.bytes_down.any() or curve.bytes_up.any()):
        return None
    factor, unit = scale_bytes(float(np.max(curve.bytes_down + curve.bytes_up)))
    figure = go.Figure()
    parts = (
        ("report.axis.bytes_down", curve.bytes_down, palette.BLUE, ""),
        ("report.axis.bytes_up", curve.bytes_up, palette.ORANGE, "/"),
    )
    for key, values, colour, pattern in parts:
        figure.add_bar(
            x=curve.rounds.tolist(),
            y=(values / factor).tolist(),
            name=text(key, lang),
            marker=palette.fill(colour, pattern),
        )
    figure.update_layout(palette.layout(lang, 360, barmode="stack"))
    last = int(curve.rounds[-1])
    figure.update_xaxes(
        title=text("report.axis.round", lang), dtick=_step(last), range=[0.3, max(last, 4) + 0.7]
    )
    figure.update_yaxes(title=text("report.axis.bytes", lang, unit=unit), rangemode="tozero")
    return figure


def heterogeneity(record: RunRecord, lang: Language) -> go.Figure | None:
    """Squared gradient norm, δ² and σ² by round on a logarithmic axis; dashes tell the models."""
    found = view.unlikeness(record)
    if not found:
        return None
    quantities = (
        ("gradient_norm_squared", palette.BLACK, "circle"),
        ("dissimilarity", palette.BLUE, "square"),
        ("gradient_variance", palette.ORANGE, "diamond"),
    )
    dashes: tuple[palette.Dash, ...] = ("solid", "dash", "dot", "dashdot")
    figure = go.Figure()
    for place, one in enumerate(found):
        model = f"{escape(model_label(one.line.model, lang))}: " if len(found) > 1 else ""
        for name, colour, marker in quantities:
            values = getattr(one, name)
            figure.add_scatter(
                x=one.rounds.tolist(),
                y=[v if v and v > 0 else None for v in _plain(values)],  # 0 has no logarithm
                name=model + text(f"report.axis.{name}", lang),
                mode="lines+markers" if one.rounds.size <= 40 else "lines",
                line={"color": colour, "dash": dashes[place % len(dashes)], "width": 2},
                marker={"symbol": marker, "size": 8},
            )
    last = max(int(one.rounds[-1]) for one in found)
    figure.update_layout(palette.layout(lang, 420))
    figure.update_xaxes(title=text("report.axis.round", lang), dtick=_step(last))
    figure.update_yaxes(
        title=text("report.axis.squared_gradient", lang),
        type="log",
        dtick="D2",
        exponentformat="power",
    )
    return figure


def forecast_weeks(record: RunRecord, lang: Language) -> go.Figure | None:
    """Forecast against observation over a week, for the median, the worst and the best client."""
    line = view.main_line(record)
    found = weeks(record, line) if line else []
    if not found:
        return None
    base = view.baseline_line(record)
    figure = go.Figure()
    names = [
        ("observed_kwh", text("report.axis.observed", lang), palette.BLACK, "solid", 1.5),
        ("mean_kwh", text("report.axis.forecast", lang), palette.BLUE, "dash", 2.5),
    ]
    if base:
        label = escape(model_label(base.model, lang))
        names.append(("baseline_kwh", label, palette.ORANGE, "dot", 1.5))
    gap = 0.1
    height = (1 - gap * (len(found) - 1)) / len(found)
    notes, axes = [], {}
    for i, week in enumerate(found):
        axis = "" if i == 0 else str(i + 1)
        times = [t.strftime("%Y-%m-%dT%H:%M:%S") for t in week.local_times()]
        for key, name, colour, dash, width in names:
            values = getattr(week, key)
            if values is None:
                continue
            figure.add_scatter(
                x=times,
                y=_plain(values),
                name=name,
                legendgroup=key,
                showlegend=i == 0,
                mode="lines",
                line={"color": colour, "dash": dash, "width": width},
                xaxis=f"x{axis}",
                yaxis=f"y{axis}",
            )
        top = 1 - i * (height + gap)
        axes[f"yaxis{axis}"] = {
            "domain": [max(0.0, top - height), top],
            "title": "kWh",
            "rangemode": "tozero",
            "gridcolor": "#E2E2E2",
            "automargin": True,
            "anchor": f"x{axis}",
        }
        axes[f"xaxis{axis}"] = {
            "anchor": f"y{axis}",
            "gridcolor": "#E2E2E2",
            "tickformat": "%d/%m" if lang == "pt-BR" else "%d %b",
            "ticks": "outside",
            "automargin": True,
            "dtick": 86_400_000,
        }
        role = text(f"report.role.{week.role}", lang)
        notes.append(
            {
                "text": f"<b>{role}</b>: {escape(week.client_id)} ({week.clock})",
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    figure.update_layout(palette.layout(lang, 110 + 215 * len(found)))
    figure.update_layout(**axes, annotations=notes, legend={"y": 1 + 30 / (215 * len(found))})
    return figure


def _plain(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | None]:
    """Turn an array into a list with None for NaN: Plotly breaks the line there."""
    return [float(v) if np.isfinite(v) else None for v in values]


def _step(last: int) -> int:
    """Return a tick distance that gives at most about 10 ticks at whole rounds."""
    rough = max(1, -(-last // 10))
    return next((s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if s >= rough), rough)


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


#: The figures of a report by name, for the report, the portal and the documentation.
FIGURES: dict[str, Callable[[RunRecord, Language], go.Figure | None]] = {
    "comparison": comparison,
    "spread": client_spread,
    "gain": federation_gain,
    "curves": training_curves,
    "bytes": bytes_by_round,
    "heterogeneity": heterogeneity,
    "forecast": forecast_weeks,
}

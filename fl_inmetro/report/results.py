"""Two sections of a report: the results of the fleet, and those of each client."""

from __future__ import annotations

from html import escape
from typing import Any

from fl_inmetro.i18n import Language, text
from fl_inmetro.metrics import QUANTILE_SCORES
from fl_inmetro.report import figures, view
from fl_inmetro.report.captions import columns, figure_title, note, nothing, table_title
from fl_inmetro.report.findings import step
from fl_inmetro.report.markup import Column, figure, table
from fl_inmetro.report.words import (
    byte_count,
    duration,
    kwh,
    line_label,
    model_label,
    percent,
    ratio,
    training_label,
    whole,
)
from fl_inmetro.runs.record import RunRecord

#: A per-client table longer than this shows its two ends only, to keep the page under 3 MB.
MOST_CLIENTS = 2000


def results(record: RunRecord, lang: Language) -> str:
    """The comparison: the figure and all fleet scores."""
    scores = record.scores()
    if not scores:
        return nothing(lang)
    scores.sort(key=lambda row: (row.get("nmae") is None, row.get("nmae") or 0.0))
    alt = f"{figure_title('comparison', lang)}: " + "; ".join(
        f"{line_label(r['model'], r['training'], lang)} {ratio(r.get('nmae'), lang)}"
        for r in scores
    )
    drawn = figures.comparison(record, lang)
    head = (
        figure(
            "fig-comparison", figure_title("comparison", lang), note("comparison", lang), alt, drawn
        )
        if drawn
        else ""
    )
    return (
        head
        + table(
            table_title("comparison", lang),
            columns(_FLEET, lang),
            [_fleet_row(r, lang) for r in scores],
        )
        + _quantile_scores(scores, lang)
    )


def clients(record: RunRecord, lang: Language) -> str:
    """Errors per client: distribution, gain from federation, and the table of all of them."""
    line = view.main_line(record)
    if line is None or not view.client_table(record, line):
        return nothing(lang)
    content = ""
    spread = figures.client_spread(record, lang)
    if spread:
        found = view.spreads(record)
        rows = [
            [
                line_label(s.line.model, s.line.training, lang),
                whole(s.clients, lang),
                *(ratio(float(q), lang) for q in s.quantiles),
            ]
            for s in found
        ]
        heads = [
            Column(text("report.column.model", lang), numeric=False),
            Column(text("report.column.clients", lang)),
            *(
                Column(text("report.column.quantile", lang, percent=round(100 * level)))
                for level in view.LEVELS
            ),
        ]
        alt = f"{figure_title('spread', lang)}: {text('report.axis.median', lang)} " + "; ".join(
            f"{row[0]} {row[4]}" for row in rows
        )
        content += figure(
            "fig-spread", figure_title("spread", lang), note("spread", lang), alt, spread
        ) + table(table_title("spread", lang), heads, rows)
    gain = figures.federation_gain(record, lang)
    if gain:
        found_gains = view.gains(record, line.model)
        remark = note("gain", lang, model=model_label(line.model, lang))
        helped = sum(g.percent >= 0 for g in found_gains)
        alt = (
            f"{figure_title('gain', lang)}: {text('report.axis.better', lang, count=helped)}, "
            f"{text('report.axis.worse', lang, count=len(found_gains) - helped)}"
        )
        rows = [
            [g.client_id, ratio(g.local, lang), ratio(g.federated, lang), percent(g.percent, lang)]
            for g in found_gains
        ]
        heads = [
            Column(text("report.column.client", lang), numeric=False),
            Column(text("report.column.local_nmae", lang)),
            Column(f"nMAE {training_label('federated', lang)}"),
            Column(text("report.column.gain", lang)),
        ]
        shown, hint = ends(rows, lang)
        content += figure("fig-gain", figure_title("gain", lang), remark, alt, gain)
        content += hint + table(table_title("gain", lang), heads, shown)
    return content + _per_client(record, line, lang)


# ------------------------------------------------------------------------------ internals
_FLEET = (
    "model", "training", "nmae", "wmape", "mae_kwh", "rmse_kwh", "mase", "nrmse", "bias",
    "worst_decile_nmae", "better_than_local", "harmed", "clients", "points", "bytes", "seconds",
)  # fmt: skip


def _quantile_scores(rows: list[dict[str, Any]], lang: Language) -> str:
    """The table of the rows that have quantiles; empty where none has."""
    rows = [row for row in rows if row.get("pinball") is not None]
    if not rows:
        return ""
    shares = ("coverage_80", "coverage_80_in_70_90")
    cells = [
        [
            model_label(row["model"], lang),
            training_label(row["training"], lang),
            *(
                percent(100 * row[key], lang)
                if key in shares and row.get(key) is not None
                else ratio(row.get(key), lang)
                for key in QUANTILE_SCORES
            ),
        ]
        for row in rows
    ]
    remark = f'<p class="note">{escape(note("quantiles", lang))}</p>\n'
    heads = columns(("model", "training", *QUANTILE_SCORES), lang)
    return remark + table(text("report.quantile_scores", lang), heads, cells)


def _fleet_row(row: dict[str, Any], lang: Language) -> list[str]:
    better, harmed = (
        None if row.get(key) is None else 100 * row[key] for key in ("better_than_local", "harmed")
    )
    return [
        model_label(row["model"], lang),
        training_label(row["training"], lang),
        ratio(row.get("nmae"), lang),
        ratio(row.get("wmape"), lang),
        kwh(row.get("mae_kwh"), lang),
        kwh(row.get("rmse_kwh"), lang),
        ratio(row.get("mase"), lang, 3),
        ratio(row.get("nrmse"), lang),
        ratio(row.get("bias"), lang),
        ratio(row.get("worst_decile_nmae"), lang),
        percent(better, lang, 0),
        percent(harmed, lang, 1),
        whole(row.get("clients"), lang),
        whole(row.get("points"), lang),
        byte_count(row.get("bytes"), lang),
        duration(row.get("seconds"), lang),
    ]


def _per_client(record: RunRecord, line: view.Line, lang: Language) -> str:
    """The table of every client, largest error first."""
    mine = view.client_table(record, line)
    base = view.baseline_line(record)
    base_rows = view.client_table(record, base) if base else {}
    # None sorts last: a client without a scored point has no error.
    ranked = sorted(mine.values(), key=lambda r: (r.get("nmae") is None, -(r.get("nmae") or 0.0)))
    heads = columns(
        ("client", "mean_kwh", "points", "nmae", "mae_kwh", "rmse_kwh", "mase", "bias"), lang
    )
    if base:
        name = model_label(base.model, lang)
        heads.append(Column(text("report.column.baseline_nmae", lang, name=name)))
    rows = []
    for row in ranked:
        cells = [
            row["client_id"],
            kwh(row.get("mean_kwh"), lang),
            whole(row.get("points"), lang),
            ratio(row.get("nmae"), lang),
            kwh(row.get("mae_kwh"), lang),
            kwh(row.get("rmse_kwh"), lang),
            ratio(row.get("mase"), lang, 3),
            ratio(row.get("bias"), lang),
        ]
        if base:
            cells.append(ratio(base_rows.get(row["client_id"], {}).get("nmae"), lang))
        rows.append(cells)
    label = line_label(line.model, line.training, lang)
    remark = note("per_client", lang, model=label, step=step(record, lang))
    title = figure_title("per_client", lang)
    shown, hint = ends(rows, lang)
    head = f'<h3>{escape(title)}</h3>\n<p class="note">{escape(remark)}</p>\n'
    return head + hint + table(table_title("per_client", lang), heads, shown)


def ends(rows: list[list[str]], lang: Language) -> tuple[list[list[str]], str]:
    """Cut a table that would make the page too large to its two ends, and say so."""
    if len(rows) <= MOST_CLIENTS:
        return rows, ""
    half = MOST_CLIENTS // 2
    hint = text(
        "report.capped",
        lang,
        shown=whole(2 * half, lang),
        total=whole(len(rows), lang),
        half=whole(half, lang),
    )
    return rows[:half] + rows[-half:], f'<p class="note">{escape(hint)}</p>\n'

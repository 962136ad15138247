"""The sum of all clients and the daily peaks, for every row of the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from fl_inmetro.i18n import Language, text
from fl_inmetro.metrics.fleet import DailyPeaks, daily_peaks, fleet_errors, peaks, summed_parts
from fl_inmetro.metrics.points import Points
from fl_inmetro.report.captions import columns, note
from fl_inmetro.report.markup import table
from fl_inmetro.report.words import model_label, percent, ratio, training_label, whole
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord

#: A row's forecasts are read in parts of about so many.
MOST_POINTS = 1_000_000

_COLUMNS = (
    "model",
    "training",
    "fleet_nmae",
    "fleet_nrmse",
    "fleet_bias",
    "instants",
    "peak_hit",
    "peak_size",
    "fleet_peak_hit",
    "fleet_peak_size",
)


def fleet(record: RunRecord, lang: Language) -> str:
    """The section of a report; empty where the run kept no forecasts."""
    resolution_s = record.manifest.get("data", {}).get("resolution_s")
    lead_s = int(record.manifest["window"].get("lead_steps", 0)) * int(resolution_s or 0)
    rows = []
    for score in sorted(record.scores(), key=lambda r: (r.get("nmae") is None, r.get("nmae") or 0)):
        if not resolution_s:
            continue
        days: list[tuple[tuple[str, ...], DailyPeaks]] = []
        fleet_total = summed_parts(_read(record, score, int(resolution_s), lead_s, days))
        if not days:
            continue
        total, own = fleet_errors(fleet_total), _joined(days).score()
        whole_fleet = peaks(fleet_total, resolution_s, lead_s)
        rows.append(
            [
                model_label(score["model"], lang),
                training_label(score["training"], lang),
                ratio(total.nmae, lang),
                ratio(total.nrmse, lang),
                ratio(total.bias, lang),
                whole(total.n, lang),
                percent(100 * own.hit_share, lang),
                percent(100 * own.size_error, lang),
                percent(100 * whole_fleet.hit_share, lang),
                percent(100 * whole_fleet.size_error, lang),
            ]
        )
    if not rows:
        return ""
    remark = f'<p class="note">{escape(note("fleet", lang))}</p>\n'
    return remark + table(text("report.section.fleet", lang), columns(_COLUMNS, lang), rows)


# ------------------------------------------------------------------------------ internals
def _read(
    record: RunRecord,
    score: dict[str, Any],
    resolution_s: int,
    lead_s: int,
    days: list[tuple[tuple[str, ...], DailyPeaks]],
) -> Iterator[Points]:
    """Give a row's forecasts, some clients at a time, and note their daily peaks in `days`."""
    line = score["model"], score["training"]
    names = sorted(row["client_id"] for row in record.client_scores(*line))
    each = max(int(score.get("points") or 0) // max(len(names), 1), 1)
    most = max(MOST_POINTS // each, 1)
    groups = [names[k : k + most] for k in range(0, len(names), most)] if names else [None]
    for group in groups if len(groups) > 1 else [None]:
        table = record.forecasts(*line, group)
        if table is None or not table.num_rows:
            continue
        points = points_of(table, by_meter=True)
        del table
        days.append((points.names, daily_peaks(points, resolution_s, lead_s)))
        yield points


def _joined(days: list[tuple[tuple[str, ...], DailyPeaks]]) -> DailyPeaks:
    place = {name: k for k, name in enumerate(sorted({n for names, _ in days for n in names}))}
    clients = [
        np.array([place[n] for n in names], dtype=np.int64)[own.client] for names, own in days
    ]
    return DailyPeaks(
        np.concatenate(clients),
        np.concatenate([own.hit for _, own in days]),
        np.concatenate([own.error_kwh for _, own in days]),
        np.concatenate([own.load_kwh for _, own in days]),
    )

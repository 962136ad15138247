"""The sum of all clients and the daily peaks, for every row of the comparison."""

from __future__ import annotations

from html import escape

from fl_inmetro.i18n import Language, text
from fl_inmetro.metrics.fleet import fleet_errors, peaks, summed
from fl_inmetro.report.captions import columns, note
from fl_inmetro.report.markup import table
from fl_inmetro.report.words import model_label, percent, ratio, training_label, whole
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord

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
        found = record.forecasts(score["model"], score["training"])
        if found is None or not found.num_rows or not resolution_s:
            continue
        points = points_of(found, by_meter=True)
        total, own = fleet_errors(points), peaks(points, resolution_s, lead_s)
        whole_fleet = peaks(summed(points), resolution_s, lead_s)
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

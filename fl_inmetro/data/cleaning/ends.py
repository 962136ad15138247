"""Meters that stop before the others do, or begin after them."""

from __future__ import annotations

from collections.abc import Mapping

from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.cleaning.findings import Ledger
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S, iso_utc

#: After so many days without a reading `forecast` does not ask the model (with the defaults).
SILENT_DAYS = Fallback().no_readings_days
#: After so many it does not even know how large the client is, and leaves it out.
GONE_DAYS = Fallback().size_days
#: Features look back over so many days; a meter younger than that by the fleet is worth a word.
YOUNG_DAYS = 28


def note_uneven_ends(series: Mapping[str, ClientSeries], ledger: Ledger) -> None:
    """Note the clients whose readings end (or begin) long before (after) the fleet's.

    The count is the number of steps that they lack there.
    """
    if not series:
        return
    end_utc_s = max(one.end_utc_s for one in series.values())
    start_utc_s = min(one.start_utc_s for one in series.values())
    for name, one in series.items():
        late_s = one.start_utc_s - start_utc_s
        if late_s > YOUNG_DAYS * DAY_S:
            detail = said("begins_late", days=_days(late_s))
            count, places = late_s // one.resolution_s, [iso_utc(one.start_utc_s)]
            ledger.note(name, "begins_late", count, "reported", places, detail)
        early_s = end_utc_s - one.end_utc_s
        if early_s > SILENT_DAYS * DAY_S:
            gone = early_s > GONE_DAYS * DAY_S
            detail = said("ended" if gone else "ends_early", days=_days(early_s))
            count, places = early_s // one.resolution_s, [iso_utc(one.end_utc_s)]
            ledger.note(name, "ends_early", count, "reported", places, detail)


def _days(seconds: int) -> str:
    return f"{seconds / DAY_S:.1f}".removesuffix(".0")

"""Forecasts of some clients at a time: the model's, those of its stand-ins, and what is missing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from fl_inmetro.data.ailments import Reason, ailments
from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.forecast_table import fleet_rows
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.fallback import Ladder, Rungs, blamed
from fl_inmetro.metrics import Forecast, joined_forecasts
from fl_inmetro.trained import Model
from fl_inmetro.units import HOUR_S

#: Why a client is left out.
NO_MODEL = "FL212 it has no model of its own in this local-only run"
NO_PAST = "FL206 no day of readings in the four weeks before any issue time"


class Made:
    """What has been made so far."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.skipped: dict[str, str] = {}
        self.incomplete: dict[str, int] = {}
        self.stale_h: dict[str, int] = {}
        self.methods: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, windows: FleetWindows, trained: Model, ladder: Ladder) -> None:
        """Forecast the windows of some clients."""
        own = trained.forecast_fleet(windows)
        reasons: list[Reason | None] = [None] * len(windows)
        if ladder.settings.enabled:
            reasons = ailments(windows, ladder.settings)
        levels = ladder.levels_of(own, windows)
        parts: list[Rungs] = []
        for k, rows in enumerate(windows.rows()):
            name, why = windows.names[k], reasons[rows]
            if ladder.settings.enabled or name in ladder.annual_kwh:
                why = reasons[rows] = blamed(own[k], why)
            parts.append(ladder.serve(name, windows, k, own[k], why, levels))
            self._tell(windows, k, own[k], parts[-1], why)
        forecast = joined_forecasts([part.forecast for part in parts])
        method = [name for part in parts for name in part.method]
        if any(method):
            self.tables.append(fleet_rows(windows, forecast, method, reasons))

    def _tell(
        self,
        windows: FleetWindows,
        k: int,
        own: Forecast | None,
        served: Rungs,
        why: list[Reason | None],
    ) -> None:
        """Note who served a client, and what is missing."""
        name, issue_utc_s = windows.names[k], windows.one.issue_utc_s
        made = np.array([method is not None for method in served.method])
        if not made.any():
            self.skipped[name] = NO_MODEL if own is None else NO_PAST
            return
        self.methods.update(method for method in served.method if method is not None)
        self.reasons.update(
            str(reason) for reason, one in zip(why, made, strict=True) if one and reason
        )
        if made.sum() < len(made):
            self.incomplete[name] = len(made) - int(made.sum())
        series = windows.clients[k]
        if not len(series):
            return
        late_h = int(issue_utc_s[made][-1] - _last_reading_utc_s(series)) // HOUR_S
        if late_h >= 24:  # what a day-ahead model rests on most is not there
            self.stale_h[name] = late_h


def _last_reading_utc_s(series: ClientSeries) -> int:
    """Return the end of a client's last usable step."""
    known = np.flatnonzero(series.valid)
    return series.start_utc_s + (int(known[-1]) + 1 if known.size else 0) * series.resolution_s

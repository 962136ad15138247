"""A protocol's test, forecast and scored block by block: no more than a block is in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.protocols import ProtocolTest
from fl_inmetro.data.windows import Windows
from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.protocol import ProtocolSums, Yardstick

Floats = NDArray[np.float64]

#: Windows that are forecast at a time.
BLOCK = 256


def score_test(
    test: ProtocolTest, forecast: Callable[[Windows], Forecast]
) -> tuple[Yardstick, ProtocolSums]:
    """Forecast every window of a client's test and return what they are measured by and the sums.

    Args:
        test: The windows.
        forecast: Gives N windows their forecasts, (N, H), each from its own past alone.
    """
    windows, total = test.windows, ProtocolSums()
    measure = Yardstick.of(windows.series.energy_kwh[: test.fitted])
    season_kwh = _season_kwh(windows)
    for first in range(0, len(windows), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(windows)))
        block = windows.take(rows)
        made, target_kwh = forecast(block), block.target_kwh()
        if test.first_step:
            target_kwh = target_kwh.copy()
            target_kwh[:, : test.first_step] = np.nan  # not scored
        total += ProtocolSums.of(made, target_kwh, season_kwh[rows], measure)
    return measure, total


def _season_kwh(windows: Windows) -> Floats:
    """Return the mean daily change |y_t − y_{t−24 h}| of all before each issue; (N,), kWh."""
    day = steps_per_day(windows.series.resolution_s)
    energy = windows.series.energy_kwh
    change = np.full(energy.size, np.nan)
    change[day:] = np.abs(energy[day:] - energy[:-day])
    known = np.isfinite(change)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, change, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    before = np.clip(windows.issue_index, 0, energy.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = total[before] / count[before]
    return mean

"""The daily numbers that are watched: error, level and shape of a client's day-ahead forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Watched = Literal["level", "error", "shape"]
WATCHED: tuple[Watched, ...] = ("level", "error", "shape")

#: Local hours of the middle of the day: where rooftop generation shows.
_MIDDLE_H = (10, 16)
#: A day counts with so much of it known.
_LEAST_SHARE = 0.5
#: Largest factor between a day and its forecast; logarithms need one, and ranks do not mind.
_LARGEST = 100.0
#: Days of December and January on which nothing is as usual, where holidays are known.
_FROM_DECEMBER, _TO_JANUARY = 23, 2


@dataclass(frozen=True, eq=False)
class Daily:
    """One client's days; each array has shape (N,), NaN where a number is not known.

    Attributes:
        level: Logarithm of the day's energy over its forecast.
        error: Logarithm of the mean absolute error over the forecast's mean.
        shape: Level of the middle of the day (10 to 16 h, local) less that of the other hours.
        share: Share of the day's steps that were read.
        flat: Days all of whose readings are the same.
    """

    level: Floats
    error: Floats
    shape: Floats
    share: Floats
    flat: Bools

    def of(self, name: Watched) -> Floats:
        """Return one of the numbers that are watched."""
        return {"level": self.level, "error": self.error, "shape": self.shape}[name]


def daily(windows: Windows, forecast_kwh: Floats) -> Daily:
    """Compare the first day of each forecast with what was read.

    Holidays and the days after them are unknown where the client's calendar has holidays, and so
    are bridge days and those around the turn of the year: forecasts of them go wrong every time.

    Shapes: forecast (N, H), kWh per step, of the windows.
    """
    steps = min(windows.horizon, steps_per_day(windows.series.resolution_s))
    read = windows.target_kwh()[:, :steps]
    made = forecast_kwh[:, :steps]
    known = np.isfinite(read)
    both = known & np.isfinite(made)
    hour = windows.target_clock.second_of_day[:, :steps] // HOUR_S
    middle = (hour >= _MIDDLE_H[0]) & (hour < _MIDDLE_H[1])
    enough = both.mean(axis=1) >= _LEAST_SHARE
    usual = enough & ~_special(windows, steps)
    size = _mean(made, both)
    error = _mean(np.abs(read - made), both)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.clip(error / size, 1 / _LARGEST**2, _LARGEST)
    relative[~(size > 0)] = np.nan
    shape = _log_ratio(read, made, both & middle) - _log_ratio(read, made, both & ~middle)
    lowest = np.where(known, read, np.inf).min(axis=1, initial=np.inf)
    highest = np.where(known, read, -np.inf).max(axis=1, initial=-np.inf)
    share = known.mean(axis=1)
    return Daily(
        level=np.where(usual, _log_ratio(read, made, both), np.nan),
        error=np.where(usual, np.log(relative), np.nan),
        shape=np.where(usual, shape, np.nan),
        share=share,
        flat=(share >= _LEAST_SHARE) & (highest <= lowest),
    )


def _mean(values: Floats, known: Bools) -> Floats:
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _log_ratio(read: Floats, made: Floats, known: Bools) -> Floats:
    """Return the logarithm of what was read over what was forecast, (N,); NaN without a forecast.

    A meter that reads nothing, or gives back, is at the least factor.
    """
    above, below = _mean(read, known), _mean(made, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.clip(above / below, 1 / _LARGEST, _LARGEST)
        return np.where(below > 0, np.log(factor), np.nan)


def _special(windows: Windows, steps: int) -> Bools:
    """Tell which days are none to judge by, (N,)."""
    holidays = windows.series.site.holidays
    day = windows.target_clock.day[:, steps // 2]
    if holidays is None:
        return np.zeros(day.shape, dtype=np.bool_)
    dates = day.astype("datetime64[D]")
    month = dates.astype("datetime64[M]")
    of_month = (dates - month).astype(np.int64) + 1
    number = month.astype(np.int64) % 12
    turn = ((number == 11) & (of_month >= _FROM_DECEMBER)) | (
        (number == 0) & (of_month <= _TO_JANUARY)
    )
    special: Bools = holidays.off(day) | holidays.off(day - 1) | holidays.bridge(day) | turn
    return special

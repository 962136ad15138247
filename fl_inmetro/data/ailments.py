"""Why a model should not be asked for a client at an issue time: what its readings lack."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import MIN_SCALE_DAYS, TRAILING_DAYS
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Days of lags that the row features have.
LAG_DAYS = 14
#: A flat line is judged beside at least so many days of other readings.
LEAST_OTHER_DAYS = 7
#: At least this share of the steps of a flat line has been read.
LEAST_READ = 0.9


class Reason(StrEnum):
    """Why a forecast is not the model's; the value stands in the file of forecasts."""

    NO_MODEL = "no_model"
    TOO_FEW_READINGS = "too_few_readings"
    NO_READINGS = "no_readings"
    MISSING_LAGS = "missing_lags"
    FLAT_LINE = "flat_line"
    NOT_FINITE = "not_finite"


def ailments(windows: Windows, settings: Fallback) -> list[Reason | None]:
    """Return for each of N windows why the model should not be asked; None = it may be.

    - `no_readings`: the last one is older than `no_readings_days`;
    - `too_few_readings`: less than a day of them in the last 28 days, so there is no scale;
    - `missing_lags`: more than `max_missing_share` of the last 14 days is missing;
    - `flat_line`: see `flat_steps`.

    The first that holds is given.
    """
    per_day = steps_per_day(windows.series.resolution_s)
    recent = windows.past.lookback(TRAILING_DAYS * per_day)
    known = np.isfinite(recent)
    age = _steps_since_last(known)
    none = age >= settings.no_readings_days * per_day
    few = known.sum(axis=1) < MIN_SCALE_DAYS * per_day
    life = np.minimum(windows.past.steps_so_far(), LAG_DAYS * per_day)
    lags = known[:, -LAG_DAYS * per_day :].sum(axis=1)
    # A young meter has not lost what it never had.
    lacking = lags < (1 - settings.max_missing_share) * life
    flat = flat_steps(windows, settings, recent) > 0
    young = windows.past.steps_so_far() < MIN_SCALE_DAYS * per_day
    found: list[Reason | None] = [None] * len(windows)
    for mask, reason in (
        (flat, Reason.FLAT_LINE),
        (lacking, Reason.MISSING_LAGS),
        (few, Reason.TOO_FEW_READINGS),
        (none & ~young, Reason.NO_READINGS),
    ):
        for row in np.flatnonzero(mask):
            found[row] = reason
    return found


def flat_steps(windows: Windows, settings: Fallback, recent: Floats | None = None) -> Ints:
    """Return how many steps before each issue time are a meter's standstill; (N,), 0 = it moves.

    A standstill is the same value from the last reading back over at least `flat_h` hours, with
    nine in ten of its steps read. A meter whose load is often the same from step to step (a coarse
    register, an empty house, a roof that feeds in all day) or that has shown less than a week of
    anything else is not judged.
    """
    per_day = steps_per_day(windows.series.resolution_s)
    if recent is None:
        recent = windows.past.lookback(TRAILING_DAYS * per_day)
    known = np.isfinite(recent)
    steps = recent.shape[1]
    least = settings.flat_h * HOUR_S / windows.series.resolution_s
    nothing = np.zeros(len(recent), dtype=np.int64)
    if not settings.flat_h or not len(recent):
        return nothing
    last = steps - 1 - _steps_since_last(known)
    value = np.where(last >= 0, recent[np.arange(len(recent)), np.maximum(last, 0)], np.nan)
    other = known & (recent != value[:, None])
    # The latest reading of another value; −1 without any.
    turn = np.where(other.any(axis=1), steps - 1 - other[:, ::-1].argmax(axis=1), -1)
    flat = np.arange(steps) > turn[:, None]
    read = (known & flat).sum(axis=1)
    long = (last - turn >= least) & (read >= LEAST_READ * (last - turn)) & (last >= 0)
    if not long.any():
        return nothing
    before = known & ~flat
    pairs = before[:, 1:] & before[:, :-1]
    repeated = (pairs & (recent[:, 1:] == recent[:, :-1])).sum(axis=1)
    often = repeated > settings.usual_flat_share * pairs.sum(axis=1)
    judged = before.sum(axis=1) >= LEAST_OTHER_DAYS * per_day
    return np.where(long & judged & ~often, steps - 1 - turn, 0)


def _steps_since_last(known: Bools) -> Ints:
    """Return the steps without a reading before each issue time; the whole width without any."""
    width = known.shape[1]
    since: Ints = np.where(known.any(axis=1), known[:, ::-1].argmax(axis=1), width)
    return since

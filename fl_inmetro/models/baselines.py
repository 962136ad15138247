"""Forecasts that need no training: what any model has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.features import EWMA_WEIGHTS, TRAILING_DAYS, row_features
from fl_inmetro.data.windows import Windows
from fl_inmetro.metrics import Forecast

Floats = NDArray[np.float64]
Baseline = Callable[[Windows], Floats | Forecast]

#: Levels of the empirical quantiles.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def seasonal_naive_24h(windows: Windows) -> Floats:
    """SN-24: the same time yesterday. Shape (N, H), kWh; NaN where that reading is missing."""
    return windows.past.same_slot(np.array([1]), windows.horizon)[:, :, 0]


def seasonal_naive_168h(windows: Windows) -> Floats:
    """SN-168: the same time a week ago. Shape (N, H), kWh; NaN where that reading is missing."""
    return windows.past.same_week_slot(np.array([1]), windows.horizon)[:, :, 0]


def historical_average_4_weeks(windows: Windows) -> Floats:
    """HA4: mean of the same time on the same weekday over the last four weeks.

    Missing weeks are left out of the mean. Shape (N, H), kWh; NaN where all four are missing.
    """
    return _mean_known(windows.past.same_week_slot(np.arange(1, 5), windows.horizon))


def persistence_ensemble(windows: Windows) -> Floats:
    """Mean of the same time over the last seven days (BuildingsBench's strongest baseline).

    Source: Emami, Sahu & Graf (2023), arXiv 2307.00142. Shape (N, H), kWh.
    """
    return _mean_known(windows.past.same_slot(np.arange(1, 8), windows.horizon))


def day_type_mean(windows: Windows) -> Floats:
    """Mean of the same time on the days of the same type in the last 28: the base of all models.

    Day types are working day, Saturday and Sunday. Shape (N, H), kWh; NaN where the past is too
    short for a forecast.
    """
    rows = row_features(windows, ())
    result: Floats = rows.base.astype(np.float64) * rows.level.scale_kwh[:, None]
    return result


def median_28d(windows: Windows) -> Floats:
    """Median of the same time over the last 28 days. Shape (N, H), kWh; missing days left out."""
    return _quantiles(_slots(windows), (0.5,))[:, :, 0]


def ewma_slot(windows: Windows) -> Floats:
    """Mean of the same time over the last 28 days, each day back weighing 0.8 of the one after it.

    Missing days are left out, and the weights of the others sum to one. Shape (N, H), kWh.
    """
    slots = _slots(windows)
    known = np.isfinite(slots)
    weight = np.where(known, EWMA_WEIGHTS, 0.0)
    total = weight.sum(axis=2)
    mean: Floats = (np.where(known, slots, 0.0) * weight).sum(axis=2) / np.where(total, total, 1)
    return np.where(total > 0, mean, np.nan)


def slot_quantiles(windows: Windows) -> Forecast:
    """Mean and quantiles .1, .2, … .9 of the same time over the last 28 days.

    Quantiles between two readings are interpolated linearly (Hyndman & Fan 1996, type 7).
    """
    slots = _slots(windows)
    return Forecast(_mean_known(slots), LEVELS, _quantiles(slots, LEVELS))


#: Configuration name → forecast.
BASELINES: dict[str, Baseline] = {
    "sn24": seasonal_naive_24h,
    "sn168": seasonal_naive_168h,
    "ha4": historical_average_4_weeks,
    "persistence_ensemble": persistence_ensemble,
    "day_type_mean": day_type_mean,
    "median_28d": median_28d,
    "ewma_slot": ewma_slot,
    "slot_quantiles": slot_quantiles,
}


def _slots(windows: Windows) -> Floats:
    return windows.same_slot(np.arange(1, TRAILING_DAYS + 1))


def _quantiles(values: Floats, levels: tuple[float, ...]) -> Floats:
    """Return the quantiles of what is known along the last axis; (N, H, K) → (N, H, Q)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing known: NaN is the answer
        found: Floats = np.nanquantile(values, levels, axis=2)
    return np.moveaxis(found, 0, 2)


def _mean_known(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all weeks missing: NaN is the answer
        mean: Floats = np.nanmean(values, axis=2)
    return mean

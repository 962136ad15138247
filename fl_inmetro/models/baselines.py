"""Forecasts that need no training: what any model has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.windows import Windows

Floats = NDArray[np.float64]
Baseline = Callable[[Windows], Floats]


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


#: Configuration name → forecast.
BASELINES: dict[str, Baseline] = {
    "sn24": seasonal_naive_24h,
    "sn168": seasonal_naive_168h,
    "ha4": historical_average_4_weeks,
    "persistence_ensemble": persistence_ensemble,
}


def _mean_known(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all weeks missing: NaN is the answer
        mean: Floats = np.nanmean(values, axis=2)
    return mean

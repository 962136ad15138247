"""Where row features lie and how far they spread, as far as anybody knows without a reading.

Loads are relative to their client's own trailing mean, so that they lie around 1 and spread by
some half of it; the rest are waves, shares of days and weather. These are constants of meaning,
no estimates: to standardise by them tells nothing about anybody (`[privacy] scaler-share = 0`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: A load relative to the client's mean, and the difference of two such loads.
_LOAD, _DIFFERENCE = (1.0, 0.5), (0.0, 0.5)

#: Pattern of whole names → mean and standard deviation; and whether readings are behind it.
_SCALES: tuple[tuple[str, float, float, bool], ...] = (
    # A wave over whole periods has mean 0 and variance 1/2; on weekends alone, of 2 days in 7.
    (r"(sin|cos)_day_\d_weekend", 0.0, (1 / 7) ** 0.5, False),
    (r"(sin|cos)_day_\d|(sin|cos)_year|sun_sin_elevation", 0.0, 0.5**0.5, False),
    (r"weekday_\d", 1 / 7, (6 / 49) ** 0.5, False),
    (r"month_\d+", 1 / 12, (11 / 144) ** 0.5, False),
    (r"lead", 0.5, (1 / 12) ** 0.5, False),
    (r"public_holiday|optional_day|bridge_day|holiday_eve|day_after_holiday", 0.0, 0.2, False),
    (r"lag_\dd_holiday", 0.0, 0.2, False),
    (r"lag_7d_same_type", 1.0, 0.2, False),
    (r"clear_sky", 0.25, 0.3, False),
    (r"day_length", 0.5, 0.1, False),
    (r"temperature(_24h)?", 15.0, 10.0, False),
    (r"heating_degrees|cooling_degrees", 3.0, 5.0, False),
    (r"humidity", 65.0, 20.0, False),
    (r"irradiance", 200.0, 250.0, False),
    (r"(weather|tariff|pv)_missing", 0.0, 1.0, False),
    (r"tariff(_vs_mean)?", 0.0, 1.0, False),
    (r"pv_same_hour|pv_24h", 0.0, 1.0, True),
    (r"lag_\d+d|mean_\w+|median_\w+|ewma_28d|last_(step|\d+[hd])", *_LOAD, True),
    (r"slot_(q|day_type_q|all_q)\d+(_28d)?|(day|all)_q\d+(_28d)?", *_LOAD, True),
    (r"last_24h_vs_same_weekday|unusual_\d+h|slot_weekly_change", *_DIFFERENCE, True),
    (r"std_(7d|24h)|slot_std_28d|slot_iqr_7d", 0.4, 0.4, True),
    (r"missing_share|missing_24h|no_reading_24h", 0.0, 0.1, True),
    (r"ratio_7d_28d", 1.0, 0.2, True),
    (r"peak_24h", 2.0, 1.0, True),
    (r"(sin|cos)_peak_hour", 0.0, 0.5**0.5, True),
    (r"log_history_days", 5.0, 1.0, True),
    (r"log_such_days|log_known_days|log_silent_days", 2.5, 1.0, True),
    (r"no_such_day", 0.0, 0.3, True),
    (r"share_working_days|share_sundays|yesterday_is_such", 0.4, 0.4, True),
)


@dataclass(frozen=True, eq=False)
class PublicScales:
    """What is known of F features beforehand.

    Attributes:
        mean: Shape (F,).
        std: Shape (F,), above 0.
        of_readings: Shape (F,), False where calendar and weather alone are behind a feature.
        loads: Shape (F,), True where a feature is a load relative to the client's mean.
    """

    mean: Floats
    std: Floats
    of_readings: NDArray[np.bool_]
    loads: NDArray[np.bool_]


def public_scales(names: Sequence[str]) -> PublicScales:
    """Return the scales of features by their names (`data.features.feature_names`).

    Raises:
        KeyError: A feature that has none here.
    """
    rows = [_scale(name) for name in names]
    return PublicScales(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows], dtype=np.bool_),
        np.array([row[:2] == _LOAD and row[2] for row in rows], dtype=np.bool_),
    )


def _scale(name: str) -> tuple[float, float, bool]:
    for pattern, mean, std, of_readings in _SCALES:
        if re.fullmatch(pattern, name):
            return mean, std, of_readings
    raise KeyError(f"the feature `{name}` has no public scale")

"""Row features: one row per forecast step, from the past of its issue time and the calendar alone.

Everything is divided by the client's own trailing mean at the issue time, so that clients of any
size share one model and the scale never leaves the client. The same function serves training,
scoring, and clients that no one has seen before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_of_hours, steps_per_day
from fl_inmetro.data.history import HISTORY_GROUPS, history
from fl_inmetro.data.holidays import HOLIDAY, SUNDAY
from fl_inmetro.data.known_ahead import AHEAD_GROUPS, known_ahead
from fl_inmetro.data.profiles import deviation, first_known, mean, quantile
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

#: Days of the past that the features look at.
TRAILING_DAYS = 28
#: A scale needs at least this share of a day of usable readings.
MIN_SCALE_DAYS = 1.0
#: The scale is at least this share of the mean of all readings so far.
MIN_SHARE_OF_USUAL = 0.25
#: A window is trained on only with so many days of usable readings behind its scale.
MIN_TRAIN_DAYS = 7.0
#: Weights per day of the exponentially weighted profile.
EWMA_WEIGHTS: Floats = np.power(0.8, np.arange(TRAILING_DAYS, dtype=np.float64))

GROUPS: dict[str, tuple[str, ...]] = {
    "lags": tuple(f"lag_{day}d" for day in range(1, 15)),
    "day_profiles": (
        "mean_same_weekday_4w",
        "mean_day_type_28d",
        "median_day_type_28d",
        "mean_7d",
        "ewma_28d",
        "median_28d",
    ),
    "recent": (
        "last_step",
        "last_3h",
        "last_6h",
        "last_24h",
        "last_7d",
        "std_7d",
        "slot_q10_28d",
        "slot_q90_28d",
        "last_24h_vs_same_weekday",
        "missing_share",
    ),
    "calendar": (
        *(f"{wave}_day_{k}" for k in (1, 2, 3, 4) for wave in ("sin", "cos")),
        *(f"weekday_{day}" for day in range(7)),
        *(f"{wave}_day_{k}_weekend" for k in (1, 2) for wave in ("sin", "cos")),
        "lead",
    ),
    # Not among the defaults: with less than some years of training the day of the year is a trend,
    # and a linear model carries it far beyond what it has seen.
    "season": ("sin_year", "cos_year"),
    **AHEAD_GROUPS,
    **HISTORY_GROUPS,
}


def feature_names(groups: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of the chosen groups, in order."""
    return tuple(name for group in GROUPS if group in groups for name in GROUPS[group])


@dataclass(frozen=True, eq=False)
class RowFeatures:
    """Features of N windows.

    Attributes:
        x: Shape (N, H, F), dimensionless.
        base: Shape (N, H), the profile that models correct, in units of the scale: the mean of the
            day type over 28 days.
        median: Shape (N, H), its median.
        level: What each window's recent past says of the client's level.
    """

    x: Rows
    base: Rows
    median: Rows
    level: Level


@dataclass(frozen=True, eq=False)
class Level:
    """The level of a client's load at N issue times, from the 28 days before each.

    Attributes:
        scale_kwh: Shape (N,), the trailing mean per step, or a quarter of the mean of all readings
            so far (or `Windows.floor_share` of it) where that is more; NaN with less than a day of
            usable readings, or when they are all zero.
        floor_kwh: Shape (N,), the lowest forecast that makes sense: zero, or the lowest reading of
            a meter that has shown negative ones (net consumption).
        known_days: Shape (N,), days of usable readings behind them.
        least_days: So many of them a window needs to be trained on.
    """

    scale_kwh: Floats
    floor_kwh: Floats
    known_days: Floats
    least_days: float = MIN_TRAIN_DAYS

    @property
    def trainable(self) -> NDArray[np.bool_]:
        """Shape (N,): True where the level is settled enough to train on.

        A scale from a few days can be far off (a shop seen first on a holiday): good enough to
        forecast with when there is nothing better, but one such window outweighs all others in a
        squared loss.
        """
        return np.isfinite(self.scale_kwh) & (self.known_days >= self.least_days)


def trailing_level(windows: Windows) -> Level:
    """Return the level of each window."""
    per_day = steps_per_day(windows.series.resolution_s)
    recent = windows.past.lookback(TRAILING_DAYS * per_day)
    known = np.isfinite(recent)
    count = known.sum(axis=1)
    filled = np.where(known, recent, 0.0)
    recent_mean = filled.sum(axis=1) / np.maximum(count, 1)
    # After weeks of vacancy or of a meter at standstill the trailing mean is next to nothing, and
    # every normal hour would be hundreds of times the scale.
    share = MIN_SHARE_OF_USUAL if windows.floor_share is None else windows.floor_share
    level = np.maximum(recent_mean, share * windows.past.mean_so_far()) if share else recent_mean
    enough = (count >= MIN_SCALE_DAYS * per_day) & (level > 0)
    return Level(
        scale_kwh=np.where(enough, level, np.nan),
        floor_kwh=np.minimum(filled.min(axis=1), 0.0),
        known_days=count / per_day,
        least_days=MIN_TRAIN_DAYS if windows.least_days is None else windows.least_days,
    )


def row_features(windows: Windows, groups: Sequence[str]) -> RowFeatures:
    """Compute the row features of one client's windows.

    A value that is missing is replaced by the next best profile: day-type mean, then the mean of
    the slot, then the trailing mean; `missing_share` tells the model how much that was.
    """
    horizon = windows.horizon
    level = trailing_level(windows)
    scale_kwh, missing = level.scale_kwh, 1.0 - level.known_days / TRAILING_DAYS
    # An all-missing slice is an expected case here; it is filled below. (No filter of warnings: it
    # would be one for all threads.)
    with np.errstate(invalid="ignore", divide="ignore"):
        days = np.arange(1, TRAILING_DAYS + 1)
        # (N, H, K): the same time of day on the last K days, in units of the scale.
        slots = windows.same_slot(days) / scale_kwh[:, None, None]
        slot_mean = mean(slots)
        earlier_type = windows.day_types(windows.slot_clock(days))
        typed = np.where(_day_types_match(windows, earlier_type), slots, np.nan)
        day_type = first_known(mean(typed), slot_mean, np.ones_like(slot_mean))
        median = first_known(quantile(np.sort(typed, axis=2), 0.5), day_type)

        columns: list[Floats] = []
        in_order = np.sort(slots, axis=2)  # NaN last
        if "lags" in groups:
            lags = slots[:, :, :14]
            columns += list(np.moveaxis(np.where(np.isnan(lags), day_type[..., None], lags), 2, 0))
        if "day_profiles" in groups:
            weeks = windows.same_week_slot(np.arange(1, 5)) / scale_kwh[:, None, None]
            profiles = (
                mean(weeks),
                day_type,
                median,
                mean(slots[:, :, :7]),
                mean(slots, EWMA_WEIGHTS),
                quantile(in_order, 0.5),
            )
            columns += [first_known(profile, day_type) for profile in profiles]
        if "recent" in groups:
            columns += _recent(windows, scale_kwh, in_order, day_type, missing)
    if "calendar" in groups:
        columns += _calendar(windows)
    if "season" in groups:
        columns += _season(windows)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns += known_ahead(windows, groups, scale_kwh)
        columns += history(windows, groups, scale_kwh, slots, typed, day_type, earlier_type)
    x = np.stack(columns, axis=2) if columns else np.zeros((len(windows), horizon, 0))
    return RowFeatures(
        x=np.nan_to_num(x, posinf=0.0, neginf=0.0).astype(np.float32),
        base=np.nan_to_num(day_type, posinf=0.0, neginf=0.0).astype(np.float32),
        median=np.nan_to_num(median, posinf=0.0, neginf=0.0).astype(np.float32),
        level=level,
    )


# ------------------------------------------------------------------------------ internals
def _day_types_match(windows: Windows, earlier: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for (N, H, K) whether a day of an earlier type is of the target's day type.

    A holiday of a type of its own that has no other among the earlier days is as a Sunday.
    """
    target = windows.day_types(windows.target_clock)[..., None]
    match: NDArray[np.bool_] = earlier == target
    if windows.series.site.holidays is not None:
        alone = (target == HOLIDAY) & ~match.any(axis=2, keepdims=True)
        match = np.where(alone, earlier == SUNDAY, match)
    return match


def _recent(
    windows: Windows,
    scale_kwh: Floats,
    in_order: Floats,
    day_type: Floats,
    missing: Floats,
) -> list[Floats]:
    resolution_s = windows.series.resolution_s
    per_day = steps_per_day(resolution_s)
    days = windows.past.lookback(TRAILING_DAYS * per_day) / scale_kwh[:, None]
    week = days[:, -7 * per_day :]

    def mean_of_last(steps: int) -> Floats:
        return first_known(mean(week[:, -steps:]), np.ones(len(windows)))

    # By day, the last 24 h first: (N, 28, steps of a day).
    by_day = days.reshape(len(windows), TRAILING_DAYS, per_day)[:, ::-1]
    same_weekday = mean(by_day[:, [7, 14, 21]].reshape(len(windows), 3 * per_day))
    shape = (len(windows), windows.horizon)

    def spread(value: Floats) -> Floats:
        return np.broadcast_to(value[:, None], shape)

    return [
        spread(mean_of_last(1)),
        spread(mean_of_last(steps_of_hours(3, resolution_s))),
        spread(mean_of_last(steps_of_hours(6, resolution_s))),
        spread(mean_of_last(per_day)),
        spread(mean_of_last(7 * per_day)),
        spread(first_known(deviation(week), np.zeros(len(windows)))),
        first_known(quantile(in_order, 0.1), day_type),
        first_known(quantile(in_order, 0.9), day_type),
        spread(first_known(mean(by_day[:, 0]) - same_weekday, np.zeros(len(windows)))),
        spread(missing),
    ]


def _calendar(windows: Windows) -> list[Floats]:
    clock = windows.target_clock
    angle = 2 * np.pi * clock.second_of_day / DAY_S
    weekend = (clock.day_type > 0).astype(np.float64)
    day_waves = [wave(k * angle) for k in (1, 2, 3, 4) for wave in (np.sin, np.cos)]
    lead = np.broadcast_to(
        np.arange(windows.horizon) / max(windows.horizon - 1, 1), clock.weekday.shape
    )
    return [
        *day_waves,
        *((clock.weekday == day).astype(np.float64) for day in range(7)),
        *(wave * weekend for wave in day_waves[:4]),
        lead,
    ]


def _season(windows: Windows) -> list[Floats]:
    year = 2 * np.pi * windows.target_clock.day_of_year / 365.25
    return [np.sin(year), np.cos(year)]

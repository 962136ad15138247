"""More row features of the past: distribution and dispersion of the slot, longer memory, age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import local_clock, steps_of_hours, steps_per_day
from fl_inmetro.data.holidays import SUNDAY, WORKING_DAY
from fl_inmetro.data.profiles import deviation, first_known, mean, quantile
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Levels of the slot's quantiles.
SLOT_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
#: The mean of 28 days that the last week is compared with is at least so much of the scale.
MIN_MEAN = 0.25

HISTORY_GROUPS: dict[str, tuple[str, ...]] = {
    "slots": tuple(
        f"slot_{which}_q{round(level * 100):02d}"
        for which in ("day_type", "all")
        for level in SLOT_LEVELS
    ),
    "dispersion": ("slot_std_28d", "slot_iqr_7d", "slot_weekly_change"),
    "longer": (
        "mean_same_weekday_8w",
        "ratio_7d_28d",
        "peak_24h",
        "sin_peak_hour",
        "cos_peak_hour",
        "missing_24h",
    ),
    "lately": (
        "last_2h",
        "last_12h",
        "last_48h",
        "unusual_1h",
        "unusual_3h",
        "unusual_6h",
        "unusual_24h",
        "std_24h",
        *(f"day_q{level}" for level in (10, 50, 90)),
        *(f"all_q{level:02d}_28d" for level in (2, 10, 50, 90)),
    ),
    "age": ("log_history_days",),
    "known_days": (
        "no_such_day",
        "log_such_days",
        "log_known_days",
        "share_working_days",
        "share_sundays",
        "yesterday_is_such",
    ),
    "silence": ("no_reading_24h", "log_silent_days"),
}


def history(
    windows: Windows,
    groups: Sequence[str],
    scale_kwh: Floats,
    slots: Floats,
    typed: Floats,
    day_type: Floats,
    earlier_type: Ints,
) -> list[Floats]:
    """Return the columns of the chosen groups of `HISTORY_GROUPS`, each of shape (N, H).

    Args:
        windows: The windows.
        groups: Names of groups.
        scale_kwh: Shape (N,).
        slots: Shape (N, H, 28), the same time of day on the last 28 days in units of the scale.
        typed: The same, NaN on days of another type than the target's.
        day_type: Shape (N, H), the base profile; takes the place of what is missing.
        earlier_type: Shape (N, H, 28), the types of those days.
    """
    columns: list[Floats] = []
    if "slots" in groups:
        for values in (typed, slots):
            in_order = np.sort(values, axis=2)
            columns += [first_known(quantile(in_order, level), day_type) for level in SLOT_LEVELS]
    if "dispersion" in groups:
        columns += _dispersion(slots)
    if "longer" in groups:
        columns += _longer(windows, scale_kwh, day_type)
    if "lately" in groups:
        columns += _lately(windows, scale_kwh)
    if "age" in groups:
        days = windows.past.steps_so_far() * windows.series.resolution_s / DAY_S
        columns.append(_spread(np.log1p(days), windows))
    if "known_days" in groups:
        columns += _known_days(slots, typed, earlier_type)
    if "silence" in groups:
        columns += _silence(windows)
    return columns


def _known_days(slots: Floats, typed: Floats, earlier_type: Ints) -> list[Floats]:
    """Return what the profiles of the slot rest on: how many days, and of which types.

    Three days of readings often hold no day of the target's type; how far a profile of them can be
    believed depends on which they were.
    """
    known, such = np.isfinite(slots), np.isfinite(typed)
    count, such_count = known.sum(axis=2), such.sum(axis=2)
    some = np.maximum(count, 1)
    return [
        (such_count == 0).astype(np.float64),
        np.log1p(such_count),
        np.log1p(count),
        (known & (earlier_type == WORKING_DAY)).sum(axis=2) / some,
        (known & (earlier_type == SUNDAY)).sum(axis=2) / some,
        such[:, :, 0].astype(np.float64),
    ]


def _silence(windows: Windows) -> list[Floats]:
    """Return how long there has been no reading, up to 28 days: whether for a day, and log(1 + d).

    The last hours of a silent meter are filled by its profile, which hides that they are not known.
    """
    per_day = steps_per_day(windows.series.resolution_s)
    known = np.isfinite(windows.past.lookback(28 * per_day))
    since = np.where(known.any(axis=1), known[:, ::-1].argmax(axis=1), 28 * per_day)
    days = since / per_day
    columns = ((days >= 1).astype(np.float64), np.log1p(days))
    return [_spread(column, windows) for column in columns]


def _dispersion(slots: Floats) -> list[Floats]:
    nothing = np.zeros(slots.shape[:2])
    week = np.sort(slots[:, :, :7], axis=2)
    iqr = quantile(week, 0.75) - quantile(week, 0.25)
    change = mean(np.abs(slots[:, :, :21] - slots[:, :, 7:]))
    std = np.sqrt(mean((slots - mean(slots)[..., None]) ** 2))
    return [first_known(one, nothing) for one in (std, iqr, change)]


def _longer(windows: Windows, scale_kwh: Floats, day_type: Floats) -> list[Floats]:
    per_day = steps_per_day(windows.series.resolution_s)
    weeks = windows.same_week_slot(np.arange(1, 9))
    recent = windows.past.lookback(28 * per_day) / scale_kwh[:, None]
    one = np.ones(len(windows))
    whole = np.maximum(first_known(mean(recent), one), MIN_MEAN)
    ratio = first_known(mean(recent[:, -7 * per_day :]) / whole, one)
    day = recent[:, -per_day:]
    known = np.isfinite(day)
    place = np.where(known, day, -np.inf).argmax(axis=1)
    peak = np.where(known.any(axis=1), day[np.arange(len(day)), place], 1.0)
    at_utc_s = windows.issue_utc_s - (per_day - place) * windows.series.resolution_s
    angle = 2 * np.pi * local_clock(at_utc_s, windows.zone).second_of_day / DAY_S
    # Without a reading there is no hour: neither sine nor cosine.
    seen = known.any(axis=1)
    columns = (
        ratio,
        peak,
        np.where(seen, np.sin(angle), 0.0),
        np.where(seen, np.cos(angle), 0.0),
        1.0 - known.mean(axis=1),
    )
    same_weekday = first_known(mean(weeks / scale_kwh[:, None, None]), day_type)
    return [same_weekday, *(_spread(column, windows) for column in columns)]


def _lately(windows: Windows, scale_kwh: Floats) -> list[Floats]:
    """Return the last hours, how unusual they were for their time of day, and what is usual at all.

    Unusual is a reading minus the median of that time of day over the 27 days before.
    """
    per_day = steps_per_day(windows.series.resolution_s)
    month = windows.past.lookback(28 * per_day) / scale_kwh[:, None]
    by_day = month.reshape(len(windows), 28, per_day)
    usual = quantile(np.sort(by_day[:, :-1], axis=1).swapaxes(1, 2), 0.5)
    unusual = by_day[:, -1] - usual
    day, every = np.sort(by_day[:, -1], axis=1), np.sort(month, axis=1)
    one, nothing = np.ones(len(windows)), np.zeros(len(windows))

    def last(hours: int) -> int:
        return steps_of_hours(hours, windows.series.resolution_s)

    columns = [
        *(first_known(mean(month[:, -last(hours) :]), one) for hours in (2, 12, 48)),
        *(first_known(mean(unusual[:, -last(hours) :]), nothing) for hours in (1, 3, 6)),
        first_known(mean(unusual), nothing),
        first_known(deviation(by_day[:, -1]), nothing),
        *(first_known(quantile(day, level), one) for level in (0.1, 0.5, 0.9)),
        *(first_known(quantile(every, level), one) for level in (0.02, 0.1, 0.5, 0.9)),
    ]
    return [_spread(column, windows) for column in columns]


def _spread(value: Floats, windows: Windows) -> Floats:
    return np.broadcast_to(value[:, None], (len(windows), windows.horizon))

"""A client of few readings, or of none: hidden pasts, and the profile that a fleet lends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.data.calendar import LocalClock, local_clock, steps_per_day
from fl_inmetro.data.features import MIN_SCALE_DAYS, TRAILING_DAYS, trailing_level
from fl_inmetro.data.holidays import HOLIDAY, SUNDAY
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A hidden past whose scale differs by more than this factor from the settled one is not trained
#: on: such a window would outweigh many others.
MAX_SCALE_RATIO = 4.0
#: The most last days that are hidden from a window to train on.
HIDDEN_DAYS = 7
#: Days that a lent past reaches back: the longest memory of the row features, and a day.
LENT_DAYS = 57
#: Working day, Saturday, Sunday, holiday.
DAY_TYPES = 4


def last_days(windows: Windows, days: float) -> Windows:
    """Return the same forecasts, each with only the last `days` days before it to be seen."""
    steps = round(days * steps_per_day(windows.series.resolution_s))
    return replace(windows, visible_from=windows.issue_index - steps)


def since(windows: Windows, begin_utc_s: int, days: float) -> Windows:
    """Return the same forecasts of a meter that was installed `days` days before an instant."""
    series = windows.series
    begin = (begin_utc_s - series.start_utc_s) // series.resolution_s
    first = begin - round(days * steps_per_day(series.resolution_s))
    return replace(windows, visible_from=np.full(len(windows), first, dtype=np.int64))


def own_days(windows: Windows, end_utc_s: int, days: float) -> Windows:
    """Return the windows that a client can train on who has `days` days of readings at an instant.

    All of a window lies within those days, and every forecast has a day of them behind it.
    """
    series = windows.series
    end = (end_utc_s - series.start_utc_s) // series.resolution_s
    per_day = steps_per_day(series.resolution_s)
    first = end - round(days * per_day)
    index = windows.issue_index
    inside = (index >= first + MIN_SCALE_DAYS * per_day) & (index + windows.reach <= end)
    chosen = windows.take(inside)
    visible_from = np.full(len(chosen), first, dtype=np.int64)
    return replace(chosen, visible_from=visible_from, least_days=MIN_SCALE_DAYS)


def shortened(windows: Windows, share: float) -> Windows:
    """Add a share of the training windows again with their older past hidden: young meters.

    The visible days of such a window are drawn from 1 to 28 with their logarithm uniform: half of
    them are below six. Which windows and how many days depends on the client's name alone, so they
    are the same in every run. Windows that could not be trained on with their whole past are left
    out, and so is a hidden past that changes the scale more than `MAX_SCALE_RATIO`-fold.

    Shapes: windows by time of issue; one whose past is hidden comes right after its own.
    """
    level = trailing_level(windows)
    windows = windows.take(level.trainable)
    rng = seeds.derive(0, "short histories", windows.series.client_id)
    chosen = np.flatnonzero(rng.random(len(windows)) < share)
    days = _log_uniform(rng.random(len(windows)), TRAILING_DAYS)[chosen]
    young = windows.take(chosen)
    visible = young.issue_index - days * steps_per_day(windows.series.resolution_s)
    hidden = replace(young, visible_from=visible)
    return _joined(windows, chosen, hidden, level.scale_kwh[level.trainable])


def silenced(windows: Windows, share: float) -> Windows:
    """Add a share of the training windows again with their last days hidden: silent meters.

    The hidden days of such a window are drawn from 1 to 7 with their logarithm uniform: a third of
    them are one. What is drawn, what is left out and how the windows are ordered is as with
    `shortened`, whose windows may be the ones that are added again.
    """
    level = trailing_level(windows)
    windows = windows.take(level.trainable)
    rng = seeds.derive(0, "hidden endings", windows.series.client_id)
    chosen = np.flatnonzero(rng.random(len(windows)) < share)
    days = _log_uniform(rng.random(len(windows)), HIDDEN_DAYS)[chosen]
    hidden = without_last_days(windows.take(chosen), days)
    return _joined(windows, chosen, hidden, level.scale_kwh[level.trainable])


def most_windows(count: int, share: float) -> int:
    """Return the most windows that `shortened` or `silenced` makes of `count`, to all likelihood.

    The mean of the binomial count and six deviations: one client in a billion draws more.
    """
    deviation = np.sqrt(count * share * (1 - share))
    return count + min(int(np.ceil(count * share + 6 * deviation)), count)


def without_last_days(windows: Windows, days: float | Ints) -> Windows:
    """Return the same forecasts of a meter silent for the last `days` days, one number or (N,)."""
    steps = np.round(days * np.float64(steps_per_day(windows.series.resolution_s)))
    return replace(windows, visible_until=windows.issue_index - steps.astype(np.int64))


@dataclass(frozen=True, eq=False)
class ProfileSums:
    """What a client may share of its last four weeks; the sums of several clients add up.

    Attributes:
        share: Shape (4, S), sum of load / scale by day type and step of the day.
        count: Shape (4, S), number of readings in it.
    """

    share: Floats
    count: Floats

    @classmethod
    def of(cls, windows: Windows, issue_utc_s: int) -> ProfileSums:
        """Return the sums of the 28 days before an instant; zeros for a client without a scale."""
        series = windows.series
        per_day = steps_per_day(series.resolution_s)
        index = np.array([(issue_utc_s - series.start_utc_s) // series.resolution_s])
        at = replace(windows, issue_index=index, visible_from=None)
        scale_kwh = float(trailing_level(at).scale_kwh[0])
        zero = np.zeros((DAY_TYPES, per_day))
        if not np.isfinite(scale_kwh):
            return cls(zero, zero.copy())
        steps = TRAILING_DAYS * per_day
        values = at.past.lookback(steps)[0] / scale_kwh
        instants = issue_utc_s + np.arange(-steps, 0) * series.resolution_s
        kind, slot = _places(at, local_clock(instants, at.zone))
        known = np.isfinite(values)
        share, count = zero, zero.copy()
        np.add.at(share, (kind[known], slot[known]), values[known])
        np.add.at(count, (kind[known], slot[known]), 1.0)
        return cls(share, count)

    def __add__(self, other: ProfileSums) -> ProfileSums:
        return ProfileSums(self.share + other.share, self.count + other.count)


@dataclass(frozen=True, eq=False)
class FleetProfile:
    """How a fleet's load goes by day type and step of the day, and how large a client of it is.

    Attributes:
        share: Shape (4, S), mean of load / scale; without a gap.
        scale_kwh: Median of the clients' scales, kWh per step; NaN where they are not told.
        total: The sums that it was made of, where it was.
    """

    share: Floats
    scale_kwh: float
    total: ProfileSums | None = None

    @classmethod
    def of(cls, clients: Iterable[Windows], issue_utc_s: int) -> FleetProfile:
        """Return the profile of clients at an instant, from the 28 days before it.

        A holiday that nobody has seen is as a Sunday, a Saturday or Sunday that nobody has seen as
        any day, and a step that nobody has seen is at the scale.

        Raises:
            ValueError: No client has a scale.
        """
        total: ProfileSums | None = None
        scales: list[float] = []
        for windows in clients:
            own = ProfileSums.of(windows, issue_utc_s)
            total = own if total is None else total + own
            series = windows.series
            index = np.array([(issue_utc_s - series.start_utc_s) // series.resolution_s])
            at = replace(windows, issue_index=index, visible_from=None)
            scales += [float(s) for s in trailing_level(at).scale_kwh if np.isfinite(s)]
        if total is None or not scales:
            raise ValueError("no client has a scale")
        return cls.from_sums(total, float(np.median(scales)))

    @classmethod
    def from_sums(cls, total: ProfileSums, scale_kwh: float) -> FleetProfile:
        """Return the profile of the summed clients; `scale_kwh` is the median of their scales."""
        with np.errstate(invalid="ignore", divide="ignore"):
            share = total.share / total.count
            any_day = total.share.sum(axis=0) / total.count.sum(axis=0)
        any_day = np.where(np.isnan(any_day), 1.0, any_day)
        share[:HOLIDAY] = np.where(np.isnan(share[:HOLIDAY]), any_day, share[:HOLIDAY])
        share[HOLIDAY] = np.where(np.isnan(share[HOLIDAY]), share[SUNDAY], share[HOLIDAY])
        return cls(share, scale_kwh, total)

    def packed(self) -> dict[str, Floats]:
        """Return what can be kept: the fleet's sums. The size of its clients is not among them.

        Raises:
            ValueError: It was not made of sums.
        """
        if self.total is None:
            raise ValueError("a profile is kept as the sums that it was made of")
        return {"share": self.total.share, "count": self.total.count}

    @classmethod
    def unpacked(cls, arrays: Mapping[str, Floats]) -> FleetProfile:
        """Return the profile of what `packed` returned; its size is not known (NaN)."""
        return cls.from_sums(ProfileSums(arrays["share"], arrays["count"]), float("nan"))

    def forecast_kwh(self, windows: Windows, scale_kwh: float) -> Floats:
        """Return the profile at a client's size; shape (N, H)."""
        kind, slot = _places(windows, windows.target_clock)
        result: Floats = self.share[kind, slot] * scale_kwh
        return result

    def lend(self, windows: Windows, scale_kwh: float) -> Windows:
        """Return the forecasts with the profile at a client's size as their past.

        Nothing of the client's own readings is in it; a model finds in it what it finds in a past.
        """
        series = windows.series
        per_day = steps_per_day(series.resolution_s)
        first = int(windows.issue_index.min()) - LENT_DAYS * per_day if len(windows) else 0
        last = int(windows.issue_index.max()) if len(windows) else 0
        start_utc_s = series.start_utc_s + first * series.resolution_s
        instants = start_utc_s + np.arange(last - first) * series.resolution_s
        kind, slot = _places(windows, local_clock(instants, windows.zone))
        lent = ClientSeries(
            series.client_id,
            start_utc_s,
            series.resolution_s,
            self.share[kind, slot] * scale_kwh,
            series.site,
        )
        return replace(
            windows, series=lent, issue_index=windows.issue_index - first, visible_from=None
        )


def annual_scale_kwh(annual_kwh: float, resolution_s: int) -> float:
    """Return the mean energy of a step of a client that uses so much in 365 days."""
    return annual_kwh * resolution_s / (365 * DAY_S)


# ------------------------------------------------------------------------------ internals
def _log_uniform(uniform: Floats, most: int) -> Ints:
    """Return whole days from 1 to `most` of numbers between 0 and 1."""
    days: Ints = np.clip(np.floor(np.power(most + 1.0, uniform)), 1, most).astype(np.int64)
    return days


def _joined(windows: Windows, chosen: Ints, hidden: Windows, settled_kwh: Floats) -> Windows:
    """Return windows, and after each the one of `hidden` (C,) that hides a part of its past.

    Args:
        windows: N windows, all trainable.
        chosen: Shape (C,), which of them are there once more.
        hidden: C windows.
        settled_kwh: Shape (N,), the scales of the whole pasts.
    """
    hidden = replace(hidden, least_days=MIN_SCALE_DAYS)
    with np.errstate(invalid="ignore"):
        ratio = trailing_level(hidden).scale_kwh / settled_kwh[chosen]
        usable = (ratio <= MAX_SCALE_RATIO) & (ratio >= 1 / MAX_SCALE_RATIO)
    order = np.argsort(np.concatenate([np.arange(len(windows)), chosen[usable]]), kind="stable")
    added = hidden.take(usable)

    def both(own: Ints | None, other: Ints | None, everything: Ints) -> Ints | None:
        if own is None and other is None:
            return None
        first = everything if own is None else own
        then = everything[chosen[usable]] if other is None else other
        return np.concatenate([first, then])[order]

    nothing_hidden = np.zeros(len(windows), dtype=np.int64)
    return replace(
        windows,
        issue_index=np.concatenate([windows.issue_index, added.issue_index])[order],
        visible_from=both(windows.visible_from, added.visible_from, nothing_hidden),
        visible_until=both(windows.visible_until, added.visible_until, windows.issue_index),
        least_days=MIN_SCALE_DAYS,
    )


def _places(windows: Windows, clock: LocalClock) -> tuple[Ints, Ints]:
    """Return the day types and the steps of the day of instants."""
    slot: Ints = clock.second_of_day // windows.series.resolution_s
    return windows.day_types(clock), slot

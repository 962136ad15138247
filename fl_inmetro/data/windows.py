"""Supervised windows without look-ahead: indices into a client's series, and what each may know.

A window is an index, not a copy: `Windows` holds the steps at which forecasts are issued. Baselines
and learners are handed `Windows`, which also have `series` and `target_kwh()`, for training and
scoring. What protects is that every feature goes through `windows.past`, a `Past` that refuses any
value at or after an issue time, and that property tests replace the future by garbage and find the
forecasts unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import (
    LocalClock,
    changes,
    local_clock,
    steps_forward,
    steps_per_day,
    steps_per_week,
)
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import DAY_S, HOUR_S, iso_utc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Past:
    """A client's readings as seen from N issue times; it cannot return a later value.

    Every access goes through `at`, which checks each step against the issue time of its row, so a
    feature with a look-ahead fails when it is written and not when it is deployed. With
    `visible_from` (N,), steps before it are as if they had never been read, and with
    `visible_until` (N,) those from it on. A forecast begins `lead` steps after its issue time.
    """

    __slots__ = (
        "__energy_kwh",
        "__visible_from",
        "__visible_until",
        "issue_index",
        "lead",
        "resolution_s",
    )

    def __init__(
        self,
        series: ClientSeries,
        issue_index: Ints,
        visible_from: Ints | None = None,
        lead: int = 0,
        visible_until: Ints | None = None,
    ) -> None:
        last = int(issue_index.max()) if issue_index.size else 0
        self.__energy_kwh = series.energy_kwh[: max(last, 0)]
        self.__visible_from = visible_from
        self.__visible_until = visible_until
        self.issue_index = issue_index
        self.lead = lead
        self.resolution_s = series.resolution_s

    def at(self, index: Ints) -> Floats:
        """Return the energy of steps, NaN before the series begins and outside what is visible.

        Shapes: index (N, …) → (N, …), kWh; row n belongs to issue n.

        Raises:
            DataError: FL213, a step at or after its row's issue time was asked for.
        """
        issue = self.issue_index.reshape(-1, *([1] * (index.ndim - 1)))
        if (index >= issue).any():
            row = int(np.argwhere((index >= issue).reshape(len(issue), -1).any(axis=1))[0, 0])
            raise DataError(
                Fault(
                    "FL213",
                    "a forecaster asked for a reading that its issue time does not know yet",
                    f"issue step {int(self.issue_index[row])}",
                    "use lags of at least the forecast horizon, or `same_slot`",
                )
            )
        # A series shorter than the issue time is simply unknown there: a forecast may be issued
        # after the last reading.
        size = self.__energy_kwh.size
        inside = (index >= 0) & (index < size)
        if self.__visible_from is not None:
            inside &= index >= self.__visible_from.reshape(issue.shape)
        if self.__visible_until is not None:
            inside &= index < self.__visible_until.reshape(issue.shape)
        if size == 0:
            return np.full(index.shape, np.nan)
        return np.where(inside, self.__energy_kwh[np.where(inside, index, 0)], np.nan)

    def mean_so_far(self) -> Floats:
        """Return the mean of all that is visible before each issue time; (N,), NaN without any."""
        known = np.isfinite(self.__energy_kwh)
        total = np.concatenate([[0.0], np.cumsum(np.where(known, self.__energy_kwh, 0.0))])
        count = np.concatenate([[0], np.cumsum(known)])
        # The array ends at the last issue time; each row reads only up to its own.
        end = self.issue_index
        if self.__visible_until is not None:
            end = np.minimum(end, self.__visible_until)
        before = np.clip(end, 0, known.size)
        if self.__visible_from is None:
            sums, counts = total[before], count[before]
        else:
            first = np.clip(self.__visible_from, 0, before)
            sums, counts = total[before] - total[first], count[before] - count[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = sums / counts
        return mean

    def steps_so_far(self) -> Ints:
        """Return the steps from the first reading to each issue time; (N,), 0 without any."""
        known = np.flatnonzero(np.isfinite(self.__energy_kwh))
        if not known.size:
            return np.zeros_like(self.issue_index)
        first = known[:1]
        if self.__visible_from is not None:
            place = np.searchsorted(known, self.__visible_from)
            # Nothing is visible any more: the first reading lies at or behind the issue time.
            first = np.append(known, np.iinfo(np.int64).max)[place]
        if self.__visible_until is not None:
            first = np.where(first < self.__visible_until, first, np.iinfo(np.int64).max)
        # A later row's first reading is none of an earlier row's.
        steps: Ints = np.maximum(self.issue_index - first, 0)
        return steps

    def lookback(self, steps: int) -> Floats:
        """Return the last `steps` values before each issue time, oldest first; shape (N, steps)."""
        return self.at(self.issue_index[:, None] + np.arange(-steps, 0, dtype=np.int64))

    def same_slot(self, days_back: Ints, horizon: int) -> Floats:
        """Return the same time of day on earlier days, all of 24 h.

        `days_back = 1` is the latest day on which that time of day is already known: yesterday for
        the first 24 h after the issue, the same again for the hours after that.

        Shapes: days_back (K,) of values ≥ 1 → (N, H, K), kWh.
        """
        return self._periods_back(days_back, horizon, steps_per_day(self.resolution_s))

    def same_week_slot(self, weeks_back: Ints, horizon: int) -> Floats:
        """Return the same time on the same weekday of earlier weeks; as `same_slot` otherwise."""
        return self._periods_back(weeks_back, horizon, steps_per_week(self.resolution_s))

    def before_issue(self, steps: Ints) -> Floats:
        """Return the values so many steps from the issue; (N or 1, H, K) below zero → (N, H, K)."""
        return self.at(self.issue_index[:, None, None] + steps)

    def _periods_back(self, back: Ints, horizon: int, period: int) -> Floats:
        step = self.lead + np.arange(horizon, dtype=np.int64)
        return self.before_issue(periods_back(step, back, period)[None])


@dataclass(frozen=True, eq=False)
class Windows:
    """Forecasts to be made for one client.

    Attributes:
        series: The client's load.
        issue_index: Shape (N,), step of the series before which each forecast is issued, ascending.
        horizon: Steps of a forecast, H.
        timezone: Clock of the calendar features.
        owner: Client of the federation that holds them, where that is not the meter itself.
        visible_from: Shape (N,), the step from which on each forecast knows the readings; None =
            from the first.
        visible_until: Shape (N,), the step from which on it does not know them; None = up to the
            issue.
        least_days: Days of usable readings that a window needs behind it to be trained on; None =
            as many as everywhere.
        lead: Steps from the issue to the first step of the forecast.
        floor_share: The scale of a window never falls below this share of the mean of all that was
            read before it; None = as everywhere (`features.MIN_SHARE_OF_USUAL`). With 0 a window
            knows nothing beyond what its features look back to, which an account of days needs.
    """

    series: ClientSeries
    issue_index: Ints
    horizon: int
    timezone: str = "UTC"
    owner: str | None = None
    visible_from: Ints | None = None
    least_days: float | None = None
    lead: int = 0
    visible_until: Ints | None = None
    floor_share: float | None = None

    def __len__(self) -> int:
        return int(self.issue_index.size)

    @property
    def scored_as(self) -> str:
        """Under which name the errors of these windows are added up."""
        return self.owner or self.series.client_id

    @cached_property
    def past(self) -> Past:
        """What is known at each issue time."""
        return Past(self.series, self.issue_index, self.visible_from, self.lead, self.visible_until)

    @property
    def reach(self) -> int:
        """Steps from an issue to the end of its forecast."""
        return self.lead + self.horizon

    @property
    def _steps(self) -> Ints:
        """Shape (H,), the forecast's steps counted from the issue."""
        return np.arange(self.lead, self.reach, dtype=np.int64)

    @property
    def issue_utc_s(self) -> Ints:
        """Shape (N,), issue instants."""
        return self.series.start_utc_s + self.issue_index * self.series.resolution_s

    @property
    def target_utc_s(self) -> Ints:
        """Shape (N, H), the instants at which the target steps begin."""
        return self.issue_utc_s[:, None] + self._steps * self.series.resolution_s

    @cached_property
    def target_clock(self) -> LocalClock:
        """Local calendar of the target steps, arrays of shape (N, H)."""
        return local_clock(self.target_utc_s, self.zone)

    @property
    def zone(self) -> str:
        """The clock that the client lives by."""
        return self.series.site.timezone or self.timezone

    def same_slot(self, days_back: Ints) -> Floats:
        """Return the same local time of day on earlier days; (K,) → (N, H, K), kWh.

        `days_back = 1` is the latest day on which that time of day is already known. Where the
        clock was changed in between, the hour that it showed then is taken; `Past.same_slot` counts
        days of 24 h.
        """
        return self.past.before_issue(self._steps_back(days_back, DAY_S))

    def same_week_slot(self, weeks_back: Ints) -> Floats:
        """Return the same local time on the same weekday of earlier weeks; as `same_slot`."""
        return self.past.before_issue(self._steps_back(weeks_back, 7 * DAY_S))

    def slot_clock(self, days_back: Ints) -> LocalClock:
        """Local calendar of what `same_slot` returns, arrays of shape (N, H, K)."""
        step = self._steps_back(days_back, DAY_S)
        resolution_s = self.series.resolution_s
        return local_clock(self.issue_utc_s[:, None, None] + step * resolution_s, self.zone)

    def _steps_back(self, back: Ints, period_s: int) -> Ints:
        """Return where the local time of each target was whole days or weeks before.

        Steps from the issue, all below zero; shape (N, H, K), or (1, H, K) where the clock was
        never changed in between.
        """
        period = period_s // self.series.resolution_s
        plain = periods_back(self._steps, back, period)[None]
        if not self._clock_changes(plain):
            return plain
        latest = self._by_the_clock(np.ones(1, dtype=np.int64), period)
        # After a clock was put forward the hour of yesterday may not have come yet when a forecast
        # is issued: the latest day that has it is then the one before.
        known = np.where(
            latest < 0, self._by_the_clock(back, period), self._by_the_clock(back + 1, period)
        )
        return np.where(known < 0, known, plain)

    def _by_the_clock(self, back: Ints, period: int) -> Ints:
        """Return `periods_back`, moved by what the clock was changed until the target."""
        plain = periods_back(self._steps, back, period)[None]
        resolution_s = self.series.resolution_s
        then_s = self.issue_utc_s[:, None, None] + plain * resolution_s
        return plain + steps_forward(then_s, self.target_utc_s[..., None], self.zone, resolution_s)

    def _clock_changes(self, plain: Ints) -> bool:
        """Tell whether the clock was changed between the earliest place and the last target."""
        if not len(self) or not plain.size:
            return False
        first_s = int(self.issue_utc_s.min()) + int(plain.min()) * self.series.resolution_s
        last_s = int(self.target_utc_s.max())
        table = changes(self.zone, first_s, last_s)
        return bool(((table.at_utc_s > first_s) & (table.at_utc_s <= last_s)).any())

    def day_types(self, clock: LocalClock) -> Ints:
        """Return the day types of local days: 0 = working day, 1 = Saturday, 2 = Sunday.

        A holiday that the client's calendar knows is a Sunday, or 3, or what its weekday is.
        """
        holidays = self.series.site.holidays
        return clock.day_type if holidays is None else holidays.day_types(clock)

    def target_kwh(self) -> Floats:
        """Return what was measured; shape (N, H), NaN where unknown. For training and scoring."""
        index = self.issue_index[:, None] + self._steps
        energy = self.series.energy_kwh
        inside = (index >= 0) & (index < energy.size)
        if energy.size == 0:
            return np.full(index.shape, np.nan)
        return np.where(inside, energy[np.where(inside, index, 0)], np.nan)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Windows:
        """Return a part of the windows (indices or mask)."""
        first, until = (
            None if steps is None else steps[rows]
            for steps in (self.visible_from, self.visible_until)
        )
        return replace(
            self, issue_index=self.issue_index[rows], visible_from=first, visible_until=until
        )


def periods_back(steps: Ints, back: Ints, period: int) -> Ints:
    """Return the places of steps from the issue so many periods earlier, the latest before it.

    Shapes: steps (H,), back (K,) of values ≥ 1 → (H, K), below zero.
    """
    return (steps % period)[:, None] - np.asarray(back, dtype=np.int64)[None, :] * period


def horizon_steps(horizon_h: float, resolution_s: int) -> int:
    """Return the steps of a forecast.

    Raises:
        DataError: FL207, the horizon is no whole number of steps.
    """
    steps, rest = divmod(round(horizon_h * HOUR_S), resolution_s)
    if rest or steps < 1:
        raise _no_whole_number("horizon", horizon_h, resolution_s)
    return int(steps)


def lead_steps(lead_h: float, resolution_s: int) -> int:
    """Return the steps from an issue to the first step of its forecast.

    Raises:
        DataError: FL207, the lead is no whole number of steps.
    """
    steps, rest = divmod(round(lead_h * HOUR_S), resolution_s)
    if rest:
        raise _no_whole_number("lead", lead_h, resolution_s)
    return int(steps)


def _no_whole_number(name: str, hours: float, resolution_s: int) -> DataError:
    return DataError(
        Fault(
            "FL207",
            f"a {name} of {hours:g} h is no whole number of {resolution_s} s steps",
            f"[window] {name}-h",
            f"use a multiple of {resolution_s / HOUR_S:g} h",
        )
    )


def windows_at(
    series: ClientSeries,
    issue_utc_s: Ints,
    horizon: int,
    timezone: str,
    *,
    known: bool = True,
    lead: int = 0,
) -> Windows:
    """Return the windows of one client at the given issue instants.

    Args:
        series: The client's load.
        issue_utc_s: Shape (N,), epoch seconds.
        horizon: Steps of a forecast.
        timezone: Clock of the calendar features.
        known: Keep only windows with at least one known target (training, scoring); False keeps
            every issue time from the start of the series on (forecasting).
        lead: Steps from the issue to the first step of the forecast.

    Raises:
        DataError: FL207, an issue time is not on the client's grid.
    """
    index = index_of_issues(series, issue_utc_s)
    inside = (index >= 0) & ((index < len(series)) | (not known))
    windows = Windows(series, index[inside], horizon, timezone, lead=lead)
    if not known or not len(windows):
        return windows
    return windows.take(np.flatnonzero(np.isfinite(windows.target_kwh()).any(axis=1)))


def index_of_issues(series: ClientSeries, issue_utc_s: Ints) -> Ints:
    """Return the steps of a series before which forecasts are issued; shape (N,).

    Raises:
        DataError: FL207, an issue time is not on the client's grid.
    """
    index, rest = np.divmod(issue_utc_s - series.start_utc_s, series.resolution_s)
    if rest.any():
        odd = int(issue_utc_s[rest != 0][0])
        raise DataError(
            Fault(
                "FL207",
                f"issue time {iso_utc(odd)} is not on the {series.resolution_s} s grid",
                f"client {series.client_id}",
                "choose an `issue-time` (and `timezone`) on the grid of the readings",
            )
        )
    result: Ints = index
    return result

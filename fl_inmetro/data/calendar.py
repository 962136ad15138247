"""Local calendar of UTC instants: what is known of the future without looking at a meter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.units import DAY_S, HOUR_S

Ints = NDArray[np.int64]

#: Changes of the clock are looked up for spans of whole leap years.
_BLOCK_S = 366 * DAY_S


@dataclass(frozen=True)
class LocalClock:
    """Local time of instants.

    Attributes (each of the instants' shape):
        second_of_day: 0 … 86 399, local.
        weekday: 0 = Monday … 6 = Sunday.
        day_of_year: 0 … 365.
        day: Local days since 1970-01-01.
    """

    second_of_day: Ints
    weekday: Ints
    day_of_year: Ints
    day: Ints

    @property
    def month(self) -> Ints:
        """0 = January … 11 = December."""
        return self.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12

    @property
    def day_type(self) -> Ints:
        """0 = working day, 1 = Saturday, 2 = Sunday."""
        return np.maximum(self.weekday - 4, 0)


def local_clock(instant_utc_s: Ints, timezone: str) -> LocalClock:
    """Return the local clock of UTC epoch seconds, whatever their shape."""
    local = instant_utc_s + utc_offset_s(instant_utc_s, timezone)
    day = local // DAY_S
    # 1970-01-01 was a Thursday (weekday 3).
    start_of_year = day.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]")
    return LocalClock(
        second_of_day=local % DAY_S,
        weekday=(day + 3) % 7,
        day_of_year=day - start_of_year.astype(np.int64),
        day=day,
    )


def utc_offset_s(instant_utc_s: Ints, timezone: str) -> Ints:
    """Return local minus UTC in seconds at each instant."""
    if instant_utc_s.size == 0:
        return np.zeros_like(instant_utc_s)
    table = changes(timezone, int(instant_utc_s.min()), int(instant_utc_s.max()))
    return table.offset_s[np.searchsorted(table.at_utc_s, instant_utc_s, side="right")]


def steps_forward(then_utc_s: Ints, now_utc_s: Ints, timezone: str, resolution_s: int) -> Ints:
    """Return the whole steps by which a clock was put forward between two instants; below 0 = back.

    So many steps after `then` the clock showed the time of day that it shows a whole number of days
    later, at `now`. Half an hour is no step of an hour. Shapes: those of both, broadcast.
    """
    change_s = utc_offset_s(now_utc_s, timezone) - utc_offset_s(then_utc_s, timezone)
    steps: Ints = np.sign(change_s) * (np.abs(change_s) // resolution_s)
    return steps


def issue_times_utc_s(first: date, last: date, issue_time: str, timezone: str) -> Ints:
    """Return one issue instant per local day from `first` to `last`, inclusive.

    Shapes: (days,), epoch seconds. On a day whose clock skips the issue time, the instant is the
    one that the clock before the change would have shown.
    """
    hour, minute = (int(part) for part in issue_time.split(":"))
    zone = ZoneInfo(timezone)
    days = (last - first).days + 1
    moments = (
        datetime.combine(first + timedelta(days=day), time(hour, minute), zone)
        for day in range(max(days, 0))
    )
    return np.asarray([int(moment.timestamp()) for moment in moments], dtype=np.int64)


def local_date(instant_utc_s: int, timezone: str) -> date:
    """Return the local date of an instant."""
    return datetime.fromtimestamp(instant_utc_s, UTC).astimezone(ZoneInfo(timezone)).date()


@dataclass(frozen=True, eq=False)
class Changes:
    """The changes of a zone's offset in a span.

    Attributes:
        at_utc_s: Shape (K,), the instants of change.
        offset_s: Shape (K + 1,), seconds east of UTC before the first change and after each.
    """

    at_utc_s: Ints
    offset_s: Ints


def changes(timezone: str, first_utc_s: int, last_utc_s: int) -> Changes:
    """Return the changes of offset from at least a day before `first_utc_s` to one after the last.

    The rules of a zone come from the IANA database (`zoneinfo`); a table of their changes lets a
    million instants take one binary search each.
    """
    # Whole-year spans keep the cache small: a run asks for the same years again and again.
    return _changes(timezone, (first_utc_s - DAY_S) // _BLOCK_S, (last_utc_s + DAY_S) // _BLOCK_S)


@lru_cache(maxsize=256)
def _changes(timezone: str, first_block: int, last_block: int) -> Changes:
    zone = ZoneInfo(timezone)

    def offset(second: int) -> int:
        delta = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
        return int(delta.total_seconds()) if delta else 0

    start, end = first_block * _BLOCK_S, (last_block + 1) * _BLOCK_S
    edges: list[int] = []
    offsets = [offset(start)]
    # No zone changes its clock twice within a day, so a daily probe finds every change.
    for day in range(start, end, DAY_S):
        after = offset(day + DAY_S)
        if after == offsets[-1]:
            continue
        low, high = day, day + DAY_S
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        edges.append(high)
        offsets.append(after)
    return Changes(np.asarray(edges, dtype=np.int64), np.asarray(offsets, dtype=np.int64))


def steps_per_day(resolution_s: int) -> int:
    """Return the steps of a day (a resolution divides a day, by the check of the data)."""
    return DAY_S // resolution_s


def steps_of_hours(hours: int, resolution_s: int) -> int:
    """Return the whole steps that lie within some hours; a step that is longer is one.

    >>> steps_of_hours(3, 900), steps_of_hours(6, 3 * HOUR_S), steps_of_hours(2, 3 * HOUR_S)
    (12, 2, 1)
    """
    return max(1, hours * HOUR_S // resolution_s)


def steps_per_week(resolution_s: int) -> int:
    """Return the steps of 168 h."""
    return 168 * HOUR_S // resolution_s

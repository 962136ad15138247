"""The simulator's time axis: 15-minute bins on the UTC grid, and what Brasília's clocks show there.

People live by the wall clock, meters by UTC. Until 2019 Brasília had daylight-saving time, so the
two drift apart twice a year; both readings of every bin are kept here, computed by zoneinfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import utc_offset_s
from fl_inmetro.data.simulator.holidays import is_holiday
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.units import DAY_S

TIMEZONE = "America/Sao_Paulo"
BIN_S = 900
BIN_MIN = BIN_S // 60
BINS_PER_DAY = DAY_S // BIN_S

#: Before 1985 the legal time of Brasília had other offsets and other holidays.
FIRST_YEAR, LAST_YEAR = 1985, 2100

WORKING_DAY, SATURDAY, SUNDAY_OR_HOLIDAY = 0, 1, 2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Clock:
    """The bins of one simulation.

    It begins 24 h before the first bin that is delivered, so that what began on the evening before
    (a charging car, a night's air conditioning) is in the first hours. T bins, D local days.

    Attributes:
        start_utc_s: Epoch second at which bin 0 begins (the extra day included).
        dates: D local calendar days: the day before the start, the days asked for, one more.
        day_of_bin: Shape (T,), index into `dates`.
        minute_of_bin: Shape (T,), local minute of the day at which the bin begins.
        day_start_min: Shape (D,), minutes from bin 0 to each local midnight, taken with the offset
            of that day's noon (a day's events share one offset, also on the days clocks change).
        day_kind: Shape (D,), WORKING_DAY, SATURDAY or SUNDAY_OR_HOLIDAY.
    """

    start_utc_s: int
    dates: tuple[date, ...]
    day_of_bin: Ints
    minute_of_bin: Ints
    day_start_min: Ints
    day_kind: Ints

    @property
    def bins(self) -> int:
        """Number of bins T, the extra day included."""
        return int(self.day_of_bin.size)

    @property
    def days(self) -> int:
        """Number of local days D that `dates` lists."""
        return len(self.dates)

    @property
    def free_day(self) -> NDArray[np.bool_]:
        """Shape (D,): True on Saturdays, Sundays and holidays."""
        free: NDArray[np.bool_] = self.day_kind != WORKING_DAY
        return free

    def bin_at(self, minute_of_day: Floats) -> Ints:
        """Return the bin that holds each (day, minute), clipped to the simulation.

        Shapes: minute_of_day (D, ...) in, the same out.
        """
        start = self.day_start_min.reshape(-1, *([1] * (minute_of_day.ndim - 1)))
        found = np.floor((start + minute_of_day) / BIN_MIN).astype(np.int64)
        return np.clip(found, 0, self.bins - 1)


def clock(start: date, days: int) -> Clock:
    """Return the time axis of `days` x 24 h from local midnight of `start`.

    Raises:
        ConfigError: FL106, the days lie outside the years whose clocks and holidays are known.
    """
    last = date.fromordinal(min(start.toordinal() + days, date.max.toordinal() - 1))
    if start.year < FIRST_YEAR or last.year > LAST_YEAR:
        raise ConfigError(
            Fault(
                "FL106",
                f"the simulator knows the years {FIRST_YEAR} to {LAST_YEAR}, not {start} to {last}",
                f"[data.simulator] start = {start}, days = {days}",
                "choose a later start or fewer days",
            )
        )
    zone = ZoneInfo(TIMEZONE)
    first_utc_s = int(datetime(start.year, start.month, start.day, tzinfo=zone).timestamp())
    begin_utc_s = first_utc_s - DAY_S
    utc_s = begin_utc_s + BIN_S * np.arange((days + 1) * BINS_PER_DAY, dtype=np.int64)
    local_s = utc_s + utc_offset_s(utc_s, TIMEZONE)
    ordinal = local_s // DAY_S  # days since 1970-01-01 on the wall calendar

    dates = tuple(start + timedelta(days=shift) for shift in range(-1, days + 1))
    first_ordinal = (dates[0] - date(1970, 1, 1)).days
    noon = [datetime(day.year, day.month, day.day, 12, tzinfo=zone) for day in dates]
    midnight_utc_s = np.array([int(moment.timestamp()) - DAY_S // 2 for moment in noon])
    return Clock(
        start_utc_s=begin_utc_s,
        dates=dates,
        # A clock that goes back at midnight leaves the first bins one hour before `dates[0]`.
        day_of_bin=np.clip(ordinal - first_ordinal, 0, len(dates) - 1),
        minute_of_bin=(local_s % DAY_S) // 60,
        day_start_min=(midnight_utc_s - begin_utc_s) // 60,
        day_kind=np.array([_kind(day) for day in dates], dtype=np.int64),
    )


def _kind(day: date) -> int:
    if day.weekday() == 6 or is_holiday(day):
        return SUNDAY_OR_HOLIDAY
    return SATURDAY if day.weekday() == 5 else WORKING_DAY

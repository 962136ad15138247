from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from dateutil.easter import easter as easter_of_dateutil

from fl_inmetro.data.simulator.clock import (
    BIN_S,
    SATURDAY,
    SUNDAY_OR_HOLIDAY,
    WORKING_DAY,
    clock,
)
from fl_inmetro.data.simulator.holidays import easter, holidays, is_holiday
from fl_inmetro.errors import ConfigError

ZONE = ZoneInfo("America/Sao_Paulo")


def test_easter_equals_an_independent_implementation():
    assert [easter(year) for year in range(1985, 2101)] == [
        easter_of_dateutil(year) for year in range(1985, 2101)
    ]


def test_holidays_of_2024_as_printed_in_the_calendar():
    # Carnaval 12 and 13 February, Good Friday 29 March, Corpus Christi 30 May.
    assert holidays(2024) == {
        date(2024, month, day)
        for month, day in [
            (1, 1), (2, 12), (2, 13), (3, 29), (4, 21), (5, 1), (5, 30),
            (9, 7), (10, 12), (11, 2), (11, 15), (11, 20), (12, 25),
        ]
    }  # fmt: skip
    assert not is_holiday(date(2023, 11, 20))  # before Law 14.759/2023


def test_day_kinds():
    axis = clock(date(2024, 2, 9), 6)  # Friday before Carnaval
    kinds = dict(zip(axis.dates, axis.day_kind, strict=True))
    assert kinds[date(2024, 2, 9)] == WORKING_DAY
    assert kinds[date(2024, 2, 10)] == SATURDAY
    assert kinds[date(2024, 2, 11)] == SUNDAY_OR_HOLIDAY
    assert kinds[date(2024, 2, 13)] == SUNDAY_OR_HOLIDAY
    assert kinds[date(2024, 2, 14)] == WORKING_DAY


@pytest.mark.parametrize(
    "start", [date(2024, 1, 1), date(2018, 10, 30), date(2018, 2, 14), date(2018, 11, 4)]
)
def test_every_bin_reads_what_the_wall_clock_reads(start):
    axis = clock(start, 10)
    for index in range(axis.bins):
        local = datetime.fromtimestamp(axis.start_utc_s + index * BIN_S, UTC).astimezone(ZONE)
        assert axis.minute_of_bin[index] == local.hour * 60 + local.minute
        if axis.dates[0] <= local.date() <= axis.dates[-1]:
            assert axis.dates[axis.day_of_bin[index]] == local.date()


def test_daylight_saving_moves_local_midnight_on_the_utc_grid():
    # 2018-11-04 00:00 became 01:00: midnight is 03:00 UTC before, 02:00 UTC after.
    axis = clock(date(2018, 11, 2), 5)
    first = datetime.fromtimestamp(axis.start_utc_s, UTC)
    hours = [(first + timedelta(minutes=int(m))).hour for m in axis.day_start_min]
    assert hours == [3, 3, 3, 2, 2, 2, 2]


def test_bin_at_finds_the_bin_of_a_local_minute():
    axis = clock(date(2024, 3, 1), 3)
    at = axis.bin_at(np.full(axis.days, 19 * 60 + 7.0))
    assert (axis.minute_of_bin[at[:-1]] == 19 * 60).all()
    assert (axis.day_of_bin[at[:-1]] == np.arange(axis.days - 1)).all()


@pytest.mark.parametrize(("start", "days"), [(date(1900, 1, 1), 10), (date(2099, 1, 1), 3000)])
def test_unknown_years_are_a_coded_error(start, days):
    with pytest.raises(ConfigError) as caught:
        clock(start, days)
    assert [fault.code for fault in caught.value.faults] == ["FL106"]

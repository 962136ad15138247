"""The local calendar against `zoneinfo`, on clocks that change and clocks that do not."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.data.calendar import (
    issue_times_utc_s,
    local_clock,
    local_date,
    steps_per_day,
    steps_per_week,
    utc_offset_s,
)

ZONES = (
    "America/Sao_Paulo",  # daylight saving until 2019, in the southern summer, at midnight
    "Europe/London",
    "Australia/Sydney",
    "Australia/Lord_Howe",  # half an hour
    "America/New_York",
    "Asia/Kathmandu",  # +05:45
    "Etc/GMT+3",
    "UTC",
)


def of(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


def check_against_zoneinfo(instants: np.ndarray, zone: str) -> None:
    clock = local_clock(instants, zone)
    offsets = utc_offset_s(instants, zone)
    for k, second in enumerate(instants.tolist()):
        local = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
        delta = local.utcoffset()
        assert delta is not None
        assert offsets[k] == delta.total_seconds(), (zone, local)
        expected = local.hour * 3600 + local.minute * 60 + local.second
        assert clock.second_of_day[k] == expected, (zone, local)
        assert clock.weekday[k] == local.weekday()
        assert clock.day_of_year[k] == local.timetuple().tm_yday - 1
        assert clock.day_type[k] == (0, 0, 0, 0, 0, 1, 2)[local.weekday()]


@pytest.mark.parametrize("zone", ZONES)
def test_2018_every_half_hour_equals_zoneinfo(zone):
    # 2018 has both changes in all of these zones; Brazil's are on 02-18 and 11-04.
    check_against_zoneinfo(np.arange(of(2018, 1, 1), of(2019, 1, 1), 3 * 1800), zone)


@pytest.mark.parametrize("zone", ZONES)
def test_around_each_change_of_2018_to_the_second(zone):
    hours = np.arange(of(2018, 1, 1), of(2019, 1, 1), 3600)
    changes = hours[np.flatnonzero(np.diff(utc_offset_s(hours, zone))) + 1]
    assert changes.size == (0 if zone in ("Etc/GMT+3", "UTC", "Asia/Kathmandu") else 2)
    for change in changes.tolist():
        # The change itself lies within the hour before the first full hour of the new offset.
        around = change + np.arange(-3601, 2, 300)
        check_against_zoneinfo(np.concatenate([around, around - 1, around + 1]), zone)


@given(
    st.lists(st.integers(of(1990, 1, 1), of(2090, 1, 1)), min_size=1, max_size=8),
    st.sampled_from(ZONES),
)
def test_any_instants_equal_zoneinfo(seconds, zone):
    check_against_zoneinfo(np.array(seconds, dtype=np.int64), zone)


def test_shapes_are_kept():
    instants = np.arange(6, dtype=np.int64).reshape(2, 3) * 86_400
    assert local_clock(instants, "Europe/London").weekday.shape == (2, 3)
    assert utc_offset_s(np.zeros((0,), dtype=np.int64), "Europe/London").shape == (0,)


def test_epoch_was_a_thursday_and_leap_days_count():
    clock = local_clock(np.array([0, of(2024, 2, 29), of(2024, 12, 31)]), "UTC")
    assert clock.weekday.tolist() == [3, 3, 1]
    assert clock.day_of_year.tolist() == [0, 59, 365]


# --------------------------------------------------------------------------- issue times
@pytest.mark.parametrize(
    ("zone", "first", "last", "hours"),
    [
        # The local days that the changes make 25 h and 23 h long; 24 h otherwise.
        ("America/Sao_Paulo", date(2018, 2, 16), date(2018, 2, 19), [24, 25, 24]),
        # 2018-11-04 begins at 01:00: the instant that the old clock would have called 00:00.
        ("America/Sao_Paulo", date(2018, 11, 3), date(2018, 11, 6), [24, 23, 24]),
        ("Europe/London", date(2018, 3, 24), date(2018, 3, 27), [24, 23, 24]),
        ("Europe/London", date(2018, 10, 27), date(2018, 10, 30), [24, 25, 24]),
        ("Australia/Sydney", date(2018, 3, 31), date(2018, 4, 3), [24, 25, 24]),
        ("America/New_York", date(2018, 3, 10), date(2018, 3, 13), [24, 23, 24]),
        ("UTC", date(2018, 3, 10), date(2018, 3, 13), [24, 24, 24]),
    ],
)
def test_issue_times_across_a_change_of_the_clock(zone, first, last, hours):
    times = issue_times_utc_s(first, last, "00:00", zone)
    assert (np.diff(times) // 3600).tolist() == hours
    for k, second in enumerate(times.tolist()):
        local = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
        assert local.date() == first + timedelta(days=k)
        assert local_date(second, zone) == local.date()
        skipped = zone == "America/Sao_Paulo" and local.date() == date(2018, 11, 4)
        assert local.hour == (1 if skipped else 0)


def test_an_issue_time_that_comes_twice_is_the_first():
    # London, 2018-10-28: 01:30 BST (00:30 UTC), then 01:30 GMT (01:30 UTC).
    times = issue_times_utc_s(date(2018, 10, 28), date(2018, 10, 28), "01:30", "Europe/London")
    assert times.tolist() == [of(2018, 10, 28, 0, 30)]


def test_no_days_no_times():
    assert issue_times_utc_s(date(2018, 1, 2), date(2018, 1, 1), "00:00", "UTC").size == 0


def test_steps_by_hand():
    assert (steps_per_day(900), steps_per_day(1800), steps_per_day(3600)) == (96, 48, 24)
    assert (steps_per_week(900), steps_per_week(1800), steps_per_week(3600)) == (672, 336, 168)

"""Local clocks to UTC: days of 23 and 25 hours in four countries, against `zoneinfo`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.data.calendar import changes
from fl_inmetro.data.cleaning.clock import to_utc

EPOCH = datetime(1970, 1, 1)


def clock(*texts: str) -> np.ndarray:
    stamps = [datetime.fromisoformat(text) - EPOCH for text in texts]
    return np.array([int(stamp.total_seconds()) for stamp in stamps], dtype=np.int64)


def utc(*texts: str) -> list[int]:
    return [int(datetime.fromisoformat(text + "+00:00").timestamp()) for text in texts]


# (zone, spring day, skipped local hour, autumn day, repeated local hour), from the published rules.
COUNTRIES = [
    ("America/Sao_Paulo", "2018-11-04", "00:00", "2019-02-16", "23:00"),  # Decree 6.558/2008
    ("Europe/London", "2019-03-31", "01:00", "2019-10-27", "01:00"),
    ("Australia/Sydney", "2013-10-06", "02:00", "2013-04-07", "02:00"),
    ("America/New_York", "2016-03-13", "02:00", "2016-11-06", "01:00"),
]


@pytest.mark.parametrize(("zone", "spring", "skipped", "autumn", "repeated"), COUNTRIES)
def test_days_of_23_and_25_hours(zone, spring, skipped, autumn, repeated) -> None:
    for day, hours in ((spring, 23), (autumn, 25)):
        # Every instant of the local day, in order, as a meter on that clock would have written it.
        low = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
        high = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone))
        instants = np.arange(int(low.timestamp()), int(high.timestamp()), 3600)
        assert instants.size == hours
        written = [datetime.fromtimestamp(int(i), ZoneInfo(zone)) for i in instants]
        local = clock(*(moment.replace(tzinfo=None).isoformat() for moment in written))
        found = to_utc(local, zone)
        assert found.utc_s.tolist() == instants.tolist()
        assert not found.nonexistent.any()
        assert int(found.repeated.sum()) == (2 if hours == 25 else 0)
    assert to_utc(clock(f"{spring} {skipped}"), zone).nonexistent.all()
    alone = to_utc(clock(f"{autumn} {repeated}"), zone)
    assert alone.lone.all()
    # The first passing is daylight-saving time: the smaller of the two instants.
    local = datetime.fromisoformat(f"{autumn} {repeated}").replace(tzinfo=ZoneInfo(zone))
    assert alone.utc_s.tolist() == [int(local.timestamp())]


def test_quarter_hours_may_be_written_in_either_order() -> None:
    # 2019-10-27, London: 01:00 and 01:30 BST are 00:00 and 00:30 UTC, in GMT 01:00 and 01:30 UTC.
    whole = to_utc(
        clock(*(f"2019-10-27 {t}" for t in ("01:00", "01:30", "01:00", "01:30"))), "Europe/London"
    )
    assert whole.utc_s.tolist() == utc(
        *(f"2019-10-27 {t}" for t in ("00:00", "00:30", "01:00", "01:30"))
    )
    pairs = to_utc(
        clock(*(f"2019-10-27 {t}" for t in ("01:00", "01:00", "01:30", "01:30"))), "Europe/London"
    )
    assert pairs.utc_s.tolist() == utc(
        *(f"2019-10-27 {t}" for t in ("00:00", "01:00", "00:30", "01:30"))
    )


def test_brazil_has_no_summer_time_since_2019() -> None:
    found = to_utc(clock("2019-11-03 00:00", "2024-11-03 00:00"), "America/Sao_Paulo")
    assert found.utc_s.tolist() == utc("2019-11-03 03:00", "2024-11-03 03:00")
    assert not found.nonexistent.any()


def test_fixed_offset_has_the_sign_of_posix() -> None:
    # Etc/GMT-10 is ten hours AHEAD of UTC.
    assert to_utc(clock("2013-10-07 00:00"), "Etc/GMT-10").utc_s.tolist() == utc("2013-10-06 14:00")
    assert changes("Etc/GMT-10", 0, 10**9).at_utc_s.size == 0


def test_end_label_after_the_spring_jump_goes_before_it() -> None:
    # London 2019-03-31: the hour 00:00-01:00 ends when the clock shows 02:00. Moved back by an hour
    # the label falls into the jump; the reading is that of 00:00 UTC.
    labels = clock("2019-03-31 00:00", "2019-03-31 02:00", "2019-03-31 03:00")
    own = np.full(3, 3600)
    found = to_utc(labels - own, "Europe/London", own)
    assert found.utc_s.tolist() == utc("2019-03-30 23:00", "2019-03-31 00:00", "2019-03-31 01:00")
    # With a reading labelled 01:00 there, 02:00 is one too many.
    labels = clock("2019-03-31 01:00", "2019-03-31 02:00", "2019-03-31 03:00")
    found = to_utc(labels - own, "Europe/London", own)
    assert found.nonexistent.tolist() == [False, True, False]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([row[0] for row in COUNTRIES]),
    st.integers(
        int(datetime(2000, 1, 1).timestamp()) // 900, int(datetime(2030, 1, 1).timestamp()) // 900
    ),
)
def test_every_instant_comes_back(zone: str, quarter: int) -> None:
    instant = quarter * 900
    written = datetime.fromtimestamp(instant, UTC).astimezone(ZoneInfo(zone))
    local = clock(written.replace(tzinfo=None).isoformat())
    found = to_utc(np.repeat(local, 2) if written.fold else local, zone)
    assert not found.nonexistent.any()
    assert int(found.utc_s[-1]) == instant

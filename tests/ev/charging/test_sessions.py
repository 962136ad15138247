"""Sessions: every planted fault is found by name, clocks are right, and the real sets' counts."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.charging.sessions import Limits, judged
from fl_inmetro.ev.charging.sources import read_norway, read_workplace
from tests.ev.charging.made import MONDAY, raw

DATA = os.environ.get("FL_INMETRO_DATA", "")
NORWAY = Path(DATA or ".") / "ev_charging_norway" / "sessions.parquet"
WORKPLACE = Path(DATA or ".") / "ev_charging_workplace" / "sessions.parquet"

GOOD = {"user": "good", "start": MONDAY + timedelta(days=1), "end": MONDAY + timedelta(days=1.5)}
GOOD["stated"] = 12.0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"start": None}, "no plug-in"),
        ({"end": None}, "no plug-out"),
        ({"end": MONDAY - timedelta(hours=1), "stated": np.nan}, "end before start"),
        ({"stated": 12.0}, "two durations"),
        ({"user": " "}, "no user"),
        ({"hub": ""}, "no hub"),
        ({"energy": np.nan}, "no energy"),
        ({"energy": -0.1}, "no energy"),
        ({"energy": 121.0}, "too much energy"),
        ({"end": MONDAY, "stated": np.nan}, "no duration"),
        ({"end": MONDAY + timedelta(days=15), "stated": np.nan}, "too long"),
        # 23 kWh in an hour and the minute that a clock may hide are 22.6 kW.
        ({"end": MONDAY + timedelta(hours=1), "stated": 1.0, "energy": 23.0}, "too much power"),
        ({"start": datetime(2019, 3, 31, 2, 30), "stated": np.nan}, "skipped hour"),
    ],
)
def test_a_bad_session_is_left_out_by_name(fault, kind):
    found = judged(raw([fault, GOOD]))
    assert list(found.user) == ["good"]
    assert found.counts == ((kind, 1),)
    assert [(one.code, one.where) for one in found.excluded] == [("FL225", "session 0")]


def test_what_is_only_unlucky_stays():
    """No energy, 22.0 kW, a stay of twelve days, seconds at the plug: all can be."""
    rows = [
        {"energy": 0.0},
        {"end": MONDAY + timedelta(hours=1), "stated": 1.0, "energy": 22.0},
        {"end": MONDAY + timedelta(days=12), "stated": np.nan},
        {"end": MONDAY, "stated": 0.005, "energy": 0.01},
    ]
    found = judged(raw(rows))
    assert len(found) == 4
    assert not found.counts
    assert 0.005 in found.duration_h


def test_the_same_row_twice_counts_once():
    found = judged(raw([{}, {}, {"energy": 8.0}]))
    assert len(found) == 2
    assert found.counts == (("twice", 1),)


def test_nothing_left_is_an_error_with_every_reason():
    with pytest.raises(DataError) as caught:
        judged(raw([{"user": ""}, {"energy": -1.0}]))
    assert [fault.code for fault in caught.value.faults] == ["FL225", "FL225"]


def test_summer_time_is_in_the_duration_and_not_in_the_hour():
    """From 20:00 on 26 October to 08:00 on the 27th are 13 h: the clock goes back at 3:00."""
    evening = datetime(2019, 10, 26, 20)
    night = {"start": evening, "end": evening + timedelta(hours=12), "stated": np.nan}
    found = judged(raw([night, GOOD]))
    assert found.duration_h[1] == 13.0
    assert found.start_utc_s[1] == datetime(2019, 10, 26, 18, tzinfo=UTC).timestamp()
    assert found.local_s[1] % 86_400 == 20 * 3600
    # On a clock without summer time they are 12.
    assert judged(raw([night], "UTC")).duration_h[0] == 12.0
    # What is stated says which of the two 2:30 is meant: the second one is an hour later.
    twice = {"start": datetime(2019, 10, 27, 2, 30), "end": datetime(2019, 10, 27, 8)}
    for stated, utc_hour in ((6.5, 0), (5.5, 1), (np.nan, 0)):
        one = judged(raw([twice | {"stated": stated}]))
        expected = datetime(2019, 10, 27, utc_hour, 30, tzinfo=UTC).timestamp()
        assert one.start_utc_s[0] == expected


def test_local_seconds_are_those_of_the_clock_the_year_round():
    rows = [
        {"start": MONDAY + timedelta(days=k), "end": None, "stated": np.nan}
        for k in range(0, 365, 9)
    ]
    rows = [row | {"end": row["start"] + timedelta(hours=3)} for row in rows]
    found = judged(raw(rows))
    zone = ZoneInfo("Europe/Oslo")
    for second, local in zip(found.start_utc_s, found.local_s, strict=True):
        clock = datetime.fromtimestamp(int(second), UTC).astimezone(zone).replace(tzinfo=UTC)
        assert clock.timestamp() == local


def test_a_file_without_its_columns_or_none_at_all(tmp_path):
    path = tmp_path / "sessions.parquet"
    pq.write_table(pa.table({"session_ID": [1]}), path)
    for reader in (read_norway, read_workplace):
        with pytest.raises(DataError, match="FL225") as caught:
            reader(path)
        assert "has no `" in caught.value.faults[0].what
        with pytest.raises(DataError, match="cannot be read"):
            reader(tmp_path / "none.parquet")


def test_a_made_file_is_read_by_both_readers(tmp_path):
    """One good row and one without an end, user null in a third; units and names of the source."""
    start = [MONDAY, MONDAY, MONDAY + timedelta(hours=30)]
    end = [MONDAY + timedelta(hours=2), None, MONDAY + timedelta(hours=32)]
    norway = {
        "session_ID": [1, 2, 3],
        "User_ID": ["a", "a", None],
        "Garage_ID": ["g"] * 3,
        "Start_plugin": start,
        "End_plugout": end,
        "Duration_hours": [2.0, None, 2.0],
        "El_kWh": [5.0, 5.0, 5.0],
    }
    path = tmp_path / "norway.parquet"
    pq.write_table(pa.table(norway), path)
    found = read_norway(path)
    assert found.counts == (("no plug-out", 1), ("no user", 1))
    assert found.zone == "Europe/Oslo"
    assert (found.energy_kwh, found.duration_h) == ([5.0], [2.0])
    # 17:00 of Oslo's summer is 15:00 UTC.
    assert found.start_utc_s[0] == datetime(2019, 9, 2, 15, tzinfo=UTC).timestamp()
    names = ("sessionId", "userId", "locationId", "created", "ended", "chargeTimeHrs", "kwhTotal")
    path = tmp_path / "workplace.parquet"
    pq.write_table(pa.table(dict(zip(names, norway.values(), strict=True))), path)
    found = read_workplace(path, Limits())
    assert found.start_utc_s[0] == datetime(2019, 9, 2, 17, tzinfo=UTC).timestamp()
    assert found.counts == (("no plug-out", 1), ("no user", 1))


@pytest.mark.data
@pytest.mark.skipif(not NORWAY.exists(), reason="FL_INMETRO_DATA does not hold the sessions")
def test_real_homes():
    """27 sessions without end are the data's README's; five went through the night of
    31 March and state hours that ignore summer time, four of one day in June are two hours off."""
    found = read_norway(NORWAY)
    assert len(found) == 4687 - 27 - 9
    assert found.counts == (("no plug-out", 27), ("two durations", 9))
    spring = [one for one in found.excluded if "its clock says" in one.what]
    assert len(spring) == 9
    assert np.all(np.diff(found.start_utc_s) >= 0)
    # With the limits of a car's battery there is no energy above that of a large one.
    assert found.energy_kwh.max() == pytest.approx(80.86)


@pytest.mark.data
@pytest.mark.skipif(not WORKPLACE.exists(), reason="FL_INMETRO_DATA does not hold the sessions")
def test_real_workplaces():
    """The session of 55 h is the data's README's; five say more than 32 A at 240 V give."""
    found = read_workplace(WORKPLACE)
    assert len(found) == 2886 - 6
    assert found.counts == (("too long", 1), ("too much power", 5))
    assert any("55.2 h" in one.what for one in found.excluded)

"""Hubs by the hour: energy is kept, clocks are right, columns know the past only."""

from datetime import date, datetime, timedelta

import numpy as np
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.charging.hub_references import four_weeks, last_week, usual
from fl_inmetro.ev.charging.hubs import (
    HubSeries,
    habit_sums,
    habits,
    hourly,
    hub_columns,
    log_odds,
    pieces,
)
from fl_inmetro.ev.charging.hurdle import GRID
from fl_inmetro.ev.charging.sessions import judged
from tests.ev.charging.made import MONDAY, raw, sessions, town


def made_chance(day: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Mostly in the evening of working days [day, hour]."""
    evening = np.exp(-0.5 * ((np.arange(24) - 18) / 2.5) ** 2)[None, :]
    workday = np.where((day + 3) % 7 < 5, 1, 0.4)[:, None]
    return np.clip((0.15 + shift + 0.7 * evening) * workday, 0, 1)


def made_series(days: int = 80, seed: int = 0, name: str = "g", shift: float = 0.0) -> HubSeries:
    """Used by that chance, 2 to 4 kWh then."""
    rng = np.random.default_rng(seed)
    day = 18_141 + np.arange(days)
    used = rng.random((days, 24)) < made_chance(day, shift)
    return HubSeries(name, np.where(used, rng.uniform(2, 4, (days, 24)), 0.0), int(day[0]))


def test_a_session_by_hand():
    """9 kWh at 3.6 kW from 17:30: 1.8 until 18:00, 3.6 until 19:00, 3.6 until 20:00."""
    half_past_five = 17 * 3600 + 1800
    found = pieces(half_past_five, 9.0, 12.0, 3.6)
    assert [second // 3600 for second, _ in found] == [17, 18, 19]
    assert [kwh for _, kwh in found] == pytest.approx([1.8, 3.6, 3.6])
    # In one hour 9 kWh are 9 kW: half of it until 18:00, and it ends with the session.
    found = pieces(half_past_five, 9.0, 1.0, 3.6)
    assert [kwh for _, kwh in found] == pytest.approx([4.5, 4.5])
    assert pieces(half_past_five, 0.0, 1.0, 3.6) == []


def test_energy_is_kept_hub_by_hub():
    """All of it but the first day's, whose hub nobody knew of, and what is drawn after the end."""
    s = town()
    last = int(s.local_s.max() // 86_400) + 3
    for series in hourly(s, last_day=last):
        own = s.take(s.hub == series.name)
        later = own.local_s // 86_400 >= series.first_day
        carried = own.energy_kwh.sum() - series.energy_kwh.sum()
        assert 0 <= carried <= own.energy_kwh[~later].sum() + 1e-9
        assert series.first_day == own.local_s.min() // 86_400 + 1
        assert len(series.energy_kwh) == last - series.first_day + 1
        assert series.days[-1] == last
        assert len(series.until(series.first_day + 5).energy_kwh) == 5
        assert len(series.until(series.first_day - 5).energy_kwh) == 0


def test_the_hour_is_that_of_the_local_clock():
    """17:00 in Oslo, the second day after the hub was opened, is row 1, column 17; in UTC too."""
    later = MONDAY + timedelta(days=2)
    rows = [{"energy": 1.0}, {"start": later, "end": later + timedelta(hours=12), "stated": 12.0}]
    for zone in ("Europe/Oslo", "UTC"):
        (series,) = hourly(judged(raw(rows, zone)))
        assert series.energy_kwh.shape == (2, 24)
        assert series.energy_kwh[1, 17:20] == pytest.approx([3.6, 3.6, 1.8])
        assert series.energy_kwh.sum() == pytest.approx(9.0)


def test_the_hour_that_summer_time_skips_is_missing():
    """31 March 2019, 2:00 to 3:00 in Oslo; the night of 27 October has that hour twice."""
    for month, day, missing in ((3, 31, [2]), (10, 27, [])):
        before = datetime(2019, month, day, 17) - timedelta(days=2)
        rows = [
            {"start": before + timedelta(days=k), "end": before + timedelta(days=k, hours=3)}
            | {"stated": 3.0, "user": f"u{k}"}
            for k in (0, 4)
        ]
        # Over the night of the change at 3.6 kW from 1:00 on (it was summer, or is winter then).
        night = {"start": datetime(2019, month, day, 1), "end": datetime(2019, month, day, 9)}
        rows.append(night | {"stated": np.nan, "energy": 10.8})
        (series,) = hourly(judged(raw(rows)))
        at = (date(2019, month, day) - date(1970, 1, 1)).days - series.first_day
        assert list(np.flatnonzero(np.isnan(series.energy_kwh[at]))) == missing
        assert int(np.isnan(series.energy_kwh).sum()) == len(missing)
        drawn = series.energy_kwh[at, :5]
        expected = [0, 3.6, np.nan, 3.6, 3.6] if missing else [0, 3.6, 7.2, 0, 0]
        assert drawn == pytest.approx(expected, nan_ok=True)


def test_hubs_that_cannot_be():
    s = sessions([("a", 0, 2, 8.0)])
    with pytest.raises(DataError, match="FL225"):
        hourly(s)
    for power in (0.0, -1.0, np.nan):
        with pytest.raises(DataError, match="a plug of"):
            hourly(town(), power)


def test_the_ordinary_hub_by_hand():
    """Two Mondays, one with 4 kWh at 18:00: used (1 + ½) / (2 + 1) there, ½ / 3 elsewhere."""
    energy = np.zeros((8, 24))
    energy[0, 18] = 4.0
    series = HubSeries("g", energy, 18_141)  # 2 September 2019, a Monday
    found = habits(habit_sums(series))
    # Six working days (two Mondays and four others), two of a weekend.
    assert found.use[0, 18] == pytest.approx(1.5 / 7)
    assert found.use[0, 3] == pytest.approx(0.5 / 7)
    assert found.use[1, 18] == pytest.approx(0.5 / 3)
    assert found.amount_kwh == pytest.approx(5 / 1.5)
    both = habit_sums(series) + habit_sums(made_series())
    assert habits(both).use[0, 18] > 0.5


def test_columns_of_a_day_know_the_days_before_it_only():
    series, fleet = made_series(), habits(habit_sums(made_series()))
    known = hub_columns(series, fleet)
    changed = series.energy_kwh.copy()
    at = 40
    changed[at:] = 7.0
    other = hub_columns(HubSeries("g", changed, series.first_day), fleet)
    rows = (at + 1) * 24
    assert np.array_equal(known.use[:rows], other.use[:rows])
    assert np.array_equal(known.amount[:rows], other.amount[:rows])
    assert not np.array_equal(known.use[rows:], other.use[rows:])
    # Cutting off the future changes nothing either.
    short = hub_columns(series.until(series.first_day + at), fleet)
    assert np.array_equal(short.use, known.use[: at * 24])


def test_columns_by_plain_loops():
    series, fleet = made_series(), habits(habit_sums(made_series()))
    known = hub_columns(series, fleet)
    used = series.energy_kwh > 0
    asked = [(day, hour) for day in (0, 3, 28, 29, 35, 60) for hour in range(24)]
    for day, hour in asked:
        row = known.use[day * 24 + hour]
        weekend = int((series.days[day] + 3) % 7 >= 5)
        month = [d for d in range(day) if d >= day - 28]
        prior = fleet.use[weekend, hour]
        share = (sum(used[d, hour] for d in month) + 3 * prior) / (len(month) + 3)
        assert row[1] == pytest.approx(log_odds(np.array(share)))
        weeks = [day - 7 * k for k in range(1, 5) if day - 7 * k >= 0]
        share = (sum(used[d, hour] for d in weeks) + 3 * prior) / (len(weeks) + 3)
        assert row[4] == pytest.approx(log_odds(np.array(share)))
        assert row[5] == (used[day - 1, hour] if day else 0)
        assert row[6] == (used[day - 7, hour] if day >= 7 else 0)
        late = used[day - 1, 23] if day else 0
        assert row[7] == pytest.approx(late * np.exp(-hour / 2))
        # 48 hours and 7 weekdays, one of each left out.
        assert row[9:].sum() <= 2
        assert len(row) == 1 + 8 + 53


def test_references_by_hand():
    """Mondays of 2, 0, 4 and 6 kWh at 18:00: last week's is 6; the four weeks' mean 3, ¾ used."""
    energy = np.zeros((29, 24))
    for week, kwh in enumerate((2.0, 0.0, 4.0, 6.0)):
        energy[7 * week, 18] = kwh
    series = HubSeries("g", energy, 18_141)
    at = 28 * 24 + 18
    assert last_week(series).mean_kwh[at] == 6
    assert last_week(series).chance[at] == 1
    told = four_weeks(series)
    assert (told.mean_kwh[at], told.chance[at]) == (3.0, 0.75)
    assert told.quantiles_kwh[at, GRID.index(0.5)] == pytest.approx(3.0)
    # All 20 earlier working days.
    assert usual(series).mean_kwh[at] == pytest.approx(12 / 20)
    assert last_week(series).mean_kwh[:168].sum() == 0

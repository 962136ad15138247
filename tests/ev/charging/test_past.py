"""What is known at plug-in: a hand case, pandas, and that no later value is looked at."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fl_inmetro.ev.charging.past import hours, past, weekdays, year_share
from tests.ev.charging.made import sessions, town


def test_worked_by_hand():
    """A plugs in on Monday, Tuesday and Saturday at 17:00, B once; kWh 8, 12 and 1.

    On Saturday, A's last plug-out was on Tuesday at 20:00: 3 days and 21 h ago. The same hour as
    both (½ each), and both were working days: weights ½, ½. Recent: (0.8·8 + 12) / 1.8.
    """
    s = sessions([("a", 0, 2, 8.0), ("b", 1, 2, 5.0), ("a", 24, 3, 12.0), ("a", 120, 2, 1.0)])
    known = past(s, s.energy_kwh)
    assert list(known.n) == [0, 0, 1, 2]
    assert list(known.total) == [0, 0, 8, 20]
    assert known.recent_total[3] == pytest.approx(0.8 * 8 + 12)
    assert known.recent_n[3] == pytest.approx(1.8)
    assert (known.same_n[2], known.same_total[2]) == (1.0, 8.0)
    assert (known.same_n[3], known.same_total[3]) == (1.0, 10.0)
    assert known.gap_days[3] == pytest.approx(3 + 21 / 24)
    assert known.days[3] == 5
    assert known.last[3] == 12
    assert known.middle[3] == 10
    assert known.low[3] == pytest.approx(8.4)
    assert np.isnan(known.gap_days[:2]).all()
    assert list(weekdays(s)) == [0, 0, 1, 5]
    assert list(hours(s)) == [17, 18, 17, 17]
    # 2 September is day 245 of the year; years are taken as equally long.
    assert year_share(s)[0] == pytest.approx(245 / 365.25, abs=0.003)


def test_alike_is_near_in_the_day_also_over_midnight():
    """From Monday 17:00: at 23:30, at 1:00 (near 23:30 only), on Saturday at 1:30 (a weekend)."""
    s = sessions([("a", 0, 1, 8.0), ("a", 6.5, 1, 4.0), ("a", 8, 1, 2.0), ("a", 104.5, 1, 1.0)])
    known = past(s, s.energy_kwh)
    # 1:00 on Tuesday: both were working days (½ each), 23:30 is near (½ more).
    assert (known.same_n[2], known.same_total[2]) == (1.5, 0.5 * 8 + 4)
    # 1:30 on Saturday: no day like it; 23:30 and 1:00 are near.
    assert (known.same_n[3], known.same_total[3]) == (1.0, 0.5 * 4 + 0.5 * 2)


def test_what_has_not_ended_is_not_known():
    """At hour 5 the first session still runs; at hour 11 it has ended, after the second."""
    s = sessions([("a", 0, 10, 8.0), ("a", 5, 2, 1.0), ("a", 11, 2, 3.0)])
    known = past(s, s.energy_kwh)
    assert list(known.n) == [0, 0, 2]
    assert known.last[2] == 8.0
    assert known.gap_days[2] == pytest.approx(1 / 24)


def test_like_pandas():
    s = town()
    known = past(s, s.energy_kwh)
    table = pd.DataFrame({"user": s.user, "y": s.energy_kwh})
    grouped = table.groupby("user").y
    assert known.n == pytest.approx(grouped.cumcount().to_numpy())
    earlier = (grouped.cumsum() - table.y).to_numpy()
    assert known.total == pytest.approx(earlier, abs=1e-9)
    assert known.last == pytest.approx(grouped.shift().fillna(0).to_numpy())
    middle = grouped.transform(lambda y: y.expanding().median().shift()).fillna(0)
    assert known.middle == pytest.approx(middle.to_numpy())
    weighted = grouped.transform(lambda y: y.ewm(alpha=0.2).mean().shift()).fillna(0)
    mean = known.recent_total / np.maximum(known.recent_n, 1e-9)
    assert mean == pytest.approx(weighted.to_numpy())


def test_no_later_value_and_no_other_user_is_looked_at():
    s = town()
    at = 90
    before = past(s, s.energy_kwh)
    changed = s.energy_kwh.copy()
    changed[at:] += 50
    after = past(s, changed)
    for name in before.__dataclass_fields__:
        old, new = getattr(before, name), getattr(after, name)
        assert np.array_equal(old[: at + 1], new[: at + 1], equal_nan=True), name
    other = s.user != s.user[at]
    changed = np.where(other, 99.0, s.energy_kwh)
    assert past(s, changed).total[at] == before.total[at]
    alone = s.take(~other)
    assert past(alone, alone.energy_kwh).total == pytest.approx(before.total[~other])


def test_the_hour_is_the_local_one():
    s = replace(town(), local_s=town().start_utc_s + 7200)
    assert hours(s) == pytest.approx((hours(town()) + 2) % 24)

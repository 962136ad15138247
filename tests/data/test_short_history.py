"""Hidden pasts and lent ones, against numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.data.features import GROUPS, row_features, trailing_level
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.short_history import (
    FleetProfile,
    annual_scale_kwh,
    last_days,
    most_windows,
    own_days,
    shortened,
    silenced,
    without_last_days,
)
from fl_inmetro.data.windows import Windows
from fl_inmetro.models.baselines import BASELINES
from fl_inmetro.units import DAY_S
from tests.fleets import MONDAY, series, windows

FEATURES = (
    "lags",
    "day_profiles",
    "recent",
    "calendar",
    "slots",
    "dispersion",
    "longer",
    "age",
    "known_days",
)


def with_energy(one: Windows, energy_kwh: np.ndarray) -> Windows:
    return replace(one, series=replace(one.series, energy_kwh=energy_kwh))


def test_what_is_known_of_a_ramp_with_two_days_to_be_seen():
    """Steps 0, 1, 2, …: at step 240, the last 48 are 192 … 239, of mean 215.5."""
    ramp = ClientSeries("a", MONDAY, 3600, np.arange(480.0))
    seen = last_days(windows(ramp, [10]), 2)
    assert seen.past.mean_so_far() == pytest.approx([215.5])
    assert seen.past.steps_so_far().tolist() == [48]
    level = trailing_level(seen)
    assert level.scale_kwh == pytest.approx([215.5])
    assert level.known_days == pytest.approx([2.0])
    past = seen.past.lookback(72)[0]
    assert np.isnan(past[:24]).all()
    assert past[24:].tolist() == list(range(192, 240))


def test_the_first_reading_may_lie_behind_what_is_visible_or_nowhere():
    values = np.full(480, np.nan)
    values[230:300] = 1.0  # ten steps before day 10, and nothing on days 13 to 19
    seen = last_days(windows(ClientSeries("a", MONDAY, 3600, values), [10, 15]), 2)
    assert seen.past.steps_so_far().tolist() == [10, 0]
    assert np.isnan(seen.past.mean_so_far()[1])


@pytest.mark.parametrize("days", [0, 1, 3, 28])
def test_nothing_before_or_after_what_is_visible_changes_a_feature_or_a_baseline(days):
    one = last_days(windows(series("a", 90, gaps=0.05), [70]), days)
    energy = one.series.energy_kwh.copy()
    issue = 70 * 24
    energy[: issue - 24 * days] = 1e6
    energy[issue:] = -1e6
    other = with_energy(one, energy)
    mine, theirs = row_features(one, FEATURES), row_features(other, FEATURES)
    assert np.array_equal(mine.x, theirs.x)
    assert np.array_equal(mine.base, theirs.base)
    assert np.array_equal(mine.level.scale_kwh, theirs.level.scale_kwh, equal_nan=True)
    for forecast in BASELINES.values():
        made, again = forecast(one), forecast(other)
        plain = [m if isinstance(m, np.ndarray) else m.mean_kwh for m in (made, again)]
        assert np.array_equal(*plain, equal_nan=True)


def test_with_the_whole_past_to_be_seen_nothing_changes():
    one = windows(series("a", 90), [70, 80])
    all_seen = last_days(one, 80)
    assert np.array_equal(row_features(one, FEATURES).x, row_features(all_seen, FEATURES).x)
    assert set(FEATURES) <= set(GROUPS)


def test_a_client_of_three_days_has_two_windows_to_train_on():
    """At day 20 it has days 17, 18 and 19; a forecast at 17:00 h of day 0 has no day behind it."""
    one = windows(series("a", 40), range(10, 30))
    own = own_days(one, MONDAY + 20 * DAY_S, 3)
    assert (own.issue_index // 24).tolist() == [18, 19]
    assert (own.visible_from // 24).tolist() == [17, 17]
    assert trailing_level(own).trainable.all()
    assert not len(own_days(one, MONDAY + 20 * DAY_S, 1))


def test_a_hidden_past_is_the_same_in_every_run_and_as_long_as_it_says():
    one = windows(series("a", 400), range(5, 390))
    hidden = shortened(one, 0.5)
    assert np.array_equal(hidden.visible_from, shortened(one, 0.5).visible_from)
    # A week behind it is still what a window needs: days 5 and 6 are left out.
    assert hidden.issue_index[0] == 7 * 24
    # Each window is there with its whole past, and those that are added stand by theirs.
    assert hidden.issue_index[hidden.visible_from == 0].tolist() == [d * 24 for d in range(7, 390)]
    assert (np.diff(hidden.issue_index) >= 0).all()
    days = (hidden.issue_index - hidden.visible_from)[hidden.visible_from > 0] / 24
    assert days.min() == 1
    assert days.max() <= 28
    # Binomial: 383 windows, half of them, four deviations of √(383 · ¼) ≈ 9.8.
    assert abs(len(days) - 383 / 2) < 40
    # P(days < 6) = ln 6 / ln 29 = .532.
    assert abs((days < 6).mean() - 0.532) < 0.15
    assert not np.array_equal(
        hidden.visible_from, shortened(windows(series("b", 400), range(5, 390)), 0.5).visible_from
    )


def test_no_share_hides_nothing():
    one = windows(series("a", 100), range(10, 90))
    assert (shortened(one, 0.0).visible_from == 0).all()
    assert (silenced(one, 0.0).visible_until == one.issue_index).all()


def test_what_is_known_of_a_ramp_without_its_last_day():
    """Steps 0, 1, 2, … in ten days: 0 … 215 are seen, of mean 107.5, and none of the last 24."""
    ramp = ClientSeries("a", MONDAY, 3600, np.arange(480.0))
    seen = without_last_days(windows(ramp, [10]), 1)
    assert seen.past.mean_so_far() == pytest.approx([107.5])
    assert seen.past.steps_so_far().tolist() == [240]  # it is as old as it was
    level = trailing_level(seen)
    assert level.scale_kwh == pytest.approx([107.5])
    assert level.known_days == pytest.approx([9.0])
    past = seen.past.lookback(48)[0]
    assert past[:24].tolist() == list(range(192, 216))
    assert np.isnan(past[24:]).all()
    # Of the two days 8 and 9 that are left by hiding the first eight, the last is hidden too.
    both = without_last_days(last_days(windows(ramp, [10]), 2), 1)
    assert both.past.mean_so_far() == pytest.approx([(192 + 215) / 2])
    assert both.past.steps_so_far().tolist() == [48]
    # Nothing is left to be seen: no mean, no age.
    none = without_last_days(last_days(windows(ramp, [10]), 2), 3)
    assert np.isnan(none.past.mean_so_far()[0])
    assert none.past.steps_so_far().tolist() == [0]


@pytest.mark.parametrize("days", [1, 3, 7])
def test_hidden_last_days_are_as_a_meter_that_is_silent(days):
    """Every feature, the base and all baselines, against readings that are really missing."""
    one = series("a", 60, gaps=0.1)
    energy = one.energy_kwh.copy()
    energy[(50 - days) * 24 : 50 * 24] = np.nan
    silent = windows(replace(one, energy_kwh=energy), [50], horizon=48)
    hidden = without_last_days(windows(one, [50], horizon=48), days)
    found, expected = (row_features(part, tuple(GROUPS)) for part in (hidden, silent))
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.base, expected.base)
    for name in ("sn168", "ha4", "day_type_mean", "median_28d"):
        np.testing.assert_array_equal(BASELINES[name](hidden), BASELINES[name](silent))
    # What is to be forecast is still there.
    assert np.isfinite(hidden.target_kwh()).mean() > 0.8


def test_hidden_endings_are_the_same_in_every_run_and_as_long_as_they_say():
    one = windows(series("a", 400), range(5, 390))
    hidden = silenced(one, 0.5)
    again = silenced(one, 0.5)
    assert np.array_equal(hidden.visible_until, again.visible_until)
    whole = hidden.visible_until == hidden.issue_index
    assert hidden.issue_index[whole].tolist() == [d * 24 for d in range(7, 390)]
    assert hidden.visible_from is None
    assert (np.diff(hidden.issue_index) >= 0).all()
    days = (hidden.issue_index - hidden.visible_until)[~whole] / 24
    assert sorted(set(days)) == [1, 2, 3, 4, 5, 6, 7]
    # Binomial, as above. P(one day) = ln 2 / ln 8 = 1/3, deviation √(2/9 / 190) = .034.
    assert abs(len(days) - 383 / 2) < 40
    assert abs((days == 1).mean() - 1 / 3) < 0.14
    # The short pasts and the hidden endings are drawn apart: no day count follows the other.
    other = shortened(one, 0.5)
    young = other.issue_index[other.visible_from > 0]
    assert set(young.tolist()) != set(hidden.issue_index[~whole].tolist())


def test_young_meters_may_be_silent_too():
    one = windows(series("a", 400), range(5, 390))
    young = shortened(one, 0.8)
    hidden = silenced(young, 0.5)
    whole = hidden.visible_until == hidden.issue_index
    assert np.array_equal(hidden.issue_index[whole], young.issue_index)
    assert np.array_equal(hidden.visible_from[whole], young.visible_from)
    both = ~whole & (hidden.visible_from > 0)
    assert both.any()
    # What is left of every window is at least a day.
    left = hidden.visible_until - np.maximum(hidden.visible_from, 0)
    assert (left[~whole] >= 24).all()
    assert trailing_level(hidden).trainable.all()


def test_a_scale_that_a_hidden_ending_throws_off_is_not_trained_on():
    """27 days of 1 kWh and a last one of 100.

    Scale of all: (27 + 100)/28 = 4.54; without the last day 1, less than a quarter of it: no window
    is added.
    """
    energy = np.full(60 * 24, 1.0)
    energy[27 * 24 : 28 * 24] = 100.0
    one = windows(ClientSeries("a", MONDAY, 3600, energy), [28] * 50)
    assert len(silenced(one, 1.0)) == 50
    energy[27 * 24 : 28 * 24] = 70.0  # 97/28 = 3.46
    one = windows(ClientSeries("a", MONDAY, 3600, energy), [28] * 50)
    assert len(silenced(one, 1.0)) == 100


def test_the_most_windows_by_hand():
    # 730 windows, a fifth: 146, deviation √(730 · .16) = 10.81, six of them 64.8: 730 + 211.
    assert most_windows(730, 0.2) == 941
    assert most_windows(730, 0.0) == 730
    assert most_windows(730, 1.0) == 1460
    assert most_windows(2, 0.9) == 4  # no more than all of them
    one = windows(series("a", 400), range(20, 390))
    for share in (0.2, 0.8):
        assert len(silenced(shortened(one, share), share)) <= most_windows(
            most_windows(len(one), share), share
        )


def test_a_part_of_windows_takes_what_they_see_along():
    part = without_last_days(windows(series("a", 60), [40, 41, 42]), np.array([1, 2, 3]))
    taken = part.take(np.array([2, 0]))
    assert (taken.issue_index - taken.visible_until).tolist() == [72, 24]


def test_a_scale_that_hiding_throws_off_is_not_trained_on():
    """Four weeks of 10 kWh, then a week of 1: the last day's scale is below a quarter of theirs."""
    energy = np.full(60 * 24, 10.0)
    energy[40 * 24 : 47 * 24] = 1.0
    one = windows(ClientSeries("a", MONDAY, 3600, energy), [47] * 200)
    hidden = shortened(one, 1.0)
    visible = (hidden.issue_index - hidden.visible_from)[hidden.visible_from > 0] / 24
    # 28-day mean = (21·10 + 7·1)/28 = 7.75; a quarter is 1.94. Of d > 7 days the mean is
    # (7 + 10(d − 7))/d, above it from d = 8 on (2.125). P(d ≥ 8) = 1 − ln 8 / ln 29 = .382.
    assert visible.min() == 8
    assert (hidden.visible_from == 0).sum() == 200
    assert abs(len(visible) / 200 - 0.382) < 0.14


def flat(name: str, level_kwh: float, weekend: float) -> Windows:
    """A client of one load on working days and another at weekends, 35 days from a Monday."""
    day = np.arange(35) % 7
    energy = np.repeat(np.where(day < 5, 1.0, weekend) * level_kwh, 24)
    return windows(ClientSeries(name, MONDAY, 3600, energy), [28])


def test_the_profile_of_a_fleet_by_hand():
    """Four weeks of 20 working days and 8 days of weekend.

    a: 2 kWh and 1 kWh: scale (20 · 2 + 8 · 1)/28 = 48/28; shares 2 · 28/48 = 7/6 and 7/12.
    b: 10 and 10: scale 10, shares 1 and 1. Means: 13/12 and 19/24; median scale (48/28 + 10)/2.
    """
    at = MONDAY + 28 * DAY_S
    profile = FleetProfile.of([flat("a", 2.0, 0.5), flat("b", 10.0, 1.0)], at)
    assert profile.share.shape == (4, 24)
    assert profile.share[0] == pytest.approx(np.full(24, 13 / 12))
    # Saturday, Sunday, and a holiday that nobody has seen: as a Sunday.
    assert profile.share[1:] == pytest.approx(np.full((3, 24), 19 / 24))
    assert profile.scale_kwh == pytest.approx((48 / 28 + 10) / 2)

    # Day 28 is a Monday, day 26 a Saturday.
    asked = windows(series("c", 35), [26, 28])
    kwh = profile.forecast_kwh(asked, 3.0)
    assert kwh == pytest.approx(np.repeat([[3 * 19 / 24], [3 * 13 / 12]], 24, axis=1))

    lent = profile.lend(asked, 3.0)
    assert np.array_equal(lent.target_utc_s, asked.target_utc_s)
    # The two days before day 28 are a weekend, the day before them a Friday.
    past = lent.past.lookback(72)[1]
    assert past == pytest.approx(3 * np.repeat([13 / 12, 19 / 24, 19 / 24], 24))
    assert np.isfinite(lent.past.lookback(57 * 24)[0]).all()


def test_a_lent_past_has_nothing_of_the_clients_own():
    profile = FleetProfile.of([flat("a", 2.0, 0.5)], MONDAY + 28 * DAY_S)
    asked = windows(series("c", 35), [26, 28])
    other = with_energy(asked, np.full(len(asked.series), 1e6))
    mine, theirs = (row_features(profile.lend(one, 3.0), FEATURES).x for one in (asked, other))
    assert np.array_equal(mine, theirs)


def test_a_profile_looks_at_nothing_after_its_instant():
    one = flat("a", 2.0, 0.5)
    energy = one.series.energy_kwh.copy()
    energy[28 * 24 :] = 1e6
    at = MONDAY + 28 * DAY_S
    mine, theirs = (FleetProfile.of([w], at) for w in (one, with_energy(one, energy)))
    assert np.array_equal(mine.share, theirs.share)
    assert mine.scale_kwh == theirs.scale_kwh


def test_a_fleet_without_a_scale_has_no_profile():
    nothing = windows(ClientSeries("a", MONDAY, 3600, np.full(35 * 24, np.nan)), [28])
    with pytest.raises(ValueError, match="no client has a scale"):
        FleetProfile.of([nothing], MONDAY + 28 * DAY_S)


def test_a_years_energy_as_the_mean_of_a_step():
    """8760 kWh in 365 days are 1 kWh an hour, half of it in half an hour."""
    assert annual_scale_kwh(8760.0, 3600) == pytest.approx(1.0)
    assert annual_scale_kwh(8760.0, 1800) == pytest.approx(0.5)


def test_silence_by_hand():
    """A day and a half: 36 of 24 steps a day, log(2.5). A meter that was never heard: 28 days."""
    part = windows(series("a", 60), [40])
    found = row_features(without_last_days(part, 1.5), ("silence",)).x[0]
    assert found.shape == (24, 2)
    np.testing.assert_allclose(found, [[1.0, np.log(2.5)]] * 24, rtol=1e-6)
    np.testing.assert_array_equal(row_features(part, ("silence",)).x, np.zeros((1, 24, 2)))
    half = row_features(without_last_days(part, 0.5), ("silence",)).x[0, 0]
    np.testing.assert_allclose(half, [0.0, np.log(1.5)], rtol=1e-6)
    never = windows(ClientSeries("n", MONDAY, 3600, np.full(50 * 24, np.nan)), [40])
    found = row_features(never, ("silence",)).x[0, 0]
    np.testing.assert_allclose(found, [1.0, np.log(29)], rtol=1e-6)

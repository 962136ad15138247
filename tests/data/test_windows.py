"""Windows: no look-ahead by construction, no copies, and every slot against a plain loop."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.schema import USUAL_BASELINES
from fl_inmetro.data.features import GROUPS, row_features
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Windows, horizon_steps, windows_at
from fl_inmetro.errors import DataError
from fl_inmetro.metrics import Forecast
from fl_inmetro.models.baselines import BASELINES
from fl_inmetro.models.design import context_design
from tests.fleets import MONDAY, by_the_clock, series, windows

HOUR = 3600


# ---------------------------------------------------------------------------- look-ahead
@given(
    st.integers(0, 39 * 24 + 23),
    st.sampled_from([24, 30, 48]),
    st.sampled_from([0.0, 1e9, -7.5, np.nan]),
    st.sampled_from([0.0, 0.2]),
)
def test_no_forecaster_sees_a_reading_at_or_after_its_issue_time(issue, horizon, garbage, gaps):
    """Replace everything from one issue time on: rows issued until then keep their bits."""
    true = series("a", 40, gaps=gaps)
    energy = true.energy_kwh.copy()
    energy[issue:] = garbage
    other = ClientSeries("a", true.start_utc_s, true.resolution_s, energy)
    # The issue time itself, and windows before and after it, as a forecaster gets them.
    index = np.unique(np.clip([issue - 24 * 9, issue - 1, issue, issue + 24], 0, len(true)))
    before = index <= issue
    seen = [Windows(one, index, horizon) for one in (true, other)]

    def same(a: np.ndarray, b: np.ndarray) -> None:
        np.testing.assert_array_equal(a[before], b[before])

    features = [row_features(part, tuple(GROUPS)) for part in seen]
    for name in ("x", "base"):
        same(*(getattr(part, name) for part in features))
    for name in ("scale_kwh", "floor_kwh", "known_days"):
        same(*(getattr(part.level, name) for part in features))
    contexts = [context_design(part, 48, targets=False) for part in seen]
    for name in ("x", "base", "scale_kwh"):
        same(*(getattr(part, name) for part in contexts))
    for forecast in BASELINES.values():
        told = [forecast(part) for part in seen]
        same(*(one.quantiles_kwh if isinstance(one, Forecast) else one for one in told))


def test_the_garbage_test_would_notice():
    """The guard itself: the row one step later does change."""
    true = series("a", 40)
    energy = true.energy_kwh.copy()
    energy[700:] = 1e9
    other = ClientSeries("a", true.start_utc_s, HOUR, energy)
    a, b = (row_features(Windows(s, np.array([701]), 24), ("lags",)) for s in (true, other))
    assert not np.array_equal(a.level.scale_kwh, b.level.scale_kwh)


def test_asking_for_the_future_is_fl213_with_the_place():
    past = windows(series("a", 10), [3, 5]).past
    assert past.at(np.array([71, 119])).shape == (2,)
    for index in ([72, 0], [0, 120], [0, 10_000]):
        with pytest.raises(DataError) as caught:
            past.at(np.array(index))
        (fault,) = caught.value.faults
        assert fault.code == "FL213"
        assert fault.where == f"issue step {72 if index[0] == 72 else 120}"
        assert fault.hint
    # A step of a later row's past is still the future of an earlier row.
    with pytest.raises(DataError):
        past.at(np.array([100, 100]))


def test_the_private_array_ends_at_the_last_issue_time():
    past = windows(series("a", 10), [3, 5]).past
    energy = past._Past__energy_kwh  # type: ignore[attr-defined]  # what name mangling hides
    assert energy.size == 5 * 24


# -------------------------------------------------------------------------------- slots
def plain_slots(past_of: ClientSeries, issue: int, horizon: int, back: list[int], period: int):
    """Same slot `k` periods back of step h: the latest known one is one period back."""
    result = np.full((horizon, len(back)), np.nan)
    for h in range(horizon):
        for column, k in enumerate(back):
            step = issue + h % period - k * period
            if 0 <= step < len(past_of):
                assert step < issue
                result[h, column] = past_of.energy_kwh[step]
    return result


@pytest.mark.parametrize("resolution_s", [900, 1800, 3600])
@pytest.mark.parametrize("hours", [1, 24, 36, 60])
def test_slots_equal_a_plain_loop(resolution_s, hours):
    one = series("a", 12, resolution_s=resolution_s, gaps=0.1)
    per_day = 86_400 // resolution_s
    horizon = hours * HOUR // resolution_s
    issue = np.array([0, per_day // 2, 3 * per_day, 9 * per_day, len(one)])
    past = Windows(one, issue, horizon).past
    days, weeks = [1, 2, 7], [1, 2]
    for row, at in enumerate(issue.tolist()):
        np.testing.assert_array_equal(
            past.same_slot(np.array(days), horizon)[row],
            plain_slots(one, at, horizon, days, per_day),
        )
        np.testing.assert_array_equal(
            past.same_week_slot(np.array(weeks), horizon)[row],
            plain_slots(one, at, horizon, weeks, 7 * per_day),
        )


def test_slots_by_hand():
    # Energy = its step. Issue at step 48 (day 2): hour 5 of the forecast is step 53; yesterday 29,
    # the day before 5. Hour 29 is 05:00 again: yesterday is the forecast itself, so 29 once more.
    one = ClientSeries("a", 0, HOUR, np.arange(100.0))
    slots = Windows(one, np.array([48]), 30).past.same_slot(np.array([1, 2]), 30)
    assert slots[0, 5].tolist() == [29, 5]
    assert slots[0, 29].tolist() == [29, 5]


def test_lookback_is_oldest_first_and_nan_before_the_series():
    one = ClientSeries("a", 0, HOUR, np.arange(10.0))
    back = Windows(one, np.array([2, 5]), 3).past.lookback(3)
    np.testing.assert_array_equal(back, [[np.nan, 0, 1], [2, 3, 4]])


def test_an_empty_series_is_unknown_everywhere():
    one = ClientSeries("a", 0, HOUR, np.zeros(0))
    part = Windows(one, np.array([0]), 24)
    assert np.isnan(part.past.lookback(5)).all()
    assert np.isnan(part.target_kwh()).all()
    assert np.isnan(row_features(part, tuple(GROUPS)).level.scale_kwh).all()


# ------------------------------------------------------------------------------ windows
def test_windows_hold_indices_and_not_copies():
    one = series("a", 40)
    part = windows(one, range(30))
    assert part.series.energy_kwh is one.energy_kwh
    energy = part.past._Past__energy_kwh  # type: ignore[attr-defined]
    assert np.shares_memory(energy, one.energy_kwh)
    assert part.issue_index.nbytes == 30 * 8
    assert part.take(np.array([1, 4])).series is one


def test_targets_by_hand_and_beyond_the_end():
    one = ClientSeries("a", 0, HOUR, np.array([0.0, 1, np.nan, 3]))
    part = Windows(one, np.array([1, 3]), 3)
    np.testing.assert_array_equal(part.target_kwh(), [[1, np.nan, 3], [3, np.nan, np.nan]])
    assert part.issue_utc_s.tolist() == [3600, 3 * 3600]
    assert part.target_utc_s[1].tolist() == [3 * 3600, 4 * 3600, 5 * 3600]


def test_known_windows_have_a_target_and_others_a_place_at_the_end():
    energy = np.ones(72)
    energy[24:48] = np.nan
    one = ClientSeries("a", MONDAY, HOUR, energy)
    issues = MONDAY + 86_400 * np.arange(-1, 6)
    assert windows_at(one, issues, 24, "UTC").issue_index.tolist() == [0, 48]
    # Step 72 is right after the last reading; later issue times only know less of the past.
    asked = windows_at(one, issues, 24, "UTC", known=False).issue_index.tolist()
    assert asked == [0, 24, 48, 72, 96, 120]


def test_an_issue_time_off_the_grid_is_fl207():
    one = series("a", 3)
    with pytest.raises(DataError) as caught:
        windows_at(one, np.array([MONDAY, MONDAY + 1800]), 24, "UTC")
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL207", "client a")
    assert "2024-01-01T00:30:00Z" in fault.what


@pytest.mark.parametrize(
    ("hours", "resolution_s", "steps"),
    [(24, 3600, 24), (24, 900, 96), (0.25, 900, 1), (36, 1800, 72)],
)
def test_horizon_steps(hours, resolution_s, steps):
    assert horizon_steps(hours, resolution_s) == steps


@pytest.mark.parametrize(("hours", "resolution_s"), [(0.5, 3600), (1.25, 1800), (0.0001, 3600)])
def test_a_horizon_that_is_no_number_of_steps_is_fl207(hours, resolution_s):
    with pytest.raises(DataError) as caught:
        horizon_steps(hours, resolution_s)
    assert caught.value.faults[0].code == "FL207"
    assert caught.value.faults[0].where == "[window] horizon-h"


# ---------------------------------------------------------------------------- baselines
def test_baselines_by_hand():
    # Energy of hour h on day d = 100 d + h; issued at day 28 (four whole weeks of past), hour 3:
    # yesterday 2703; a week ago 2103; HA4 = mean of days 21 14 7 0 = 10.5 → 1053; seven days
    # 21 … 27, mean 24 → 2403.
    one = ClientSeries(
        "a", MONDAY, HOUR, np.add.outer(100.0 * np.arange(29), np.arange(24)).ravel()
    )
    part = windows(one, [28])
    got = {name: BASELINES[name](part)[0, 3] for name in USUAL_BASELINES}
    assert got == {"sn24": 2703, "sn168": 2103, "ha4": 1053, "persistence_ensemble": 2403}
    # Day 28 is a Monday; working days are those of four weeks, 0 … 4, 7 … 11, …: their mean is
    # 12.5 days. All 28 days, 0 … 27, have the median 13.5.
    assert BASELINES["day_type_mean"](part)[0, 3] == pytest.approx(1253)
    assert BASELINES["median_28d"](part)[0, 3] == 1353
    # Σ 0.8^k (27 − k) / Σ 0.8^k over k = 0 … 27, in a plain loop.
    top = bottom = 0.0
    for k in range(28):
        top, bottom = top + 0.8**k * (100 * (27 - k) + 3), bottom + 0.8**k
    assert BASELINES["ewma_slot"](part)[0, 3] == pytest.approx(top / bottom)
    # The quantile of level p stands p · 27 of the way along days 0 … 27.
    told = BASELINES["slot_quantiles"](part)
    assert told.levels == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert told.quantiles_kwh[0, 3] == pytest.approx([270 * k + 3 for k in range(1, 10)])
    assert told.mean_kwh[0, 3] == pytest.approx(1353)


def test_baselines_leave_missing_days_out_or_stay_silent():
    energy = np.add.outer(100.0 * np.arange(29), np.arange(24))
    energy[27, 3] = energy[21, 3] = energy[7, 3] = np.nan
    energy[[21, 14, 7, 0], 4] = np.nan
    part = windows(ClientSeries("a", MONDAY, HOUR, energy.ravel()), [28])
    got = {name: BASELINES[name](part)[0] for name in USUAL_BASELINES}
    assert np.isnan(got["sn24"][3])
    assert np.isnan(got["sn168"][3])
    assert got["ha4"][3] == (1403 + 3) / 2  # days 14 and 0
    assert got["persistence_ensemble"][3] == pytest.approx((2203 + 2303 + 2403 + 2503 + 2603) / 5)
    assert np.isnan(got["ha4"][4])
    # Of 25 known days (27, 21 and 7 are missing) the median is the 13th: 0 … 6, 8 … 12, then 13.
    assert BASELINES["median_28d"](part)[0, 3] == 1303
    energy[:28, 5] = np.nan
    silent = windows(ClientSeries("a", MONDAY, HOUR, energy.ravel()), [28])
    for name in ("median_28d", "ewma_slot"):
        assert np.isnan(BASELINES[name](silent)[0, 5])
    told = BASELINES["slot_quantiles"](silent)
    assert np.isnan(told.quantiles_kwh[0, 5]).all()
    assert np.isnan(told.mean_kwh[0, 5])


def test_baselines_beyond_a_day_repeat_what_is_known():
    part = windows(series("a", 20), [15], horizon=48)
    for name in ("sn24", "persistence_ensemble"):
        forecast = BASELINES[name](part)[0]
        np.testing.assert_array_equal(forecast[:24], forecast[24:])
    week = BASELINES["sn168"](part)[0]
    np.testing.assert_array_equal(week, part.series.energy_kwh[8 * 24 : 10 * 24])


def test_the_same_local_time_over_a_change_of_the_clock():
    """London put its clocks forward on 2024-03-31: 12:00 there is 11:00 UTC then, 12:00 before."""
    start = int(datetime(2024, 3, 25, tzinfo=UTC).timestamp())
    energy = np.arange(24 * 14, dtype=np.float64)
    local = ClientSeries("a", start, 3600, energy, Site(timezone="Europe/London"))
    issue = np.array([24 * 8])  # Tuesday 2 April, 00:00 UTC = 01:00 in London
    there = Windows(local, issue, 24)
    plain = Windows(ClientSeries("a", start, 3600, energy), issue, 24)
    # Step 11 (12:00 in London): yesterday at 11:00 UTC; last Saturday, three days back, at 12:00.
    assert there.same_slot(np.array([1, 3]))[0, 11].tolist() == [24 * 7 + 11, 24 * 5 + 12]
    assert plain.same_slot(np.array([1, 3]))[0, 11].tolist() == [24 * 7 + 11, 24 * 5 + 11]
    assert there.same_week_slot(np.array([1]))[0, 11].tolist() == [24 + 12]
    assert there.target_clock.second_of_day[0, 11] == 12 * 3600
    assert plain.target_clock.second_of_day[0, 11] == 11 * 3600
    # Step 23 on the day of the change: an hour later is not in the past of what is asked for.
    late = Windows(local, np.array([24 * 7]), 24)
    assert np.isfinite(late.same_slot(np.arange(1, 8))).all()


@given(st.integers(0, 27), st.sampled_from([None, "Europe/London", "America/Sao_Paulo"]))
def test_a_clock_lets_nothing_of_the_future_in(day, zone):
    start = int(datetime(2017, 10, 1, tzinfo=UTC).timestamp())
    energy = np.random.default_rng(day).gamma(2.0, size=24 * 40)
    issue = np.array([24 * (10 + day)])
    garbage = energy.copy()
    garbage[issue[0] :] = 1e9
    one, other = (
        Windows(ClientSeries("a", start, 3600, values, Site(timezone=zone)), issue, 36)
        for values in (energy, garbage)
    )
    back = np.arange(1, 9)
    np.testing.assert_array_equal(one.same_slot(back), other.same_slot(back))
    np.testing.assert_array_equal(one.same_week_slot(back), other.same_week_slot(back))


@pytest.mark.parametrize(
    ("zone", "change", "issue_h", "step_s"),
    [
        ("Europe/London", datetime(2024, 3, 31, tzinfo=UTC), 0, HOUR),
        ("Europe/London", datetime(2024, 10, 27, tzinfo=UTC), 0, HOUR),
        ("America/New_York", datetime(2024, 3, 10, tzinfo=UTC), 5, HOUR),
        ("America/New_York", datetime(2024, 11, 3, tzinfo=UTC), 4, 900),
        ("Australia/Sydney", datetime(2013, 10, 5, tzinfo=UTC), 14, 1800),
    ],
)
@pytest.mark.parametrize("lead_h", [0, 18])
@pytest.mark.parametrize("where", ["window", "site"])
def test_what_repeats_by_the_clock_is_forecast_exactly(
    zone, change, issue_h, step_s, lead_h, where
):
    """Over a change of the clock the day-type mean is the load itself, whoever tells the zone."""
    one = by_the_clock(zone, change - timedelta(days=35), 80, step_s)
    if where == "site":
        one = replace(one, site=Site(timezone=zone))
    per_hour = HOUR // step_s
    index = (np.arange(33, 77) * 24 + issue_h) * per_hour
    told = zone if where == "window" else "UTC"
    part = Windows(one, index, 24 * per_hour, told, lead=lead_h * per_hour)
    np.testing.assert_allclose(BASELINES["day_type_mean"](part), part.target_kwh(), rtol=1e-6)
    # The same by days of 24 h is wrong by up to an hour's difference.
    assert np.abs(BASELINES["day_type_mean"](replace(part, timezone="UTC", series=replace(
        one, site=Site()))) - part.target_kwh()).max() > 0.5  # fmt: skip


def test_a_clock_that_is_never_changed_costs_nothing():
    part = windows(series("a", 60), [40, 41])
    steps = replace(part, timezone="Etc/GMT-10")._steps_back(np.array([1, 2]), 86_400)
    assert steps.shape == (1, 24, 2)
    assert steps[0, 5].tolist() == [5 - 24, 5 - 48]

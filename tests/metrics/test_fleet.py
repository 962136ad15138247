"""The sum of a fleet, its peaks and its calibration: by hand, and against plain loops."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import stats

from fl_inmetro.metrics import ErrorSums, Forecast
from fl_inmetro.metrics.calibration import calibration, local_hours
from fl_inmetro.metrics.fleet import FLEET, fleet_errors, peaks, summed, summed_parts
from fl_inmetro.metrics.points import Points

DAY, HOUR = 86_400, 3600
NAN = math.nan


def points(client, step, forecast, load, names=("a", "b"), levels=(), quantiles=None):
    """Hourly steps from the epoch on, issued at midnight."""
    target = HOUR * np.array(step)
    made = Forecast(
        np.array(forecast, dtype=float),
        levels,
        None if quantiles is None else np.array(quantiles, dtype=float),
    )
    return Points(
        names,
        np.array(client),
        target // DAY * DAY,
        target,
        made,
        np.array(load, dtype=float),
    )


def test_the_sums_of_points_are_those_of_each_client():
    one = points([1, 0, 1], [0, 0, 1], [2, 5, 4], [1, 7, 1], names=("a", "b", "none"))
    sums = one.sums()
    assert sums["a"].abs_kwh == 2
    assert sums["b"].abs_kwh == 4
    assert sums["none"] == ErrorSums()


# ------------------------------------------------------------------------------------ fleet
def test_errors_of_clients_cancel_in_the_fleet():
    # Step 0: forecasts 2 + 3 against 3 + 2. Step 1: 1 + 1 against 2 + 3. Fleet errors 0 and −3;
    # MAE 1.5 over a mean load of 5: 0.3; RMSE √4.5/5. Each client alone is off by 1.
    found = fleet_errors(points([0, 1, 0, 1], [0, 0, 1, 1], [2, 3, 1, 1], [3, 2, 2, 3]))
    assert found.nmae == pytest.approx(0.3)
    assert found.nrmse == pytest.approx(math.sqrt(4.5) / 5)
    assert found.bias == pytest.approx(-3 / 10)


def test_an_instant_that_lacks_a_client_is_none_of_the_fleet():
    # b is not known at step 1; c has no scored point at all and is not waited for.
    names = ("a", "b", "c")
    one = points([0, 1, 2, 0, 1], [0, 0, 0, 1, 1], [2, 3, 9, 1, 1], [3, 2, NAN, 2, NAN], names)
    total = summed(one)
    assert total.names == (FLEET,)
    assert total.target_utc_s.tolist() == [0]
    assert total.observed_kwh.tolist() == [5]
    assert math.isnan(fleet_errors(points([0], [0], [1], [NAN])).nmae)


def test_the_fleet_sums_means_although_medians_are_scored():
    levels, rows = (0.1, 0.5, 0.9), [[0, 1, 9], [0, 1, 9]]
    one = points([0, 1], [0, 0], [3, 3], [3, 3], levels=levels, quantiles=rows)
    assert fleet_errors(one).nmae == 0
    assert one.sums()["a"].nmae == pytest.approx(2 / 3)


def test_overlapping_forecasts_are_summed_issue_by_issue():
    one = points([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 5, 5], [1, 1, 1, 1])
    one = Points(
        one.names,
        one.client,
        np.array([0, 0, -DAY, -DAY]),
        one.target_utc_s,
        one.forecast,
        one.observed_kwh,
    )
    assert sorted(summed(one).forecast.mean_kwh.tolist()) == [2, 10]


# ------------------------------------------------------------------------------------ peaks
def day_of(peak, height, base=1.0):
    load = np.full(24, base)
    load[peak] = height
    return load


def days(forecast, load, client):
    steps = np.concatenate([24 * d + np.arange(24) for d in range(len(forecast))])
    return points(np.repeat(client, 24), steps, np.concatenate(forecast), np.concatenate(load))


def test_peaks_by_hand():
    # Day 0: 19 h for 18 h, 4 for 5 kWh: a hit. Day 1: 8 h for 18 h, 6 for 5 kWh: a miss. Day 2: a
    # flat forecast of 2 names no hour. Measured peaks 5 5 5; errors −1 +1 −3: size 5/15, bias
    # −3/15.
    one = days(
        [day_of(19, 4), day_of(8, 6), np.full(24, 2.0)],
        [day_of(18, 5), day_of(18, 5), day_of(0, 5)],
        [0, 0, 0],
    )
    found = peaks(one, HOUR)
    assert found.hit_share == pytest.approx(1 / 3)
    assert found.size_error == pytest.approx(5 / 15)
    assert found.size_bias == pytest.approx(-3 / 15)
    assert (found.days, found.clients) == (3, 1)


def test_each_client_counts_once_and_days_must_be_whole_and_uneven():
    # a: two hits; b: one miss, one day with an hour unknown, one day of constant load.
    broken = day_of(3, 2)
    broken[7] = NAN
    one = days(
        [day_of(18, 2), day_of(18, 2), day_of(1, 2), day_of(3, 2), day_of(3, 2)],
        [day_of(18, 2), day_of(17, 2), day_of(9, 2), broken, np.ones(24)],
        [0, 0, 1, 1, 1],
    )
    found = peaks(one, HOUR)
    assert found.hit_share == pytest.approx(0.5)
    assert (found.days, found.clients) == (3, 2)


def test_peaks_of_half_hours_and_of_the_fleet():
    # The forecast is two half-hour steps off: an hour, still a hit; three would not be.
    load = np.ones(48)
    load[30] = 3
    made = np.stack([np.roll(load, 2), np.roll(load, 3)])
    one = Points(
        ("a",),
        np.zeros(96, dtype=np.int64),
        np.repeat([0, DAY], 48),
        np.arange(96) * 1800,
        Forecast(made.ravel()),
        np.tile(load, 2),
    )
    assert peaks(one, 1800).hit_share == 0.5
    assert peaks(summed(one), 1800).hit_share == 0.5


def test_no_whole_day_gives_nan_and_no_error():
    found = peaks(points([0], [0], [1], [1]), HOUR)
    assert math.isnan(found.hit_share)
    assert (found.days, found.clients) == (0, 0)


# ------------------------------------------------------------------------------ calibration
LEVELS = (0.1, 0.5, 0.9)


def test_calibration_by_hand():
    # a: loads 1 2 3 4 against quantiles 1 2 3: not above 1/4, 2/4, 3/4 of them; 3 of 4 inside
    # (1, 2 and 3 are), width 2 over a mean of 2.5. b: load 9, above all; width 2 over 9.
    one = points(
        [0, 0, 0, 0, 1],
        [0, 1, 2, 3, 0],
        [2] * 5,
        [1, 2, 3, 4, 9],
        levels=LEVELS,
        quantiles=[[1, 2, 3]] * 5,
    )
    found = calibration(one, "UTC")
    assert found is not None
    assert found.observed.tolist() == [1 / 5, 2 / 5, 3 / 5]
    assert found.deviation == pytest.approx((0.1 + 0.1 + 0.3) / 3)
    assert found.clients == ("b", "a")  # by coverage
    assert found.coverage.tolist() == [0, 0.75]
    assert found.width.tolist() == [pytest.approx(2 / 9), pytest.approx(0.8)]
    assert found.hour_coverage[:4].tolist() == [0.5, 1, 1, 0]
    assert found.hour_width[0] == pytest.approx((2 / 9 + 0.8) / 2)
    assert found.hour_width[1] == pytest.approx(0.8)
    assert np.isnan(found.hour_coverage[4:]).all()
    assert found.points == 5


def test_calibration_counts_what_the_error_sums_count():
    rng = np.random.default_rng(2)
    quantiles = np.sort(rng.gamma(2, 1, (600, 3)), axis=1)
    quantiles[rng.random((600, 3)) < 0.05] = NAN
    load = rng.gamma(2, 1, 600)
    load[rng.random(600) < 0.1] = NAN
    one = points(
        np.repeat([0, 1], 300),
        np.tile(np.arange(300), 2),
        rng.gamma(2, 1, 600),
        load,
        levels=LEVELS,
        quantiles=quantiles,
    )
    found = calibration(one, "UTC")
    assert found is not None
    sums = one.sums()
    assert found.points == sum(s.n_q for s in sums.values())
    for name, coverage in zip(found.clients, found.coverage, strict=True):
        assert coverage == pytest.approx(sums[name].coverage_80, rel=1e-12)


def test_a_right_forecast_is_on_the_diagonal():
    rng = np.random.default_rng(5)
    levels = tuple(k / 20 for k in range(1, 20))
    centre = rng.normal(5, 1, 20_000)
    quantiles = centre[:, None] + stats.norm.ppf(levels)
    one = points(
        np.zeros(20_000, dtype=int), np.arange(20_000), centre, centre + rng.normal(0, 1, 20_000),
        names=("a",), levels=levels, quantiles=quantiles,
    )  # fmt: skip
    found = calibration(one, "UTC")
    assert found is not None
    # Standard error √(.25/20 000) = .0035.
    assert np.abs(found.observed - np.array(levels)).max() < 0.015


def test_without_quantiles_or_without_an_interval():
    assert calibration(points([0], [0], [1], [1]), "UTC") is None
    one = points([0], [0], [1], [NAN], levels=LEVELS, quantiles=[[1, 2, 3]])
    assert calibration(one, "UTC") is None
    # A median alone has a frequency and no interval.
    found = calibration(points([0], [0], [1], [1], levels=(0.5,), quantiles=[[2]]), "UTC")
    assert found is not None
    assert found.observed.tolist() == [1]
    assert np.isnan(found.coverage).all()
    assert np.isnan(found.width).all()


def test_hours_are_those_of_the_clock():
    # London changed to summer time on 2019-03-31 at 01:00 UTC.
    first = int(datetime(2019, 3, 31, 0, tzinfo=UTC).timestamp())
    instants = first + HOUR * np.arange(4)
    assert local_hours(instants, "Europe/London").tolist() == [0, 2, 3, 4]
    assert local_hours(instants, "America/Sao_Paulo").tolist() == [21, 22, 23, 0]


def test_a_sum_in_parts_is_that_of_all_points():
    """Clients in parts, one of them without a scored point, another with a gap."""
    step = np.tile(np.arange(30), 4)
    client = np.repeat(np.arange(4), 30)
    rng = np.random.default_rng(5)
    load = rng.random(120)
    load[client == 2] = NAN
    load[7] = NAN
    every = points(client, step, rng.random(120), load, names=("a", "b", "c", "d"))
    parts = [every.take(np.isin(client, own)) for own in ([0, 2], [2], [3, 1])]
    found, whole = summed_parts(iter(parts)), summed(every)
    assert len(whole) == 29
    np.testing.assert_array_equal(found.issue_utc_s, whole.issue_utc_s)
    np.testing.assert_array_equal(found.target_utc_s, whole.target_utc_s)
    np.testing.assert_allclose(found.forecast.mean_kwh, whole.forecast.mean_kwh, rtol=1e-14)
    np.testing.assert_allclose(found.observed_kwh, whole.observed_kwh, rtol=1e-14)
    for k, target in enumerate(whole.target_utc_s):  # a plain loop
        at = (every.target_utc_s == target) & np.isin(client, [0, 1, 3])
        assert whole.observed_kwh[k] == pytest.approx(load[at].sum())

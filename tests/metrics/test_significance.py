"""Tests of differences: by hand, against SciPy and statsmodels, and their size by simulation."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from fl_inmetro.metrics import ErrorSums, Forecast
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.significance import (
    Losses,
    bootstrap_bounds,
    default_lag,
    diebold_mariano,
    mean_losses,
    paired_losses,
    panel_test,
    seeds_test,
)
from fl_inmetro.metrics.student import two_sided_p
from fl_inmetro.seeds import derive

DAY = 86_400


# ----------------------------------------------------------------------------- Student's t
@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 27, 55, 1000])
def test_p_values_are_scipys(degrees):
    for statistic in (0.0, 1e-6, 0.3, 1.0, -1.7, 2.2, 5.0, 40.0):
        expected = 2 * stats.t.sf(abs(statistic), degrees)
        assert two_sided_p(statistic, degrees) == pytest.approx(expected, rel=1e-10, abs=1e-300)


def test_p_values_at_the_ends():
    assert two_sided_p(math.inf, 5) == 0
    assert math.isnan(two_sided_p(math.nan, 5))


# ------------------------------------------------------------------------- Diebold-Mariano
def test_lag_zero_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    series = rng.normal(0.2, 1, 40)
    found, expected = diebold_mariano(series, lag=0), stats.ttest_1samp(series, 0.0)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_one_lag_by_hand():
    # Series 1 3 2 6, mean 3, centred −2 0 −1 3: γ0 = 14/4 = 3.5, γ1 = (0 + 0 − 3)/4 = −0.75.
    # Bartlett with L = 1: 3.5 + 2·½·(−0.75) = 2.75, over T = 4: 0.6875. h = 2:
    # (4 + 1 − 4 + 2·1/4)/4 = 1.5/4. Statistic √0.375 · 3/√0.6875.
    found = diebold_mariano(np.array([1.0, 3, 2, 6]), lag=1)
    assert found.mean == 3
    assert found.statistic == pytest.approx(math.sqrt(0.375) * 3 / math.sqrt(0.6875))
    assert (found.count, found.lag) == (4, 1)


@pytest.mark.parametrize("lag", [1, 3, 7])
def test_the_variance_is_that_of_statsmodels_newey_west(lag):
    rng = np.random.default_rng(lag)
    noise = rng.normal(0, 1, 60)
    series = 0.3 + noise[5:] + 0.6 * noise[4:-1] + 0.3 * noise[3:-2]
    fit = sm.OLS(series, np.ones(series.size)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False}
    )
    size, h = series.size, lag + 1
    correction = math.sqrt((size + 1 - 2 * h + h * (h - 1) / size) / size)
    found = diebold_mariano(series, lag=lag)
    assert found.statistic == pytest.approx(float(fit.tvalues[0]) * correction, rel=1e-9)


def test_series_that_cannot_be_held_to_anything():
    for series in (np.array([]), np.array([1.0]), np.full(10, 0.25), np.zeros(10)):
        found = diebold_mariano(series)
        assert math.isnan(found.p_value)
    assert diebold_mariano(np.full(10, 0.25)).mean == 0.25
    # Of two days nothing can be told, and nothing is.
    assert diebold_mariano(np.array([1.0, 2.0])).p_value == 1


def test_the_lag_grows_slowly():
    assert [default_lag(n) for n in (1, 2, 28, 56, 100, 365)] == [0, 1, 3, 3, 4, 5]


def test_equal_forecasters_are_called_different_about_as_often_as_the_level_says():
    """Daily differences of ten clients that share the weather, with memory from day to day."""
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(400):
        common = rng.normal(0, 1, 60)
        days = common[4:] + 0.4 * common[3:-1]
        excess = days + rng.normal(0, 1, (10, 56))
        refused += panel_test(losses(excess)).p_value < 0.05
    # 5 % would be 20; the bounds are four standard deviations and the cost of short series apart.
    assert 5 <= refused <= 44


def test_a_difference_is_seen():
    rng = np.random.default_rng(4)
    excess = -0.5 + rng.normal(0, 1, (1, 56)) + rng.normal(0, 1, (10, 56))
    assert panel_test(losses(excess)).p_value < 0.05


# ------------------------------------------------------------------------------- seeds
def test_days_and_seeds_by_hand():
    # The mean over the seeds is 1, 3, 1, 3: mean 2, s² = 4/3, of the mean 4/3 / 4 = 1/3. The seeds
    # are 1, 2, 3: s² = 1, of the mean 1/3. t = 2 / √(2/3) = √6, with (2/3)² / ((1/3)²/3 + (1/3)²/2)
    # = 4.8 degrees of freedom.
    days = np.array([[1.0, 3.0, 1.0, 3.0]])
    found = seeds_test([losses(days + shift) for shift in (-1.0, 0.0, 1.0)], lag=0)
    assert found.mean == 2
    assert found.statistic == pytest.approx(math.sqrt(6))
    assert found.error == pytest.approx(math.sqrt(2 / 3))
    assert found.p_value == pytest.approx(2 * stats.t.sf(math.sqrt(6), 4.8), rel=1e-9)
    # Without an influence of the seed, and with one seed, it is the test of the days.
    plain = panel_test(losses(days), lag=0)
    assert seeds_test([losses(days)] * 3, lag=0) == plain == seeds_test([losses(days)], lag=0)
    assert plain.error == pytest.approx(math.sqrt(1 / 3))


def test_seeds_that_differ_more_than_days_are_what_counts():
    """Student's t of the seeds, where the days hardly vary."""
    rng = np.random.default_rng(5)
    shifts = np.array([-0.0009, 0.0021, 0.0082])
    each = [losses(shift + 1e-6 * rng.normal(0, 1, (3, 50))) for shift in shifts]
    oracle = stats.ttest_1samp(shifts, 0.0)
    assert seeds_test(each).p_value == pytest.approx(float(oracle.pvalue), rel=1e-3)
    assert panel_test(mean_losses(each)).p_value < 1e-9


def test_with_seeds_equals_are_called_different_no_more_than_the_level_says():
    rng = np.random.default_rng(6)
    refused = days_alone = 0
    for _ in range(300):
        common = rng.normal(0, 1, (1, 56))
        each = [losses(common + rng.normal(0, 0.2) + rng.normal(0, 0.5, (5, 56))) for _ in range(4)]
        refused += seeds_test(each).p_value < 0.05
        days_alone += panel_test(mean_losses(each)).p_value < 0.05
    # 5 % would be 15; four standard deviations are 15 more.
    assert refused <= 30
    assert days_alone > refused


def test_the_mean_of_losses_is_of_the_same_pairs():
    one = losses(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="same clients"):
        mean_losses([one, losses(np.zeros((3, 3)))])
    with pytest.raises(ValueError, match="at least one"):
        mean_losses([])


# ---------------------------------------------------------------------------- paired losses
def losses(excess: np.ndarray) -> Losses:
    size, days = excess.shape
    names = tuple(f"c{k}" for k in range(size))
    return Losses(np.arange(days) * DAY, names, excess, size * days, 0.1, 0.1)


def points(client, day, forecast, load, names=("a", "b")):
    """Steps of an hour, in order, issued on `day`."""
    issue = np.array(day) * DAY
    return Points(
        names,
        np.array(client),
        issue,
        issue + 3600 * np.arange(len(day)),
        Forecast(np.array(forecast, dtype=float)),
        np.array(load, dtype=float),
    )


def test_paired_losses_by_hand():
    # Client a, loads 1 3 on day 0 and 4 on day 1 (sum 8): ours off by 1 0 | 2, theirs by 1 1 | 0.
    # Client b, load 2 on day 0 (sum 2): ours off by 1, theirs by 0. Its day 1 is not known.
    # nMAE ours 3/8 and 1/2, theirs 2/8 and 0; difference of the means 7/16 − 1/8 = 5/16.
    client, day = [0, 0, 0, 1, 1], [0, 0, 1, 0, 1]
    load = [1, 3, 4, 2, np.nan]
    ours = points(client, day, [2, 3, 6, 3, 9], load)
    theirs = points(client, day, [0, 4, 4, 2, 9], load)
    found = paired_losses(ours, theirs)
    assert found.ours == pytest.approx(7 / 16)
    assert found.theirs == pytest.approx(1 / 8)
    assert found.difference == pytest.approx(5 / 16)
    assert found.points == 4
    assert found.days.tolist() == [0, DAY]
    # Two days: a is −1/8 and +2/8 off, b +1/2 and 0, each times two.
    assert found.excess.tolist() == [[-0.25, 0.5], [1.0, 0.0]]
    assert found.daily().tolist() == [0.375, 0.25]


def test_the_difference_is_that_of_the_scores():
    rng = np.random.default_rng(6)
    client, day = np.repeat([0, 1, 2], 48), np.tile(np.repeat([0, 1], 24), 3)
    load = rng.gamma(2, 1, 144)
    load[rng.random(144) < 0.2] = np.nan
    names = ("a", "b", "c")
    ours = points(client, day, rng.gamma(2, 1, 144), load, names)
    theirs = points(client, day, rng.gamma(2, 1, 144), load, names)
    found = paired_losses(ours, theirs)

    def mean_nmae(one: Points) -> float:
        return float(
            np.mean(
                [
                    ErrorSums.of(one.forecast.mean_kwh[client == k], load[client == k]).nmae
                    for k in range(3)
                ]
            )
        )

    assert found.ours == pytest.approx(mean_nmae(ours), rel=1e-12)
    assert found.difference == pytest.approx(mean_nmae(ours) - mean_nmae(theirs), rel=1e-12)


def test_only_points_that_both_have_count_and_clients_with_a_load():
    load = [1.0, 2, 0, 0]
    ours = points([0, 0, 1, 1], [0, 0, 0, 0], [1, np.nan, 5, 5], load)
    theirs = points([0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 5, 5], load)
    found = paired_losses(ours, theirs)
    assert found.clients == ("a",)
    assert (found.points, found.theirs) == (1, 1.0)


def test_forecasts_of_different_instants_are_refused():
    one = points([0], [0], [1], [1])
    other = points([0], [1], [1], [1])
    with pytest.raises(ValueError, match="same clients and instants"):
        paired_losses(one, other)


# -------------------------------------------------------------------------------- bootstrap
def test_the_interval_of_a_constant_is_the_constant():
    found = bootstrap_bounds(losses(np.full((5, 30), 0.25)), derive(0, "test"))
    assert (found.low, found.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_one_day_long_blocks_of_one_client_are_efrons_bootstrap():
    """The interval of the mean of independent days is about ±1.96 s/√D."""
    series = np.random.default_rng(8).normal(0.5, 1, 400)
    found = bootstrap_bounds(losses(series[None, :]), derive(0, "test"), block_days=1)
    half = 1.96 * series.std() / 20
    # 2000 resamples give the ends to about 5 % of their distance.
    assert found.low == pytest.approx(series.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(series.mean() + half, abs=0.15 * half)


def test_blocks_keep_weeks_together():
    """Differences that change by the week only: single days would be taken for independent."""
    weeks = np.random.default_rng(9).normal(0, 1, 12)
    excess = losses(np.repeat(weeks, 7)[None, :])
    single = bootstrap_bounds(excess, derive(0, "test"), block_days=1)
    weekly = bootstrap_bounds(excess, derive(0, "test"))
    assert weekly.high - weekly.low > 1.5 * (single.high - single.low)


def test_the_interval_holds_clients_that_are_unlike():
    """One day repeated: all that varies is the client, and the interval is that of the clients."""
    each = np.random.default_rng(10).normal(0, 1, 100)
    found = bootstrap_bounds(losses(np.repeat(each[:, None], 14, axis=1)), derive(0, "test"))
    half = 1.96 * each.std() / 10
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_the_interval_holds_other_trainings():
    """Only the seed varies: the variance over the draws is s²/S, and a single seed is a point."""
    shifts = (0.1, 0.3, 0.8)
    each = [losses(np.full((4, 20), shift)) for shift in shifts]
    found = bootstrap_bounds(each, derive(0, "test"))
    # The mean of two of the three, drawn with replacement: 0.1 and 0.8 have a ninth each.
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.8))
    twenty = np.random.default_rng(12).normal(0, 1, 20)
    wide = bootstrap_bounds([losses(np.full((1, 8), s)) for s in twenty], derive(0, "test"))
    half = 1.96 * twenty.std(ddof=1) / math.sqrt(20)
    assert wide.high - wide.low == pytest.approx(2 * half, rel=0.1)
    assert bootstrap_bounds(each[:1], derive(0, "t")) == bootstrap_bounds(each[0], derive(0, "t"))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    held = 0
    for draw in range(40):
        excess = rng.normal(0, 1, (20, 1)) + rng.normal(0, 1, (1, 56)) + rng.normal(0, 1, (20, 56))
        found = bootstrap_bounds(losses(excess), derive(draw, "test"))
        held += found.low <= 0 <= found.high
    # 95 % would be 38.
    assert held >= 32

"""Pinball, interval and coverage by hand, against scikit-learn, a plain loop and a closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import mean_pinball_loss

from fl_inmetro.metrics import SUM_NAMES, ErrorSums, Forecast, client_scores, score_fleet

NAN = float("nan")
LEVELS = (0.1, 0.5, 0.9)


def made(mean, quantiles, levels=LEVELS):
    return Forecast(np.array(mean, dtype=float), levels, np.array(quantiles, dtype=float))


def test_quantiles_by_hand():
    # Load 4, quantiles 1 3 5, mean 3.5. ρ_.1(3) = .3, ρ_.5(1) = .5, ρ_.9(−1) = .1·1 = .1: mean .3.
    # Load 9, quantiles 2 4 6, mean 4: ρ_.1(7) = .7, ρ_.5(5) = 2.5, ρ_.9(3) = 2.7: mean 5.9/3.
    # The second lies 3 above its interval of width 4: Winkler 4 + (2/.2)·3 = 34; the first 4.
    sums = ErrorSums.of(made([3.5, 4], [[1, 3, 5], [2, 4, 6]]), np.array([4.0, 9]))
    assert (sums.n, sums.n_q, sums.inside_80) == (2, 2, 1)
    assert sums.pinball_kwh == pytest.approx(0.3 + 5.9 / 3)
    assert sums.wql_kwh == pytest.approx(2 * (0.3 + 5.9 / 3))  # the same levels, factor two
    assert sums.width_80_kwh == 8
    assert sums.winkler_80_kwh == pytest.approx(38)
    # Absolute errors are the median's, 1 and 5; squares and bias the mean's, −.5 and −5.
    assert sums.abs_kwh == 6
    assert sums.sq_kwh2 == pytest.approx(25.25)
    assert sums.err_kwh == pytest.approx(-5.5)
    # Relative to the mean load of 6.5.
    assert sums.pinball == pytest.approx((0.3 + 5.9 / 3) / 2 / 6.5)
    assert sums.coverage_80 == 0.5
    assert sums.width_80 == pytest.approx(4 / 6.5)
    assert sums.winkler_80 == pytest.approx(19 / 6.5)
    assert sums.crps == pytest.approx(2 * sums.pinball)


def test_the_bounds_belong_to_the_interval():
    sums = ErrorSums.of(made([1, 1], [[0, 1, 2], [0, 1, 2]]), np.array([0.0, 2.0]))
    assert sums.inside_80 == 2
    assert sums.winkler_80_kwh == sums.width_80_kwh == 4


def test_without_quantiles_there_is_no_pinball_loss():
    target = np.array([4.0, 9])
    for forecast in (np.array([3.0, 4]), Forecast(np.array([3.0, 4]))):
        sums = ErrorSums.of(forecast, target)
        assert (sums.n, sums.n_q, sums.pinball_kwh) == (2, 0, 0)
        assert math.isnan(sums.pinball)
        assert math.isnan(sums.coverage_80)
    # An interval alone has no pinball score either: the three levels belong together.
    wide = made([3, 4], [[1, 5], [2, 6]], levels=(0.05, 0.95))
    assert ErrorSums.of(wide, target).n_q == 0


def test_a_point_without_a_median_is_not_scored_and_one_without_a_bound_only_as_a_point():
    forecast = made([3, 3, 3], [[1, NAN, 5], [NAN, 3, 5], [1, 3, 5]])
    sums = ErrorSums.of(forecast, np.array([4.0, 4, 4]))
    assert (sums.n, sums.n_q, sums.n_load) == (2, 1, 3)


def test_pinball_equals_scikit_learns():
    rng = np.random.default_rng(11)
    target = rng.gamma(2, 1, 500)
    quantiles = np.sort(rng.gamma(2, 1, (500, 3)), axis=1)
    sums = ErrorSums.of(Forecast(quantiles.mean(axis=1), LEVELS, quantiles), target)
    expected = np.mean(
        [mean_pinball_loss(target, quantiles[:, k], alpha=a) for k, a in enumerate(LEVELS)]
    )
    assert sums.pinball_kwh / sums.n_q == pytest.approx(expected, rel=1e-12)


def test_many_levels_approach_the_crps_of_the_normal():
    # CRPS(N(0, 1), y) = y (2Φ(y) − 1) + 2φ(y) − 1/√π (Gneiting & Raftery 2007, eq. 21).
    levels = tuple(float(k) / 1000 for k in range(1, 1000))
    quantiles = stats.norm.ppf(levels)
    for y in (-1.3, 0.0, 0.4, 2.5):
        exact = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / math.sqrt(math.pi)
        sums = ErrorSums.of(Forecast(np.zeros(1), levels, quantiles[None, :]), np.array([y]))
        # 999 levels leave out both tails: of order 1e-3.
        assert sums.wql_kwh == pytest.approx(exact, abs=3e-3)


def test_interval_score_and_coverage_equal_a_plain_loop():
    rng = np.random.default_rng(12)
    target = rng.normal(2, 1, (40, 6))
    quantiles = np.sort(rng.normal(2, 1, (40, 6, 3)), axis=-1)
    sums = ErrorSums.of(Forecast(quantiles[..., 1], LEVELS, quantiles), target)
    inside, score = 0, 0.0
    for y, (low, _, high) in zip(target.ravel(), quantiles.reshape(-1, 3), strict=True):
        score += high - low
        if y < low:
            score += 10 * (low - y)
        elif y > high:
            score += 10 * (y - high)
        else:
            inside += 1
    assert sums.inside_80 == inside
    assert sums.winkler_80_kwh == pytest.approx(score, rel=1e-12)


def test_fleet_scores_of_quantiles():
    # Ten points each; coverages .8, .6, .9 and one without quantiles: 23 of 30 points, and two of
    # the three clients with an own coverage of 70 to 90 %. Loads of 1 and 2 kWh scale the widths.
    def one(inside, load, width):
        return ErrorSums(
            n=10, n_load=10, load_kwh=10 * load, n_q=10, pinball_kwh=2 * load,
            inside_80=inside, width_80_kwh=10 * width, winkler_80_kwh=20 * width, wql_kwh=4 * load,
        )  # fmt: skip

    fleet = {"a": one(8, 1, 0.5), "b": one(6, 2, 0.5), "c": one(9, 1, 1.0)}
    fleet["d"] = ErrorSums(n=10, abs_kwh=3, n_load=10, load_kwh=10)
    scores = score_fleet(fleet)
    assert scores["coverage_80"] == pytest.approx(23 / 30)
    assert scores["coverage_80_in_70_90"] == pytest.approx(2 / 3)
    assert scores["pinball"] == pytest.approx(0.2)
    assert scores["crps"] == pytest.approx(0.4)
    assert scores["width_80"] == pytest.approx((0.5 + 0.25 + 1.0) / 3)
    assert scores["winkler_80"] == pytest.approx(2 * (0.5 + 0.25 + 1.0) / 3)
    assert client_scores(fleet["b"])["coverage_80"] == 0.6
    assert math.isnan(client_scores(fleet["d"])["pinball"])
    points = score_fleet({"d": fleet["d"]})
    assert all(math.isnan(points[k]) for k in ("pinball", "coverage_80", "coverage_80_in_70_90"))


@st.composite
def segments(draw):
    """Quantile forecasts of several meters behind each other, with holes and infinities."""
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    shape = (sum(counts), draw(st.integers(1, 3)))
    loads = st.floats(0, 1e4) | st.sampled_from([NAN, math.inf])
    mean, target = (draw(arrays(np.float64, shape, elements=loads)) for _ in range(2))
    quantiles = np.sort(draw(arrays(np.float64, (*shape, 3), elements=loads)), axis=-1)
    return Forecast(mean, LEVELS, quantiles), target, np.array(counts, dtype=np.int64)


@given(segments())
def test_segments_of_quantiles_at_once_are_segments_one_by_one(drawn):
    forecast, target, counts = drawn
    together = ErrorSums.of_segments(forecast, target, counts, [None] * len(counts))
    for sums, end, count in zip(together, np.cumsum(counts), counts, strict=True):
        own = slice(int(end - count), int(end))
        alone = ErrorSums.of(forecast.take(own), target[own])
        for name in SUM_NAMES:
            value, expected = getattr(sums, name), getattr(alone, name)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-9), name
            assert type(value) is type(expected)

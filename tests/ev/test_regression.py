"""Regression from sums against statsmodels, scikit-learn, plain rows and numbers by hand."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.calibration import Sums, calibrate, total
from fl_inmetro.ev.regression import INTERCEPT, Noise, held, only, regress, sums_of_rows, without

NAMES = (INTERCEPT, "km", "hours", "kelvin")


def rows(seed: int = 0, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [np.ones(n), rng.uniform(2, 60, n), rng.uniform(0.1, 1.5, n), rng.normal(12, 8, n)]
    )
    y = x @ [0.3, 0.14, 0.6, -0.02] + rng.normal(0, 0.2, n)
    return x, y, rng.uniform(0.2, 3, n)


def test_three_points_by_hand():
    """(0, 1), (1, 3), (2, 4): Sxx = 2, Sxy = 3, slope 1.5, intercept 8/3 − 1.5 = 7/6.

    Residuals −1/6, 1/3, −1/6: square 1/6, with one degree of freedom σ² = 1/6. Slope's variance
    (1/6)/2, intercept's (1/6)(1/3 + 1/2) = 5/36. Total square 14/3, R² = 1 − 1/28. At x = 1 a new
    row has the variance (1/6)(1 + 1/3) = 2/9, and half of Cauchy's law lies within ±1.
    """
    x = np.array([[1.0, 0], [1, 1], [1, 2]])
    found = regress(sums_of_rows((INTERCEPT, "x"), x, np.array([1.0, 3, 4])))
    assert found.coefficient == pytest.approx([7 / 6, 1.5])
    assert found.standard_error == pytest.approx([(5 / 36) ** 0.5, (1 / 12) ** 0.5])
    assert found.noise == pytest.approx((1 / 6) ** 0.5)
    assert found.degrees == pytest.approx(1)
    assert found.r_squared == pytest.approx(1 - 1 / 28)
    assert found.t_value[1] == pytest.approx(1.5 * 12**0.5)
    low, high = found.prediction_interval(np.array([[1.0, 1]]), 0.5)
    assert high - low == pytest.approx(2 * (2 / 9) ** 0.5)
    assert (high + low) / 2 == pytest.approx(8 / 3)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_all_statistics_are_those_of_statsmodels(intercept, weighted):
    x, y, w = rows()
    first = 0 if intercept else 1
    x, names = x[:, first:], NAMES[first:]
    w = w if weighted else np.ones(len(y))
    own = regress(sums_of_rows(names, x, y, w))
    peer = sm.WLS(y, x, weights=w).fit()
    assert own.coefficient == pytest.approx(peer.params, rel=1e-9)
    assert own.standard_error == pytest.approx(peer.bse, rel=1e-8)
    assert own.t_value == pytest.approx(peer.tvalues, rel=1e-8)
    assert own.p_value == pytest.approx(peer.pvalues, rel=1e-6, abs=1e-12)
    assert own.covariance == pytest.approx(peer.cov_params(), rel=1e-7)
    assert own.r_squared == pytest.approx(peer.rsquared, rel=1e-9)
    assert own.degrees == pytest.approx(peer.df_resid)
    assert np.column_stack(own.interval(0.9)) == pytest.approx(peer.conf_int(0.1), rel=1e-7)
    new, new_w = rows(3, 5)[0][:, first:], np.array([0.5, 1, 2, 4, 8])
    table = peer.get_prediction(new, weights=new_w).summary_frame(alpha=0.2)
    low, high = own.prediction_interval(new, 0.8, new_w)
    assert low == pytest.approx(table["obs_ci_lower"].to_numpy(), rel=1e-7)
    assert high == pytest.approx(table["obs_ci_upper"].to_numpy(), rel=1e-7)


def test_ridge_is_scikit_learns_on_standardised_columns():
    """S_j = n·variance: λ on x is α = n·λ on x in units of its standard deviation."""
    x, y, _ = rows()
    own = regress(sums_of_rows(NAMES, x, y), penalty=0.3)
    spread = x[:, 1:].std(axis=0)
    peer = Ridge(alpha=0.3 * len(y)).fit(x[:, 1:] / spread, y)
    assert own.coefficient[1:] == pytest.approx(peer.coef_ / spread, rel=1e-9)
    assert own.coefficient[0] == pytest.approx(peer.intercept_, rel=1e-9)


def test_a_pull_is_rows_of_its_own():
    """√(λ·S_j)·β_j = √(λ·S_j)·β⁰_j, beside the weighted rows; without an intercept S_j = Σ w·x²."""
    x, y, w = rows()
    x, names = x[:, 1:], NAMES[1:]
    own = regress(sums_of_rows(names, x, y, w), 0.2, {"km": 0.5, "kelvin": -1})
    pull = np.sqrt(0.2 * (w[:, None] * x**2).sum(axis=0))
    a = np.vstack([x * np.sqrt(w)[:, None], np.diag(pull)])
    b = np.concatenate([y * np.sqrt(w), pull * [0.5, 0, -1]])
    assert own.coefficient == pytest.approx(np.linalg.lstsq(a, b, rcond=None)[0], rel=1e-9)
    smoother = a[: len(y)] @ np.linalg.pinv(a)[:, : len(y)]
    assert own.degrees == pytest.approx(len(y) - np.trace(smoother))
    rest = np.sqrt(w) * (y - x @ own.coefficient)
    assert own.noise == pytest.approx((rest @ rest / own.degrees) ** 0.5)
    assert own.covariance == pytest.approx(own.noise**2 * np.linalg.inv(a.T @ a), rel=1e-9)


def test_a_penalty_of_one_halves_what_stands_alone():
    x = np.array([[1.0], [2], [3]])
    sums = sums_of_rows(("x",), x, np.array([2.0, 4, 6.1]))
    assert regress(sums, 1.0).coefficient == pytest.approx(regress(sums).coefficient / 2)
    halfway = regress(sums, 1.0, {"x": 1.0}).coefficient
    assert halfway == pytest.approx((regress(sums).coefficient + 1) / 2)


def test_a_penalty_knows_no_units():
    x, y, _ = rows()
    in_other = x * [1, 1000, 60, 1]
    one, other = (regress(sums_of_rows(NAMES, v, y), 0.1) for v in (x, in_other))
    assert one.predict(x) == pytest.approx(other.predict(in_other), rel=1e-9)
    assert one.degrees == pytest.approx(other.degrees)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7), st.sampled_from([0.0, 0.1]), st.booleans())
def test_federated_is_pooled(seed, clients, penalty, weighted):
    x, y, w = rows(seed)
    w = w if weighted else np.ones(len(y))
    client = np.random.default_rng(seed + 1).integers(0, clients, len(y))
    parts = [
        sums_of_rows(NAMES, x[client == i], y[client == i], w[client == i]) for i in range(clients)
    ]
    federated = regress(total(parts), penalty)
    pooled = regress(sums_of_rows(NAMES, x, y, w), penalty)
    for name in ("coefficient", "covariance", "noise", "r_squared", "degrees", "n"):
        got, expected = getattr(federated, name), getattr(pooled, name)
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-13), name


def test_leaving_out_is_reading_the_others():
    x, y, w = rows()
    whole = sums_of_rows(NAMES, x, y, w)
    others = np.arange(len(y)) != 7
    short = regress(without(whole, sums_of_rows(NAMES, x[7:8], y[7:8], w[7:8])))
    long = regress(sums_of_rows(NAMES, x[others], y[others], w[others]))
    assert short.coefficient == pytest.approx(long.coefficient, rel=1e-9)
    assert short.noise == pytest.approx(long.noise, rel=1e-9)
    assert short.n == len(y) - 1


def test_what_only_one_part_had_is_gone_without_it():
    """0.1 + (0.2 + 0.3) is not (0.1 + 0.2) + 0.3: a part's sums, added in another order.

    Without all trips that ever heated, nothing is known of heating: exactly nothing.
    """
    trips = [Sums(("a", "b"), np.diag([1, b]), np.ones(2), 1.0, 1) for b in (0.1, 0.2, 0.3)]
    other = Sums(("a", "b"), np.diag([0.01, 0]), np.ones(2), 1.0, 1)
    whole = trips[0] + trips[1] + trips[2] + other
    part = trips[0] + (trips[1] + trips[2])
    assert whole.xx[1, 1] != part.xx[1, 1]
    assert without(whole, part).xx[1, 1] == 0
    assert without(whole, part).xx[0, 0] == pytest.approx(0.01)


def test_some_columns_are_another_regression():
    x, y, _ = rows()
    few = regress(only(sums_of_rows(NAMES, x, y), ("kelvin", INTERCEPT)))
    alone = regress(sums_of_rows(("kelvin", INTERCEPT), x[:, [3, 0]], y))
    assert few.coefficient == pytest.approx(alone.coefficient)
    with pytest.raises(FederationError, match=r"FL372.*`volt`"):
        only(sums_of_rows(NAMES, x, y), ("km", "volt"))
    with pytest.raises(FederationError, match=r"FL372.*`volt`"):
        regress(sums_of_rows(NAMES, x, y), 0.1, {"volt": 1.0})


def test_a_weight_counts_as_rows():
    x, y, _ = rows()
    twice = np.where(np.arange(len(y)) < 5, 2.0, 1.0)
    weighted = regress(sums_of_rows(NAMES, x, y, twice))
    repeated = regress(sums_of_rows(NAMES, np.vstack([x, x[:5]]), np.concatenate([y, y[:5]])))
    assert weighted.coefficient == pytest.approx(repeated.coefficient, rel=1e-9)
    assert (weighted.n, repeated.n) == (40, 45)
    nothing = np.where(np.arange(len(y)) < 5, 0.0, 1.0)
    assert sums_of_rows(NAMES, x, y, nothing).n == 35


def test_intervals_hold_what_they_promise():
    """1000 lines through 8 points each: 80 % of new points inside; ± 1.28·σ would hold 69 %."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(1000):
        x = np.column_stack([np.ones(9), rng.normal(0, 1, 9)])
        y = x @ [1.0, 2.0] + rng.normal(0, 0.5, 9)
        low, high = regress(sums_of_rows((INTERCEPT, "x"), x[:8], y[:8])).prediction_interval(x[8:])
        inside += low[0] <= y[8] <= high[0]
    assert inside == pytest.approx(800, abs=40)


def test_columns_that_say_the_same_are_named_all_at_once():
    x, y, _ = rows()
    both = np.column_stack([x, 60 * x[:, 2], x[:, 1] + 2 * x[:, 3] - 4])
    names = (*NAMES, "minutes", "mixed")
    with pytest.raises(FederationError, match="FL371") as caught:
        regress(sums_of_rows(names, both, y))
    what = caught.value.faults[0].what
    assert "`minutes` is made of `hours`" in what
    assert "`mixed` is made of `km`, `kelvin`" in what
    # A pull decides between them.
    assert np.isfinite(regress(sums_of_rows(names, both, y), 0.01).coefficient).all()


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_column_that_never_varies_is_refused(penalty):
    x, y, _ = rows()
    x[:, 3] = 7.3
    with pytest.raises(FederationError, match=r"FL371.*`kelvin` never vary.*intercept"):
        regress(sums_of_rows(NAMES, x, y), penalty)
    without_ones = regress(sums_of_rows(NAMES[1:], x[:, 1:], y), penalty)
    assert without_ones.names == NAMES[1:]


def test_too_few_rows():
    x, y, _ = rows(n=4)
    with pytest.raises(FederationError, match=r"FL371.*4 rows for 4 columns"):
        regress(sums_of_rows(NAMES, x, y))
    assert regress(sums_of_rows(NAMES, x, y), 0.1).degrees > 0


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_a_penalty_is_a_share(penalty):
    x, y, _ = rows()
    with pytest.raises(FederationError, match="FL371"):
        regress(sums_of_rows(NAMES, x, y), penalty)


def test_rows_that_are_none():
    x, y, w = rows()
    for bad_x, bad_y, bad_w in (
        (np.where(x == x[3, 1], np.nan, x), y, w),
        (x, np.where(y == y[3], np.inf, y), w),
        (x, y, np.where(w == w[3], -1, w)),
    ):
        with pytest.raises(DataError, match=r"FL224[\s\S]*row 3"):
            sums_of_rows(NAMES, bad_x, bad_y, bad_w)
    with pytest.raises(DataError, match="FL224"):
        sums_of_rows(NAMES, x[:, :2], y)


def test_a_perfect_fit_has_no_error():
    x, _, _ = rows()
    found = regress(sums_of_rows(NAMES, x, x @ [1.0, 2, 3, 4]))
    assert found.coefficient == pytest.approx([1, 2, 3, 4], rel=1e-9)
    assert found.noise < 1e-5
    assert found.r_squared == pytest.approx(1)
    flat = regress(sums_of_rows(NAMES, x, np.zeros(len(x))))
    assert np.isnan(flat.r_squared)
    assert np.isnan(flat.t_value).all()


# ------------------------------------------------------------------------- a prior of its own
TOWARD = dict(zip(NAMES, (0.0, 0.1, 1.0, 0.0), strict=True))
SPREAD = dict(zip(NAMES, (1.0, 0.05, 2.0, 0.01), strict=True))


def test_a_prior_is_rows_of_its_own():
    """(β_j − β⁰_j)/s_j beside the rows over σ; and σ² solves the equation that it stands in."""
    x, y, w = rows(n=12)
    found = held(sums_of_rows(NAMES, x, y, w), TOWARD, SPREAD, Noise(0.4, 3.0))
    centre, sd = (np.array([d[name] for name in NAMES]) for d in (TOWARD, SPREAD))
    root = np.sqrt(w) / found.noise
    a = np.vstack([x * root[:, None], np.diag(1 / sd)])
    b = np.concatenate([y * root, centre / sd])
    assert found.coefficient == pytest.approx(np.linalg.lstsq(a, b, rcond=None)[0], rel=1e-6)
    assert found.covariance == pytest.approx(np.linalg.inv(a.T @ a), rel=1e-6)
    rest = np.sqrt(w) * (y - x @ found.coefficient)
    decided = np.trace(x * root[:, None] @ found.covariance @ (x * root[:, None]).T)
    assert found.degrees == pytest.approx(12 - decided + 3, rel=1e-6)
    assert found.noise**2 == pytest.approx((rest @ rest + 3 * 0.4**2) / found.degrees, rel=1e-6)


def test_one_row_by_hand():
    """y = 3 at x = 1, β ~ N(1, 1), σ₀ = 1 as if seen often: halfway, 2, with variance 1/2."""
    sums = sums_of_rows(("x",), np.array([[1.0]]), np.array([3.0]))
    found = held(sums, {"x": 1.0}, {"x": 1.0}, Noise(1.0, 1e9))
    assert found.coefficient == pytest.approx([2])
    assert found.covariance == pytest.approx(np.array([[0.5]]))
    assert found.noise == pytest.approx(1)


def test_a_prior_is_left_behind_by_many_rows_and_is_all_without_any():
    x, y, _ = rows(n=4000)
    free = regress(sums_of_rows(NAMES, x, y))
    found = held(sums_of_rows(NAMES, x, y), TOWARD, SPREAD, Noise(0.4, 3.0))
    assert found.coefficient == pytest.approx(free.coefficient, rel=0.02)
    assert found.noise == pytest.approx(free.noise, rel=0.01)
    nothing = held(sums_of_rows(NAMES, x[:0], y[:0]), TOWARD, SPREAD, Noise(0.4, 3.0))
    assert nothing.coefficient == pytest.approx(list(TOWARD.values()))
    assert nothing.standard_error == pytest.approx(list(SPREAD.values()))
    assert nothing.noise == pytest.approx(0.4)


def test_a_prior_is_that_of_the_calibration():
    """With the same σ they are the same answer; a prior of σ worth 1e9 rows fixes it."""
    x, y, _ = rows()
    sums = sums_of_rows(NAMES[1:], x[:, 1:], y)
    centre, sd = ([d[name] for name in NAMES[1:]] for d in (TOWARD, SPREAD))
    peer = calibrate(sums, centre, sd)
    found = held(sums, TOWARD, SPREAD, Noise(peer.noise_kwh, 1e9))
    assert found.coefficient == pytest.approx(peer.factor, rel=1e-6)
    assert found.covariance == pytest.approx(peer.covariance, rel=1e-6)


def test_what_is_no_prior():
    x, y, _ = rows()
    sums = sums_of_rows(NAMES, x, y)
    with pytest.raises(FederationError, match=r"FL372.*`kelvin` have no prior"):
        held(sums, {k: v for k, v in TOWARD.items() if k != "kelvin"}, SPREAD, Noise(1, 1))
    for spread, noise in (
        ({**SPREAD, "km": 0.0}, Noise(1, 1)),
        (SPREAD, Noise(0, 1)),
        (SPREAD, Noise(1, 0)),
    ):
        with pytest.raises(FederationError, match="FL371"):
            held(sums, TOWARD, spread, noise)

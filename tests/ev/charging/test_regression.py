"""Regressions by sums: scikit-learn's answers, hand cases, and federated = pooled."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor, Ridge

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.charging.regression import (
    Rows,
    chance,
    logistic_fit,
    logistic_sums,
    mean_fit,
    mean_sums,
    quantile_fit,
    quantile_sums,
    total,
)


def rows(n: int = 300, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=n), rng.uniform(0, 3, n)])
    y = 2 + 3 * x[:, 1] - x[:, 2] + rng.standard_t(3, n) * (1 + x[:, 2])
    return Rows(x, y)


def clients(pooled: Rows, parts: int = 7) -> list[Rows]:
    own = np.random.default_rng(5).integers(0, parts, len(pooled))
    return [Rows(pooled.x[own == k], pooled.y[own == k]) for k in range(parts)]


def use(n: int = 600) -> Rows:
    made = rows(n, 3)
    p = 1 / (1 + np.exp(-(made.x @ np.array([-0.5, 1.2, 0.3]))))
    return Rows(made.x, (np.random.default_rng(9).random(n) < p).astype(float))


def pinball(y: np.ndarray, told: np.ndarray, level: float) -> float:
    u = y - told
    return float(np.mean(np.where(u > 0, level * u, (level - 1) * u)))


def test_mean_like_scikit_learn():
    made = rows()
    plain = LinearRegression(fit_intercept=False).fit(made.x, made.y).coef_
    assert mean_fit([made], 0.0) == pytest.approx(plain, abs=1e-9)
    # The intercept is free, and columns are penalised in units of their own mean square.
    scale = np.sqrt((made.x[:, 1:] ** 2).sum(axis=0))
    ridge = Ridge(alpha=0.3).fit(made.x[:, 1:] / scale, made.y)
    found = mean_fit([made], 0.3)
    assert found[1:] == pytest.approx(ridge.coef_ / scale, abs=1e-8)
    assert found[0] == pytest.approx(ridge.intercept_, abs=1e-8)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_quantile_like_scikit_learn(level):
    made = rows()
    oracle = QuantileRegressor(quantile=level, alpha=0.0, fit_intercept=False).fit(made.x, made.y)
    found = quantile_fit([made], level, 0.0)
    best = pinball(made.y, made.x @ oracle.coef_, level)
    assert pinball(made.y, made.x @ found, level) == pytest.approx(best, rel=2e-5)
    # A flat valley: coefficients may lie apart where the loss does not.
    assert found == pytest.approx(oracle.coef_, abs=0.15)


def test_the_median_of_a_constant_is_the_middle_value():
    """Of 1, 2, 3, 4, 100 it is 3, where the mean is 22; the ninetieth percentile is the largest."""
    made = Rows(np.ones((5, 1)), np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert mean_fit([made])[0] == pytest.approx(22)
    assert quantile_fit([made], 0.5)[0] == pytest.approx(3, abs=0.01)
    assert quantile_fit([made], 0.9)[0] == pytest.approx(100, rel=0.01)


def test_chance_like_scikit_learn():
    made = use()
    oracle = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10, max_iter=1000)
    oracle.fit(made.x, made.y)
    assert logistic_fit([made], 0.0) == pytest.approx(oracle.coef_[0], abs=1e-4)


def test_a_constant_chance_is_the_share():
    made = Rows(np.ones((8, 1)), np.array([1.0] * 2 + [0.0] * 6))
    assert logistic_fit([made])[0] == pytest.approx(np.log(2 / 6))


def test_what_tells_every_answer_stays_finite():
    made = Rows(
        np.column_stack([np.ones(40), np.repeat([-1.0, 1.0], 20)]), np.repeat([0.0, 1.0], 20)
    )
    found = logistic_fit([made])
    assert np.all(np.isfinite(found))
    assert chance(made.x @ found)[[0, -1]] == pytest.approx([0, 1], abs=0.01)


def test_gradient_and_hessian_by_differences():
    made, beta, step = use(50), np.array([0.2, -0.4, 0.1]), 1e-5
    sums = logistic_sums(made, beta)
    for j in range(3):
        e = np.zeros(3)
        e[j] = step
        up, down = logistic_sums(made, beta + e), logistic_sums(made, beta - e)
        assert sums.xy[j] == pytest.approx(-(up.loss - down.loss) / (2 * step), abs=1e-5)
        assert sums.xx[j] == pytest.approx(-(up.xy - down.xy) / (2 * step), abs=1e-5)


def test_a_round_lowers_the_loss_that_it_majorises():
    made, beta = rows(), np.zeros(3)
    before = np.inf
    for _ in range(10):
        sums = quantile_sums(made, beta, 0.3, 1e-3)
        assert sums.loss <= before + 1e-6
        assert sums.loss / len(made) == pytest.approx(pinball(made.y, made.x @ beta, 0.3))
        before, beta = sums.loss, np.linalg.solve(sums.xx, sums.xy)


def test_federated_is_pooled():
    made, ones = rows(), use()
    assert mean_fit(clients(made)) == pytest.approx(mean_fit([made]), rel=1e-9)
    for level in (0.1, 0.5):
        assert quantile_fit(clients(made), level) == pytest.approx(
            quantile_fit([made], level), abs=1e-6
        )
    assert logistic_fit(clients(ones)) == pytest.approx(logistic_fit([ones]), rel=1e-9)
    assert mean_fit(clients(made)[::-1]) == pytest.approx(mean_fit(clients(made)), rel=1e-9)


def test_a_column_that_nobody_has_gets_nothing():
    made = rows()
    wider = Rows(np.column_stack([made.x, np.zeros(len(made))]), made.y)
    assert mean_fit([wider])[3] == 0
    assert quantile_fit([wider], 0.5)[3] == 0


def test_sums_that_do_not_fit():
    made = rows(5)
    with pytest.raises(FederationError, match="FL373"):
        total([mean_sums(made), mean_sums(Rows(made.x[:, :2], made.y))])
    for fit in (mean_fit, logistic_fit):
        with pytest.raises(FederationError, match="no client has a row"):
            fit([Rows(np.zeros((0, 2)), np.zeros(0))])
    with pytest.raises(FederationError, match="FL373"):
        total([])

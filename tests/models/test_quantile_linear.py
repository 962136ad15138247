"""Linear quantiles by sums = those of linear programming, of statsmodels and of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from sklearn.linear_model import QuantileRegressor
from statsmodels.regression.quantile_regression import QuantReg

from fl_inmetro.models import quantile_linear as ql
from fl_inmetro.models import ridge
from fl_inmetro.models.design import Design
from tests.models.test_ridge import design, made

LEVELS = (0.1, 0.5, 0.9)


def skewed(rows: int = 300, features: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of different units; noise that is skewed, and wider where the first one is large."""
    x, r = made(rows, features, seed)
    rng = np.random.default_rng(seed + 1)
    unit = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()
    noise = rng.exponential(1.0, rows) * (1 + 0.5 * np.tanh(unit))
    return x, (r + noise).astype(np.float32)


def added(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def solved(
    parts: list[Design], levels: tuple[float, ...] = LEVELS, alpha: float = 0.0, rounds: int = 60
) -> list[dict[str, np.ndarray]]:
    """The states of all rounds, from the sums of several clients."""
    sums = added([ridge.sufficient_statistics(part) for part in parts])
    states = [ql.begin(sums, levels, alpha)]
    while len(states) < rounds and (states[-1]["gain"] > 1e-7).any():
        now = states[-1]
        of_levels, smoothing = now["coefficients"][1:], now["smoothing"]
        sums = added(
            [ql.weighted_statistics(part, levels, of_levels, smoothing)[0] for part in parts]
        )
        states.append(ql.improve(now, sums, alpha))
    return states


def objective(
    coefficients: np.ndarray, x: np.ndarray, r: np.ndarray, tau: float, alpha: float = 0.0
) -> float:
    """The mean pinball loss, point by point, and the penalty on standardised coefficients."""
    total = 0.0
    for row, target in zip(x.astype(np.float64), r.astype(np.float64), strict=True):
        error = target - row @ coefficients[:-1] - coefficients[-1]
        total += tau * error if error >= 0 else (tau - 1) * error
    standard = coefficients[:-1] * x.astype(np.float64).std(axis=0)
    return float(total / len(x) + alpha / 2 * standard @ standard)


def least_by_linear_programming(x: np.ndarray, r: np.ndarray, tau: float) -> float:
    """min Σ(τu⁺ + (1 − τ)u⁻)/n with zβ + u⁺ − u⁻ = r (Koenker & Bassett 1978)."""
    n, z = len(x), np.hstack([x.astype(np.float64), np.ones((len(x), 1))])
    cost = np.concatenate([np.zeros(z.shape[1]), np.full(n, tau / n), np.full(n, (1 - tau) / n)])
    equal = np.hstack([z, np.eye(n), -np.eye(n)])
    bounds = [(None, None)] * z.shape[1] + [(0, None)] * (2 * n)
    found = linprog(cost, A_eq=equal, b_eq=r.astype(np.float64), bounds=bounds, method="highs")
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_loss_is_the_least_there_is(seed):
    x, r = skewed(seed=seed)
    last = solved([design(x, r)])[-1]
    z = np.hstack([x.astype(np.float64), np.ones((len(x), 1))])
    for k, tau in enumerate(LEVELS):
        least = least_by_linear_programming(x, r, tau)
        own = objective(last["coefficients"][1 + k], x, r, tau)
        assert least * (1 - 1e-9) <= own <= least * (1 + 1e-4)
        statsmodels = QuantReg(r.astype(np.float64), z).fit(q=tau, max_iter=5000).params
        assert own <= objective(np.asarray(statsmodels), x, r, tau) * (1 + 1e-4)
        unit = x.astype(np.float64).std(axis=0)
        theirs = QuantileRegressor(quantile=tau, alpha=0.0).fit(x / unit, r.astype(np.float64))
        sklearn = np.append(theirs.coef_ / unit, theirs.intercept_)
        assert own == pytest.approx(objective(sklearn, x, r, tau), rel=1e-4)


def test_the_default_tolerance_leaves_less_than_a_thousandth_of_the_loss():
    x, r = skewed(2000, 6)
    states = solved([design(x, r)])
    stopped = next(s for s in states if (s["gain"] <= 3e-5).all())
    for k, tau in enumerate(LEVELS):
        own = objective(stopped["coefficients"][1 + k], x, r, tau)
        assert own <= least_by_linear_programming(x, r, tau) * (1 + 1e-3)


@pytest.mark.parametrize("alpha", [1e-3, 0.1])
def test_with_a_penalty_no_lower_bound_is_far_below(alpha):
    """Any a in [τ − 1, τ]ⁿ with Σa = 0 gives a lower bound, rᵀa/n − ‖Uᵀa‖²/(2αn²).

    It is the dual: ρ_τ(v) = max over such a_i of a_i v, and γ = Uᵀa/(αn) minimises the rest.
    """
    x, r = skewed(40, 2)
    last = solved([design(x, r)], alpha=alpha)[-1]
    n = len(x)
    u = (x.astype(np.float64) - x.astype(np.float64).mean(axis=0)) / x.astype(np.float64).std(0)
    target = r.astype(np.float64)
    for k, tau in enumerate(LEVELS):

        def minus_bound(a: np.ndarray) -> float:
            return float(-(target @ a) / n + np.sum((u.T @ a) ** 2) / (2 * alpha * n**2))

        def slope(a: np.ndarray) -> np.ndarray:
            return np.asarray(-target / n + u @ (u.T @ a) / (alpha * n**2))

        found = minimize(
            minus_bound,
            np.zeros(n),
            jac=slope,
            method="SLSQP",
            bounds=[(tau - 1, tau)] * n,
            constraints={"type": "eq", "fun": np.sum, "jac": np.ones_like},
            options={"maxiter": 2000, "ftol": 1e-12},
        )
        own = objective(last["coefficients"][1 + k], x, r, tau, alpha)
        assert abs(found.x.sum()) < 1e-9
        assert -found.fun * (1 - 1e-9) <= own <= -found.fun * (1 + 2e-4)


def test_a_round_by_hand():
    # An intercept alone (the feature is 7 everywhere), r = 0 1 5 at the value 2, ε = 1, τ = 1/2:
    # u = −2 −1 3, w = 1/3 1/2 1/4, Σw = 13/12, r̃ = r, Σw r̃ = 1/2 + 5/4 = 7/4, Σw r̃² = 1/2 + 25/4.
    # The minimum is (7/4)/(13/12) = 21/13, 5/13 below 2; the step is 1.9 times as long.
    x, r = np.full((3, 1), 7.0), np.array([0.0, 1, 5])
    sums, loss = ql.weighted_statistics(
        design(x, r), (0.5,), np.array([[0.0, 2.0]]), np.array([1.0])
    )
    assert sums["gram"][0, 1, 1] == pytest.approx(13 / 12, rel=1e-12)
    assert sums["gram"][0, 0, 1] == pytest.approx(7 * 13 / 12, rel=1e-12)
    np.testing.assert_allclose(sums["moment"], [[7 * 7 / 4, 7 / 4]], rtol=1e-12)
    np.testing.assert_allclose(sums["square"], [27 / 4], rtol=1e-12)
    assert sums["points"] == [3]
    assert loss == pytest.approx((2 + 1 + 3) / 2 / 3)
    state = {
        "coefficients": np.array([[0.0, 2], [0, 2]]),
        "x_mean": np.array([7.0]),
        "x_std": np.array([0.0]),
        "smoothing": np.array([1.0]),
        "gain": np.array([1.0]),
    }
    after = ql.improve(state, sums, 1e-4)
    np.testing.assert_allclose(after["coefficients"], [[0, 2], [0, 2 - 1.9 * 5 / 13]], rtol=1e-12)
    np.testing.assert_allclose(after["smoothing"], [0.6], rtol=1e-12)
    assert after["gain"] == [1.0]  # the smoothing still falls
    # With τ = 0.9 the response is r + 0.8(1 + |u|) = 2.4 2.6 8.2, weighted 0.8 + 1.3 + 2.05.
    high, _ = ql.weighted_statistics(design(x, r), (0.9,), np.array([[0.0, 2.0]]), np.array([1.0]))
    assert high["moment"][0, 1] == pytest.approx(4.15, rel=1e-7)


def test_the_gain_by_hand():
    # As above with an ε that does not fall any more: 1e-6 is below a thousandth of the loss.
    # u = −2 −1 3, w = 1/2 1 1/3, Σw = 11/6, slope = Σw r − 2Σw = 8/3 − 11/3 = −1, so the minimum of
    # the majoriser lies 1²/(11/6)/(4·3) = 1/22 below; Σw u² / (4·3) = (2 + 1 + 3)/12 = 1/2.
    x, r = np.full((3, 1), 7.0), np.array([0.0, 1, 5])
    small = np.array([1e-9])
    sums, _ = ql.weighted_statistics(design(x, r), (0.5,), np.array([[0.0, 2.0]]), small)
    state = {
        "coefficients": np.array([[0.0, 2], [0, 2]]),
        "x_mean": np.array([7.0]),
        "x_std": np.array([0.0]),
        "smoothing": small,
        "gain": np.array([1.0]),
    }
    after = ql.improve(state, sums, 1e-4)
    assert after["gain"] == pytest.approx([1 / 11], rel=1e-6)
    assert after["smoothing"] == small


def test_the_sums_are_those_of_a_plain_loop(monkeypatch):
    x, r = skewed(50)
    known = (np.arange(50) % 4 > 0).astype(float)
    beta = np.random.default_rng(3).normal(size=(3, 5)) * 0.1
    smoothing = np.array([0.2, 0.1, 0.05])
    monkeypatch.setattr(ql, "_BLOCK_ROWS", 7)
    sums, loss = ql.weighted_statistics(design(x, r, known), LEVELS, beta, smoothing)
    losses = 0.0
    for k, tau in enumerate(LEVELS):
        gram, moment, square = np.zeros((5, 5)), np.zeros(5), 0.0
        for row, target in zip(x[known > 0].astype(float), r[known > 0].astype(float), strict=True):
            z = np.append(row, 1.0)
            u = target - beta[k] @ z
            losses += tau * u if u >= 0 else (tau - 1) * u
            weight = 1 / (smoothing[k] + abs(u))
            response = target + (2 * tau - 1) / weight
            gram += weight * np.outer(z, z)
            moment += weight * z * response
            square += weight * response**2
        np.testing.assert_allclose(sums["gram"][k], gram, rtol=1e-10)
        np.testing.assert_allclose(sums["moment"][k], moment, rtol=1e-9, atol=1e-9)
        assert sums["square"][k] == pytest.approx(square, rel=1e-10)
    assert sums["points"] == [known.sum()]
    assert loss == pytest.approx(losses / known.sum() / 3)
    assert ql.mean_pinball(design(x, r, known), LEVELS, beta) == pytest.approx(loss)


@given(st.integers(0, 50), st.sampled_from(LEVELS), st.floats(0.01, 1.0))
def test_a_round_does_not_raise_the_smoothed_loss(seed, tau, smoothing):
    """The relaxed step is downhill on Σρ − (ε/2) ln(ε + |u|), from any place."""
    x, r = skewed(60, 3, seed)
    rng = np.random.default_rng(seed)
    unit = np.append(1 / x.astype(np.float64).std(axis=0), 1.0)
    own = rng.normal(size=4) * unit
    state = {
        **ridge.solve(ridge.sufficient_statistics(design(x, r)), 0.0),
        "smoothing": np.array([smoothing]),
        "gain": np.array([1.0]),
    }
    state["coefficients"] = np.stack([own, own])
    sums, _ = ql.weighted_statistics(design(x, r), (tau,), own[None], state["smoothing"])

    def smoothed(beta: np.ndarray) -> float:
        u = np.abs(r.astype(np.float64) - x.astype(np.float64) @ beta[:-1] - beta[-1])
        return objective(beta, x, r, tau) - smoothing / 2 * float(np.mean(np.log(smoothing + u)))

    after = ql.improve(state, sums, 0.0)["coefficients"][1]
    assert smoothed(after) <= smoothed(own) + 1e-12


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=120, max_size=120))
def test_any_partition_into_clients_gives_the_pooled_solution(owner):
    x, r = skewed(120)
    who = np.array(owner)
    parts = [design(x[who == k], r[who == k]) for k in sorted(set(owner))]
    pooled = solved([design(x, r)], alpha=1e-4, rounds=12)
    split = solved(parts, alpha=1e-4, rounds=12)
    assert len(pooled) == len(split)
    unit = np.append(x.astype(np.float64).std(axis=0), 1.0)
    ours, theirs = (s[-1]["coefficients"] * unit for s in (split, pooled))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_feature_that_never_varies_has_no_coefficient_and_twins_share_one():
    x, r = skewed()
    x[:, 2] = 1234.5
    x[:, 3] = x[:, 1]
    last = solved([design(x, r)], alpha=0.0)[-1]
    assert (last["coefficients"][:, 2] == 0).all()
    np.testing.assert_allclose(last["coefficients"][1:, 1], last["coefficients"][1:, 3], rtol=1e-6)
    for k, tau in enumerate(LEVELS):
        least = least_by_linear_programming(x[:, :2], r, tau)
        assert objective(last["coefficients"][1 + k], x, r, tau) <= least * (1 + 1e-4)


def test_targets_that_are_linear_need_no_second_round():
    x = np.arange(12.0).reshape(6, 2) ** 2
    state = ql.begin(ridge.sufficient_statistics(design(x, 2 * x[:, 0] + 3)), LEVELS, 0.0)
    assert (state["gain"] == 0).all()
    np.testing.assert_array_equal(state["coefficients"], state["coefficients"][[0, 0, 0, 0]])


def test_levels_start_where_normal_ones_would_be():
    # One feature that says nothing: r = −1 1 −1 1 around 0, σ = 1, Φ⁻¹(0.9) = 1.2815515655.
    x, r = np.array([[1.0], [1], [-1], [-1]]), np.array([-1.0, 1, -1, 1])
    state = ql.begin(ridge.sufficient_statistics(design(x, r)), LEVELS, 0.0)
    expected = [0, -1.2815515655, 0, 1.2815515655]
    np.testing.assert_allclose(state["coefficients"][:, 1], expected, atol=1e-9)
    np.testing.assert_allclose(state["coefficients"][:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(state["smoothing"], 0.1)


def test_a_strange_feature_is_cut_at_five_deviations():
    state = {
        "coefficients": np.array([[2.0, 1.0], [1.0, 0.0]]),
        "x_mean": np.array([10.0]),
        "x_std": np.array([0.5]),
    }
    x = np.array([[[11.0], [50], [-50]]], dtype=np.float32)
    expected = [[[23.0, 11.0], [26.0, 12.5], [16.0, 7.5]]]
    assert ql.correction(state, x).tolist() == expected

"""Heads: losses and forecasts by hand, against SciPy, and against draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fl_inmetro.config.models import Gradient, Mlp
from fl_inmetro.models.heads import (
    MIN_FREEDOM,
    MIN_SCALE,
    NO_USE,
    Copies,
    Head,
    HurdleHead,
    PointHead,
    QuantileHead,
    StudentTHead,
    head_of,
    student_t_quantiles,
)

LEVELS = (0.1, 0.5, 0.9)


def softplus_of(value: float) -> float:
    """The r whose softplus is `value`."""
    return float(np.log(np.expm1(value)))


def test_pinball_by_hand():
    head = QuantileHead(LEVELS, mean_weight=0.5)
    # Quantiles 1, 2, 4 (given out of order), mean 3, target 3.
    # Pinball: .1·(3 − 1) = .2, .5·(3 − 2) = .5, (.9 − 1)·(3 − 4) = .1; twice their mean: 1.6 / 3.
    raw = torch.tensor([[[3.0, 4.0, 1.0, 2.0]]])
    assert head.penalty(raw, torch.tensor([[3.0]])).item() == pytest.approx(1.6 / 3)
    # A mean of 5 adds .5 · 2².
    raw[0, 0, 0] = 5
    assert head.penalty(raw, torch.tensor([[3.0]])).item() == pytest.approx(1.6 / 3 + 2)
    assert head.mean(raw).tolist() == [[5.0]]
    assert head.quantiles(raw).tolist() == [[[1.0, 2.0, 4.0]]]


def test_the_median_may_count_more():
    # The losses .2, .5, .1 of above with weights 1, 2, 1: 2 · (.2 + 2 · .5 + .1) / 4 = .65.
    head = QuantileHead(LEVELS, mean_weight=0.5, median_weight=2.0)
    raw = torch.tensor([[[3.0, 4.0, 1.0, 2.0]]])
    assert head.penalty(raw, torch.tensor([[3.0]])).item() == pytest.approx(0.65)


def test_beyond_its_corner_the_mean_pulls_no_harder():
    head = QuantileHead((0.5,), mean_weight=1.0, mean_corner=2.0)
    raw, target = torch.tensor([[[1.0, 0.0], [5.0, 0.0]]]), torch.zeros(1, 2)
    # Within: e² = 1. Beyond: c (2|e| − c) = 2 · (10 − 2) = 16, with slope 2c = 4.
    assert head.penalty(raw, target).tolist() == [[1.0, 16.0]]
    assert head.slope(raw, target)[0, :, 0].tolist() == [2.0, 4.0]


def test_the_median_alone_is_the_absolute_error():
    head, target = QuantileHead((0.5,), mean_weight=1e-9), torch.tensor([[1.0, -2.0]])
    raw = torch.zeros(1, 2, 2)
    np.testing.assert_allclose(head.penalty(raw, target), [[1.0, 2.0]], rtol=1e-6)


@given(st.integers(0, 2**31))
def test_the_smallest_mean_penalty_is_at_the_quantiles_and_the_mean(seed):
    draws = np.random.default_rng(seed).gamma(2.0, size=400)
    target = torch.from_numpy(draws).float().unsqueeze(1)
    head = QuantileHead(LEVELS, mean_weight=0.3)

    def loss(values: np.ndarray) -> float:
        raw = torch.from_numpy(values).float().expand(400, 1, 4)
        return float(head.penalty(raw, target).double().mean())

    best = np.array([draws.mean(), *np.quantile(draws, LEVELS)])
    for k in range(4):
        for step in (-0.05, 0.05):
            other = best.copy()
            other[k] += step
            assert loss(other) >= loss(best) - 1e-6


def heads() -> list[Head]:
    return [
        *(PointHead(loss) for loss in ("mae", "mse", "huber")),
        QuantileHead(LEVELS, 0.25),
        QuantileHead(LEVELS, 0.25, 0.5),
        StudentTHead(LEVELS),
        HurdleHead(LEVELS),
    ]


@pytest.mark.parametrize("head", heads(), ids=lambda h: type(h).__name__)
def test_the_slope_is_autograds(head):
    generator = torch.Generator().manual_seed(3)
    shape = (5, 4) if head.outputs == 1 else (5, 4, head.outputs)
    raw = torch.randn(shape, generator=generator)
    target = torch.randn(5, 4, generator=generator)
    leaf = raw.clone().requires_grad_()
    expected = torch.autograd.grad(head.penalty(leaf, target).sum(), leaf)[0]
    torch.testing.assert_close(head.slope(raw, target), expected)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("head", heads()[3:], ids=lambda h: type(h).__name__)
def test_quantiles_never_cross(head):
    raw = torch.randn(200, 3, head.outputs, generator=torch.Generator().manual_seed(1)) * 3
    quantiles = head.quantiles(raw)
    assert quantiles.shape == (200, 3, 3)
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert torch.isfinite(quantiles).all()
    assert torch.isfinite(head.mean(raw)).all()


def test_student_t_is_scipys():
    raw = torch.tensor([[[0.3, softplus_of(0.5 - MIN_SCALE), softplus_of(4 - MIN_FREEDOM)]]])
    head = StudentTHead((0.05, 0.5, 0.975))
    own = stats.t(df=4, loc=0.3, scale=0.5)
    for target in (-3.0, 0.3, 1.1):
        penalty = head.penalty(raw, torch.tensor([[target]])).item()
        assert penalty == pytest.approx(-own.logpdf(target), rel=1e-5)
    np.testing.assert_allclose(
        head.quantiles(raw)[0, 0], own.ppf([0.05, 0.5, 0.975]), rtol=2e-4, atol=1e-6
    )
    assert head.mean(raw).item() == pytest.approx(0.3)


@pytest.mark.parametrize("level", [0.005, 0.1, 0.4999, 0.5, 0.75, 0.99])
def test_quantiles_of_student_t(level):
    freedom = np.array([2.1, 2.5, 3, 5, 10, 30, 200, 1e4])
    expected = stats.t.ppf(level, freedom)
    np.testing.assert_allclose(student_t_quantiles(level, freedom), expected, rtol=1e-6, atol=1e-9)


def test_the_table_of_student_t_is_fine_enough():
    freedom = np.geomspace(2.11, 500, 60)
    raw = torch.zeros(1, 60, 3)
    raw[..., 1] = softplus_of(1 - MIN_SCALE)
    raw[..., 2] = torch.from_numpy(np.log(np.expm1(freedom - MIN_FREEDOM)))
    raw[..., 2] = torch.where(raw[..., 2].isfinite(), raw[..., 2], torch.tensor(freedom).float())
    found = StudentTHead((0.025, 0.9)).quantiles(raw)[0].numpy()
    expected = np.stack([stats.t.ppf(level, freedom) for level in (0.025, 0.9)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_hurdle_by_hand_and_by_draws():
    # Use in 40 % of the hours, then log-normal with μ = 0.2, σ = 0.5.
    p, mu, sigma = 0.4, 0.2, 0.5
    raw = torch.tensor([[[np.log(p / (1 - p)), mu, softplus_of(sigma - MIN_SCALE)]]])
    head = HurdleHead((0.3, 0.6, 0.8, 0.95))
    none = head.penalty(raw, torch.tensor([[NO_USE / 2]])).item()
    assert none == pytest.approx(-np.log(1 - p), rel=1e-5)
    some = head.penalty(raw, torch.tensor([[1.7]])).item()
    amount = stats.lognorm(s=sigma, scale=np.exp(mu))
    assert some == pytest.approx(-np.log(p) - amount.logpdf(1.7), rel=1e-5)
    assert head.mean(raw).item() == pytest.approx(p * amount.mean(), rel=1e-5)
    # τ ≤ 1 − p = .6 is 0; τ = .8 is the amount's quantile at (.8 − .6) / .4 = .5.
    quantiles = head.quantiles(raw)[0, 0].tolist()
    assert quantiles[:2] == [0, pytest.approx(0, abs=1e-2)]
    assert quantiles[2] == pytest.approx(np.exp(mu), rel=1e-5)
    rng = np.random.default_rng(5)
    draws = (rng.random(400_000) < p) * rng.lognormal(mu, sigma, 400_000)
    assert quantiles[3] == pytest.approx(np.quantile(draws, 0.95), rel=0.01)
    assert head.mean(raw).item() == pytest.approx(draws.mean(), rel=0.01)


def test_copies_are_trained_apart_and_averaged():
    inner = QuantileHead(LEVELS, mean_weight=0.3)
    head = Copies(inner, 2)
    raw = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(2))
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    one, other = raw[..., :4], raw[..., 4:]
    expected = (inner.penalty(one, target) + inner.penalty(other, target)) / 2
    torch.testing.assert_close(head.penalty(raw, target), expected)
    # A copy's slope does not depend on the other copy.
    torch.testing.assert_close(head.slope(raw, target)[..., :4], inner.slope(one, target) / 2)
    torch.testing.assert_close(head.mean(raw), (raw[..., 0] + raw[..., 4]) / 2)
    quantiles = (inner.quantiles(one) + inner.quantiles(other)) / 2
    torch.testing.assert_close(head.quantiles(raw), quantiles)
    points = Copies(PointHead("mae"), 3)
    assert points.mean(torch.tensor([[[1.0, 2.0, 6.0]]])).tolist() == [[3.0]]
    assert points.quantiles(raw[..., :3]) is None
    assert isinstance(head_of(Mlp(copies=2)), Copies)


def test_the_settings_name_the_head():
    assert isinstance(head_of(Gradient(loss="huber")), PointHead)
    quantile = head_of(Gradient(loss="quantile", levels=(0.2, 0.8), mean_weight=0.1))
    assert (quantile.outputs, quantile.levels) == (3, (0.2, 0.8))
    assert isinstance(head_of(Gradient(loss="student-t")), StudentTHead)
    assert head_of(Gradient(loss="hurdle")).absolute


@pytest.mark.parametrize("levels", [(), (0.9, 0.1), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_levels_rise_between_zero_and_one(levels):
    with pytest.raises(ValueError, match="level"):
        Gradient(loss="quantile", levels=levels)

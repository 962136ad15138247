"""Blends by hand; the best weights against every other grid point, and never worse than a part."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.learning.blend import best_weights, blended, simplex
from fl_inmetro.metrics import Forecast

NAN = np.nan


def of(mean: list[float], *quantiles: list[float], levels: tuple[float, ...] = ()) -> Forecast:
    """One window; `quantiles` are columns, one for each level."""
    values = np.array([quantiles]).transpose(0, 2, 1) if quantiles else None
    return Forecast(np.array([mean]), levels, values)


def test_a_blend_by_hand():
    one = of([1.0, 2.0], [0.0, 1.0], [1.0, 2.0], levels=(0.1, 0.5))
    other = of([5.0, NAN], [4.0, NAN], [9.0, NAN], levels=(0.1, 0.5))
    made = blended([one, other], [3, 1])
    # (3·1 + 5) / 4; where the other has nothing, the one alone.
    assert made.mean_kwh.tolist() == [[2.0, 2.0]]
    assert made.levels == (0.1, 0.5)
    assert made.quantiles_kwh.tolist() == [[[1.0, 3.0], [1.0, 2.0]]]


def test_levels_are_those_that_all_have():
    one = of([1.0], [0.0], [2.0], levels=(0.1, 0.9))
    other = of([3.0], [2.0], [4.0], levels=(0.5, 0.9))
    made = blended([one, other], [1, 1])
    assert made.levels == (0.9,)
    assert made.at(0.9).tolist() == [[3.0]]
    assert blended([one, of([3.0])], [1, 1]).levels == ()
    # A part without weight has no say in it.
    assert blended([one, of([3.0])], [1, 0]).levels == (0.1, 0.9)


@pytest.mark.parametrize("weights", [[], [1], [1, -1], [0, 0]])
def test_weights_that_say_nothing(weights):
    with pytest.raises(ValueError, match="weight"):
        blended([of([1.0]), of([2.0])], weights)


@given(st.integers(1, 4), st.integers(1, 6))
def test_the_simplex_holds_all_weights_once(count, parts):
    grid = simplex(count, parts)
    assert len(grid) == comb(parts + count - 1, count - 1) == len(np.unique(grid, axis=0))
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    assert grid.min() >= 0


def pinball(forecast: Forecast, target: np.ndarray) -> float:
    levels = forecast.levels or (0.5,)
    total = 0.0
    for level in levels:
        column = forecast.at(level) if forecast.levels else forecast.mean_kwh
        for value, y in zip(column.ravel(), target.ravel(), strict=True):
            if np.isfinite(y):
                total += max(level * (y - value), (level - 1) * (y - value))
    return total


@given(st.integers(0, 2**31), st.booleans())
def test_no_part_and_no_other_weights_are_better_on_the_windows_they_are_chosen_on(seed, quantiles):
    rng = np.random.default_rng(seed)
    target = rng.gamma(2.0, size=(5, 3))
    target[0, 0] = NAN
    parts = []
    for _ in range(3):
        mean = target + rng.normal(0, 1, target.shape)
        mean[0, 0] = 1.0
        levels = (0.1, 0.5, 0.9) if quantiles else ()
        spread = np.sort(mean[..., None] + rng.normal(0, 1, (5, 3, 3)), axis=-1)
        parts.append(Forecast(mean, levels, spread if quantiles else None))
    weights = best_weights(parts, target, 4)
    assert weights.sum() == pytest.approx(1)
    own = pinball(blended(parts, weights), target)
    for other in simplex(3, 4):
        assert own <= pinball(blended(parts, other), target) * (1 + 1e-9)
    assert own <= min(pinball(part, target) for part in parts) * (1 + 1e-9)


def test_between_equals_the_weights_are_even():
    one = of([1.0, 2.0])
    assert best_weights([one, one], np.array([[1.5, 2.5]]), 2).tolist() == [0.5, 0.5]


def test_nothing_to_choose_by_gives_even_weights():
    target = np.full((1, 2), NAN)
    assert best_weights([of([1.0, 2.0]), of([3.0, 4.0])], target).tolist() == [0.5, 0.5]

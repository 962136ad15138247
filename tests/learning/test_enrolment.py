"""Standardisation sums: by hand, and beside a plain loop over rows."""

from __future__ import annotations

import numpy as np
import pytest

from fl_inmetro.learning.enrolment import (
    capped,
    combined,
    contradiction,
    far_off,
    weighted_median,
)
from fl_inmetro.seeds import derive


def sums(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return {
        "n": np.array([float(len(rows))]),
        "x_sum": rows.sum(axis=0),
        "x_sq_sum": (rows**2).sum(axis=0),
    }


def changed(name, value):
    return {**sums([[1.0], [3.0]]), name: np.array([value])}


def test_sums_of_rows_contradict_nothing():
    # Rows 1 and 3: n = 2, Σx = 4, Σx² = 10; 4²/2 = 8 ≤ 10.
    assert contradiction(sums([[1.0], [3.0]]), 2, 1) == ""
    # A constant has equality, but for rounding.
    constant = np.full((1001, 1), np.float32(0.1))
    assert contradiction(sums(constant), 1001, 1) == ""
    assert contradiction({}, 2, 1) == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (changed("n", 1e12), "it sums 1000000000000 rows, its windows have 2"),
        (changed("n", -2.0), "it sums -2 rows"),
        # 5²/2 = 12.5 > 10
        (changed("x_sum", 5.0), "cannot have the sum 5 and the sum of squares 10"),
        (changed("x_sum", 1e200), "cannot have the sum 1e+200"),
        (changed("x_sq_sum", 7.9), "sum of squares 7.9"),
        (changed("x_sq_sum", -1.0), "sum of squares -1"),
        ({**changed("n", 2.0), "x_sum": np.zeros(2)}, "not those of 1 features"),
    ],
)
def test_sums_of_no_rows(found, said):
    assert said in contradiction(found, 2, 1)


def test_a_client_far_from_the_others_by_hand():
    # Means 0, 0.2 and 1000; their median is 0.2. Each client's rows lie at its mean ± 1:
    # d² = 1 + (mean − 0.2)² = 1.04, 1, 1 + 999.8². The median d is √1.04 = 1.0198.
    parts = [sums([[m - 1.0], [m + 1.0]]) for m in (0.0, 0.2, 1000.0)]
    ((place, why),) = far_off(parts, 100.0).items()
    assert place == 2
    assert f"{np.sqrt(1 + 999.8**2) / np.sqrt(1.04):.4g} times" in why
    assert far_off(parts, 1000.0) == {}
    # Of two nobody can tell which is the odd one.
    assert far_off(parts[1:], 2.0) == {}


def test_a_feature_that_is_constant_elsewhere_refuses_nobody():
    """The clients' day without a holiday is no reason to refuse the one who has it."""
    parts = [sums([[0.0], [0.0]]), sums([[0.0], [0.0]]), sums([[1.0], [0.0]])]
    # d = √0.5 beside the least distance of 0.1: 7.07.
    assert far_off(parts, 8.0) == {}
    assert list(far_off(parts, 7.0)) == [2]


def test_numbers_whose_squares_no_float_holds_lie_far_off():
    parts = [sums([[0.0], [1.0]]) for _ in range(3)]
    parts[1] = {"n": np.array([2.0]), "x_sum": np.array([1e155]), "x_sq_sum": np.array([1.7e308])}
    assert list(far_off(parts, 100.0)) == [1]


def test_pooled_sums_are_those_of_all_rows():
    rng = derive(0, "rows")
    rows = [rng.normal(size=(k, 3)) for k in (4, 9, 2)]
    found = combined([sums(r) for r in rows], by_median=False, max_share=1.0)
    expected = sums(np.concatenate(rows))
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-13)


def test_the_median_of_moments_by_hand():
    # Rows of two each: means 0, 1 and 10^6, each ± 1. The median mean is 1; around it the clients
    # have 1 + 1 = 2, 1 and 1 + 999999²: the median is 2.
    parts = [sums([[m - 1.0], [m + 1.0]]) for m in (0.0, 1.0, 1e6)]
    found = combined(parts, by_median=True, max_share=1.0)
    assert found["x_sum"] / found["n"] == 1.0
    assert found["x_sq_sum"] / found["n"] - 1.0 == pytest.approx(2.0)


def test_no_client_counts_for_more_than_its_share():
    # c = (1 + 1) / 2 · … : min(8, c) = 0.5 · (2 + c) at c = 2.
    assert capped(np.array([1.0, 8.0, 1.0]), 0.5).tolist() == [1.0, 2.0, 1.0]
    assert capped(np.array([1.0, 8.0]), 0.3).tolist() == [1.0, 1.0]
    rng = derive(1, "weights")
    for _ in range(50):
        weights = rng.pareto(1.0, size=9) + 0.1
        left = capped(weights, 0.2)
        assert left.max() <= 0.2 * left.sum() * (1 + 1e-9)
        # Nobody is cut who need not be: who is below the cap keeps all.
        assert (
            left[left < left.max() * (1 - 1e-9)] == weights[left < left.max() * (1 - 1e-9)]
        ).all()
    part = sums([[2.0]] * 8)
    found = combined([sums([[0.0]]), sums([[0.0]]), part], by_median=False, max_share=0.5)
    assert found["x_sum"] / found["n"] == 1.0  # half of the weight has the mean 2


def test_weighted_median_beside_repetition():
    rng = derive(2, "medians")
    values, weights = rng.normal(size=(7, 4)), rng.integers(1, 6, 7)
    found = weighted_median(values, weights.astype(float))
    repeated = np.sort(np.repeat(values, weights, axis=0), axis=0)
    assert (found == repeated[(weights.sum() + 1) // 2 - 1]).all()

"""Noisy sums: sensitivity by trial, variance by chi-square, and what shrinking is good for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateMetric, clipped, noised, shrunk
from fl_inmetro.seeds import derive

SECRET = Secret(bytes(range(32)))

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def metric(protect: Any = "client", z: float = 0.0, limit: float = 1.0) -> PrivateMetric:
    return PrivateMetric(protect, z, limit, SECRET, lambda *noted: None)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6), st.data())
def test_one_row_less_moves_the_sum_by_at_most_the_norm(rows, data):
    x = np.array(rows)
    without = np.delete(x, data.draw(st.integers(0, len(x) - 1)), axis=0)
    moved = clipped(x, 2.5).sum(axis=0) - clipped(without, 2.5).sum(axis=0)
    assert np.linalg.norm(moved) <= 2.5 * (1 + 1e-9)


def test_the_norm_is_reached_and_a_forgotten_clip_is_seen():
    # (3, 4) has norm 5: clipped to 2.5 it is (1.5, 2), and without it the sum is 0.
    x = np.array([[3.0, 4.0]])
    assert clipped(x, 2.5).sum(axis=0).tolist() == [1.5, 2.0]
    assert np.linalg.norm(x.sum(axis=0)) > 2.5  # what the planted bug would release


def test_rows_that_are_not_finite_count_nothing():
    x = np.array([[np.nan, 1.0], [1e308, 1e308], [0.0, 0.5]])
    assert clipped(x, 1.0).tolist() == [[0.0, 0.0], [0.0, 0.0], [0.0, 0.5]]


def test_noise_has_the_deviation_it_says():
    # 20,000 numbers: Σ(x/σ)² is chi-square with as many degrees of freedom. The secret is fixed,
    # so the test is, too; half of the noise, or noise on the mean, is far outside.
    noise = noised(np.zeros(20_000), 2.0, 1.5, SECRET, "a") / 3.0
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 20_000)
    assert low < (noise**2).sum() < high
    assert not low < ((noise / 2) ** 2).sum() < high
    assert stats.kstest(noise, "norm").pvalue > 1e-3


def test_no_noise_changes_nothing():
    x = derive(0, "x").normal(size=7)
    assert noised(x, 3.0, 0.0, SECRET, "a").tolist() == x.tolist()
    assert shrunk(x, 0.0).tolist() == x.tolist()


def test_one_sum_has_one_noise_and_another_sum_another():
    one, other = np.zeros(50), np.full(50, 1e-9)
    drawn = noised(one, 1.0, 1.0, SECRET, "a")
    assert drawn.tolist() == noised(one, 1.0, 1.0, SECRET, "a").tolist()
    assert np.abs(drawn - noised(other, 1.0, 1.0, SECRET, "a")).max() > 0.1
    assert np.abs(drawn - noised(one, 1.0, 1.0, SECRET, "b")).max() > 0.1


def test_shrinking_by_hand():
    # ‖(3, 0, 4)‖² = 25, c = 2 (3 − 2): with σ² = 5 the factor is 1 − 10/25, with σ² = 13 nothing.
    assert shrunk(np.array([3.0, 0.0, 4.0]), math.sqrt(5)) == pytest.approx([1.8, 0.0, 2.4])
    assert shrunk(np.array([3.0, 0.0, 4.0]), math.sqrt(13)).tolist() == [0.0, 0.0, 0.0]
    # D = 50: c = 50 + 3 · 10 = 80 beside 96; ‖x‖² = 200, σ = 1: 1 − 0.4.
    assert shrunk(np.full(50, 2.0), 1.0) == pytest.approx(1.2)
    assert shrunk(np.zeros(3), 1.0).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [0.0, 0.1, 1.0])
def test_shrinking_lowers_the_error_whatever_the_truth(size):
    rng = derive(0, "shrinking", str(size))
    truth = np.full(60, size)
    noisy = truth + rng.normal(size=(400, 60))
    before = ((noisy - truth) ** 2).sum(axis=1).mean()
    after = np.mean([((shrunk(one, 1.0) - truth) ** 2).sum() for one in noisy])
    assert after < before


def test_the_mean_error_by_hand():
    # 0.2, 0.4 and 3 cut to 1: from the middle 0.5 they are −0.3, −0.1 and 0.5, together 0.1. The
    # one without an error counts nothing: 0.5 + 0.1/4.
    errors = {"a": 0.2, "b": 0.4, "c": 3.0, "d": math.nan}
    assert metric().mean(errors, 4, 1) == pytest.approx(0.525)
    # Nothing is missing and nothing is cut: the plain mean.
    assert metric().mean({"a": 0.2, "b": 0.4}, 2, 1) == pytest.approx(0.3)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=2, max_size=6))
def test_one_client_less_moves_the_sum_of_errors_by_half_the_limit(values):
    one = metric(limit=0.8)
    errors = {f"c{k}": value for k, value in enumerate(values)}
    whole = len(values) * one.mean(errors, len(values), 1)
    errors.pop("c0")
    assert abs(whole - len(values) * one.mean(errors, len(values), 1)) <= 0.4 + 1e-9
    assert one.sensitivity == 0.4


def test_noise_of_the_mean_error():
    # At the server: z L/2 / K = 3 · 0.5 / 10 = 0.15. On ten clients: z L √10 / 10 = 0.9487.
    errors = {f"c{k}": 0.5 for k in range(10)}
    for protect, deviation in (("client", 0.15), ("window", 3 / math.sqrt(10))):
        one = metric(protect, z=3.0)
        drawn = np.array([one.mean(errors, 10, round_) - 0.5 for round_ in range(2000)])
        low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 2000)
        assert low < ((drawn / deviation) ** 2).sum() < high
    assert metric(z=1.0).mean(errors, 10, 3) == metric(z=1.0).mean(errors, 10, 3)


def test_what_leaves_is_noted_first():
    noted = []
    one = PrivateMetric("client", 1.0, 1.0, SECRET, lambda *what: noted.append(what))
    one.mean({"a": 0.1}, 1, 7)
    assert noted[0][:2] == (7, 0.5)
    assert len(noted[0][2]) == 64


def test_the_secret_is_not_shown():
    assert "secret" not in repr(metric())

"""What a guarantee means: odds and the best membership test."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.meaning import belief_from_half, odds_factor, true_positive_bound


def test_by_hand():
    three = math.log(3)
    assert odds_factor(three) == pytest.approx(3)
    assert belief_from_half(three) == pytest.approx(0.75)  # odds of 3 : 1
    assert true_positive_bound(three, 0, 0.1) == pytest.approx(0.3)  # 3 · 0.1
    assert true_positive_bound(three, 0, 0.5) == pytest.approx(5 / 6)  # 1 − 0.5/3
    assert true_positive_bound(0, 0.02, 0.01) == pytest.approx(0.03)  # f + δ
    assert (odds_factor(800), belief_from_half(800)) == (math.inf, 1.0)


@given(st.floats(0.1, 4), st.floats(0, 5), st.floats(1e-6, 1))
def test_the_best_test_of_one_noisy_number_stays_below(mu, epsilon, f):
    """Neyman and Pearson: against N(0, 1) the best test of N(μ, 1) finds Φ(Φ⁻¹(f) + μ)."""
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    power = norm.cdf(norm.ppf(f) + mu)
    bound = true_positive_bound(epsilon, max(delta, 0.0), f)
    assert power <= bound + 1e-9
    assert f <= bound <= 1


@pytest.mark.parametrize("values", [(-1, 0, 0.1), (1, 2, 0.1), (1, 0, -0.1), (math.nan, 0, 0.1)])
def test_no_such_guarantee(values):
    with pytest.raises(PrivacyError, match="FL401"):
        true_positive_bound(*values)

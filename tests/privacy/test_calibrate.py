"""The noise for a wanted epsilon: what comes back is enough, and hardly less would be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.calibrate import noise_for
from fl_inmetro.privacy.mechanism import Gaussian


@settings(max_examples=2, deadline=None)
@given(st.floats(0.5, 8), st.sampled_from([0.02, 0.2, 1.0]), st.integers(1, 100))
def test_there_and_back(epsilon, q, times):
    z = noise_for(epsilon, 1e-5, q, times)
    assert account((Gaussian(z, q, times),), 1e-5).epsilon <= epsilon
    assert account((Gaussian(z * 0.998, q, times),), 1e-5).epsilon > epsilon


def test_plain_noise_as_a_peer_calibrates_it():
    from dp_accounting import get_sigma_gaussian

    for epsilon, delta in ((1.0, 1e-5), (0.5, 1e-6), (4.0, 1e-5)):
        z = noise_for(epsilon, delta, 1.0, 1, "all")
        assert z == pytest.approx(get_sigma_gaussian(epsilon, delta), rel=2e-3)
    # Nine times the releases need three times the noise.
    nine = noise_for(1.0, 1e-5, 1.0, 9, "all")
    assert nine == pytest.approx(3 * get_sigma_gaussian(1.0, 1e-5), rel=2e-3)


def test_draws_of_a_fixed_number_need_more_noise():
    fixed = noise_for(2.0, 1e-5, 0.1, 50, "without-replacement")
    assert account((Gaussian(fixed, 0.1, 50, "without-replacement"),), 1e-5).epsilon <= 2.0
    assert fixed > 1.5 * noise_for(2.0, 1e-5, 0.1, 50)


@pytest.mark.parametrize("epsilon", [1e-6, 1e5])
def test_what_cannot_be_reached_is_said(epsilon):
    with pytest.raises(PrivacyError, match="FL404"):
        noise_for(epsilon, 1e-5, 0.5, 10)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_without_meaning(epsilon):
    with pytest.raises(PrivacyError, match="FL401"):
        noise_for(epsilon, 1e-5, 0.5, 10)

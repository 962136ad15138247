"""The audit lets honest noise pass and finds what is planted: on plain sums, by hand."""

import math

import numpy as np
import pytest

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.audit import Audit, _by_guesses, by_many_releases, by_one_release
from fl_inmetro.privacy.mechanism import Gaussian

DELTA = 1e-5


def many(z: float, claimed: float, n: int = 2000, length: float = 1.0, seed: int = 0) -> Audit:
    rng = np.random.default_rng(seed)
    return by_many_releases(
        length + z * rng.standard_normal(n), z * rng.standard_normal(n), claimed, DELTA
    )


def one(z: float, claimed: float, canaries: int = 4000, seed: int = 0) -> Audit:
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    scores = included + z * rng.standard_normal(canaries)
    epsilon = account((Gaussian(claimed, 1.0, 1, "all"),), DELTA).epsilon
    return by_one_release(scores, included, epsilon, claimed, DELTA)


@pytest.mark.parametrize("audit", [many, one])
@pytest.mark.parametrize("z", [0.5, 1.0, 3.0])
def test_honest_noise_passes_whatever_the_draw(audit, z):
    found = [audit(z, claimed=z, seed=seed) for seed in range(20)]
    assert all(a.holds for a in found)
    assert all(0 <= a.lower_bound <= a.claimed_epsilon for a in found)
    assert np.median([a.noise for a in found]) == pytest.approx(z, rel=0.06)


@pytest.mark.parametrize(
    ("what", "z", "length"),
    [("half the noise", 0.5, 1.0), ("divided twice", 1 / 32, 1.0), ("no clipping", 1.0, 10.0)],
)
def test_planted_bugs_are_found_by_the_bound_alone(what, z, length):
    found = many(z, claimed=1.0, n=60_000, length=length)
    assert found.claimed_epsilon == pytest.approx(4.38, abs=0.01)  # z = 1, by Balle and Wang
    assert found.lower_bound > found.claimed_epsilon, what
    assert not found.holds


def test_a_little_less_noise_is_found_by_the_estimate():
    found = many(0.8, claimed=1.0)
    assert found.lower_bound < found.claimed_epsilon  # too few scores for the bound
    assert found.noise == pytest.approx(0.8, abs=0.05)
    assert not found.holds


def test_one_release_with_half_the_noise_is_found():
    found = one(1.5, claimed=3.0)
    assert found.noise + 4 * found.noise_error < 3.0
    assert not found.holds
    # Without noise all guesses are right; 80 of 80 refute up to 80 ln(rate) = ln(0.01) at least.
    certain = one(1e-6, claimed=3.0)
    assert certain.lower_bound > certain.claimed_epsilon


def test_guesses_by_hand():
    # Pure epsilon: r right of r guesses have chance rate^r; that is alpha at rate = alpha^(1/r).
    rate = 0.05 ** (1 / 40)
    assert _by_guesses(1000, 40, 40, 0.0, 0.05) == pytest.approx(
        math.log(rate / (1 - rate)), abs=1e-3
    )
    # Half of the guesses right refute nothing.
    assert _by_guesses(1000, 40, 20, 0.0, 0.05) == 0.0
    # A delta leaves less to refute.
    assert _by_guesses(1000, 40, 40, 1e-5, 0.05) < _by_guesses(1000, 40, 40, 0.0, 0.05)


def test_the_bound_holds_as_often_as_it_says():
    # A mechanism whose epsilon is known: answer truly with chance e/(1+e), epsilon = 1 exactly.
    rng = np.random.default_rng(5)
    truth = math.e / (1 + math.e)
    above = 0
    for _ in range(200):
        inside = (rng.random(400) < truth).astype(float) + 1e-3 * rng.standard_normal(400)
        outside = (rng.random(400) >= truth).astype(float) + 1e-3 * rng.standard_normal(400)
        found = by_many_releases(inside, outside, 1.0, DELTA, confidence=0.95)
        above += found.lower_bound > 1.0
    assert above <= 20  # 95 % confidence: ten are expected at most


def test_a_canary_that_turns_the_release_back_is_seen_as_well():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 1000))
    found = by_many_releases(scores[0] - 5, scores[1], 1.0, DELTA)
    assert found.noise == pytest.approx(0.2, rel=0.1)
    assert not found.holds
    # One that does not show at all leaves nothing to say.
    unseen = by_many_releases(np.ones(50), np.ones(50), 1.0, DELTA)
    assert unseen.lower_bound == 0
    assert math.isinf(unseen.noise)


def test_few_scores_are_refused():
    with pytest.raises(PrivacyError, match="FL401"):
        by_many_releases(np.ones(19), np.ones(50), 1.0, DELTA)

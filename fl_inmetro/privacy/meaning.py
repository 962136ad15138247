"""What (ε, δ) means for one meter: odds, and what the best membership test can reach."""

from __future__ import annotations

import math

from fl_inmetro.errors import Fault, PrivacyError


def odds_factor(epsilon: float) -> float:
    """Return e^ε: the most by which a release multiplies anybody's odds, but for δ.

    Odds that a given meter took part rather than not, for somebody who knows everything else.
    """
    return math.exp(epsilon) if epsilon < 700 else math.inf


def belief_from_half(epsilon: float) -> float:
    """Return how sure one can be at most who held both for equally likely: e^ε/(1 + e^ε)."""
    return 1 / (1 + math.exp(-epsilon))


def true_positive_bound(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """Return the largest true positive rate of any membership test.

    A test that is wrong on a share f of those who took no part finds at most
    min(e^ε·f + δ, 1 − e^−ε·(1 − δ − f)) of those who did (Kairouz, Oh, Viswanath 2015, The
    composition theorem for differential privacy, theorem 2.1). A test that guesses finds f.

    Raises:
        PrivacyError: FL401, a value has no meaning.
    """
    f = false_positive_rate
    if not (epsilon >= 0 and 0 <= delta <= 1 and 0 <= f <= 1):
        what = f"no such guarantee or rate: epsilon {epsilon}, delta {delta}, false positives {f}"
        raise PrivacyError(Fault("FL401", what, "a membership test"))
    by_odds = odds_factor(epsilon) * f + delta
    by_misses = 1 - math.exp(-epsilon) * (1 - delta - f)
    return max(f, min(by_odds, by_misses, 1.0))

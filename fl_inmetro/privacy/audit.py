"""What an attacker measures of a mechanism that claims an ε: a lower bound, which must stay below.

A canary is a record that is put in or left out by chance, and made to be seen: as long as clipping
lets it be, in a direction of its own. Its score is how far the release lies in that direction, in
units of the clipping norm: about 1 with it and 0 without it, both with the noise. Two bounds of ε
are made of such scores, each with 99.9 % confidence unless asked otherwise:

    many releases   true and false positive rates at a threshold, with exact binomial intervals
                    (Jagielski, Ullman, Oprea 2020, "Auditing differentially private machine
                    learning"); the threshold is chosen on one half and counted on the other
    one release     many canaries in it, guessed all at once (Steinke, Nasr, Jagielski 2023,
                    "Privacy auditing with one (1) training run", theorem 5.2)

A bound from a few thousand scores cannot exceed about ln(number of scores): for large claims the
noise itself is estimated, which assumes that it is Gaussian and proves nothing, but finds half the
noise at once (Andrew et al. 2023, "One-shot empirical privacy estimation for federated learning").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.accountant import epsilon_pld
from fl_inmetro.privacy.mechanism import Gaussian

Floats = NDArray[np.float64]

#: Standard errors that an estimate of the noise may lie below what is claimed.
_STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Audit:
    """What canaries tell of a mechanism, beside what it claims.

    Attributes:
        claimed_epsilon: ε that is claimed of what was audited.
        delta: δ of it.
        lower_bound: Lower bound of ε, with `confidence`.
        confidence: Chance that the bound holds.
        claimed_noise: Noise multiplier that is claimed of one release.
        noise: Estimate of it: standard deviation of the scores over what a canary moves them by.
        noise_error: Standard error of that estimate.
        scores: Number of scores.
    """

    claimed_epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    claimed_noise: float
    noise: float
    noise_error: float
    scores: int

    @property
    def holds(self) -> bool:
        """Whether nothing was found against the claim."""
        enough = self.noise + _STANDARD_ERRORS * self.noise_error >= self.claimed_noise
        return self.lower_bound <= self.claimed_epsilon and enough


def by_many_releases(
    with_canary: Floats,
    without: Floats,
    claimed_noise: float,
    delta: float,
    confidence: float = 0.999,
) -> Audit:
    """Audit one release of Gaussian noise, of which many were made.

    Args:
        with_canary: Scores of releases with the canary, shape (N,), in units of the clipping norm.
        without: Scores of releases without it, shape (M,).
        claimed_noise: Noise multiplier that is claimed.
        delta: δ.
        confidence: Of the lower bound.

    Raises:
        PrivacyError: FL401, fewer than 20 scores of a kind.
    """
    _check_scores(with_canary, without)
    noise, error = _noise(with_canary, without)
    return Audit(
        claimed_epsilon=epsilon_pld((Gaussian(claimed_noise, 1.0, 1, "all"),), delta),
        delta=delta,
        lower_bound=_by_rates(with_canary, without, delta, confidence),
        confidence=confidence,
        claimed_noise=claimed_noise,
        noise=noise,
        noise_error=error,
        scores=len(with_canary) + len(without),
    )


def by_one_release(
    scores: Floats,
    included: NDArray[np.bool_],
    claimed_epsilon: float,
    claimed_noise: float,
    delta: float,
    confidence: float = 0.999,
) -> Audit:
    """Audit one release that holds many canaries, each put in or left out by a fair coin.

    The share of the highest scores that are guessed to be in, and of the lowest guessed to be out,
    is the one with the best bound of a few; the confidence is divided among them.

    Args:
        scores: Shape (M,), in units of the clipping norm.
        included: Shape (M,), whether the canary was in.
        claimed_epsilon: ε that is claimed of the release.
        claimed_noise: Noise multiplier that is claimed of one release.
        delta: δ.
        confidence: Of the lower bound.

    Raises:
        PrivacyError: FL401, fewer than 20 scores of a kind.
    """
    _check_scores(scores[included], scores[~included])
    noise, error = _noise(scores[included], scores[~included])
    order = np.argsort(scores, kind="stable")
    shares = (0.02, 0.05, 0.1, 0.25, 0.5)
    best = 0.0
    for share in shares:
        guesses = max(1, int(share * len(scores)))
        right = int(included[order[-guesses:]].sum() + (~included[order[:guesses]]).sum())
        level = (1 - confidence) / len(shares)
        best = max(best, _by_guesses(len(scores), 2 * guesses, right, delta, level))
    return Audit(
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        lower_bound=best,
        confidence=confidence,
        claimed_noise=claimed_noise,
        noise=noise,
        noise_error=error,
        scores=len(scores),
    )


# ------------------------------------------------------------------------------ internals
def _check_scores(first: Floats, second: Floats) -> None:
    if min(len(first), len(second)) < 20:
        what = f"{len(first)} scores with canaries and {len(second)} without are too few"
        raise PrivacyError(Fault("FL401", what, "an audit", "at least 20 of each are needed"))


def _noise(with_canary: Floats, without: Floats) -> tuple[float, float]:
    """Return the standard deviation over the difference of the means, and its standard error."""
    n, m = len(with_canary), len(without)
    moved = abs(float(with_canary.mean() - without.mean()))
    variance = float(
        (with_canary.var(ddof=1) * (n - 1) + without.var(ddof=1) * (m - 1)) / (n + m - 2)
    )
    deviation = math.sqrt(variance)
    if moved == 0:
        return math.inf, 0.0
    # Var(s) ≈ s²/2(n+m−2) for Gaussian noise; Var(moved) = s²(1/n + 1/m); both are independent.
    relative = 1 / (2 * (n + m - 2)) + variance * (1 / n + 1 / m) / moved**2
    return deviation / moved, deviation / moved * math.sqrt(relative)


def _by_rates(with_canary: Floats, without: Floats, delta: float, confidence: float) -> float:
    """Return the bound by rates: threshold and side from the even places, counts from the odd."""
    alpha = (1 - confidence) / 2  # two rates, either of which may be off
    if with_canary[::2].mean() < without[::2].mean():
        with_canary, without = -with_canary, -without

    def bound(inside: Floats, outside: Floats, threshold: float, *, above: bool) -> float:
        hits = (inside > threshold) if above else (outside <= threshold)
        wrong = (outside > threshold) if above else (inside <= threshold)
        least = _at_least(int(hits.sum()), len(hits), alpha)
        most = 1 - _at_least(len(wrong) - int(wrong.sum()), len(wrong), alpha)
        return math.log((least - delta) / most) if least > delta and most > 0 else 0.0

    choose_in, choose_out = with_canary[::2], without[::2]
    count_in, count_out = with_canary[1::2], without[1::2]
    tried = np.quantile(np.concatenate([choose_in, choose_out]), np.linspace(0.005, 0.995, 100))
    _, threshold, above = max(
        (bound(choose_in, choose_out, float(t), above=side), float(t), side)
        for t in tried
        for side in (True, False)
    )
    return max(0.0, bound(count_in, count_out, threshold, above=above))


def _at_least(successes: int, trials: int, alpha: float) -> float:
    """Return the lower end of Clopper and Pearson's (1934) one-sided interval of a rate."""
    if successes == 0:
        return 0.0
    from scipy.stats import beta

    return float(beta.ppf(alpha, successes, trials - successes + 1))


def _by_guesses(canaries: int, guesses: int, right: int, delta: float, alpha: float) -> float:
    """Return the largest ε that so many right guesses refute with error at most `alpha`."""
    from scipy.stats import binom

    def chance(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        as_many = float(binom.sf(right - 1, guesses, rate))
        # With δ an adversary may know some canaries for certain: the worst number of them counts.
        fewer = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, rate))
        worst = float((fewer / np.arange(1, right + 1)).max()) if right else 0.0
        return as_many + 2 * canaries * delta * worst

    return _largest(lambda epsilon: chance(epsilon) <= alpha)


def _largest(refuted: Callable[[float], bool]) -> float:
    low, high = 0.0, 50.0
    if not refuted(low):
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low

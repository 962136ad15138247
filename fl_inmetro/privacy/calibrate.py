"""The noise that a wanted epsilon needs: bisection on the tighter account."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.accountant import account, epsilon_rdp
from fl_inmetro.privacy.mechanism import Events, Gaussian, Sampling

#: Noise multipliers that are searched.
SMALLEST, LARGEST = 0.1, 10_000.0

#: What is found is at most this much above the smallest noise that would do, relatively.
TOLERANCE = 1e-3


def noise_for(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    times: int,
    sampling: Sampling = "poisson",
    group: int = 1,
) -> float:
    """Return the noise multiplier z with which `times` releases cost at most ε at δ.

    Epsilon falls as z grows. RDP, which is quick, brackets the answer; PLD decides within. The
    value returned was itself accounted, so ε is never above the one wanted; one that is smaller
    by more than 0.1 % would not do.

    Args:
        epsilon: Wanted ε, above 0.
        delta: δ in (0, 1).
        sampling_rate: q, as in `Gaussian`.
        times: Releases, ≥ 1.
        sampling: How records are drawn.
        group: Records of the one who is protected.

    Raises:
        PrivacyError: FL404, no noise multiplier in [0.1, 10,000] does, or even the smallest
            stays below ε; else as in `accountant.account`.
    """

    event = Gaussian(SMALLEST, sampling_rate, times, sampling, group)
    return smallest_noise(event, epsilon, delta).noise_multiplier


def smallest_noise(event: Gaussian, epsilon: float, delta: float, beside: Events = ()) -> Gaussian:
    """Return the event with the least noise with which it and those `beside` cost at most ε.

    Its own noise multiplier does not matter. Errors as in `noise_for`.
    """

    def events(z: float) -> Events:
        return (*beside, replace(event, noise_multiplier=z))

    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PrivacyError(Fault("FL401", f"epsilon is a number above 0, not {epsilon}", "a goal"))
    rdp_does = epsilon_rdp(events(LARGEST), delta) <= epsilon
    if not rdp_does and account(events(LARGEST), delta).epsilon > epsilon:
        raise _unreachable(f"epsilon {epsilon} needs a noise multiplier above {LARGEST:g}")
    if account(events(SMALLEST), delta).epsilon <= epsilon:
        raise _unreachable(f"epsilon {epsilon} is met by a noise multiplier of {SMALLEST:g}")

    def by_rdp(z: float) -> bool:
        return epsilon_rdp(events(z), delta) <= epsilon

    def by_both(z: float) -> bool:
        return account(events(z), delta).epsilon <= epsilon

    enough = LARGEST
    if rdp_does:
        _, enough = _bisect(by_rdp, SMALLEST, LARGEST, 0.02)
    # PLD needs less noise than RDP: how much less is found by steps down, which get longer.
    too_little, step = enough, 0.9
    while by_both(too_little):
        enough, too_little, step = too_little, max(SMALLEST, too_little * step), step * step
    return replace(event, noise_multiplier=_bisect(by_both, too_little, enough, TOLERANCE)[1])


# ------------------------------------------------------------------------------ internals
def _bisect(
    does: Callable[[float], bool], low: float, high: float, tolerance: float
) -> tuple[float, float]:
    """Narrow [low, high], where `does(high)` and not `does(low)`, to a ratio of 1 + tolerance."""
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if does(middle) else (middle, high)
    return low, high


def _unreachable(what: str) -> PrivacyError:
    hint = "ask for an epsilon between 0.1 and 50; fewer rounds or a lower rate need less noise"
    return PrivacyError(Fault("FL404", what, "the noise for a wanted epsilon", hint))

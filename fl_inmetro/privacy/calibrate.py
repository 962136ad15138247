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

    enough = LARGEST
    if rdp_does:
        _, enough = _bisect(by_rdp, SMALLEST, LARGEST, 0.02)
    z = _least(lambda z: account(events(z), delta).epsilon, epsilon, enough)
    return replace(event, noise_multiplier=z)


# ------------------------------------------------------------------------------ internals
def _bisect(
    does: Callable[[float], bool], low: float, high: float, tolerance: float
) -> tuple[float, float]:
    """Narrow [low, high], where `does(high)` and not `does(low)`, to a ratio of 1 + tolerance."""
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if does(middle) else (middle, high)
    return low, high


def _least(epsilon_of: Callable[[float], float], goal: float, enough: float) -> float:
    """Return the least z, to `TOLERANCE`, with ε(z) ≤ goal; ε falls with z, and does at `enough`.

    An account of groups takes seconds, so few are made: log ε is nearly a line in log z, and the
    next z is taken just above or just below where the line through the last two meets the goal, on
    the side where the bracket is open. Every third halves the bracket, whatever the line says.
    """
    low, high = SMALLEST, enough
    last: tuple[float, float] | None = None
    slope, probe = -1.0, enough
    for attempt in range(1, 200):
        found = epsilon_of(probe)
        if found <= goal:
            high = min(high, probe)
        else:
            low = max(low, probe)
        if high <= low * (1 + TOLERANCE):
            break
        here = (math.log(probe), math.log(found)) if 0 < found < math.inf else None
        if here and last and abs(here[0] - last[0]) > 1e-9 and here[1] != last[1]:
            slope = min((here[1] - last[1]) / (here[0] - last[0]), -0.1)
        last = here or last
        middle = math.sqrt(low * high)
        probe = middle
        if attempt % 3 and last:
            meets = math.exp(last[0] + (math.log(goal) - last[1]) / slope)
            above, below = meets * (1 + 0.4 * TOLERANCE), meets * (1 - 0.4 * TOLERANCE)
            probe = above if above < high * (1 - 0.1 * TOLERANCE) else below
            if not low < probe < high:
                probe = middle
    return high


def _unreachable(what: str) -> PrivacyError:
    hint = "ask for an epsilon between 0.1 and 50; fewer rounds or a lower rate need less noise"
    return PrivacyError(Fault("FL404", what, "the noise for a wanted epsilon", hint))

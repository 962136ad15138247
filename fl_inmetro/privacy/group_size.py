"""The privacy loss of Gaussian noise on a sum in which one who is protected has several records.

Each of g records is drawn by itself with chance q, so k of them are in the sum with the chance of a
binomial draw, and move it by k C at most: P = Σ_k Bin(k; g, q) N(k, z²) beside Q = N(0, z²), in
units of C. That pair dominates (Choquette-Choo, Ganesh, Steinke, Thakurta 2024, "Privacy
amplification for matrix mechanisms", corollary 4.7). `dp-accounting` has it too
(`from_mixture_gaussian_mechanism`), but inverts the loss number by number; this takes all at once.

Where the records are replaced by g others, k old ones move the sum one way and k' new ones the
other: P = Σ_k Bin(k; g, q) N(k, z²) beside Q = Σ_k Bin(k; g, q) N(−k, z²) (Schuchardt, Stoian,
Kosmala, Günnemann 2024, "Unified mechanism-specific amplification by subsampling and group privacy
amplification", section 3.4: g removed and g inserted under Poisson draws).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Deviations of the noise beyond which the grid ends; the mass beyond counts as an infinite loss.
_REACH = 10.0

#: Points of the table that a loss is first looked up in, and steps that then refine it.
_TABLE, _REFINED = 4096, 6

#: Losses that are inverted at a time.
_CHUNK = 16_384


def loss_distribution(
    noise_multiplier: float,
    sampling_rate: float,
    group: int,
    step: float,
    *,
    replaced: bool = False,
) -> Any:
    """Return the distribution of the loss of one release as `dp-accounting` has it, pessimistic.

    Args:
        noise_multiplier: z, above 0.
        sampling_rate: q, in (0, 1).
        group: g, records of the one who is protected, at least 1.
        step: Step of the grid of losses.
        replaced: Others stand in the records' place; else they are there or not.
    """
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    pair = Pair(noise_multiplier, sampling_rate, group, replaced=replaced)
    least = -group if replaced else 0.0
    ends = np.array([least - _REACH * noise_multiplier, group + _REACH * noise_multiplier])
    low, high = (float(loss) for loss in pair.loss(ends))

    def distribution(first: float, last: float, removed: bool) -> Any:
        lower, upper = math.floor(first / step), math.ceil(last / step)
        grid: Floats = np.arange(lower, upper + 1).astype(np.float64) * step
        bound = pair.hockey_stick(grid, removed=removed)
        # It falls with ε; where rounding has it rise by a bit, the larger one is a bound too.
        bound = np.maximum.accumulate(bound[::-1])[::-1]
        return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(step, lower, upper, bound)

    first = distribution(low, high, removed=True)
    if replaced:  # P is Q with the sign of x turned: the reverse pair has the same loss
        return PrivacyLossDistribution(first)
    # The loss of the reverse pair is the negative one.
    return PrivacyLossDistribution(first, distribution(-high, -low, removed=False))


class Pair:
    """P and Q of the module's first lines.

    Args:
        noise_multiplier: z.
        sampling_rate: q.
        group: g.
        replaced: Whether others stand in the records' place.
    """

    def __init__(
        self, noise_multiplier: float, sampling_rate: float, group: int, *, replaced: bool = False
    ) -> None:
        self._z, self._replaced = noise_multiplier, replaced
        k = np.arange(group + 1)
        logs = [
            math.lgamma(group + 1)
            - math.lgamma(i + 1)
            - math.lgamma(group - i + 1)
            + i * math.log(sampling_rate)
            + (group - i) * math.log1p(-sampling_rate)
            for i in k.tolist()
        ]
        self._k: Floats = k.astype(np.float64)
        self._log_share: Floats = np.array(logs)

    def loss(self, x: Floats) -> Floats:
        """Return ln dP/dQ at x, (N,) → (N,); it grows with x."""
        return self._terms(x)[1]

    def hockey_stick(self, epsilon: Floats, *, removed: bool) -> Floats:
        """Return sup_S P(S) − e^ε Q(S), (N,) → (N,); with `removed` False, that of (Q, P)."""
        found = np.empty_like(epsilon)
        for start in range(0, len(epsilon), _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = self._of(epsilon[part], removed)
        return found

    def _of(self, epsilon: Floats, removed: bool) -> Floats:
        from scipy.special import log_ndtr, logsumexp

        # S is where the loss is above ε; for (Q, P), where ln dP/dQ is below −ε.
        sign = 1.0 if removed or self._replaced else -1.0
        # Without any of the records P is Q: the loss has an end there, and S is all or nothing.
        least = -math.inf if self._replaced else float(self._log_share[0])
        inside = sign * epsilon > least
        x = self._inverse(sign * epsilon[inside])[:, None]

        def mass(moved: Floats) -> Floats:
            """Return the logarithm of S under the mixture that lies at `moved`; (N,)."""
            return np.asarray(
                logsumexp(self._log_share + log_ndtr(sign * (moved - x) / self._z), axis=1)
            )

        own = mass(self._k)
        other = mass(-self._k) if self._replaced else log_ndtr(-sign * x[:, 0] / self._z)
        of_p, of_q = (own, other) if removed or self._replaced else (other, own)
        # Beyond −1 it is clipped; and e^ε of a large ε overflows.
        found = -np.expm1(np.minimum(epsilon, 1.0)) if removed else np.zeros_like(epsilon)
        found[inside] = np.exp(of_p) - np.exp(epsilon[inside] + of_q)
        clipped: Floats = np.clip(found, 0.0, 1.0)
        assert np.isfinite(clipped).all()
        return clipped

    def _inverse(self, losses: Floats) -> Floats:
        """Return where the loss is as given; (N,) → (N,).

        A threshold that is off by h loses of the order of h² of the supremum.
        """
        reach = 2 * _REACH * self._z + self._k[-1]
        table = np.linspace(-reach, reach, _TABLE)
        x: Floats = np.interp(losses, self.loss(table), table)
        low, high = np.full_like(x, -reach), np.full_like(x, reach)
        for _ in range(_REFINED):
            slope, found = self._terms(x)
            over = found > losses
            high, low = np.where(over, x, high), np.where(over, low, x)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = x - (found - losses) / slope
            sound = (newton >= low) & (newton <= high)  # not so where it is NaN
            x = np.where(sound, newton, (low + high) / 2)
        return x

    def _terms(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the slope of the loss, and the loss; (N,) → (N,), (N,)."""
        slope, loss = self._beside_none(x)
        if self._replaced:
            other_slope, other = self._beside_none(-x)
            return slope + other_slope, loss - other
        return slope, loss

    def _beside_none(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the same for P beside N(0, z²)."""
        each = self._log_share + (2 * self._k * x[:, None] - self._k**2) / (2 * self._z**2)
        most = each.max(axis=1, keepdims=True)
        weight = np.exp(each - most)
        total = weight.sum(axis=1)
        return (weight @ self._k) / total / self._z**2, np.log(total) + most[:, 0]

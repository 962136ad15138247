"""The privacy loss of Gaussian noise on a sum over m of n records, drawn without replacement.

Neighbours replace one record, which moves the sum of a draw by up to 2 C. Balle, Barthe and
Gaboardi 2018 (Privacy amplification by subsampling, theorem 9): a mechanism with hockey-stick
divergence H_α has, on such a draw with q = m/n, one of at most q·H_α'(·) at α' = 1 + (α − 1)/q,
for α ≥ 1. For α < 1 the relation's symmetry gives the rest: H_α(P, Q) = 1 − α + α·H_{1/α}(Q, P).
The bound for *all* α > 0 is convex, so some pair of distributions has it (Zhu, Dong, Wang 2022,
Optimal accounting of differential privacy via characteristic function, propositions 8 and 10),
and that pair dominates every composition. The loss of the pair alone, for α ≥ 1 only, would not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Deviations of the noise beyond which the grid ends; the mass beyond counts as an infinite loss.
_REACH = 10.0


def hockey_stick(
    epsilon: NDArray[np.float64], noise_multiplier: float, sampling_rate: float
) -> NDArray[np.float64]:
    """Return the bound on δ of one release at each ε, (N,), negative ε included.

    Args:
        epsilon: Values of ε, (N,), of any sign.
        noise_multiplier: z = s/C, above 0.
        sampling_rate: q = m/n, in (0, 1].
    """
    from scipy.special import log_ndtr

    mu, q = 2 / noise_multiplier, sampling_rate
    size = np.abs(epsilon)
    # ln(1 + (e^ε − 1)/q), also where e^ε is beyond a float.
    inner = size - math.log(q) + np.log1p(-(1 - q) * np.exp(-size))
    # Balle and Wang 2018, theorem 5: δ of N(μ, 1) against N(0, 1).
    first = np.exp(log_ndtr(mu / 2 - inner / mu))
    second = np.exp(inner + log_ndtr(-mu / 2 - inner / mu))
    amplified = q * np.maximum(first - second, 0.0)
    below = np.exp(-size)
    found: NDArray[np.float64] = np.where(epsilon >= 0, amplified, 1 - below + below * amplified)
    return found


def loss_distribution(noise_multiplier: float, sampling_rate: float, step: float) -> Any:
    """Return the distribution of the loss of one release as `dp-accounting` has it, pessimistic.

    Args:
        noise_multiplier: z = s/C, above 0.
        sampling_rate: q = m/n, in (0, 1].
        step: Step of the grid of losses.
    """
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    mu = 2 / noise_multiplier
    largest = mu * mu / 2 + _REACH * mu
    # The loss of a draw is ln(1 + q·(e^loss − 1)).
    largest = np.logaddexp(math.log(sampling_rate) + largest, math.log1p(-sampling_rate))
    end = math.ceil(largest / step)
    grid = np.arange(-end, end + 1)
    bound = hockey_stick(grid * step, noise_multiplier, sampling_rate)
    return PrivacyLossDistribution(
        pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(step, -end, end, bound)
    )

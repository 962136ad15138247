"""Rényi divergence of Gaussian noise under Poisson draws, by integration."""

from __future__ import annotations

import math

import numpy as np

#: Deviations on either side, and points per deviation.
_REACH, _POINTS = 14.0, 200

#: Least noise that is integrated, and what rounding may take from the logarithm.
_LEAST, _ROUNDING = 0.01, 1e-14


def poisson_divergence(order: float, noise_multiplier: float, sampling_rate: float) -> float:
    """Return the divergence of order α of one release: ln E[(1 − q + q·L)^α] / (α − 1).

    L = e^((2x − 1)/(2 z²)) with x ~ N(0, z²) (Mironov, Talwar, Zhang 2019, Rényi differential
    privacy of the sampled Gaussian mechanism, section 3.3; the other direction is never larger,
    theorem 5). The integrand is analytic and falls like a normal density on both sides, so equal
    steps converge faster than any power of the step.

    Args:
        order: α > 1.
        noise_multiplier: z > 0.
        sampling_rate: q in (0, 1].
    """
    z, q = noise_multiplier, sampling_rate
    if z < _LEAST or q >= 1:
        # The bound without draws: so little noise promises nothing either way; and groups of which
        # hardly any draw misses all have a rate that rounds to 1.
        return order / (2 * z * z)
    # The largest part lies between 0 and α.
    points = math.ceil((2 * _REACH + order / z) * _POINTS)
    x, step = np.linspace(-_REACH * z, order + _REACH * z, points, retstep=True)
    drawn = math.log(q) + (2 * x - 1) / (2 * z * z)
    exponent = order * np.logaddexp(math.log1p(-q), drawn) - (x / z) ** 2 / 2
    top = float(exponent.max())
    mean = top + math.log(float(np.exp(exponent - top).sum() * step) / (z * math.sqrt(2 * math.pi)))
    return (max(0.0, mean) + _ROUNDING) / (order - 1)

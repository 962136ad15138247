"""A fleet's quantiles of errors under client-level privacy, asked for in steps.

Noise on 1,383 bins of a sketch would drown 200 clients. So nobody sends a sketch: in each step the
server names a value θ for every level τ, and each client answers with the share of its errors at or
below θ, less τ. Near the quantile these answers are short, whatever the client's size, so that they
may be clipped to a small norm; the server adds noise to their sum, divides by all clients and moves
θ by it, less from step to step. What the steps average out is the noise of all of them.
Source: Robbins & Monro (1951), "A Stochastic Approximation Method"; shares below a value under
noise as in Andrew et al. (2021), "Differentially Private Learning with Adaptive Clipping".

T steps of z√T are one release of z: Gaussian mechanisms compose exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.conformal import Calibration, Scores
from fl_inmetro.metrics.sketch import Bins
from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.sums import PrivateSums, clipped, noised

Floats = NDArray[np.float64]

#: T, and what an answer to one question may be long at most: its norm grows with their number.
STEPS, SHARE_NORM = 12, 0.15

#: Values are moved on asinh(θ / 0.1): in proportion where they are large, and through zero. The
#: first guess is that of errors with a mean size of 0.2, in units of the client's level.
_LINEAR, _SPREAD = 0.1, 0.2


def private_calibration(
    clients: Sequence[Scores], levels: tuple[float, ...], private: PrivateSums
) -> Calibration:
    """Return the calibration that serves any client, from noisy answers of all.

    Args:
        clients: Errors of each client that is enrolled, all of one form, at least one client; one
            without errors in a block answers zero there.
        levels: What is asked for: levels of the quantiles, or, of forecasts of a mean, any.
        private: z, secret and who notes the release; of clients (`protect = "client"`).

    Raises:
        PrivacyError: What `private.release` says.
        ValueError: Windows are protected: clients then calibrate by their own errors alone.
    """
    if not private.by_client:
        raise ValueError("windows are protected where nobody shares errors")
    bins = clients[0].bins
    blocks = len(clients[0].counts)
    asked = np.array(levels)
    shares = np.stack([_cumulative(one.counts, len(levels)) for one in clients])
    norm = share_norm(blocks, len(levels))
    z = (private.noise_multiplier or 0.0) * math.sqrt(STEPS)
    place = np.broadcast_to(np.arcsinh(_first_guess(asked) / _LINEAR), (blocks, len(levels)))
    answers: list[bytes] = []
    for step in range(1, STEPS + 1):
        below = _at(shares, bins, np.sinh(place) * _LINEAR)
        off = np.where(np.isnan(below), 0.0, below - asked)
        short = clipped(off.reshape(len(clients), -1), norm).sum(axis=0)
        noisy = noised(short, norm, z, private.secret, "quantiles", step)
        mean = noisy.reshape(place.shape) / len(clients)
        answers.append(mean.tobytes())
        # Newton's step at first, for a distribution with the tails of Laplace's.
        place = np.sort(place - mean / (_slope(asked) * max(1.0, step / 2)), axis=1)
    private.release(0, norm, digest_of(answers))
    reach = float(bins.centres[-1])
    values = np.clip(np.sinh(place) * _LINEAR, -reach, reach)
    return Calibration(levels, not clients[0].levels, values)


def share_norm(blocks: int, levels: int) -> float:
    """Return C: what a client's answers of one step are clipped to."""
    return SHARE_NORM * math.sqrt(blocks * levels)


# ------------------------------------------------------------------------------ internals
def _cumulative(counts: NDArray[np.int64], levels: int) -> Floats:
    """Return the share of errors up to each bin; (blocks, levels, bins), NaN without errors."""
    below = np.cumsum(counts, axis=2, dtype=np.float64)
    total = below[:, :, -1:]
    share = np.divide(below, total, out=np.full(below.shape, np.nan), where=total > 0)
    return np.broadcast_to(share, (len(counts), levels, counts.shape[2]))


def _at(shares: Floats, bins: Bins, values: Floats) -> Floats:
    """Return each client's share at or below a value; (K, blocks, levels)."""
    place = np.searchsorted(bins.centres, values, side="right") - 1
    inside = np.broadcast_to(np.maximum(place, 0)[None, :, :, None], (*shares.shape[:3], 1))
    found: Floats = np.take_along_axis(shares, inside, axis=3)[..., 0]
    return np.where(place < 0, np.where(np.isnan(found), np.nan, 0.0), found)


def _first_guess(levels: Floats) -> Floats:
    """Return Laplace's quantiles."""
    tail = np.minimum(levels, 1 - levels)
    result: Floats = np.sign(levels - 0.5) * _SPREAD * np.log(0.5 / tail)
    return result


def _slope(levels: Floats) -> Floats:
    """Return how fast the share grows with asinh(θ / 0.1), about, at each level's quantile."""
    tail = np.minimum(levels, 1 - levels)
    result: Floats = 0.7 * tail * np.log(1 / tail)
    return result

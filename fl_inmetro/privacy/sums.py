"""Sums with noise: what leaves clients beside their updates, under the same budget.

A sum over records is made private in three steps: every record's part of it is clipped to an L2
norm C, so that one record more or less moves the sum by at most C; every number of the sum gets
Gaussian noise of standard deviation z·C; and all that is done afterwards, such as dividing by a
count that is known to everybody, or what follows here to make a noisy sum usable, costs nothing.
Source: Dwork & Roth (2014), "The Algorithmic Foundations of Differential Privacy", A.1 (Gaussian
mechanism) and proposition 2.1 (post-processing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.secret import Secret

Floats = NDArray[np.float64]

#: Whom a sum protects.
Whom = Literal["client", "client-day", "window"]

#: Notes a release: its round, the sensitivity C, and the digest of what leaves; raises when the
#: budget does not allow it, before anything has left.
Note = Callable[[int, float, str], None]


@dataclass(frozen=True)
class PrivateSums:
    """How the sums of enrolment, or of a model in closed form, are made private.

    Attributes:
        protect: Who is protected. `client`: the server adds noise. `window` and `client-day`: each
            client does, before anything leaves it.
        noise_multiplier: z; None = no sum of readings is asked for, public constants do.
        secret: What noise is drawn from; of one federation alone.
        release: Notes what leaves.
    """

    protect: Whom
    noise_multiplier: float | None
    secret: Secret = field(repr=False)
    release: Note = field(repr=False)

    @property
    def by_client(self) -> bool:
        """Whether a client is one record; else each of its windows is."""
        return self.protect == "client"


@dataclass(frozen=True)
class PrivateMetric:
    """The mean validation error of a round, as a noisy figure.

    Every client's error is cut to [0, L] and counted from the middle, L/2; who has none counts
    nothing. One client more or less then moves the sum by at most L/2. One window more or less may
    move its client's error from one end to the other, by L, however many windows a day is in: a
    group of windows is accounted as one (`group = 1`). It is each client that adds noise then.

    Attributes:
        protect: Who is protected.
        noise_multiplier: z.
        limit: L, the largest nMAE that counts.
        secret: What noise is drawn from; of one federation alone.
        release: Notes what leaves.
    """

    protect: Whom
    noise_multiplier: float
    limit: float
    secret: Secret = field(repr=False)
    release: Note = field(repr=False)

    @property
    def sensitivity(self) -> float:
        """What one record moves a sum by, at most."""
        return self.limit / 2 if self.protect == "client" else self.limit

    def mean(self, errors: Mapping[str, float], clients: int, round_: int) -> float:
        """Return L/2 + (Σ (e_k − L/2) + noise) / K, in the unit of the errors.

        With noise of the clients the sum has the noise of K of them, whoever has an error.

        Args:
            errors: Client to its error; one that is not finite counts nothing.
            clients: Enrolled clients K, which everybody knows; at least 1.
            round_: Number of the round; each has noise of its own.
        """
        middle = self.limit / 2
        known = sorted((name, e) for name, e in errors.items() if math.isfinite(e))
        total = math.fsum(min(max(error, 0.0), self.limit) - middle for _, error in known)
        deviation = self.noise_multiplier * self.sensitivity
        if self.protect != "client":
            deviation *= math.sqrt(clients)
        noisy = noised(np.array([total]), deviation, 1.0, self.secret, "metric", round_)
        mean = middle + float(noisy[0]) / clients
        self.release(round_, self.sensitivity, digest_of([np.float64(mean).tobytes()]))
        return mean


def clipped(rows: Floats, norm: float) -> Floats:
    """Scale every row to at most an L2 norm; one that is not finite becomes zero.

    NaN would tell of a row through any noise.

    Args:
        rows: Shape (N, D).
        norm: C, above 0.

    >>> clipped(np.array([[3.0, 4.0], [0.3, 0.4], [np.inf, 0.0]]), 1.0)
    array([[0.6, 0.8],
           [0.3, 0.4],
           [0. , 0. ]])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    sound = np.isfinite(size)
    factor = np.minimum(1.0, norm / np.maximum(np.where(sound, size, 1.0), norm / 2))
    result: Floats = np.where(sound, rows, 0.0) * factor
    return result


def noised(
    total: Floats, norm: float, noise_multiplier: float, secret: Secret, *name: str | int
) -> Floats:
    """Return a sum with N(0, (zC)²) on each of its numbers; of any shape.

    Noise is drawn by the name and by the very bits of the sum: who resumes and comes to the same
    sum gets the same noise; another sum (a client less has come back, say) gets noise of its own.
    One noise on two sums would show their difference.
    """
    if not noise_multiplier:
        return total
    rng = secret.generator(*name, digest_of([total.tobytes()]))
    result: Floats = total + noise_multiplier * norm * rng.standard_normal(total.shape)
    return result


def shrunk(estimate: Floats, deviation: float) -> Floats:
    """Move a noisy vector towards zero as far as its noise says, shape (D,).

    x · max(0, 1 − c σ² / ‖x‖²) with c = min(D + 3 √(2D), 2 (D − 2)). Its expected squared error is
    at most that of x for every truth, for c <= 2 (D − 2); of noise alone, whose ‖x‖²/σ² is D on
    average with deviation √(2D), next to nothing is left for D above 25. Without noise x stays.
    Source: James & Stein (1961), "Estimation with quadratic loss"; Baranchik (1970) for other c
    and the positive part.

    Args:
        estimate: x, what is left of zero being the best guess without it.
        deviation: σ of the noise on each number.

    >>> shrunk(np.array([3.0, 0.0, 4.0]), 1.0)  # 1 − 2/25
    array([2.76, 0.  , 3.68])
    """
    size, square = len(estimate), float(estimate @ estimate)
    c = min(size + 3 * math.sqrt(2 * size), 2 * max(size - 2, 0))
    return estimate * max(0.0, 1.0 - c * deviation**2 / square) if square else estimate

"""Sums of a closed-form reply: what they can be, and which of them contradict all others.

With rows z = (x, 1) and targets r, a client sends A = Σzzᵀ, m = Σzr and s = Σr². From these the
server can say how any model would fit that client, Σ(r − βz)² = s − 2βm + βAβ, without a reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.enrolment import FEWEST, ROUNDING, distances
from fl_inmetro.models import ridge

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Names of the sums.
NAMES = ("gram", "moment", "square")

#: Names of those of weighted points, each but `points` once for each level.
WEIGHTED = ("gram", "moment", "points", "square")

#: Penalty of the clients' own solutions: strong, for many features say nearly the same.
_OWN_ALPHA = 1.0

#: A client's slope, beside the median client's, that is let into the reference, and in the end.
#: Of 215 honest clients of six data sets: −0.02 to 3.1 beside the start, 0.1 to 1.9 in the end.
_SLOPES_START, _SLOPES = (-0.5, 5.0), (-0.5, 3.0)

#: Σ(r − βz)² / Σr² that is let in; honest clients: at most 1.6 (docs/attacks.md).
_WORST_FIT = 3.0

#: Penalty of the reference.
_ALPHA = 1e-4

#: The kept clients are found again at most so often.
_PASSES = 10


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of K clients.

    Attributes:
        gram: Shape (K, F+1, F+1).
        moment: Shape (K, F+1).
        square: Shape (K,).
    """

    gram: Floats
    moment: Floats
    square: Floats

    def __len__(self) -> int:
        return len(self.square)

    def take(self, chosen: Flags) -> Sums:
        """Return those of some clients."""
        return Sums(self.gram[chosen], self.moment[chosen], self.square[chosen])

    def solution(self, weights: Floats, alpha: float) -> Floats:
        """Return the ridge coefficients of the weighted clients; (K,) → (F+1,)."""
        gram = np.einsum("k,kij->ij", weights, self.gram)
        return ridge.solve({"gram": gram, "moment": weights @ self.moment}, alpha)["coefficients"]


def contradiction(gram: Floats, moment: Floats, square: float, points: float) -> str:
    """Return why sums cannot come from `points` rows; empty if they can.

    The matrix [[A, m], [mᵀ, s]] is Σ(z, r)(z, r)ᵀ: symmetric and positive semi-definite. So no
    moment can be larger than Cauchy and Schwarz allow, nor a fit better than the residuals are.

    Shapes: `gram` (F+1, F+1), `moment` (F+1,).
    """
    if gram[-1, -1] != points:
        return f"it sums {gram[-1, -1]:.16g} points and claims {points:.16g}"
    bordered = np.block([[gram, moment[:, None]], [moment[None, :], np.array([[square]])]])
    diagonal = np.diag(bordered)
    if (diagonal < 0).any():
        return "it has a sum of squares below zero"
    root = np.sqrt(diagonal)
    empty = root == 0
    if bordered[empty].any():
        return "it has products where all values are zero"
    scale = np.where(empty, 1.0, root)
    scaled = bordered / scale[:, None] / scale
    if np.abs(scaled - scaled.T).max() > ROUNDING:
        return "its matrix is not symmetric"
    least = float(np.linalg.eigvalsh(scaled)[0])
    if not least >= -ROUNDING:
        return f"no rows can have its sums: the smallest eigenvalue is {least:.4g}"
    return ""


def far_off(sums: Sums, limit: float) -> tuple[Floats, dict[int, str]]:
    """Return each client's distance from the cohort, (K,), and those that lie too far."""
    n = sums.gram[:, -1, -1][:, None]
    diagonal = np.einsum("kii->ki", sums.gram)[:, :-1]
    ratio = distances(sums.gram[:, -1, :-1] / n, diagonal / n)
    residual = distances(sums.moment[:, -1:] / n, sums.square[:, None] / n)
    largest = np.concatenate([ratio, residual], axis=1)
    place = largest.argmax(axis=1)
    far: Floats = largest.max(axis=1)
    if len(sums) < FEWEST:
        return far, {}
    return far, {
        int(k): f"its {_named(int(place[k]), ratio.shape[1])} lies {far[k]:.4g} times as far from "
        "the cohort's median as the median client's"
        for k in np.flatnonzero(~(far <= limit))
    }


def out_of_weight(sums: Sums, points: Floats, limit: float) -> dict[int, str]:
    """Return the places of clients whose points weigh too much beside the others', with the reason.

    A point weighs 1 / (ε + |u|), so one that is fitted well weighs much; of all of a client's the
    mean may be `limit` times the median client's, no more: it scales all that the client adds.

    Shapes: `points` (K,).
    """
    if len(sums) < FEWEST:
        return {}
    each = np.divide(sums.gram[:, -1, -1], points, out=np.full(len(sums), np.inf), where=points > 0)
    usual = float(np.median(each))
    return {
        int(k): f"its points weigh {each[k] / usual:.4g} times as much as the median client's"
        for k in np.flatnonzero(~(each <= limit * usual))
    }


def against_all(sums: Sums, far: Floats) -> dict[int, str]:
    """Return the places of clients whose sums contradict the model of the others.

    A client is asked two things about a reference β. Its slope βm / βAβ says how its residuals
    follow the model: 1 where β is its own best direction, below 0 where it goes the other way. Its
    fit is Σ(r − βz)² / Σr². The reference starts from the coordinate median of the clients' own
    solutions, which fewer than half of them cannot carry away, and is then the solution of those
    who do not contradict it, until they stay the same: concentration steps, as those of least
    trimmed squares (Rousseeuw & van Driessen 2006, "Computing LTS Regression for Large Data
    Sets"), with a limit instead of a share, so that an honest cohort loses nobody.
    In the reference a client that lies far off counts less: 1 / distance².

    Args:
        sums: Of clients that pass `contradiction`.
        far: Their distances, shape (K,).
    """
    if len(sums) < FEWEST:
        return {}
    everyone = np.ones(len(sums))
    own = [sums.take(row).solution(everyone[:1], _OWN_ALPHA) for row in np.eye(len(sums)) > 0]
    slope, fit = _asked(sums, np.median(own, axis=0))
    low, high = _SLOPES_START
    kept = ~((slope < low) | (slope > high))
    weights = 1 / np.maximum(far, 1.0) ** 2
    low, high = _SLOPES
    for _ in range(_PASSES):
        if not kept.any():
            return {}
        slope, fit = _asked(sums, sums.solution(weights * kept, _ALPHA))
        before, kept = kept, ~((slope < low) | (slope > high) | (fit > _WORST_FIT))
        if (kept == before).all():
            break
    if 2 * kept.sum() <= len(sums):
        return {}  # who contradicts whom cannot be told
    return {
        int(k): f"its sums contradict those of the others: its residuals follow their model by "
        f"{slope[k]:.4g} times what the median client's do, and the model leaves {fit[k]:.4g} "
        "of its squares"
        for k in np.flatnonzero(~kept)
    }


# ------------------------------------------------------------------------------ internals
def _asked(sums: Sums, beta: Floats) -> tuple[Floats, Floats]:
    """Return each client's slope, beside the median of all, and fit; shapes (K,).

    A client for which the model says nothing, or that has no residual, says nothing of it.
    """
    follows = sums.moment @ beta
    says = np.einsum("i,kij,j->k", beta, sums.gram, beta)
    slope = np.divide(follows, says, out=np.ones_like(says), where=says > 0)
    left = sums.square - 2 * follows + says
    fit = np.divide(left, sums.square, out=np.ones_like(left), where=sums.square > 0)
    usual = float(np.median(slope))
    return (slope / usual if usual > 0 else np.ones_like(slope)), fit


def _named(place: int, features: int) -> str:
    return f"feature {place}" if place < features else "residual"

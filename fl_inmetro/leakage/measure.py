"""How near a reconstruction comes, and how well a score tells two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Draws of a bootstrap, and the level of its interval.
DRAWS, LEVEL = 1000, 0.95

#: The normal deviate of that level.
_NORMAL = 1.959964


def nrmse(guess: ArrayLike, true: ArrayLike) -> float:
    """Return the root mean square error over the mean of the true values, without a unit.

    Args:
        guess: Values, any shape.
        true: The same shape; values that are not finite are left out.

    Returns:
        Infinity where a guess is not finite: it says nothing.

    Raises:
        ValueError: Other shapes, no value, or true values whose mean is not above 0.
    """
    a, b = _together(guess, true)
    mean = float(b.mean())
    if mean <= 0:
        raise ValueError("an error over the mean needs a mean above 0")
    if not np.isfinite(a).all():
        return float("inf")
    return float(np.sqrt(np.mean((a - b) ** 2))) / mean


def smape(guess: ArrayLike, true: ArrayLike) -> float:
    """Return the mean of 2|a − b|/(|a| + |b|), between 0 and 2; 0 where both are 0.

    Args:
        guess: Values, any shape.
        true: The same shape; values that are not finite are left out.

    Returns:
        2 where a guess is not finite: it says nothing.

    Raises:
        ValueError: Other shapes or no value.
    """
    a, b = _together(guess, true)
    if not np.isfinite(a).all():
        return 2.0
    size = np.abs(a) + np.abs(b)
    return float(np.mean(2 * np.abs(a - b) / np.where(size > 0, size, 1.0)))


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Return the chance that a positive scores higher than a negative; a tie counts one half.

    The Mann-Whitney statistic over the number of pairs, the area under the ROC curve
    (Hanley and McNeil 1982), by ranks: n log n.

    Args:
        positive: Scores of those that are, finite.
        negative: Scores of those that are not, finite.

    Raises:
        ValueError: A group is empty or holds a score that is not finite.
    """
    return _auc(*_groups(positive, negative))


def tpr_at_fpr(positive: ArrayLike, negative: ArrayLike, fpr: float = 0.01) -> float:
    """Return the share of positives above the threshold that at most `fpr` of the negatives pass.

    The threshold is a negative's score (Carlini et al. 2022, section III): with n negatives the
    floor of fpr·n of them may lie strictly above it, and a positive counts when it does. Of fewer
    than 1/fpr negatives none may.

    Args:
        positive: Scores of those that are, finite.
        negative: Scores of those that are not, finite.
        fpr: The false positive rate that is allowed, from 0 up to below 1.

    Raises:
        ValueError: A group is empty or holds a score that is not finite; a rate out of range.
    """
    if not 0 <= fpr < 1:
        raise ValueError("a false positive rate lies from 0 up to below 1")
    up, down = _groups(positive, negative)
    allowed = int(np.floor(fpr * down.size + 1e-9))  # .07·100 is 7 and a bit, .29·100 a bit less
    threshold = np.sort(down)[::-1][allowed]
    return float((up > threshold).mean())


def auc_interval(
    positive: ArrayLike, negative: ArrayLike, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of the AUC, by bootstrap of both groups.

    Of scores that are all on one side every draw says the same, which so few cannot show: there
    the other end is Wilson's, for as many as the smaller group has. A(1 − A)/min(m, n) is the most
    that the variance of an AUC can be (Birnbaum and Klose 1957).

    Args:
        positive: Scores of those that are, finite.
        negative: Scores of those that are not, finite.
        rng: What is drawn from.
        draws: How many times.

    Raises:
        ValueError: A group is empty or holds a score that is not finite.
    """
    up, down = _groups(positive, negative)
    drawn = np.array(
        [
            _auc(rng.choice(up, up.size), rng.choice(down, down.size))  # with replacement
            for _ in range(draws)
        ]
    )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    if low == high and low in (0.0, 1.0):
        far = 1 / (1 + _NORMAL**2 / min(up.size, down.size))
        return (far, 1.0) if low else (0.0, 1 - far)
    return float(low), float(high)


def auc_interval_of_clients(
    positive: Sequence[Floats],
    negative: Sequence[Floats],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of the AUC, by bootstrap of clients.

    Where both groups are of the same clients (one array for each, in the same order) they are drawn
    together. With one client on a side nothing can be said: the interval is all there is.

    Args:
        positive: By client, scores of those that are, finite.
        negative: By client, scores of those that are not, finite.
        rng: What is drawn from.
        draws: How many times.
    """
    if min(len(positive), len(negative)) < 2:
        return 0.0, 1.0
    # Scores once sorted, each draw is a sum of products of counts.
    wins = np.array([[_auc(np.asarray(u), np.asarray(d)) for d in negative] for u in positive])
    ups, downs = np.array([len(u) for u in positive]), np.array([len(d) for d in negative])
    found = np.empty(draws)
    for number in range(draws):
        first = np.bincount(rng.integers(len(ups), size=len(ups)), minlength=len(ups)) * ups
        if len(ups) == len(downs):
            second = first / ups * downs
        else:
            second = np.bincount(rng.integers(len(downs), size=len(downs)), minlength=len(downs))
            second = second * downs
        found[number] = first @ wins @ second / (first.sum() * second.sum())
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


# ------------------------------------------------------------------------------ internals
def _together(guess: ArrayLike, true: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(guess, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a guess of shape {a.shape} for values of shape {b.shape}")
    known = np.isfinite(b)
    if not known.any():
        raise ValueError("no value to compare")
    return a[known], b[known]


def _groups(positive: ArrayLike, negative: ArrayLike) -> tuple[Floats, Floats]:
    up = np.asarray(positive, dtype=np.float64).ravel()
    down = np.asarray(negative, dtype=np.float64).ravel()
    if not up.size or not down.size:
        raise ValueError("two groups are needed, none of them empty")
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        raise ValueError("scores must be finite")
    return up, down


def _auc(up: Floats, down: Floats) -> float:
    ordered = np.sort(down)
    below = np.searchsorted(ordered, up, side="left")
    ties = np.searchsorted(ordered, up, side="right") - below
    return float((below + 0.5 * ties).mean()) / down.size

"""Standardisation sums of enrolment: what they can be, and how those of the clients become one.

A client sends n, Σx and Σx² of its rows. Features are in units of the client's own scale, so the
clients' moments may be laid beside each other. No reading is needed for any of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.update import Arrays

Floats = NDArray[np.float64]

#: The sums that are looked at; a learner that enrols with others is held to their form only.
_NAMES = {"n", "x_sum", "x_sq_sum"}

#: Sums of a million products in double precision are exact to about 1e-13 of their size.
ROUNDING = 1e-9

#: Distances are not told apart below this, in units of the client's scale: a feature that is
#: constant at most clients (a holiday, say) may have another value at one.
_LEAST = 0.1

#: Of so few clients nobody can tell which is the odd one.
FEWEST = 3


def is_standardisation(sums: Arrays) -> bool:
    """Tell whether these are the sums that standardise features."""
    return set(sums) == _NAMES


def contradiction(sums: Arrays, rows: int, features: int) -> str:
    """Return why sums cannot come from `rows` rows of `features` numbers; empty if they can.

    Cauchy and Schwarz: (Σx)² ≤ n Σx².
    """
    if not is_standardisation(sums):
        return ""
    n, x_sum, x_sq_sum = (sums[name] for name in ("n", "x_sum", "x_sq_sum"))
    if n.shape != (1,) or x_sum.shape != (features,) or x_sq_sum.shape != (features,):
        return f"its sums are not those of {features} features"
    if n[0] != rows:
        return f"it sums {n[0]:.16g} rows, its windows have {rows}"
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~(x_sum**2 / rows <= x_sq_sum * (1 + ROUNDING)))
    if len(wrong):
        k = int(wrong[0])
        return (
            f"feature {k} cannot have the sum {x_sum[k]:.4g} and the sum of squares "
            f"{x_sq_sum[k]:.4g} in {rows} rows"
        )
    return ""


def distances(mean: Floats, square: Floats) -> Floats:
    """Return how far each client's values lie from the cohort, beside the median client's.

    d_k = √E_k[(x − c)²] with c the median of the clients' means: a mean that is off and a spread
    that is large both show. The result is d_k over the median of all d, by feature. The median of
    clients that count one each is not moved by fewer than half of them.

    Shapes: `mean` (K, F), `square` (K, F), E_k[x²] → (K, F).
    """
    # A client may claim numbers whose squares no float holds: it lies infinitely far.
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.median(mean, axis=0)
        around = square - 2 * centre * mean + centre**2
    apart = np.sqrt(np.where(np.isnan(around), np.inf, np.maximum(around, 0.0)))
    usual: Floats = np.maximum(np.median(apart, axis=0), _LEAST)
    result: Floats = apart / usual
    return result


def far_off(parts: Sequence[Arrays], limit: float) -> dict[int, str]:
    """Return the places of clients that lie too far from the others, with the reason."""
    if len(parts) < FEWEST or not is_standardisation(parts[0]):
        return {}
    n, x_sum, x_sq_sum = _stacked(parts)
    ratio = distances(x_sum / n, x_sq_sum / n)
    return {
        int(k): f"its feature {int(ratio[k].argmax())} lies {ratio[k].max():.4g} times as far from "
        "the cohort's median as the median client's"
        for k in np.flatnonzero(~(ratio <= limit).all(axis=1))
    }


def combined(parts: Sequence[Arrays], *, by_median: bool, max_share: float) -> Arrays:
    """Return the sums of all clients from which the first state is made.

    By the median: the mean is the weighted median of the clients' means, the variance that of
    E_k[(x − mean)²]. It is of clients with at most half of the weight that no number they send
    can carry it away (Rousseeuw & Leroy 1987, "Robust Regression and Outlier Detection", 1.2).

    Args:
        parts: Sums by client, of one form.
        by_median: Medians instead of pooled sums.
        max_share: No client weighs more than this share of all rows.
    """
    if not is_standardisation(parts[0]):
        return _added(parts)
    n, x_sum, x_sq_sum = _stacked(parts)
    weights = capped(n[:, 0], max_share)
    if not by_median:
        # Factors of exactly 1 leave the bits of the sums alone.
        return _added([_times(part, f) for part, f in zip(parts, weights / n[:, 0], strict=True)])
    mean = weighted_median(x_sum / n, weights)
    around = np.maximum(x_sq_sum / n - 2 * mean * x_sum / n + mean**2, 0.0)
    variance = weighted_median(around, weights)
    total = weights.sum()
    return {
        "n": np.array([total]),
        "x_sum": total * mean,
        "x_sq_sum": total * (variance + mean**2),
    }


def capped(weights: Floats, max_share: float) -> Floats:
    """Cut weights at the c for which the largest is `max_share` of what is left; shape (K,).

    Where there are too few clients for that, all weigh the same.

    >>> capped(np.array([1.0, 1.0, 8.0]), 0.5)
    array([1., 1., 2.])
    """
    if max_share >= 1:
        return weights
    ordered = np.sort(weights)
    if max_share * len(weights) <= 1:
        return np.full_like(weights, ordered[0])
    below = np.concatenate([[0.0], np.cumsum(ordered)])
    for cut in range(len(weights) + 1):
        # `cut` weights are at the cap c: c = share · (rest + cut · c).
        kept = len(weights) - cut
        if cut * max_share >= 1:
            break
        cap = max_share * below[kept] / (1 - cut * max_share)
        if kept == 0 or ordered[kept - 1] <= cap:
            result: Floats = np.minimum(weights, cap) if cut else weights
            return result
    return np.full_like(weights, ordered[0])


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Return by column the least value with half of the weight at or below it; (K, F) → (F,).

    >>> weighted_median(np.array([[1.0], [2.0], [9.0]]), np.array([1.0, 2.0, 1.0]))
    array([2.])
    """
    order = np.argsort(values, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= weights.sum() / 2
    first = reached.argmax(axis=0)
    columns = np.arange(values.shape[1])
    result: Floats = values[order[first, columns], columns]
    return result


# ------------------------------------------------------------------------------ internals
def _stacked(parts: Sequence[Arrays]) -> tuple[Floats, Floats, Floats]:
    """Return n (K, 1), Σx (K, F) and Σx² (K, F)."""
    n, x_sum, x_sq_sum = (
        np.stack([part[name].astype(np.float64) for part in parts])
        for name in ("n", "x_sum", "x_sq_sum")
    )
    return n, x_sum, x_sq_sum


def _times(part: Arrays, factor: float) -> Arrays:
    return part if factor == 1 else {name: array * factor for name, array in part.items()}


def _added(parts: Sequence[Arrays]) -> Arrays:
    def total(arrays: Sequence[NDArray[Any]]) -> Floats:
        result: Floats = np.sum([array.astype(np.float64) for array in arrays], axis=0)
        return result

    return {name: total([part[name] for part in parts]) for name in parts[0]}

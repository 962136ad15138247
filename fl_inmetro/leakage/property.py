"""A property of a home from one of its updates: a linear rule learned from other clients.

The adversary has clients of its own (shadows) whose property and whose updates it knows, and one
update of the victim (Ateniese et al. 2015; Melis et al. 2019). Updates are scaled tensor by tensor
and projected to few numbers, a ridge regression learns the property of all but two of them, and
those two are compared: leave-pair-out, under which a rule that knows nothing has an AUC of one half
on average, for few clients too (leave-one-out has less: who is left out pulls the rule away from
itself). Each client's score is the share of its pairs it wins (Montoya Perez et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.leakage.measure import auc
from fl_inmetro.leakage.membership import told
from fl_inmetro.leakage.results import RARE, Detection

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Numbers that an update is projected to, at most.
NUMBERS = 64

#: Fewest clients that have a property, and that have it not.
FEWEST = 4

#: Permutations of the labels.
PERMUTATIONS = 999


def features(updates: Sequence[Mapping[str, NDArray[np.generic]]], seed: int) -> Floats:
    """Return clients' updates as few numbers of mean 0 and variance 1; (K, at most 65).

    Each tensor is divided by its root mean square over the clients, so that a layer of large
    gradients does not stand for all; then all are projected by Gaussian numbers (Johnson and
    Lindenstrauss 1984) where there are more than `NUMBERS`. The last feature is the logarithm of
    the update's length. Numbers that are the same for all clients are left out.

    Args:
        updates: Each client's, by parameter; all of the same shapes.
        seed: What the projection is drawn from.

    Raises:
        ValueError: No client, or updates of other parameters.
    """
    if not updates or any(set(one) != set(updates[0]) for one in updates):
        raise ValueError("updates of the same parameters are needed")
    tensors = []
    for name in sorted(updates[0]):
        flat = np.stack([np.asarray(one[name], dtype=np.float64).ravel() for one in updates])
        size = np.sqrt(np.mean(flat**2))
        tensors.append(flat / size if size > 0 else flat)
    length = np.sqrt(
        sum(
            np.array([np.sum(np.asarray(one[name], dtype=np.float64) ** 2) for one in updates])
            for name in updates[0]
        )
    )
    plain = np.concatenate(tensors, axis=1)
    if plain.shape[1] > NUMBERS:
        rng = seeds.derive(seed, "leakage", "property", "projection")
        # Tensor by tensor: a projection of all parameters at once is large.
        plain = sum(
            (one @ rng.standard_normal((one.shape[1], NUMBERS)) for one in tensors),
            np.zeros((len(updates), NUMBERS)),
        )
    logarithm = np.log(np.maximum(length, np.finfo(np.float64).tiny))
    both = np.column_stack([plain, logarithm])
    spread = both.std(axis=0)
    kept = spread > 1e-9 * np.maximum(np.abs(both).max(axis=0), np.finfo(np.float64).tiny)
    scaled: Floats = (both[:, kept] - both[:, kept].mean(axis=0)) / spread[kept]
    return scaled


def tellable(has: Bools) -> bool:
    """Tell whether a perfect rule could be told from chance; `has` has shape (K,).

    Of 4 beside 4 it is as good by chance in 2 of 70 labellings (its own and the opposite one, since
    ridge knows no side), and would never be told at `RARE`.
    """
    few = min(int(has.sum()), int(has.size - has.sum()))
    return few >= FEWEST and 2 / math.comb(has.size, few) <= RARE


def property_told(numbers: Floats, has: Bools, what: str, seed: int) -> Detection:
    """Return how well one update tells a property.

    Args:
        numbers: Shape (K, F), from `features`.
        has: Shape (K,), who has the property.
        what: Its name.
        seed: What the interval is drawn from.

    Raises:
        ValueError: So few have it, or have it not, that it could never be told (`tellable`).
    """
    if not tellable(has):
        raise ValueError(f"{has.sum()} of {has.size} clients: a perfect rule could be chance")
    inverse = ridge_inverse(numbers)
    sign = np.where(has, 1.0, -1.0)
    scores = tournament(inverse, sign)
    right = float((decided(inverse, sign) == has).mean())
    found = told("property", what, scores[has], scores[~has], seed, right)
    rng = seeds.derive(seed, "leakage", "property", what, "permutations")
    # A rule learned from few clients is right or wrong about many of them at once: the bootstrap
    # of the scores does not see that, permuted labels do. The inverse serves for all of them.
    as_good = 0
    for _ in range(PERMUTATIONS):
        dealt = rng.permutation(sign)
        by_chance = tournament(inverse, dealt)
        as_good += auc(by_chance[dealt > 0], by_chance[dealt < 0]) >= found.auc
    return replace(found, p=(1 + as_good) / (1 + PERMUTATIONS))


def ridge_inverse(numbers: Floats) -> Floats:
    """Return G = (X Xᵀ + λI)⁻¹, with λ the mean of the diagonal of X Xᵀ; (K, K).

    Args:
        numbers: X, shape (K, F); an intercept is added, weighed as one more number.
    """
    one = np.ones((len(numbers), 1))
    kernel = numbers @ numbers.T + one @ one.T
    penalty = float(np.trace(kernel)) / len(kernel)
    return np.linalg.inv(kernel + penalty * np.eye(len(kernel))).astype(np.float64)


def tournament(inverse: Floats, sign: Floats) -> Floats:
    """Return the share of its pairs that each client wins; (K,).

    For each pair a ridge regression is fitted to all the others, and the one with the larger value
    wins (a tie is half). All fits come from one inverse: with G of `ridge_inverse` the values
    of a held-out set H are y_H − (G_HH)⁻¹ (G y)_H (Pahikkala et al. 2008).

    Args:
        inverse: G, shape (K, K).
        sign: y, shape (K,), 1 or −1.
    """
    solved, k = inverse @ sign, len(sign)
    own = np.diag(inverse)
    # The 2 × 2 inverse of each pair written out, as one (K, K) table: value of i where i and j
    # are left out.
    determinant = np.outer(own, own) - inverse**2
    np.fill_diagonal(determinant, 1.0)
    value = (
        sign[:, None] - (own[None, :] * solved[:, None] - inverse * solved[None, :]) / determinant
    )
    wins = (value > value.T) + 0.5 * (value == value.T)
    np.fill_diagonal(wins, 0.0)
    share: Floats = wins.sum(axis=1) / (k - 1)
    return share


def decided(inverse: Floats, sign: Floats) -> Bools:
    """Return whether each client is said to have the property by the fit to all others; (K,)."""
    value: Floats = sign - (inverse @ sign) / np.diag(inverse)
    return value > 0


def low_share(load_kwh: Floats, hour: NDArray[np.int64], begin: int, end: int) -> float:
    """Return the mean load in some hours of the day over that of all; NaN where nothing is known.

    Args:
        load_kwh: Shape (T,), NaN where it is not known.
        hour: Shape (T,), the local hour of each.
        begin: First hour.
        end: The hour after the last.
    """
    known = np.isfinite(load_kwh)
    inside = known & (hour >= begin) & (hour < end)
    mean = load_kwh[known].mean() if known.any() else 0.0
    return float(load_kwh[inside].mean() / mean) if inside.any() and mean > 0 else float("nan")


def median_split(values: Floats, *, above: bool) -> Bools:
    """Return who is above (or below) the median of all clients; (K,). NaN counts as not."""
    middle = float(np.nanmedian(values))
    chosen: Bools = values > middle if above else values < middle
    return chosen

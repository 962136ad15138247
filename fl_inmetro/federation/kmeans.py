"""k-means for the server: few short vectors, the same bits every time.

Sources: Lloyd (1982), "Least squares quantization in PCM"; Arthur & Vassilvitskii (2007),
"k-means++: The Advantages of Careful Seeding"; Rousseeuw (1987), "Silhouettes".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_STEPS = 300

#: Differences that stand in memory at once while distances are taken: 2 MB.
_MOST_DIFFERENCES = 1 << 18


@dataclass(frozen=True, eq=False)
class KMeans:
    """A partition of N vectors.

    Attributes:
        centres: Shape (K, D); the cluster of the most vectors first.
        labels: Shape (N,), each vector's cluster.
        inertia: Sum of squared distances to the own centre.
    """

    centres: Floats
    labels: Ints
    inertia: float


def kmeans(vectors: Floats, number: int, seed: int, restarts: int = 20) -> KMeans:
    """Part vectors into `number` clusters; the best of so many starts.

    Args:
        vectors: Shape (N, D).
        number: K, at most N.
        seed: Root seed.
        restarts: Starts from other drawn centres.

    Raises:
        ValueError: More clusters than vectors, or none.
    """
    if not 1 <= number <= len(vectors):
        raise ValueError(f"{len(vectors)} vectors cannot make {number} clusters")
    tries = [
        _lloyd(vectors, _drawn(vectors, number, seeds.derive(seed, "kmeans", number, k)))
        for k in range(restarts)
    ]
    best = min(tries, key=lambda one: one.inertia)
    # A name for each cluster that does not depend on the draw: size, then its first member.
    count = np.bincount(best.labels, minlength=number)
    first = [int(np.argmax(best.labels == k)) for k in range(number)]
    order = sorted(range(number), key=lambda k: (-count[k], first[k]))
    name = np.empty(number, np.int64)
    name[order] = np.arange(number)
    return KMeans(best.centres[order], name[best.labels], best.inertia)


def best_kmeans(
    vectors: Floats, most: int, seed: int, restarts: int = 20
) -> tuple[KMeans, dict[int, float]]:
    """Return the partition into 2 … `most` clusters of the largest mean silhouette, and all means.

    With fewer than three vectors there is nothing to compare, and one cluster.
    """
    numbers = range(2, min(most, len(vectors) - 1) + 1)
    found = {number: kmeans(vectors, number, seed, restarts) for number in numbers}
    if not found:
        return kmeans(vectors, 1, seed, restarts), {}
    means = silhouettes(vectors, [own.labels for own in found.values()])
    scores = dict(zip(found, means, strict=True))
    best = max(found, key=lambda number: (scores[number], -number))
    return found[best], scores


def silhouette(vectors: Floats, labels: Ints) -> float:
    """Return the mean of (b − a) / max(a, b) over the vectors, in [−1, 1].

    a is a vector's mean distance to the others of its cluster, b that to the nearest other
    cluster; a vector that is alone in its cluster has 0.
    """
    return silhouettes(vectors, [labels])[0]


def silhouettes(vectors: Floats, partitions: Sequence[Ints]) -> list[float]:
    """Return the mean silhouette of each partition of the same vectors.

    The distances of all pairs are taken once, and only so many rows of them are ever kept that
    thousands of vectors need no more memory than a few.

    Args:
        vectors: Shape (N, D).
        partitions: Labels of shape (N,), each.
    """
    members = [(labels[:, None] == np.unique(labels)).astype(np.float64) for labels in partitions]
    total = [np.empty_like(member) for member in members]  # (N, K)
    for rows in _blocks(vectors, len(vectors)):
        distance = np.sqrt(_differences(vectors[rows], vectors))
        for summed, member in zip(total, members, strict=True):
            summed[rows] = distance @ member
    return [_mean_score(*one) for one in zip(total, members, strict=True)]


def nearest(vectors: Floats, centres: Floats) -> Ints:
    """Return each vector's nearest centre; (N, D), (K, D) → (N,), the first of equals."""
    result: Ints = _squared(vectors, centres).argmin(1)
    return result


# ------------------------------------------------------------------------------ internals
def _mean_score(total: Floats, member: Floats) -> float:
    """Return a partition's mean silhouette; summed distances and membership, both (N, K)."""
    count = member.sum(0)
    own = member.argmax(1)
    rows = np.arange(len(member))
    with np.errstate(invalid="ignore", divide="ignore"):
        a = total[rows, own] / (count[own] - 1)
        others = np.where(member > 0, np.inf, total / count)
        b = others.min(1)
        score = (b - a) / np.maximum(a, b)
    return float(np.where(count[own] > 1, np.nan_to_num(score), 0.0).mean())


def _blocks(vectors: Floats, others: int) -> Iterator[slice]:
    """Yield rows whose differences from so many others are not too many at once."""
    size = max(1, _MOST_DIFFERENCES // max(1, others * vectors.shape[1]))
    for start in range(0, len(vectors), size):
        yield slice(start, start + size)


def _squared(a: Floats, b: Floats) -> Floats:
    """Return squared distances; (N, D), (K, D) → (N, K)."""
    result = np.empty((len(a), len(b)))
    for rows in _blocks(a, len(b)):
        result[rows] = _differences(a[rows], b)
    return result


def _differences(a: Floats, b: Floats) -> Floats:
    # By differences: the expanded square loses the small distances to rounding.
    result: Floats = np.square(a[:, None, :] - b[None, :, :]).sum(-1)
    return result


def _drawn(vectors: Floats, number: int, generator: np.random.Generator) -> Floats:
    """Draw first centres, each with a chance in proportion to its squared distance to the rest."""
    chosen = [int(generator.integers(len(vectors)))]
    while len(chosen) < number:
        away = _squared(vectors, vectors[chosen]).min(1)
        away[chosen] = 0.0
        if not away.any():  # all that are left are doubles of a centre
            left = np.setdiff1d(np.arange(len(vectors)), chosen)
            chosen.append(int(generator.choice(left)))
            continue
        chosen.append(int(generator.choice(len(vectors), p=away / away.sum())))
    return vectors[chosen].copy()


def _lloyd(vectors: Floats, centres: Floats) -> KMeans:
    labels = nearest(vectors, centres)
    for _ in range(_MOST_STEPS):
        labels = _filled(vectors, centres, labels)
        centres = np.stack([vectors[labels == k].mean(0) for k in range(len(centres))])
        after = nearest(vectors, centres)
        if (after == labels).all():
            break
        labels = after
    labels = _filled(vectors, centres, labels)
    inertia = float(np.square(vectors - centres[labels]).sum())
    return KMeans(centres, labels, inertia)


def _filled(vectors: Floats, centres: Floats, labels: Ints) -> Ints:
    """Give each empty cluster the vector that is farthest from its centre and not alone there."""
    labels = labels.copy()
    for k in range(len(centres)):
        if (labels == k).any():
            continue
        away = np.square(vectors - centres[labels]).sum(-1)
        away[np.bincount(labels, minlength=len(centres))[labels] < 2] = -1.0
        labels[int(away.argmax())] = k
    return labels

"""Trees as arrays, and weighted sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree over bins; node 0 is the root, children follow their parents.

    Attributes:
        feature: Split on [node]; −1 at a leaf.
        bin: Rows with a smaller bin go left [node]; the edge is the one below this bin.
        missing_left: Whether missing values go left [node].
        left: Left child [node]; the right one is the next. 0 at a leaf.
        value: Of a leaf, and what an inner node would have been as one [node].
        count: Rows that it was grown from [node].
        gain: Of the split [node].
        missing: The bin of missing values.
    """

    feature: Ints
    bin: Ints
    missing_left: NDArray[np.bool_]
    left: Ints
    value: Floats
    count: Ints
    gain: Floats
    missing: int

    @property
    def size(self) -> int:
        """Return the number of nodes."""
        return len(self.feature)

    @property
    def leaves(self) -> int:
        """Return the number of leaves."""
        return int(np.sum(self.feature < 0))

    def descend(self, bins: NDArray[np.uint8], node: Ints) -> Ints:
        """Return the node one level further down; at a leaf the same [row]."""
        feature = self.feature[node]
        at = np.take_along_axis(bins, np.maximum(feature, 0)[:, None], axis=1)[:, 0]
        goes_left = np.where(at == self.missing, self.missing_left[node], at < self.bin[node])
        return np.where(feature < 0, node, self.left[node] + np.where(goes_left, 0, 1))

    def leaf_of(self, bins: NDArray[np.uint8]) -> Ints:
        """Return the leaf of each row."""
        node = np.zeros(len(bins), dtype=np.int64)
        while True:
            after = self.descend(bins, node)
            if np.array_equal(after, node):
                return node
            node = after

    def predict(self, bins: NDArray[np.uint8]) -> Floats:
        """Return the value of each row's leaf."""
        return self.value[self.leaf_of(bins)]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A start and weighted trees: F(x) = base + Σ w_t · tree_t(x).

    Attributes:
        base: Start that all agreed on.
        trees: In the order in which they were grown.
        weights: Of each (learning rates, shares of clients).
        edges: Of each feature.
    """

    base: float
    trees: tuple[Tree, ...]
    weights: tuple[float, ...]
    edges: tuple[Floats, ...]

    @property
    def parameters(self) -> int:
        """Return how many numbers were learned: three of each split, one of each leaf."""
        return 1 + sum(3 * (tree.size - tree.leaves) + tree.leaves for tree in self.trees)

    def predict_bins(self, bins: NDArray[np.uint8]) -> Floats:
        """Return F of rows in bins [row]."""
        result = np.full(len(bins), self.base)
        for tree, weight in zip(self.trees, self.weights, strict=True):
            result += weight * tree.predict(bins)
        return result

    def predict(self, x: Floats) -> Floats:
        """Return F of rows [row, feature]."""
        from fl_inmetro.trees.edges import binned

        return self.predict_bins(binned(x, self.edges))


def importance(ensemble: Ensemble, features: Sequence[str]) -> dict[str, float]:
    """Return each feature's share of all gain."""
    total = np.zeros(len(features))
    for tree, weight in zip(ensemble.trees, ensemble.weights, strict=True):
        inner = tree.feature >= 0
        np.add.at(total, tree.feature[inner], weight * tree.gain[inner])
    whole = total.sum() or 1.0
    return {name: float(value / whole) for name, value in zip(features, total, strict=True)}

"""A client's rows: what it answers to a server that grows trees from sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.trees.edges import binned, missing_bin
from fl_inmetro.trees.forest import Tree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Gradients are whole numbers of this share of their scale. Sums of whole numbers are exact, so a
#: tree does not depend on who holds which rows, nor on the order of summing.
STEP = 2.0**-24


@dataclass(frozen=True)
class Loss:
    """What is made small: (F − y)²/2, or the pinball loss of a level (0.5: absolute error).

    Attributes:
        level: Of the quantile; None for the squared loss.
    """

    level: float | None = None

    def gradient(self, y: Floats, predicted: Floats) -> Floats:
        """Return dL/dF of each row; the second derivative counts as 1."""
        if self.level is None:
            return predicted - y
        return np.where(predicted > y, 1.0 - self.level, -self.level)


@dataclass(eq=False)
class Rows:
    """Rows of one client, in bins; they and all that is computed of single rows stay here.

    Attributes:
        bins: [row, feature].
        edges: Agreed ones, of each feature.
        y: Targets [row].
        loss: To be made small.
        name: Of the client: its own draws are derived from it.
        predicted: Of the trees so far [row].
    """

    bins: NDArray[np.uint8]
    edges: Sequence[Floats]
    y: Floats
    loss: Loss
    name: str = ""
    predicted: Floats = field(init=False)
    _offset: Ints = field(init=False)
    _gradient: Ints = field(init=False)
    _count: Ints = field(init=False)
    _node: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.predicted = np.zeros(len(self.y))
        width = self.width
        self._offset = np.arange(self.bins.shape[1], dtype=np.int64) * width
        self._flat = self.bins + self._offset.astype(np.int32)

    @classmethod
    def of(cls, x: Floats, y: Floats, edges: Sequence[Floats], loss: Loss, name: str = "") -> Rows:
        """Return rows in agreed bins."""
        return cls(binned(x, edges), edges, y, loss, name)

    @property
    def width(self) -> int:
        """Return the number of bins a feature takes in a histogram, the missing one with them."""
        return missing_bin(self.edges) + 1

    def begin(self, scale: float, share: float, seed: int, tree: int, bootstrap: bool) -> None:
        """Compute gradients at the present prediction and draw the rows of a tree.

        Args:
            scale: Agreed size of a gradient.
            share: Of the rows, drawn anew; 1 takes all.
            seed: Root of draws.
            tree: Its number.
            bootstrap: Whether rows are drawn as often as Poisson(share) says, instead of once.
        """
        exact = self.loss.gradient(self.y, self.predicted) / (scale * STEP)
        gradient = np.rint(exact).astype(np.int64)
        rng = seeds.derive(seed, "trees", "rows", self.name, str(tree))
        if bootstrap:
            self._count = rng.poisson(share, len(self.y)).astype(np.int64)
        elif share < 1:
            self._count = (rng.random(len(self.y)) < share).astype(np.int64)
        else:
            self._count = np.ones(len(self.y), dtype=np.int64)
        self._gradient = gradient * self._count
        self._node = np.zeros(len(self.y), dtype=np.int64)

    def histogram(self, nodes: Sequence[int]) -> Ints:
        """Return sums of gradients and counts [node, feature, bin, 2] of the rows at some nodes."""
        place = np.full(int(self._node.max(initial=0)) + 1, -1, dtype=np.int64)
        inside = [node for node in nodes if node < len(place)]
        place[inside] = [list(nodes).index(node) for node in inside]
        slot = place[self._node]
        chosen = np.flatnonzero((slot >= 0) & (self._count > 0))
        features, width = self.bins.shape[1], self.width
        size = features * width
        result = np.zeros((len(nodes) * size, 2), dtype=np.int64)
        if len(chosen):
            at = (self._flat[chosen] + (slot[chosen] * size)[:, None]).ravel()
            gradient = np.repeat(self._gradient[chosen].astype(np.float64), features)
            count = np.repeat(self._count[chosen].astype(np.float64), features)
            # Whole numbers far below 2⁵³: the sums are exact.
            result[:, 0] = np.bincount(at, gradient, len(result)).astype(np.int64)
            result[:, 1] = np.bincount(at, count, len(result)).astype(np.int64)
        return result.reshape(len(nodes), features, width, 2)

    def split(self, tree: Tree) -> None:
        """Send rows of nodes that have been split to their children."""
        self._node = tree.descend(self.bins, self._node)

    def residual_counts(self, tree: Tree, borders: Floats) -> Ints:
        """Return how many residuals y − F lie in each cell, of each leaf [node, cell]."""
        cells = len(borders) - 1
        used = np.flatnonzero(self._count > 0)
        residual = (self.y - self.predicted)[used]
        cell = np.clip(np.searchsorted(borders, residual, side="right") - 1, 0, cells - 1)
        at = self._node[used] * cells + cell
        total = np.bincount(at, self._count[used], tree.size * cells)
        return total.astype(np.int64).reshape(tree.size, cells)

    def add(self, tree: Tree, rate: float) -> None:
        """Add a finished tree to the prediction of all rows, drawn or not."""
        self.predicted += rate * tree.predict(self.bins)

    def sums(self) -> tuple[float, int]:
        """Return the sum of targets and the number of rows, for a start that all agree on."""
        return float(self.y.sum()), len(self.y)

    def absolute(self) -> tuple[float, int]:
        """Return the sum of absolute residuals and the number of rows: the size of a gradient."""
        return float(np.abs(self.y - self.predicted).sum()), len(self.y)

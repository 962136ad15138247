"""The server's side: trees grown from sums, level by level; it sees no row.

Splits are XGBoost's (Chen and Guestrin, KDD 2016, eq. 6 and 7): with G and H the sums of first and
second derivatives on either side,

    gain = ½ [G_L²/(H_L + λ) + G_R²/(H_R + λ) − G²/(H + λ)] − γ,    leaf = −G/(H + λ)

Of a node's two children only the smaller is asked for; the other is what the parent has beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.trees.forest import Tree
from fl_inmetro.trees.rows import STEP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Growth:
    """How a tree grows.

    Attributes:
        depth: Most levels of splits.
        leaves: Most leaves; the best splits of a level first. None for no limit but the depth.
        l2: λ.
        gamma: γ, in the loss's own units.
        least_rows: Of a leaf (the sum of second derivatives, which are 1).
        columns: Share of the features that may be split on, drawn by the seed.
        by_node: Whether they are drawn for each node (Breiman's forests), or for each tree.
    """

    depth: int = 6
    leaves: int | None = None
    l2: float = 1.0
    gamma: float = 0.0
    least_rows: int = 1
    columns: float = 1.0
    by_node: bool = False


#: Asks all clients for the histograms of some nodes, and returns their sum [node, feature, bin, 2].
Ask = Callable[[Sequence[int]], Ints]

#: Tells all clients the tree as it is, so that rows go down to the new nodes.
Tell = Callable[[Tree], None]


@dataclass
class _Nodes:
    feature: list[int]
    bin: list[int]
    missing_left: list[bool]
    left: list[int]
    gradient: list[float]
    count: list[int]
    gain: list[float]

    def tree(self, growth: Growth, missing: int) -> Tree:
        count = np.array(self.count, dtype=np.int64)
        return Tree(
            np.array(self.feature, dtype=np.int64),
            np.array(self.bin, dtype=np.int64),
            np.array(self.missing_left, dtype=np.bool_),
            np.array(self.left, dtype=np.int64),
            -np.array(self.gradient) / np.maximum(count + growth.l2, 1e-300),
            count,
            np.array(self.gain),
            missing,
        )


def grow(
    ask: Ask,
    tell: Tell,
    edges: Sequence[Floats],
    scale: float,
    growth: Growth,
    seed: int = 0,
    number: int = 0,
) -> Tree:
    """Grow one tree.

    Args:
        ask: For sums.
        tell: After each level.
        edges: Agreed ones, of each feature.
        scale: Size of a gradient; sums come in units of `STEP` times it.
        growth: How.
        seed: Root of the draw of features.
        number: Of the tree.
    """
    nodes = _Nodes([], [], [], [], [], [], [])
    widths = np.array([len(limits) for limits in edges])
    level = {0: ask([0])[0]}
    missing = level[0].shape[1] - 1
    _add(nodes, level[0], scale)
    leaves = 1
    allowed = drawn_columns(len(edges), growth.columns, seed, f"{number}")
    for depth in range(growth.depth):
        found = []
        if growth.by_node:
            draws = drawn_columns(len(edges), growth.columns, seed, f"{number}/{depth}", len(level))
        for place, (node, sums) in enumerate(level.items()):
            columns = draws[place] if growth.by_node else allowed[0]
            best = best_split(sums, widths, scale, growth, columns)
            if best is not None:
                found.append((best.gain, node, best))
        # Best first, and among equals the first node: nothing depends on the order of summing.
        found.sort(key=lambda one: (-one[0], one[1]))
        if growth.leaves is not None:
            found = found[: max(growth.leaves - leaves, 0)]
        if not found:
            break
        leaves += len(found)
        wanted, other = [], {}
        for _, node, best in sorted(found, key=lambda one: one[1]):
            left = len(nodes.feature)
            nodes.feature[node], nodes.bin[node] = best.feature, best.bin
            nodes.missing_left[node], nodes.left[node] = best.missing_left, left
            nodes.gain[node] = best.gain
            small, large = (left, left + 1) if best.left_smaller else (left + 1, left)
            wanted.append(small)
            other[large] = (node, small)
            for _side in range(2):
                _empty(nodes)
        tell(nodes.tree(growth, missing))
        sums = dict(zip(wanted, ask(wanted), strict=True))
        for large, (parent, small) in other.items():
            sums[large] = level[parent] - sums[small]
        for node, own in sums.items():
            _set(nodes, node, own, scale)
        level = dict(sorted(sums.items()))
    return nodes.tree(growth, missing)


def drawn_columns(
    features: int, share: float, seed: int, of: str, times: int = 1
) -> NDArray[np.bool_]:
    """Return which features may be split on, drawn anew for each of some nodes [node, feature].

    Args:
        features: So many there are.
        share: That is drawn; one at least.
        seed: Root of the draws.
        of: Tree, or tree and level.
        times: Nodes.
    """
    if share >= 1:
        return np.ones((times, features), dtype=np.bool_)
    rng = seeds.derive(seed, "trees", "columns", of)
    rank = np.argsort(np.argsort(rng.random((times, features)), axis=1), axis=1)
    return rank < max(1, round(share * features))


@dataclass(frozen=True)
class Split:
    """The best split of a node.

    Attributes:
        gain: See the module.
        feature: Split on.
        bin: Rows with a smaller bin go left.
        missing_left: Whether missing values do.
        left_smaller: Whether the left child has fewer rows.
    """

    gain: float
    feature: int
    bin: int
    missing_left: bool
    left_smaller: bool


def best_split(
    sums: Ints, widths: Ints, scale: float, growth: Growth, allowed: NDArray[np.bool_]
) -> Split | None:
    """Return the best split of a node, or None where none is worth it.

    Args:
        sums: Of gradients and rows [feature, bin, 2]; the last bin is that of missing values.
        widths: Edges of each feature [feature].
        scale: Of a gradient.
        growth: How trees grow.
        allowed: Features that may be split on.
    """
    if not np.any(widths):
        return None
    total = sums[0].sum(axis=0)
    absent = sums[:, -1]
    # What lies left of each edge, without the missing ones: edge b is below bin b + 1.
    below = np.cumsum(sums[:, :-1], axis=1)[:, :-1]
    unit = scale * STEP
    # Missing values right, then left: of equal gains the first counts, as XGBoost has it.
    gains = []
    for left in (below, below + absent[:, None]):
        right = total - left
        gain = 0.5 * (_score(left, unit, growth) + _score(right, unit, growth))
        gain -= 0.5 * _score(total, unit, growth) + growth.gamma
        enough = np.minimum(left[..., 1], right[..., 1]) >= max(growth.least_rows, 1)
        gains.append(np.where(enough, gain, -np.inf))
    both = np.stack(gains, axis=-1)
    edge = np.arange(both.shape[1])
    both[(edge[None, :] >= widths[:, None]) | ~allowed[:, None]] = -np.inf
    at = int(np.argmax(both))
    if not np.ravel(both)[at] > 1e-12 * scale**2:
        return None
    feature, border, side = np.unravel_index(at, both.shape)
    left = below[feature, border] + (absent[feature] if side else 0)
    return Split(
        float(both[feature, border, side]),
        int(feature),
        int(border) + 1,
        bool(side),
        bool(2 * left[1] <= total[1]),
    )


def _score(sums: Ints, unit: float, growth: Growth) -> Floats:
    gradient = sums[..., 0] * unit
    score: Floats = gradient**2 / np.maximum(sums[..., 1] + growth.l2, 1e-300)
    return score


def _empty(nodes: _Nodes) -> None:
    nodes.feature.append(-1)
    nodes.bin.append(0)
    nodes.missing_left.append(False)
    nodes.left.append(0)
    nodes.gradient.append(0.0)
    nodes.count.append(0)
    nodes.gain.append(0.0)


def _set(nodes: _Nodes, node: int, sums: Ints, scale: float) -> None:
    gradient, count = sums[0].sum(axis=0)
    nodes.gradient[node] = float(gradient) * scale * STEP
    nodes.count[node] = int(count)


def _add(nodes: _Nodes, sums: Ints, scale: float) -> None:
    _empty(nodes)
    _set(nodes, 0, sums, scale)

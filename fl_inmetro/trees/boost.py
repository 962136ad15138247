"""Boosting, bagging and forests over clients that answer with sums, or with trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.trees.edges import edges_of
from fl_inmetro.trees.forest import Ensemble, Tree
from fl_inmetro.trees.grow import Growth, grow
from fl_inmetro.trees.rows import Loss, Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Cells of residuals for the quantiles of leaves, on either side, and their finest.
_CELLS, _FINEST = 512, 1e-4


@dataclass(frozen=True)
class Settings:
    """How an ensemble is trained.

    Attributes:
        trees: Of them (of bagging and forests: of each client).
        rate: Learning rate of boosting.
        growth: Of each tree.
        bins: Of each feature, at most 254.
        rows: Share of the rows that a tree is grown from.
        loss: Made small.
        seed: Root of draws.
    """

    trees: int = 200
    rate: float = 0.1
    growth: Growth = field(default_factory=Growth)
    bins: int = 64
    rows: float = 1.0
    loss: Loss = field(default_factory=Loss)
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """An ensemble and what it cost.

    Attributes:
        ensemble: Of trees.
        sent_bytes: By one client and to it, in all rounds, with everything it answered.
    """

    ensemble: Ensemble
    sent_bytes: int


def boosted(
    clients: Sequence[tuple[str, Floats, Floats]],
    settings: Settings,
    progress: Callable[[int], None] = lambda done: None,
    edges: Sequence[Floats] | None = None,
) -> Trained:
    """Train gradient-boosted trees from sums over clients: the trees of the pooled rows.

    Every step is a sum: counts for the edges, a mean to start from, histograms to split by, and
    (for quantiles) counts of residuals in leaves. Gradients are whole numbers, so that the result
    is the same to the last bit for whatever way in which rows lie with clients.

    Args:
        clients: Name, rows [row, feature] and targets [row]; a client may have no row.
        settings: How.
        progress: Told the number of trees.
        edges: Agreed beforehand; None to agree on them.
    """
    agreed, asked = (list(edges), 0) if edges is not None else agree(clients, settings.bins)
    rows = [Rows.of(x, y, agreed, settings.loss, name) for name, x, y in clients]
    base = start(rows)
    for one in rows:
        one.predicted[:] = base
    exchange = _Exchange(rows, asked)
    trees: list[Tree] = []
    for number in range(settings.trees):
        scale = gradient_scale(rows, settings.loss)
        for one in rows:
            one.begin(scale, settings.rows, settings.seed, number, bootstrap=False)
        tree = exchange.tree(agreed, scale, settings, number)
        for one in rows:
            one.add(tree, settings.rate)
        trees.append(tree)
        progress(number + 1)
    ensemble = Ensemble(base, tuple(trees), (settings.rate,) * len(trees), tuple(agreed))
    return Trained(ensemble, exchange.bytes)


def bagged(
    clients: Sequence[tuple[str, Floats, Floats]],
    settings: Settings,
    edges: Sequence[Floats] | None = None,
) -> Trained:
    """Train by bagging: in each round every client grows a tree on its own rows.

    A round's trees enter with the learning rate times the client's share of all rows, so that they
    move the prediction as far as *one* tree would: adding each at the full rate multiplies the
    rate by the number of clients, and beyond 2/rate clients the residuals grow from round to round.
    All begin from the same start.
    """
    agreed, asked = (list(edges), 0) if edges is not None else agree(clients, settings.bins)
    rows = [Rows.of(x, y, agreed, settings.loss, name) for name, x, y in clients]
    base = start(rows)
    whole = sum(len(one.y) for one in rows)
    for one in rows:
        one.predicted[:] = base
    trees: list[Tree] = []
    weights: list[float] = []
    sent = asked
    for number in range(settings.trees):
        scale = gradient_scale(rows, settings.loss)
        of_round = []
        for one in rows:
            if not len(one.y):
                continue
            one.begin(scale, settings.rows, settings.seed, number, bootstrap=False)
            tree = _Exchange([one], 0).tree(agreed, scale, settings, number)
            of_round.append((tree, settings.rate * len(one.y) / whole))
        for one in rows:
            for tree, weight in of_round:
                one.add(tree, weight)
        trees += [tree for tree, _ in of_round]
        weights += [weight for _, weight in of_round]
        # One's own tree up, those of all down.
        sizes = [tree_bytes(tree) for tree, _ in of_round]
        sent += sum(sizes) + sum(sizes) // max(len(sizes), 1)
    return Trained(Ensemble(base, tuple(trees), tuple(weights), tuple(agreed)), sent)


def random_forest(
    clients: Sequence[tuple[str, Floats, Floats]],
    settings: Settings,
    *,
    of_sums: bool = True,
    edges: Sequence[Floats] | None = None,
) -> Trained:
    """Train a random forest (Breiman, *Machine Learning* 45, 2001): trees on bootstraps, averaged.

    Args:
        clients: See `boosted`.
        settings: How; the rate is not used, and features are drawn for each tree.
        of_sums: Whether each tree is grown from sums over all clients (each row drawn Poisson(1)
            times by its own client), or by one client alone, `settings.trees` by each, weighted by
            its share of rows.
        edges: See `boosted`.
    """
    agreed, asked = (list(edges), 0) if edges is not None else agree(clients, settings.bins)
    # A leaf's mean is not shrunk towards the start: averaging does that work.
    plain = replace(settings, growth=replace(settings.growth, l2=0.0))
    rows = [Rows.of(x, y, agreed, settings.loss, name) for name, x, y in clients]
    base = start(rows)
    for one in rows:
        one.predicted[:] = base
    scale = gradient_scale(rows, settings.loss)
    whole = sum(len(one.y) for one in rows)
    groups = [rows] if of_sums else [[one] for one in rows if len(one.y)]
    trees: list[Tree] = []
    weights: list[float] = []
    sent = asked
    for group in groups:
        exchange = _Exchange(group, 0)
        share = 1.0 if of_sums else len(group[0].y) / whole
        for number in range(settings.trees):
            for one in group:
                one.begin(scale, settings.rows, settings.seed, number, bootstrap=True)
            tree = exchange.tree(agreed, scale, plain, number)
            trees.append(tree)
            weights.append(share / settings.trees)
        if of_sums:
            sent += exchange.bytes
    if not of_sums:
        sizes = [tree_bytes(tree) for tree in trees]
        sent += sum(sizes) + sum(sizes) // max(len(groups), 1)
    return Trained(Ensemble(base, tuple(trees), tuple(weights), tuple(agreed)), sent)


def agree(clients: Sequence[tuple[str, Floats, Floats]], bins: int) -> tuple[list[Floats], int]:
    """Return the agreed edges, and the bytes that one client moved for them."""
    return edges_of([x for _, x, _ in clients], bins)


def start(rows: Sequence[Rows]) -> float:
    """Return what all begin from: the mean of all targets, for quantiles too.

    In single precision: sums of the same targets in another order differ in their last bits, which
    are gone here, and XGBoost's format holds no more.
    """
    sums = [one.sums() for one in rows]
    mean = sum(total for total, _ in sums) / max(sum(count for _, count in sums), 1)
    return float(np.float32(mean))


def gradient_scale(rows: Sequence[Rows], loss: Loss) -> float:
    """Return the agreed size of a gradient: the mean absolute residual, or 1 for quantiles."""
    if loss.level is not None:
        return 1.0
    sums = [one.absolute() for one in rows]
    mean = sum(total for total, _ in sums) / max(sum(count for _, count in sums), 1)
    # A power of two: the same whole numbers for means that differ in their last bits.
    return float(2.0 ** np.ceil(np.log2(mean))) if mean > 0 else 1.0


def tree_bytes(tree: Tree) -> int:
    """Return the size of a tree on the wire: feature, bin, side, child; value, count."""
    return tree.size * (2 + 1 + 1 + 2 + 8 + 4)


class _Exchange:
    """Sums over clients, and what one of them sends and receives for it."""

    def __init__(self, rows: Sequence[Rows], sent: int) -> None:
        self._rows = rows
        self.bytes = sent

    def tree(self, edges: Sequence[Floats], scale: float, settings: Settings, number: int) -> Tree:
        """Grow a tree; of a quantile's, leaves are quantiles of the residuals in them."""
        tree = grow(self._ask, self._tell, edges, scale, settings.growth, settings.seed, number)
        # Each row lies in its leaf already but for the last level.
        self._tell(tree)
        if settings.loss.level is not None:
            borders = residual_borders(self._rows)
            counts = (one.residual_counts(tree, borders) for one in self._rows)
            total = sum(counts, start=_nothing())
            self.bytes += 4 * total.size
            tree = replace(tree, value=leaf_quantiles(tree, total, borders, settings.loss.level))
        # A sum and a number of rows go up, the scale comes down.
        self.bytes += tree_bytes(tree) + 24
        return tree

    def _ask(self, nodes: Sequence[int]) -> Ints:
        total = sum((one.histogram(nodes) for one in self._rows), start=_nothing())
        # Sums of gradients in eight bytes, counts in four.
        self.bytes += total.size // 2 * (8 + 4)
        return total

    def _tell(self, tree: Tree) -> None:
        for one in self._rows:
            one.split(tree)


def _nothing() -> Ints:
    return np.zeros((), dtype=np.int64)


def residual_borders(rows: Sequence[Rows]) -> Floats:
    """Return cells for residuals, finer around zero: asinh of the mean absolute residual."""
    sums = [one.absolute() for one in rows]
    mean = sum(total for total, _ in sums) / max(sum(count for _, count in sums), 1)
    size = float(2.0 ** np.ceil(np.log2(mean))) if mean > 0 else 1.0
    reach = np.arcsinh(1e3 / _FINEST**0.25)
    inner = np.linspace(-reach, reach, 2 * _CELLS + 1)
    return np.concatenate([[-np.inf], size * np.sinh(inner) * 0.1, [np.inf]])


def leaf_quantiles(tree: Tree, total: Ints, borders: Floats, level: float) -> Floats:
    """Return each node's quantile of residuals from counts, on a straight line within a cell."""
    result = np.zeros(tree.size)
    for node in np.flatnonzero(tree.feature < 0):
        row = total[node]
        points = row.sum()
        if points == 0:
            continue
        cumulated = np.cumsum(row)
        rank = level * points
        cell = int(np.searchsorted(cumulated, rank, side="left"))
        low, high = borders[cell], borders[cell + 1]
        if not np.isfinite(low):
            result[node] = high
        elif not np.isfinite(high):
            result[node] = low
        else:
            before = cumulated[cell] - row[cell]
            result[node] = low + (high - low) * (rank - before) / max(row[cell], 1)
    return result

"""A tree of clients, feeders, regions and the total: sums up it, numbers down it.

The summing matrix S (n × m, a row per series, a column per client) is never made: a sum over the
clients of every node is a pass over the tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Name and level of the root.
TOTAL = "total"

#: Level of the leaves.
LEAF_LEVEL = "client"


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """m leaves (clients) under a upper nodes, each leaf and node under one node only.

    Attributes:
        leaves: The clients, sorted.
        leaf_parent: Shape (m,), the place in `nodes` of the node right above each leaf.
        nodes: The upper nodes, each after its parent; the first is the root.
        levels: The level of each upper node.
        parent: Shape (a,), the place of each node's parent; −1 for the root.
    """

    leaves: tuple[str, ...]
    leaf_parent: Ints
    nodes: tuple[str, ...]
    levels: tuple[str, ...]
    parent: Ints

    def __post_init__(self) -> None:
        a = len(self.nodes)
        if self.parent.shape != (a,) or self.leaf_parent.shape != (len(self.leaves),):
            raise ValueError("every node and every leaf needs a parent")
        if len(self.levels) != a or not a or self.parent[0] != -1:
            raise ValueError("the first node is the root")
        if (self.parent[1:] >= np.arange(1, a)).any() or (self.parent[1:] < 0).any():
            raise ValueError("a node must come after its parent")
        if ((self.leaf_parent < 0) | (self.leaf_parent >= a)).any():
            raise ValueError("a leaf hangs on a node that does not exist")
        if (self.sums(np.ones(len(self.leaves))) == 0).any():
            raise ValueError("a node without a leaf")

    def direct_sums(self, values: Floats) -> Floats:
        """Return the sums over the leaves right below each node; shapes (…, m) → (…, a)."""
        order = np.argsort(self.leaf_parent, kind="stable")
        held, starts = np.unique(self.leaf_parent[order], return_index=True)
        result = np.zeros((*values.shape[:-1], len(self.nodes)))
        result[..., held] = np.add.reduceat(values[..., order], starts, axis=-1)
        return result

    def sums(self, values: Floats) -> Floats:
        """Return the sums over all leaves below each node; shapes (…, m) → (…, a)."""
        result = self.direct_sums(values)
        for v in range(len(self.nodes) - 1, 0, -1):
            result[..., self.parent[v]] += result[..., v]
        return result

    def spread(self, values: Floats) -> Floats:
        """Return for each leaf the sum over the nodes above it; shapes (…, a) → (…, m)."""
        total = values.copy()
        for v in range(1, len(self.nodes)):
            total[..., v] += total[..., self.parent[v]]
        result: Floats = total[..., self.leaf_parent]
        return result

    def ancestors(self, node: int) -> list[int]:
        """Return a node and all above it, from the bottom up."""
        found = [node]
        while self.parent[found[-1]] >= 0:
            found.append(int(self.parent[found[-1]]))
        return found

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels from the root down, without the leaves'."""
        return tuple(dict.fromkeys(self.levels))


def hierarchy_of(groups: Mapping[str, Sequence[str | None]], levels: Sequence[str]) -> Hierarchy:
    """Build the tree of clients and their groups, under one total.

    Args:
        groups: Client to the name of its group on each level; None where it is in no group of that
            level and hangs on the next one.
        levels: The levels, from the one right above the clients up; the total is added.

    Raises:
        ValueError: A group lies in two groups of a higher level, or there is no client.
    """
    if not groups:
        raise ValueError("there is no client")
    above: dict[tuple[int, str], tuple[int, str] | None] = {}
    first: dict[str, tuple[int, str] | None] = {}
    for client in sorted(groups):
        path = [(k, name) for k, name in enumerate(groups[client]) if name is not None]
        for place, key in enumerate(path):
            up = path[place + 1] if place + 1 < len(path) else None
            if above.setdefault(key, up) != up:
                here, other = (TOTAL if key_ is None else key_[1] for key_ in (above[key], up))
                text = f"{levels[key[0]]} `{key[1]}` lies in `{here}` and in `{other}`"
                raise ValueError(f"{text} (client `{client}`)")
        first[client] = path[0] if path else None
    keys = sorted(above, key=lambda key: (-key[0], key[1]))  # the highest level first
    place_of: dict[tuple[int, str] | None, int] = {None: 0}
    place_of.update({key: k + 1 for k, key in enumerate(keys)})
    return Hierarchy(
        tuple(first),
        np.array([place_of[key] for key in first.values()], dtype=np.int64),
        (TOTAL, *(f"{levels[level]}:{name}" for level, name in keys)),
        (TOTAL, *(levels[level] for level, _ in keys)),
        np.array([-1, *(place_of[above[key]] for key in keys)], dtype=np.int64),
    )

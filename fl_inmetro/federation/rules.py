"""How updates are merged: sums over blocks of stacked updates, and what a merge is.

A merge works in two steps, so that updates need not be kept: each block is digested where it was
made (`digest`, a pure function that may run in another thread), and the digests are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault
from fl_inmetro.learning.update import Arrays, Layout, Learner, UpdateBlock

Floats = NDArray[np.float64]

#: Arrays of a state that are set at enrolment and never trained.
BUFFERS = frozenset({"x_mean", "x_std", "context_and_horizon"})


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Σ a_k Δ_k of some clients, and the sums that it is divided by; all of them add up.

    Attributes:
        layout: What the vector holds.
        vector: Shape (P,), float64.
        terms: Sums over the same clients, shape (T,); what they are the merge says.
    """

    layout: Layout
    vector: Floats
    terms: Floats

    def __add__(self, other: WeightedSum) -> WeightedSum:
        return WeightedSum(self.layout, self.vector + other.vector, self.terms + other.terms)


def weighted_sum(block: UpdateBlock, weights: Floats, terms: Floats | None = None) -> WeightedSum:
    """Return Σ a_k Δ_k of a block, in float64 and in the order of its rows.

    Shapes: `weights` (K,); `terms` (K, T), by default the weights themselves.
    """
    vector = np.zeros(block.layout.width)
    # Column by column of what fits into the cache: a float64 copy of the block would not.
    for start in range(0, len(vector), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        vector[part] = weights @ block.matrix[:, part].astype(np.float64)
    return WeightedSum(block.layout, vector, (weights[:, None] if terms is None else terms).sum(0))


_COLUMNS = 2048


def sum_arrays(parts: Sequence[Arrays]) -> Arrays:
    """Add dictionaries of arrays in float64, in the order given."""
    result: Arrays = {}
    for name in parts[0]:
        result[name] = np.sum([part[name].astype(np.float64) for part in parts], axis=0)
    return result


class Merge(Protocol):
    """How a round's updates become the next state."""

    def reply_like(self, state: Arrays) -> Arrays:
        """Return arrays with the names, shapes and dtypes that a reply must have."""

    def begin(self, state: Arrays) -> Arrays:
        """Return what the server remembers from round to round, before the first."""

    def control(self, memory: Arrays) -> Arrays:
        """Return what is sent to the clients beside the state (may be empty)."""

    def served(self, state: Arrays, memory: Arrays) -> Arrays:
        """Return the model that is validated and kept after a round; clients go on from `state`."""

    def needs(self, clients: int) -> Fault | None:
        """Return why a round of so many clients cannot be merged; None if it can."""

    def digest(self, block: UpdateBlock) -> Any:
        """Return all that the merge needs of a block; it is not changed, and may be kept."""

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the next state and memory; there is at least one digest, of at least one client.

        Raises:
            FederationError: The rule cannot work on these updates.
        """


@dataclass(frozen=True)
class StatisticsMerge:
    """Closed form: add the clients' sums and let the learner solve."""

    learner: Learner

    def reply_like(self, state: Arrays) -> Arrays:
        """Return sums of the right shapes."""
        return self.learner.sums_like(state)

    def begin(self, state: Arrays) -> Arrays:
        """Nothing is remembered: there is one round."""
        return {}

    def control(self, memory: Arrays) -> Arrays:
        """Nothing is sent beside the state."""
        return {}

    def served(self, state: Arrays, memory: Arrays) -> Arrays:
        """Return the solution."""
        return state

    def needs(self, clients: int) -> Fault | None:
        """One client is enough."""
        return None

    def digest(self, block: UpdateBlock) -> WeightedSum:
        """Return the sums of the block's clients."""
        return weighted_sum(block, np.ones(len(block)))

    def __call__(
        self, state: Arrays, digests: Sequence[WeightedSum], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the solution."""
        total = total_of(digests)
        return self.learner.finish(state, total.layout.arrays(total.vector)), memory


def total_of(digests: Sequence[WeightedSum]) -> WeightedSum:
    """Add sums in their order."""
    total = digests[0]
    for digest in digests[1:]:
        total = total + digest
    return total

"""Merging: aggregation rules as pure functions, and the server's optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.update import Arrays, Learner, Update

Floats = NDArray[np.float64]

#: Arrays of a state that are set at enrolment and never trained.
BUFFERS = frozenset({"x_mean", "x_std"})


def weights_of(updates: Sequence[Update]) -> Floats:
    """Return n_k / Σn, shape (K,); they sum to one."""
    points = np.asarray([update.weight for update in updates], dtype=np.float64)
    result: Floats = points / points.sum()
    return result


def weighted_mean(updates: Sequence[Update]) -> Arrays:
    """Return Σ (n_k / n) Δ_k, added in float64 in the order of the clients' names.

    The fixed order makes the result independent of who answered first, bit for bit.
    Source: McMahan et al. (2017), Algorithm 1, server step.
    """
    ordered = sorted(updates, key=lambda update: update.client_id)
    weights = weights_of(ordered)
    return {
        name: sum(
            weight * update.arrays[name].astype(np.float64)
            for weight, update in zip(weights, ordered, strict=True)
        )
        for name in ordered[0].arrays
    }


def total(updates: Sequence[Update]) -> Arrays:
    """Return Σ of the clients' arrays in float64, in the order of their names."""
    ordered = sorted(updates, key=lambda update: update.client_id)
    return sum_arrays([update.arrays for update in ordered])


def sum_arrays(parts: Sequence[Arrays]) -> Arrays:
    """Add dictionaries of arrays, in the order given."""
    result: Arrays = {}
    for name in parts[0]:
        result[name] = np.sum([part[name].astype(np.float64) for part in parts], axis=0)
    return result


class Merge(Protocol):
    """How a round's updates become the next state."""

    def reply_like(self, state: Arrays) -> Arrays:
        """Return arrays with the names, shapes and dtypes that a reply must have."""

    def __call__(self, state: Arrays, updates: Sequence[Update]) -> Arrays:
        """Return the next state; `updates` is not empty."""


@dataclass(frozen=True)
class DeltaMerge:
    """FedAvg on deltas: w ← w + η Σ (n_k / n) Δ_k.

    Attributes:
        eta: Server learning rate; 1 replaces w by the weighted mean of the clients' weights.
    """

    eta: float = 1.0

    def reply_like(self, state: Arrays) -> Arrays:
        """Return the trained part of the state: buffers have no delta."""
        return {name: array for name, array in state.items() if name not in BUFFERS}

    def __call__(self, state: Arrays, updates: Sequence[Update]) -> Arrays:
        """Return the next state; buffers, which have no delta, stay as they are."""
        delta = weighted_mean(updates)
        return {
            name: (value + self.eta * delta[name]).astype(value.dtype) if name in delta else value
            for name, value in state.items()
        }


@dataclass(frozen=True)
class StatisticsMerge:
    """Closed form: add the clients' sums and let the learner solve."""

    learner: Learner

    def reply_like(self, state: Arrays) -> Arrays:
        """Return sums of the right shapes."""
        return self.learner.sums_like(state)

    def __call__(self, state: Arrays, updates: Sequence[Update]) -> Arrays:
        """Return the solution."""
        return self.learner.finish(state, total(updates))

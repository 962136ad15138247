"""K models in one: names with the number of their cluster before them, and who is in which.

A joint state goes through progress, checkpoints and best rounds as any other; its array
`cluster_of` says which model serves which client, so that the best round keeps its own clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.errors import Fault
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.messages import TrainRequest
from fl_inmetro.federation.progress import prefixed, with_prefix
from fl_inmetro.federation.rules import Merge
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, UpdateBlock
from fl_inmetro.learning.work import LocalWork

Ints = NDArray[np.int64]

#: Shape (clients,), in the order of the roster.
MEMBERSHIP = "cluster_of"

#: Memory: clients that changed in each round, and the sizes after it, (rounds,) and (rounds, K).
CHANGED, SIZES = "changed", "sizes"


def of_cluster(k: int, arrays: Arrays) -> Arrays:
    """Return the arrays of one cluster by their plain names."""
    return with_prefix(_name(k), arrays)


def joined_states(states: Sequence[Arrays], cluster_of: Ints) -> Arrays:
    """Return the joint state of K models."""
    joint: Arrays = {MEMBERSHIP: cluster_of}
    for k, state in enumerate(states):
        joint |= prefixed(_name(k), state)
    return joint


def perturbed(
    state: Arrays, trained: Sequence[str], number: int, size: float, seed: int
) -> list[Arrays]:
    """Return `number` perturbations of a model; the model itself where it is the only one.

    Each trained number gets Gaussian noise of deviation size/√(inputs of its neuron), which a
    vector has one of. (Ghosh et al. 2020, section 5, start from random models; a model that begins
    at zero has no others. None is the model as it is: everybody would prefer that one.)
    """
    if number == 1:
        return [state]
    made = []
    for k in range(number):
        own = dict(state)
        for name in trained:
            array = state[name]
            inputs = math.prod(array.shape[1:])
            noise = seeds.derive(seed, "cluster", k, name).normal(0.0, size, array.shape)
            own[name] = (array + noise / math.sqrt(inputs)).astype(array.dtype)
        made.append(own)
    return made


@dataclass(frozen=True)
class JointMerge:
    """What a strategy asks of a merge between rounds, for K models; each has its own memory.

    Attributes:
        one: The merge of each of them.
        clusters: K.
    """

    one: Merge
    clusters: int

    def shared(self, state: Arrays) -> Arrays:
        """Not used: a reply is of one model."""
        raise TypeError("replies are merged cluster by cluster")

    def reply_like(self, state: Arrays) -> Arrays:
        """Not used: a reply is of one model."""
        raise TypeError("replies are merged cluster by cluster")

    def begin(self, state: Arrays) -> Arrays:
        """Return the memory of each server optimiser, and an empty history."""
        memory: Arrays = {CHANGED: np.zeros(0, np.int64)}
        memory[SIZES] = np.zeros((0, self.clusters), np.int64)
        for k in range(self.clusters):
            memory |= prefixed(_name(k), self.one.begin(of_cluster(k, state)))
        return memory

    def control(self, memory: Arrays) -> Arrays:
        """Return nothing: strategies with control variates are refused."""
        del memory
        return {}

    def served(self, state: Arrays, memory: Arrays) -> Arrays:
        """Return the models to validate and keep, with the same membership."""
        models = [
            self.one.served(of_cluster(k, state), of_cluster(k, memory))
            for k in range(self.clusters)
        ]
        return joined_states(models, state[MEMBERSHIP])

    def needs(self, clients: int) -> Fault | None:
        """Return why a cluster of so many clients cannot be merged; None if it can."""
        return self.one.needs(clients)

    def digest(self, block: Any) -> Any:
        """Not used: a reply is of one model."""
        raise TypeError("replies are merged cluster by cluster")

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Not used: a reply is of one model."""
        raise TypeError("replies are merged cluster by cluster")


@dataclass(frozen=True)
class Choices:
    """How the clients of one federation choose among K models.

    Attributes:
        number: K.
        every: They choose again after so many rounds.
        begin_in: Client to the cluster it begins in; 0 for those that are not named.
        seed: Root seed.
        perturbation: Size of the perturbations that the models begin as; 0 = all begin alike, and
            the first choice is that of `begin_in`.
    """

    number: int
    every: int
    begin_in: Mapping[str, int]
    seed: int
    perturbation: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """What the strategy needs of it."""
        first = self.perturbation > 0
        return {"clusters": self.number, "every": self.every, "chooses_first": first}

    def first(self, state: Arrays, trained: Sequence[str], names: Sequence[str]) -> Arrays:
        """Return the joint state before the first round, of clients in this order."""
        cluster_of = np.array([self.begin_in.get(name, 0) for name in names], dtype=np.int64)
        if not self.perturbation:
            return joined_states([state] * self.number, cluster_of)
        models = perturbed(state, trained, self.number, self.perturbation, self.seed)
        return joined_states(models, cluster_of)


def choose(losses: Sequence[dict[str, float]], names: Sequence[str], now: Ints) -> Ints:
    """Return each client's cluster: the model of its lowest loss.

    A client stays where another is not better, and where one of its losses is not a number.

    Args:
        losses: For each model, client to its mean training loss.
        names: The clients, in the order of `now`.
        now: Where they are, shape (clients,).
    """
    after = now.copy()
    for place, name in enumerate(names):
        own = np.array([by_client.get(name, math.nan) for by_client in losses])
        if not np.isfinite(own).all():
            continue
        best = int(own.argmin())
        if own[best] < own[now[place]]:
            after[place] = best
    return after


def losses_of(
    grid: LoopGrid, state: Arrays, names: Sequence[str], seed: int, round_: int
) -> dict[str, float]:
    """Return clients' mean training loss of a gradient model; a client that fails has none."""
    if not isinstance(grid, CohortGrid):
        return grid.losses(state, names)
    found: dict[str, float] = {}
    look = TrainRequest(round_, seed, LocalWork(probe=True))

    def read(block: UpdateBlock) -> dict[str, float]:
        return dict(zip(block.client_ids, block.losses.tolist(), strict=True))

    for result in grid.train_blocks(state, names, look, read):
        if not isinstance(result, ClientFailure):
            found |= result
    return found


def _name(k: int) -> str:
    return f"c{k}."

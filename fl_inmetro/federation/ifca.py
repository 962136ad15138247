"""IFCA: K models, and every client trains the one that fits it best.

Source: Ghosh, Chung, Yin & Ramchandran (2020), "An Efficient Framework for Clustered Federated
Learning", Algorithm 1; with several local steps its option II (model averaging), with
`local-steps = 1` its option I (gradient averaging).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.errors import FederationError
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.inbox import Inbox, Received
from fl_inmetro.federation.joint import (
    CHANGED,
    MEMBERSHIP,
    SIZES,
    Ints,
    JointMerge,
    choose,
    joined_states,
    losses_of,
    of_cluster,
)
from fl_inmetro.federation.progress import Progress, prefixed
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.sent import arrays_bytes
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.federation.validation import Validation
from fl_inmetro.learning.update import Arrays
from fl_inmetro.metrics import ErrorSums

#: Bytes of the number of a cluster, as a client answers it.
_INDEX_BYTES = 8


class IfcaStrategy(FederatedStrategy):
    """One federation of K models; its state is a joint one (`federation/joint.py`).

    A round: now and then each client takes the model with the lowest mean loss on its training
    windows; clients are selected from all, as in one federation; those selected train their
    cluster's model, and each model is merged with a server optimiser of its own. A model that
    nobody selected has, or too few for the rule, stays as it is. With one cluster this is the
    plain federation, bit by bit.

    Args:
        roster: As `FederatedStrategy`, which the other arguments are of, too.
        merge: How the updates of a cluster become its next model.
        clusters: K.
        every: Clients choose again after so many rounds.
        chooses_first: Whether they choose in the first round; else they begin where they are.
        rest: Of `FederatedStrategy`.
    """

    def __init__(
        self,
        roster: Roster,
        merge: Merge,
        *,
        clusters: int,
        every: int,
        chooses_first: bool,
        **rest: Any,
    ) -> None:
        super().__init__(roster, JointMerge(merge, clusters), **rest)
        self._one, self._clusters = merge, clusters
        self._every, self._chooses_first = every, chooses_first
        self._client_names = list(roster.nodes)

    # ------------------------------------------------------------------------- one round
    def _trained(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> tuple[Arrays, float, float]:
        cluster_of, changed = self._chosen(grid, number, state)
        states = [of_cluster(k, state) for k in range(self._clusters)]
        memories = [of_cluster(k, self._memory) for k in range(self._clusters)]
        history = self._history(changed, cluster_of)
        without: set[str] = set()
        for attempt in range(self._gate.attempts):
            self._settle(grid)
            with self._one_model():
                selected = self._select(number, states[0], attempt, without)
                answered, failed = [], set[str]()
                for k, members in self._parted(selected, cluster_of):
                    self._open(number, states[k], memories[k], members)
                    received = self._asked(grid, number, states[k], members, timeout)
                    assert self._inbox is not None
                    failed |= self._inbox.failed
                    answered.append((k, received, self._inbox))
                good = sum(received.good for _, received, _ in answered)
                wanted = min(self._wanted, len(selected))
                fault = self._quorum.fault(number, good, wanted)
                short = [self._one.needs(received.good) for _, received, _ in answered]
                if all(short):
                    fault = fault or next(iter(short))
                if fault is None:
                    loss = self._merged_all(number, answered, states, memories)
                    self._memory = history
                    for k, memory in enumerate(memories):
                        self._memory |= prefixed(f"c{k}.", memory)
                    return joined_states(states, cluster_of), loss, 0.0
            everybody = len(selected) == len(self._standing.eligible(number))
            if everybody and getattr(grid, "repeats_itself", False):
                break  # the same clients would do the same work
            if attempt + 1 < self._gate.attempts:
                text = f"{fault.what}: attempt {attempt + 2} of {self._gate.attempts}"
                self._emit(events.Note("warning", text))
            without |= failed
        assert fault is not None  # there is at least one attempt
        raise FederationError(fault)

    def _open(self, number: int, state: Arrays, memory: Arrays, members: Sequence[str]) -> None:
        """Open the inbox of a cluster: its replies are judged beside each other alone."""
        self._state, self._memory = state, memory
        self._inbox = self._new_inbox(number, state, arrays_bytes(state))
        self._asked_nodes = {self._roster.nodes[name]: name for name in members}

    def _merged_all(
        self,
        number: int,
        answered: Sequence[tuple[int, Received, Inbox]],
        states: list[Arrays],
        memories: list[Arrays],
    ) -> float:
        """Merge each cluster's replies, in place; return the mean training loss of all.

        A cluster that has too few for the rule keeps its model: its clients may choose another.
        """
        every: list[Any] = []
        for k, received, inbox in answered:
            self._inbox, self._memory = inbox, memories[k]
            if received.good and (short := self._one.needs(received.good)):
                text = f"round {number}: cluster {k + 1} stands still: {short.what}"
                self._emit(events.Note("warning", text))
                continue
            every += received.digests
            if not received.good:
                inbox.accept(received)
                continue
            states[k], _ = self._merged(number, states[k], received)
            memories[k] = self._memory
        return Received(every, []).loss

    def _parted(self, names: Sequence[str], cluster_of: Ints) -> Iterator[tuple[int, list[str]]]:
        place = {name: int(k) for name, k in zip(self._client_names, cluster_of, strict=True)}
        for k in range(self._clusters):
            members = [name for name in names if place[name] == k]
            if members:
                yield k, members

    @contextmanager
    def _one_model(self) -> Iterator[None]:
        """Let the parts of the plain strategy work on one model at a time."""
        joint, self._merge = self._merge, self._one
        try:
            yield
        finally:
            self._merge = joint

    # --------------------------------------------------------------------------- choosing
    def _chosen(self, grid: Grid, number: int, state: Arrays) -> tuple[Ints, int]:
        """Let clients choose where it is time; return who is where, and how many moved."""
        now = state[MEMBERSHIP]
        due = (number - 1) % self._every == 0 and (number > 1 or self._chooses_first)
        if self._clusters == 1 or not due:
            return now, 0
        # Flower's engine is refused before a clustered run begins.
        assert isinstance(grid, LoopGrid)
        losses = []
        for k in range(self._clusters):
            own = of_cluster(k, state)
            losses.append(losses_of(grid, own, self._client_names, self._seed, number))
            self._round_bytes_down += arrays_bytes(own) * len(self._client_names)
        self._round_bytes_up += _INDEX_BYTES * len(self._client_names)
        after = choose(losses, self._client_names, now)
        changed = int((after != now).sum())
        if changed:
            sizes = ", ".join(map(str, np.bincount(after, minlength=self._clusters)))
            text = f"round {number}: clients that took another model: {changed}; sizes: {sizes}"
            self._emit(events.Note("info", text))
        return after, changed

    def _history(self, changed: int, cluster_of: Ints) -> Arrays:
        sizes = np.bincount(cluster_of, minlength=self._clusters)
        return {
            CHANGED: np.append(self._memory[CHANGED], changed),
            SIZES: np.concatenate([self._memory[SIZES], sizes[None]]),
        }

    # ------------------------------------------------------------------------- evaluation
    def _validated(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> dict[str, float]:
        self._round_bytes_down += arrays_bytes(of_cluster(0, state)) * len(self._client_names)
        counted = self._standing.counted
        sums = self._evaluated(
            grid, number, state, "validation", self._best_round, timeout, counted
        )
        return self._scored(number, sums)

    def score(self, grid: Grid, progress: Progress, timeout: float) -> dict[str, ErrorSums]:
        """Ask every client for the error sums of its best model on the test windows."""
        counted = self._standing_of(progress).counted
        state, best = progress.best_state, progress.best_round
        return self._evaluated(grid, 0, state, "test", best, timeout, counted)

    def _evaluated(
        self,
        grid: Grid,
        number: int,
        state: Arrays,
        split: str,
        best_round: int,
        timeout: float,
        counted: Mapping[str, int],
    ) -> dict[str, ErrorSums]:
        sums: dict[str, ErrorSums] = {}
        for k, members in self._parted(self._client_names, state[MEMBERSHIP]):
            nodes = {name: self._roster.nodes[name] for name in members}
            asked = Validation(replace(self._roster, nodes=nodes), self._group, self._emit)
            own = of_cluster(k, state)
            sums |= asked.ask(grid, number, own, split, best_round, timeout, counted=counted)
        return dict(sorted(sums.items()))

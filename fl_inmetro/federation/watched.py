"""A cohort engine that looks: every client's gradient before a round, and the updates after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import Execution
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.diagnostics import (
    Dissimilarity,
    Drift,
    clients_smoothness,
    smoothness,
)
from fl_inmetro.federation.heterogeneity import Updates, probed, probing, total_of
from fl_inmetro.federation.messages import TrainRequest
from fl_inmetro.learning.client import ClientWorker, Enrolment
from fl_inmetro.learning.private_moments import MomentsAsked
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock

#: Looks of the power iteration that estimates L at the first model.
CURVATURE_PROBES = 8

#: Length of its steps beside the length of the parameters (at least 1).
_NEARBY = 1e-2

_MEGABYTE = 1 << 20


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen of a round: the gradients at its first model, and the drift of its updates."""

    gradients: Dissimilarity
    drift: Drift | None


class WatchedGrid(CohortGrid):
    """The cohort engine, which looks at every round before and while it is trained.

    Attributes:
        rounds: What was seen, by round.
        windows: Client to its training windows.
        points: Client to its training points.
        lipschitz: Largest change of a gradient per length of a step: L from below.
        clients_measured: Whether each client's own change was looked at, or only that of ∇F.
        layout: What a gradient holds; None before the first look.
        probe_bytes: Arrays that the looks moved: a model to every client, a gradient back.
    """

    def __init__(
        self,
        workers: Sequence[ClientWorker],
        execution: Execution,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(workers, execution, should_stop)
        self.rounds: dict[int, Watched] = {}
        self.windows: dict[str, int] = {}
        self.points: dict[str, int] = {}
        self.lipschitz = 0.0
        self.clients_measured = True
        self.layout: Layout | None = None
        self.probe_bytes = 0
        self._memory_bytes = execution.memory_mb * _MEGABYTE
        self._before: tuple[NDArray[np.float64], Dissimilarity, Mapping[str, Any]] | None = None

    def enrolments(
        self, asked: MomentsAsked | None = None
    ) -> Iterator[tuple[int, Enrolment | ClientFailure]]:
        """Note how many windows each client has."""
        for node, enrolment in super().enrolments(asked):
            if isinstance(enrolment, Enrolment):
                self.windows[enrolment.client_id] = enrolment.windows
                self.points[enrolment.client_id] = enrolment.points
            yield node, enrolment

    def train_blocks(
        self,
        state: Arrays,
        client_ids: Sequence[str],
        request: TrainRequest,
        digest: Callable[[UpdateBlock], Any],
        *args: Any,
        **more: Any,
    ) -> Iterator[Any]:
        """Probe, then train, and keep the updates until their drift is known."""
        found = self._look(state, request)
        updates = Updates(self._memory_bytes)

        def watched(block: UpdateBlock) -> Any:
            updates.add(block)
            return digest(block)

        yield from super().train_blocks(state, client_ids, request, watched, *args, **more)
        self.rounds[request.round] = Watched(found, updates.drift()[1])

    def _look(self, state: Arrays, request: TrainRequest) -> Dissimilarity:
        """Return the gradients at `state`, and learn from their change since the last look."""
        found, rows = self._gradients(state, request)
        assert self.layout is not None
        here = self.layout.flat(state).astype(np.float64)
        if self._before is None:
            self._climb(state, request, here, found, rows)
        else:
            self._learn(self._before, (here, found, rows))
        self._before = here, found, rows
        return found

    def _climb(
        self,
        state: Arrays,
        request: TrainRequest,
        here: NDArray[np.float64],
        found: Dissimilarity,
        rows: Mapping[str, Any],
    ) -> None:
        """Estimate L near the first model by a power iteration on differences of gradients.

        A path that descends leaves the steepest direction first; this looks for it.
        """
        assert self.layout is not None
        direction = found.mean
        reach = _NEARBY * max(1.0, float(np.linalg.norm(here)))
        for _ in range(CURVATURE_PROBES):
            length = float(np.linalg.norm(direction))
            if not length > 0:
                return
            there = self.layout.arrays(here + reach / length * direction)
            moved = state | {name: there[name].astype(state[name].dtype) for name in there}
            nearby, its_rows = self._gradients(moved, request)
            at = self.layout.flat(moved).astype(np.float64)  # as it was rounded
            self._learn((here, found, rows), (at, nearby, its_rows))
            direction = nearby.mean - found.mean

    def _learn(self, before: tuple[Any, Any, Any], after: tuple[Any, Any, Any]) -> None:
        step = after[0] - before[0]
        ratios = [self.lipschitz, smoothness(after[1].mean - before[1].mean, step)]
        ratios.append(clients_smoothness(before[2], after[2], step))
        self.lipschitz = max(ratios)

    def _gradients(
        self, state: Arrays, request: TrainRequest
    ) -> tuple[Dissimilarity, Mapping[str, NDArray[Any]]]:
        """Return the clients' gradients at `state`: their sums, and each where memory allows.

        Raises:
            FederationError: FL330, a client has none that is finite.
        """
        kept = Updates(self._memory_bytes // 4)  # two looks are compared, with room for a round

        def look(block: UpdateBlock) -> Any:
            kept.add(block)
            return probed(block)

        parts = []
        lost: list[str] = []
        for part in super().train_blocks(state, list(self.windows), probing(request), look):
            if isinstance(part, ClientFailure):
                lost.append(part.client_id)
                continue
            parts.append(part)
            lost += part.unsound
        total = total_of(parts)
        if lost or total is None:
            names = ", ".join(f"`{name}`" for name in lost[:3]) or "all clients"
            raise FederationError(
                Fault(
                    "FL330",
                    f"{len(lost)} of {len(self.windows)} clients have no finite gradient",
                    f"round {request.round}, {names}",
                    "the steps are too large for this model: lower `eta-l` of the model",
                )
            )
        self.layout = parts[0].layout
        model = sum(array.nbytes for array in state.values())
        self.probe_bytes += len(self.windows) * (model + self.layout.n_bytes)
        self.clients_measured &= not kept.too_large
        return total, kept.rows()

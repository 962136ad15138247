"""Our Flower `Strategy`: sampler, gate and merge are parts; the loop can stop and go on.

Flower's own `Strategy.start` has no callbacks, no stop and no resume; `FederatedStrategy.start`
keeps its signature and adds them. It remembers the best round on the clients' validation windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fl_inmetro import events
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import DeltaMerge, Merge, StatisticsMerge
from fl_inmetro.federation.sampling import sample_clients
from fl_inmetro.learning.update import Arrays, Learner, Update
from fl_inmetro.metrics import SUM_NAMES, ErrorSums

#: Configuration name → how deltas are merged.
STRATEGIES: dict[str, Callable[[StrategySettings], Merge]] = {
    "fedavg": lambda settings: DeltaMerge(settings.eta),
}


@dataclass(frozen=True)
class Progress:
    """Where a federation stands after a round: all that a resumed run needs.

    Attributes:
        round: Rounds done.
        state: The model after them.
        best_round: Round with the lowest validation nMAE so far; 0 before any.
        best_nmae: That nMAE.
        best_meters: Meters that were evaluated in that round.
        best_state: The model after that round.
        n_bytes: Bytes of arrays and sums exchanged so far.
    """

    round: int
    state: Arrays
    best_round: int
    best_nmae: float
    best_meters: int
    best_state: Arrays
    n_bytes: int


def merge_for(learner: Learner, settings: StrategySettings) -> Merge:
    """Return how this learner's updates are merged under this strategy."""
    return StatisticsMerge(learner) if learner.closed_form else STRATEGIES[settings.name](settings)


class FederatedStrategy(Strategy):  # type: ignore[misc]  # flwr is not followed by mypy
    """One federation from its first state to its best one.

    Args:
        roster: Clients and their nodes, from enrolment.
        merge: How a round's updates become the next state.
        closed_form: Replies are sums of any shape, and one round is enough.
        settings: Rounds, fraction, epochs, quorum.
        seed: Root seed.
        group: Number of this federation in the run (for events).
        emit: Where events go.
        after_round: Called with the progress after each round (checkpoints).
    """

    def __init__(
        self,
        roster: Roster,
        merge: Merge,
        *,
        closed_form: bool,
        settings: Federation,
        seed: int,
        group: int = 0,
        emit: events.Emit = lambda event: None,
        after_round: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._roster = roster
        self._merge = merge
        self._closed_form = closed_form
        self._settings = settings
        self._seed = seed
        self._group = group
        self._emit = emit
        self._after_round = after_round
        self._state: Arrays = {}
        self._round_bytes_down = self._round_bytes_up = 0

    # -------------------------------------------------------------- Flower's interface
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Select clients and ask them to train."""
        del config, grid
        selected = sample_clients(
            list(self._roster.nodes), self._settings.fraction_fit, self._seed, server_round
        )
        self._state = messages.unpack(arrays)
        self._emit(events.RoundStarted(self._group, server_round, tuple(selected)))
        content = messages.train_request(
            arrays, server_round, self._settings.local_epochs, self._seed
        )
        self._round_bytes_down = messages.n_bytes(arrays) * len(selected)
        return [
            Message(content, self._roster.nodes[name], messages.TRAIN, group_id=str(server_round))
            for name in selected
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies and merge the good ones.

        Raises:
            FederationError: FL302, fewer good replies than `min-clients`.
        """
        updates = self._accepted(server_round, replies)
        if len(updates) < self._settings.min_clients:
            raise FederationError(
                Fault(
                    "FL302",
                    f"round {server_round} has {len(updates)} good replies, "
                    f"it needs {self._settings.min_clients}",
                    "[federation] min-clients",
                    "see the rejected replies of the run; then continue it with --resume",
                )
            )
        points = np.asarray([update.weight for update in updates])
        loss = float(np.dot(points, [update.loss for update in updates]) / points.sum())
        return messages.pack(self._merge(self._state, updates)), MetricRecord({"loss": loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client for its error sums; `config["split"]` is validation unless given."""
        split = str(config.get("split", "validation"))
        content = messages.evaluate_request(arrays, server_round, split)
        self._round_bytes_down += messages.n_bytes(arrays) * len(self._roster.nodes)
        return [
            Message(content, node, messages.EVALUATE, group_id=str(server_round))
            for node in self._roster.nodes.values()
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord:
        """Return the mean of the meters' validation nMAE, and how many there are."""
        sums = self._evaluations(server_round, replies)
        for name, client in sums.items():
            self._emit(
                events.ClientEvaluated(
                    self._group, server_round, name, client.n, client.mae_kwh, client.nmae
                )
            )
        nmae = [s.nmae for s in sums.values() if np.isfinite(s.nmae)]
        mean = float(np.mean(nmae)) if nmae else float("nan")
        return MetricRecord({"nmae": mean, "meters": len(nmae)})

    def summary(self) -> None:
        """Nothing to print: the configuration is in the run directory."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds from the first; Flower's interface to `run`."""
        del evaluate_fn  # the server holds no readings to evaluate on
        progress = self.run(grid, begin(messages.unpack(initial_arrays)), num_rounds, timeout)
        result = Result()
        result.arrays = messages.pack(progress.best_state)
        return result

    # --------------------------------------------------------------------------- ours
    def run(self, grid: Grid, progress: Progress, num_rounds: int, timeout: float) -> Progress:
        """Run rounds `progress.round + 1 … num_rounds` and return the progress after them.

        A federation continued from a saved `Progress` ends in the same bits as one that never
        stopped: nothing else is carried from round to round.
        """
        if self._closed_form:
            num_rounds = 1
        while progress.round < num_rounds:
            progress = self._one_round(grid, progress, timeout)
            self._after_round(progress)
        return progress

    def score(self, grid: Grid, state: Arrays, timeout: float) -> dict[str, ErrorSums]:
        """Ask every client for its error sums on the test windows."""
        config = ConfigRecord({"split": "test"})
        requests = self.configure_evaluate(0, messages.pack(state), config, grid)
        return self._evaluations(0, grid.send_and_receive(requests, timeout=timeout))

    def _one_round(self, grid: Grid, progress: Progress, timeout: float) -> Progress:
        started = time.perf_counter()
        number = progress.round + 1
        self._round_bytes_up = 0
        no_config = ConfigRecord()
        requests = self.configure_train(number, messages.pack(progress.state), no_config, grid)
        arrays, train = self.aggregate_train(
            number, grid.send_and_receive(requests, timeout=timeout)
        )
        requests = self.configure_evaluate(number, arrays, no_config, grid)
        metrics = self.aggregate_evaluate(number, grid.send_and_receive(requests, timeout=timeout))
        nmae, meters = float(metrics["nmae"]), int(metrics["meters"])
        state = messages.unpack(arrays) if arrays else progress.state
        # A mean over fewer meters is no better for it: it may only lack the hard ones. Without any
        # validation score so far (nan) the latest round is the best that is known.
        is_best = meters > progress.best_meters or (
            meters == progress.best_meters and not nmae >= progress.best_nmae
        )
        self._emit(
            events.RoundFinished(
                self._group,
                number,
                float(train["loss"]) if train else float("nan"),
                nmae,
                is_best,
                self._round_bytes_down,
                self._round_bytes_up,
                time.perf_counter() - started,
            )
        )
        moved = self._round_bytes_down + self._round_bytes_up
        after = replace(progress, round=number, state=state, n_bytes=progress.n_bytes + moved)
        if not is_best:
            return after
        return replace(
            after, best_round=number, best_nmae=nmae, best_meters=meters, best_state=state
        )

    def _accepted(self, server_round: int, replies: Iterable[Message]) -> list[Update]:
        names = {node: name for name, node in self._roster.nodes.items()}
        like = self._merge.reply_like(self._state)
        down = sum(array.nbytes for array in self._state.values())
        updates: dict[str, Update] = {}
        for reply in replies:
            name = names.get(reply.metadata.src_node_id, "unknown")
            try:
                points = self._roster.points.get(name, 0)
                update = messages.read_update(reply, name, points, like)
                if name in updates:
                    raise FederationError(Fault("FL301", f"`{name}` answered twice"))
            except FederationError as error:
                self._reject(server_round, name, error)
                continue
            updates[name] = update
            up = sum(array.nbytes for array in update.arrays.values())
            self._round_bytes_up += up
            self._emit(
                events.ClientReplied(
                    self._group,
                    server_round,
                    name,
                    update.weight,
                    update.loss,
                    _norm(update.arrays.values()),
                    down,
                    up,
                    update.seconds,
                )
            )
        return [updates[name] for name in sorted(updates)]

    def _evaluations(self, server_round: int, replies: Iterable[Message]) -> dict[str, ErrorSums]:
        names = {node: name for name, node in self._roster.nodes.items()}
        sums: dict[str, ErrorSums] = {}
        answered: set[str] = set()
        for reply in replies:
            name = names.get(reply.metadata.src_node_id, "unknown")
            try:
                reported = messages.read_evaluation(reply)
                # The one client of centralised training speaks for all meters, others for theirs.
                if name in answered or name == "unknown":
                    raise FederationError(Fault("FL301", f"`{name}` was not asked, or not twice"))
                if len(names) > 1 and set(reported) != {name}:
                    others = ", ".join(f"`{other}`" for other in reported)
                    raise FederationError(Fault("FL301", f"`{name}` answered for {others}"))
            except FederationError as error:
                self._reject(server_round, name, error)
                continue
            answered.add(name)
            sums |= reported
        self._round_bytes_up += 8 * len(SUM_NAMES) * len(sums)
        return dict(sorted(sums.items()))

    def _reject(self, server_round: int, name: str, error: FederationError) -> None:
        fault = error.faults[0]
        reason = fault.reason()
        self._emit(events.ClientRejected(self._group, server_round, name, fault.code, reason))


def begin(state: Arrays, n_bytes: int = 0) -> Progress:
    """Return the progress before the first round."""
    return Progress(0, state, 0, float("inf"), 0, state, n_bytes)


def _norm(arrays: Iterable[NDArray[Any]]) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays)))

"""Our Flower `Strategy`: sampler, gate and merge are parts; the loop can stop and go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fl_inmetro import events
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.closing import Quorum
from fl_inmetro.federation.engines import Digested, InProcessEngine
from fl_inmetro.federation.exchange import Awaited, Clock, Exchange
from fl_inmetro.federation.heterogeneity import Heterogeneity
from fl_inmetro.federation.inbox import Inbox, Received
from fl_inmetro.federation.planner import RoundPlanner
from fl_inmetro.federation.private_merge import PrivateMerge
from fl_inmetro.federation.progress import Progress, begin, mean_of, prefixed, with_prefix
from fl_inmetro.federation.recipes import merge_for
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.selection import Draw, Sampler, Uniform
from fl_inmetro.federation.sent import arrays_bytes, version_of
from fl_inmetro.federation.standing import STANDING, Standing
from fl_inmetro.federation.validation import EVERYTHING, Hearing, Validation, sums_bytes
from fl_inmetro.federation.virtual_time import RoundPlan
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, split_control
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import ErrorSums

_SERVER = "server."  # what the merge remembers, in `Progress.memory`

__all__ = ["FederatedStrategy", "Progress", "begin", "merge_for"]


class FederatedStrategy(Strategy):  # type: ignore[misc]  # flwr is not followed by mypy
    """One federation from its first state to its best one.

    Args:
        roster: Clients and their nodes, from enrolment.
        merge: How a round's updates become the next state.
        closed_form: Replies are sums of any shape; the model is that of the last round.
        settings: Rounds, fraction, epochs, quorum.
        seed: Root seed.
        work: What the clients do in a round; None = the epochs of `settings`.
        gate: Which replies may touch the model.
        sampler: Who takes part in a round.
        may_repeat: Clients whose honest updates may be the same in two rounds.
        planner: Says who is in time, in virtual time; None = everybody is.
        heterogeneity: Measures the gradients before each round, and the drift of its updates.
        clock: What rounds that close by the clock go by.
        group: Number of this federation in the run (for events).
        emit: Where events go.
        after_round: Called with the progress after each round (checkpoints).
        rate_of: Round to the share of the clients' learning rate in it.
        sum_rounds: Rounds of a closed form, at most, and whether a state needs no more of them.
        hearing: What is heard of the clients' errors.
    """

    def __init__(
        self,
        roster: Roster,
        merge: Merge,
        *,
        closed_form: bool,
        settings: Federation,
        seed: int,
        work: LocalWork | None = None,
        gate: Gate | None = None,
        sampler: Sampler | None = None,
        may_repeat: frozenset[str] = frozenset(),
        planner: RoundPlanner | None = None,
        heterogeneity: Heterogeneity | None = None,
        clock: Clock | None = None,
        group: int = 0,
        emit: events.Emit = lambda event: None,
        after_round: Callable[[Progress], None] = lambda progress: None,
        rate_of: Callable[[int], float] = lambda number: 1.0,
        sum_rounds: tuple[int, Callable[[Arrays], bool]] = (1, lambda state: False),
        hearing: Hearing = EVERYTHING,
    ) -> None:
        self._roster = roster
        self._names = {node: name for name, node in roster.nodes.items()}
        self._merge = merge
        self._closed_form, self._settings = closed_form, settings
        self._seed, self._group = seed, group
        self._planner = planner
        self._heterogeneity = heterogeneity
        self._plan: RoundPlan | None = None
        self._emit, self._after_round, self._rate_of = emit, after_round, rate_of
        self._sum_rounds, self._is_done = sum_rounds
        self._work = work or LocalWork(epochs=settings.local_epochs)
        self._gate = gate or Gate()
        drawn = isinstance(merge, PrivateMerge)
        self._quorum = Quorum(settings, self._gate, closed_form=closed_form, drawn=drawn)
        self._sampler = sampler or Uniform()
        self._may_repeat = may_repeat
        self._state: Arrays = {}
        self._memory: Arrays = {}
        self._standing = Standing(list(roster.nodes), self._gate, {})
        self._exchange, self._awaited = Exchange(clock), Awaited()
        self._validation = Validation(roster, group, emit, Exchange(clock), hearing)
        self._inbox: Inbox | None = None
        #: Node id to client, of those who are asked in this round, and replies aimed at.
        self._asked_nodes: dict[int, str] = {}
        self._wanted = self._best_round = self._round_bytes_down = self._round_bytes_up = 0

    # -------------------------------------------------------------- Flower's interface
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Select clients and ask them to train."""
        del config, grid
        selected = self._select(server_round, messages.unpack(arrays))
        return self._requests(server_round, arrays, selected)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies and merge the good ones.

        Raises:
            FederationError: FL302, fewer good replies than the quorum.
        """
        received = self._received(server_round, replies)
        if fault := self._quorum.fault(server_round, received.good, self._wanted):
            raise FederationError(fault)
        state, loss = self._merged(server_round, self._state, received)
        return messages.pack(state), MetricRecord({"loss": loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client for its error sums; `config["split"]` is validation unless given."""
        split = str(config.get("split", "validation"))
        best_round = int(config.get("best-round", self._best_round))
        self._round_bytes_down += messages.n_bytes(arrays) * len(self._roster.nodes)
        counted = self._standing.counted
        return self._validation.requests(server_round, arrays, split, best_round, counted)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord:
        """Return the mean of the meters' validation nMAE, and how many there are."""
        scores = self._scored(server_round, self._validation.read(server_round, replies))
        return MetricRecord({"nmae": mean_of(scores), "meters": len(scores)})

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
        most = self._sum_rounds if self._closed_form else num_rounds
        while progress.round < most and not (
            progress.is_stuck(self._settings.patience) or self._is_done(progress.state)
        ):
            progress = self._one_round(grid, progress, timeout)
            self._after_round(progress)
        return progress

    def score(self, grid: Grid, progress: Progress, timeout: float) -> dict[str, ErrorSums]:
        """Ask every client for the error sums of the best model on the test windows."""
        state, best = progress.best_state, progress.best_round
        counted = self._standing_of(progress).counted
        return self._validation.ask(grid, 0, state, "test", best, timeout, counted=counted)

    def _one_round(self, grid: Grid, progress: Progress, timeout: float) -> Progress:
        started = time.perf_counter()
        number = progress.round + 1
        self._round_bytes_down = self._round_bytes_up = 0
        self._best_round = progress.best_round
        self._standing = self._standing_of(progress)
        self._memory = with_prefix(_SERVER, progress.memory)
        if not progress.round:
            self._memory = self._merge.begin(progress.state)
        if self._heterogeneity:
            like, _ = split_control(self._merge.reply_like(progress.state))
            down, up = self._heterogeneity.measure(
                grid, number, progress.state, like, self._request(number), timeout
            )
            self._round_bytes_down += down
            self._round_bytes_up += up
        state, loss, simulated_s = self._trained(grid, number, progress.state, timeout)
        self._settle(grid)
        if self._heterogeneity and self._inbox:
            self._heterogeneity.finish(number, self._inbox.accepted)
        served = self._merge.served(state, self._memory)
        scores = self._validated(grid, number, served, timeout)
        moved = self._round_bytes_down + self._round_bytes_up
        memory = prefixed(_SERVER, self._memory) | prefixed(STANDING, self._standing.to_arrays())
        last = self._settings.keep == "last" or self._closed_form
        after = progress.after(
            state, scores, moved, simulated_s, memory, keep_last=last, served=served
        )
        self._emit(
            events.RoundFinished(
                self._group,
                number,
                loss,
                mean_of(scores),
                after.best_round == number,
                self._round_bytes_down,
                self._round_bytes_up,
                time.perf_counter() - started,
                simulated_s,
            )
        )
        return after

    def _trained(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> tuple[Arrays, float, float]:
        """Return the next state, the mean training loss and the round's virtual time.

        A round without its quorum is repeated with another draw, and then given up. The clients
        begin it again where they began it before: a round that did not count leaves nothing.

        Raises:
            FederationError: FL302, no quorum in any attempt.
        """
        without: set[str] = set()
        spent_s = 0.0
        for attempt in range(self._gate.attempts):
            self._settle(grid)
            selected = self._select(number, state, attempt, without)
            received = self._asked(grid, number, state, selected, timeout)
            plan = self._plan
            spent_s += plan.duration_s if plan else 0.0
            if plan is not None and not plan.is_enough and not self._closed_form:
                self._emit(events.Note("warning", plan.worth_nothing(number)))
                return state, float("nan"), spent_s
            fault = self._quorum.fault(number, received.good, self._wanted, len(selected))
            fault = fault or self._merge.needs(received.good)
            if fault is None:
                return *self._merged(number, state, received), spent_s
            same = self._quorum.drawn or len(selected) == len(self._standing.eligible(number))
            if same and getattr(grid, "repeats_itself", False):
                break  # the same clients would do the same work
            if attempt + 1 < self._gate.attempts:
                text = f"{fault.what}: attempt {attempt + 2} of {self._gate.attempts}"
                self._emit(events.Note("warning", text))
            without |= self._inbox.failed if self._inbox else set()
        assert fault is not None  # there is at least one attempt
        raise FederationError(fault)

    def _asked(
        self, grid: Grid, number: int, state: Arrays, selected: list[str], timeout: float
    ) -> Received:
        """Let clients train and return their good replies."""
        if not isinstance(grid, InProcessEngine):
            requests = self._requests(number, messages.pack(state), selected)
            if self._settings.by_the_clock:
                return self._by_the_clock(grid, number, requests, timeout)
            return self._received(number, grid.send_and_receive(requests, timeout=timeout))
        assert self._inbox is not None
        control = self._merge.control(self._memory)
        blocks = grid.train_blocks(
            state, selected, self._request(number), self._inbox.digest, control=control or None
        )
        return self._receive(blocks)

    def _by_the_clock(
        self, grid: Grid, number: int, requests: list[Message], timeout: float
    ) -> Received:
        """Take replies as they come until the round closes."""
        assert self._inbox is not None
        request = self._request(number, version_of(number, self._state))
        reading = self._inbox.reading(request, self._asked_nodes, self._awaited)
        closing = self._quorum.closing(min(self._wanted, len(requests)), timeout)
        answered = self._exchange.ask(grid, requests, closing, reading.counts)
        reading.late(answered.late)
        return self._receive(reading.close(answered.silent))

    def _settle(self, grid: Grid) -> None:
        """Let the clients of this process know what counted; others are told in each request."""
        if isinstance(grid, InProcessEngine):
            grid.settle(self._standing.counted)

    def _standing_of(self, progress: Progress) -> Standing:
        kept = with_prefix(STANDING, progress.memory)
        return Standing(list(self._roster.nodes), self._gate, kept)

    def _receive(self, digests: Iterable[Digested | ClientFailure]) -> Received:
        assert self._inbox is not None
        received = self._inbox.receive(digests)
        self._round_bytes_up += self._inbox.bytes_up
        return received

    def _validated(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> dict[str, float]:
        """Return the meters' validation nMAE."""
        self._round_bytes_down += arrays_bytes(state) * len(self._roster.nodes)
        sums = self._validation.ask(
            grid,
            number,
            state,
            "validation",
            self._best_round,
            timeout,
            counted=self._standing.counted,
            closing=self._quorum.evaluation(len(self._roster.nodes), timeout),
        )
        return self._scored(number, sums)

    def _scored(self, number: int, sums: Mapping[str, ErrorSums]) -> dict[str, float]:
        self._round_bytes_up += sums_bytes(sums)
        self._standing.scored(self._validation.told(sums))
        scores = self._validation.report(number, sums)
        # Who is suspended has no say in which round is the best.
        suspended = set(self._roster.nodes) - set(self._standing.eligible(number))
        return {name: nmae for name, nmae in scores.items() if name not in suspended}

    def _select(
        self, number: int, state: Arrays, attempt: int = 0, without: Iterable[str] = ()
    ) -> list[str]:
        """Draw the clients of a round and open the inbox for their replies."""
        eligible = self._standing.eligible(number)
        self._wanted, places = self._quorum.aims(len(self._roster.nodes), len(eligible))
        # Who failed in this very round is asked again where the others are few, or the draw counts.
        others = [name for name in eligible if name not in set(without)]
        drawn_from = others if len(others) >= places and not self._quorum.drawn else eligible
        draw = Draw(
            self._seed,
            number,
            attempt,
            self._roster.points,
            self._standing.scores,
            self._planner.reachable(number) if self._planner else lambda name: True,
        )
        selected = self._sampler(drawn_from, places, draw) if drawn_from else []
        self._state = state
        asked = tuple(selected)
        absences = []
        beside = arrays_bytes(self._merge.control(self._memory))
        if self._planner:
            plan = self._plan = self._planner.plan(number, selected, state, eligible, beside)
            asked, selected, absences = plan.asked, list(plan.to_train), plan.absences()
        self._emit(events.RoundStarted(self._group, number, asked))
        down = arrays_bytes(state) + beside
        self._round_bytes_down += down * len(asked)
        self._inbox = self._new_inbox(number, state, down)
        for absence in absences:
            self._inbox.reject(absence.client_id, Fault(absence.code, absence.reason))
        self._asked_nodes = {self._roster.nodes[name]: name for name in selected}
        return selected

    def _new_inbox(self, number: int, state: Arrays, down: int) -> Inbox:
        watch = self._heterogeneity
        return Inbox(
            number,
            state,
            down,
            self._roster,
            self._merge,
            self._gate,
            self._standing,
            self._group,
            self._emit,
            deltas=not self._closed_form,
            work=self._work,
            may_repeat=self._may_repeat,
            **({"watching": watch.watching} if watch else {}),
        )

    def _request(self, number: int, version: str = "") -> messages.TrainRequest:
        work = replace(self._work, rate=self._rate_of(number))
        return messages.TrainRequest(number, self._seed, work, self._best_round, version=version)

    def _requests(self, number: int, arrays: ArrayRecord, selected: Iterable[str]) -> list[Message]:
        control = self._merge.control(self._memory)
        return messages.train_requests(
            arrays,
            self._request(number, version_of(number, self._state)),
            messages.pack(control) if control else None,
            {name: self._roster.nodes[name] for name in selected},
            self._standing.counted,
        )

    def _received(self, number: int, replies: Iterable[Message]) -> Received:
        if self._inbox is None:  # `aggregate_train` without `configure_train`
            self._select(number, self._state)
        assert self._inbox is not None
        request = self._request(number, version_of(number, self._state))
        return self._receive(self._inbox.read(replies, request, self._asked_nodes, self._awaited))

    def _merged(self, number: int, state: Arrays, received: Received) -> tuple[Arrays, float]:
        """Return the next state and the mean training loss."""
        assert self._inbox is not None
        self._inbox.accept(received)
        after, self._memory = self._merge(state, received.merged, self._memory)
        return after, received.loss

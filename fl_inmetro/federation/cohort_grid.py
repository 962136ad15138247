"""`CohortGrid`: a Flower `Grid` whose nodes live in this process and train as batches.

Our strategy takes its updates as stacked blocks (`train_blocks`), and no message is ever made.
Any other Flower strategy sends messages and gets replies, as from every grid; those that ask for
the same are trained as one cohort, and records are made for what goes back.
A learner that has no batched form (ridge, or a network of unknown layers) is worked client by
client, on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import NDArray

from fl_inmetro.config.schema import Execution
from fl_inmetro.federation import flower_compat, messages
from fl_inmetro.federation.client_program import reply_content
from fl_inmetro.federation.grids import Interrupted, LoopGrid, named, reason_of
from fl_inmetro.learning.client import ClientWorker, Enrolment
from fl_inmetro.learning.control import check_control, zero_controls
from fl_inmetro.learning.evaluation import Evaluation, RecentEvaluations
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.private import PendingRows, PrivateFleet, PrivateState, controls_of
from fl_inmetro.learning.private_moments import MomentsAsked
from fl_inmetro.learning.rows import Rows, RowStore, StoredPopulation, training_arrays
from fl_inmetro.learning.trainer import (
    ClientError,
    ClientFailure,
    CohortTrainer,
    Stopped,
    available_cores,
    in_order,
)
from fl_inmetro.learning.update import Arrays, Layout, Update, UpdateBlock
from fl_inmetro.learning.work import CONTROL, LocalWork
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.privacy.secret import Secret

Ints = NDArray[np.int64]
Digest = TypeVar("Digest")

_MEGABYTE = 1 << 20


class CohortGrid(LoopGrid):
    """Nodes in this process that train as batches.

    Args:
        workers: One per node, of one learner, in the order of node ids.
        execution: Threads, chunk, memory, device.
        should_stop: Looked at between chunks; True raises `Interrupted`.
        debug: Stop at the first failure; the error names client, round and step.
        secret: As for `LoopGrid`.
    """

    def __init__(
        self,
        workers: Sequence[ClientWorker],
        execution: Execution | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        debug: bool = False,
        secret: Secret | None = None,
    ) -> None:
        super().__init__(workers, should_stop, debug=debug, secret=secret)
        self._execution = execution or Execution()
        self._threads = self._execution.workers or available_cores()
        self._names = [worker.client_id for worker in workers]
        self._places = {name: k for k, name in enumerate(self._names)}
        self._trainer: CohortTrainer | None = None
        self._evaluations = RecentEvaluations()
        self._private: PrivateFleet | None = None
        #: Control variates by parameter, each (K, …); empty before any was asked for.
        self._controls: Arrays = {}
        self._pending = PendingRows()
        self._batched: bool | None = None

    # ----------------------------------------------------------- what our strategy asks for
    def enrolments(
        self, asked: MomentsAsked | None = None
    ) -> Iterator[tuple[int, Enrolment | ClientFailure]]:
        """Yield each node with what its client says of itself; keep its windows for training.

        Args:
            asked: What of its sums leaves a client; None = as they are.
        """
        store = RowStore(self._execution.memory_mb * _MEGABYTE)
        count, points = np.zeros(len(self._workers), np.int64), np.zeros(len(self._workers))
        keep = bool(self._workers) and isinstance(self._workers[0].learner, GradientLearner)
        shapes: set[tuple[int, ...]] = set()

        def enrol(worker: ClientWorker) -> Enrolment | ClientFailure:
            try:
                return worker.enrol(asked, self._secret)
            except Exception as error:
                if self._debug:
                    raise named(error, worker.client_id, 0) from error
                return ClientFailure(worker.client_id, reason_of(error))

        nodes = self.get_node_ids()
        enrolled = in_order(enrol, self._workers, self._threads)
        for k, (node, enrolment) in enumerate(zip(nodes, enrolled, strict=True)):
            self._check_stop()
            if keep and isinstance(enrolment, Enrolment):
                shapes.add((*enrolment.x_shape, enrolment.horizon))
                if len(shapes) == 1:  # windows that differ in shape cannot be trained at all
                    arrays = training_arrays(self._workers[k].train_design)
                    store.append(arrays)
                    count[k], points[k] = len(arrays["x"]), enrolment.points
                    self._workers[k].release("train")
            yield node, enrolment
        if keep and len(shapes) == 1:
            rows = Rows.of(store.finish(), count).to(torch.device(self._execution.device))
            population = StoredPopulation(self._names, rows, points)
            learner = self._workers[0].learner
            assert isinstance(learner, GradientLearner)
            self._trainer = CohortTrainer(learner, population, self._execution, debug=self._debug)

    def train_blocks(
        self,
        state: Arrays,
        client_ids: Sequence[str],
        request: messages.TrainRequest,
        digest: Callable[[UpdateBlock], Digest],
        epochs: Ints | None = None,
        control: Arrays | None = None,
    ) -> Iterator[Digest | ClientFailure]:
        """Train clients; yield what `digest` makes of each block, in the order of the clients.

        `epochs`, shape (M,), replaces those of the request, client by client; `control` is the
        server's control variate, for SCAFFOLD.

        Raises:
            ValueError: SCAFFOLD without `control`, or with one of other names or shapes.
        """
        fleet = self._fleet(state)
        if fleet:
            fleet.tell(request.best_round)
        self._begin_controls(state, request.work)
        if request.work.control == "scaffold":
            check_control(self._controls, control, stacked=True)
        members = self._members(client_ids)
        if not request.work.probe:  # a look leaves nothing behind
            self._pending.begin(request.round, members, self._own(fleet))
        if self._trainer is None or not self._can_batch(self._trainer, state):
            results = self._one_by_one(state, members, request, digest, epochs, control)
        else:
            results = self._trainer.train(
                state,
                members,
                request.work,
                request.seed,
                request.round,
                digest,
                epochs=epochs,
                private=fleet.latest if fleet else None,
                control=control,
                own_controls=self._controls if request.work.control != "none" else None,
                secret=self._secret,
                should_stop=self._should_stop,
            )
        try:
            for result in results:
                yield result
                self._check_stop()
        except Stopped:
            raise Interrupted from None
        except ClientError as error:
            raise named(error.error, error.client_id, request.round) from error.error

    def settle(self, counted: Mapping[str, int]) -> None:
        """Hear of each client the last round that counted; what it kept of another is dropped."""
        if self._pending.is_empty:
            return
        rounds = {self._places[name]: round_ for name, round_ in counted.items()}
        self._pending.settle(rounds, self._own(self._private))

    def evaluate_blocks(
        self,
        state: Arrays,
        split: str,
        best_round: int,
        client_ids: Sequence[str] | None = None,
    ) -> Iterator[tuple[str, dict[str, ErrorSums]] | ClientFailure]:
        """Yield the error sums by meter of those named (all by default), in the order of nodes."""
        asked = frozenset(self._names if client_ids is None else client_ids)
        fleet = self._fleet(state)
        if fleet:
            fleet.tell(best_round)
            # Everybody has a model of its own: one after the other.
            workers = [worker for worker in self._workers if worker.client_id in asked]
            results = in_order(self._scorer(state, split, fleet), workers, self._threads)
        else:
            results = self._scored_together(state, split, asked)
        for result in results:
            yield result
            self._check_stop()

    # ------------------------------------------------------------------- Flower's interface
    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Train those who are asked for the same as one cohort; others one by one."""
        del timeout
        return self._answers(list(messages))

    def _answers(self, asked: Sequence[Message]) -> list[Message]:
        """Answer messages in their order."""
        configs = {
            self._name(one): one.content.config_records.get(messages.CONFIG) for one in asked
        }
        words = {name: messages.counted_of(config) for name, config in configs.items() if config}
        self.settle({name: round_ for name, round_ in words.items() if round_ is not None})
        replies: dict[int, Message] = {}
        cohorts: dict[tuple[int, int, messages.TrainRequest], list[int]] = {}
        for k, message in enumerate(asked):
            kind = message.metadata.message_type
            if kind == messages.EVALUATE and self._private:
                replies[k] = self._evaluated(message, self._private)
                continue
            if kind != messages.TRAIN or self._trainer is None:
                replies[k] = self._work(message)
                continue
            content = message.content
            request = messages.TrainRequest.of(content.config_records[messages.CONFIG])
            same = replace(
                request,
                work=replace(request.work, epochs=0),
                counted_round=request.counted_round and 0,
            )
            # Flower's strategies hand one record to all, so its identity tells who got the same.
            records = (content.array_records.get(r) for r in (messages.ARRAYS, messages.CONTROL))
            sent, beside = (id(record) for record in records)
            cohorts.setdefault((sent, beside, same), []).append(k)
        for (_, _, request), places in cohorts.items():
            answered = self._cohort([asked[k] for k in places], request)
            replies |= dict(zip(places, answered, strict=True))
        return [replies[k] for k in range(len(asked))]

    def _cohort(
        self, asked: Sequence[Message], request: messages.TrainRequest
    ) -> Iterator[Message]:
        """Yield the answers of clients who were asked for the same, but for the epochs."""
        records = asked[0].content.array_records
        state = messages.unpack(records[messages.ARRAYS])
        beside = records.get(messages.CONTROL)
        control = None if beside is None else messages.unpack(beside)
        epochs = [
            messages.TrainRequest.of(one.content.config_records[messages.CONFIG]).work.epochs
            for one in asked
        ]
        by_name = {self._name(one): one for one in asked}

        def updates(block: UpdateBlock) -> list[Update]:
            return [block.update(k) for k in range(len(block))]

        trained = self.train_blocks(
            state, list(by_name), request, updates, np.array(epochs), control
        )
        for result in trained:
            if isinstance(result, ClientFailure):
                reason = f"client `{result.client_id}`: {result.reason}"
                yield flower_compat.error_reply(reason, by_name[result.client_id])
                continue
            for update in result:
                content = reply_content(update, request, None if request.delta else state)
                yield Message(content, reply_to=by_name[update.client_id])
        if request.counted_round is None:  # nobody will say whether it counted
            self._pending.forget(self._members(list(by_name)))

    def _evaluated(self, message: Message, fleet: PrivateFleet) -> Message:
        """Answer a request to evaluate with the client's own private parameters."""
        request = message.content.config_records[messages.CONFIG]
        state = messages.unpack(message.content.array_records[messages.ARRAYS])
        fleet.tell(int(request.get("best-round", 0)))
        worker = self._workers[self._places[self._name(message)]]
        result = self._scorer(state, str(request.get("split", "validation")), fleet)(worker)
        if isinstance(result, ClientFailure):
            reason = f"client `{result.client_id}`: {result.reason}"
            return flower_compat.error_reply(reason, message)
        return Message(messages.evaluation_reply(result[1]), reply_to=message)

    # ---------------------------------------------------------------------- private parts
    def tell(self, state: Arrays, best_round: int) -> None:
        """Let the clients know which round was the best."""
        if fleet := self._fleet(state):
            fleet.tell(best_round)

    def private_arrays(self, state: Arrays) -> Arrays:
        """Return what the clients keep to themselves, stacked, to be kept with a checkpoint.

        That is their private parameters and their control variates; empty where they have neither.
        """
        fleet = self._fleet(state)
        own = {CONTROL + name: values for name, values in self._controls.items()}
        return own | fleet.to_arrays() if fleet else own

    def restore_private(self, state: Arrays, arrays: Arrays) -> None:
        """Take what `private_arrays` gave."""
        if not arrays:
            return
        self._pending = PendingRows()
        self._controls = controls_of(arrays)
        if fleet := self._fleet(state):
            fleet.restore(arrays)

    def best_private(self, place: int) -> Arrays:
        """Return the private parameters of a client of the best round; empty where it has none."""
        return self._private.state_of(place).best if self._private else {}

    def _fleet(self, state: Arrays) -> PrivateFleet | None:
        if self._private is None:
            self._private = self._private_fleet(state)
        return self._private

    def _own(self, fleet: PrivateFleet | None) -> Arrays:
        """Return what a training changes on the clients, each (K, …); the arrays themselves."""
        own = {CONTROL + name: values for name, values in self._controls.items()}
        return own | fleet.latest if fleet else own

    def _members(self, client_ids: Sequence[str]) -> Ints:
        return np.array([self._places[name] for name in client_ids], dtype=np.int64)

    def _begin_controls(self, state: Arrays, work: LocalWork) -> None:
        """Make room for the control variates that are asked for the first time."""
        learner = self._workers[0].learner
        if work.control != "none" and not self._controls and isinstance(learner, GradientLearner):
            shared = learner.shared(state)
            self._controls = zero_controls(state, shared, len(self._workers))

    # --------------------------------------------------------------------------- internals
    def _can_batch(self, trainer: CohortTrainer, state: Arrays) -> bool:
        if self._batched is None:
            self._batched = trainer.can_batch(state)
        return self._batched

    def _one_by_one(
        self,
        state: Arrays,
        members: Ints,
        request: messages.TrainRequest,
        digest: Callable[[UpdateBlock], Digest],
        epochs: Ints | None,
        control: Arrays | None,
    ) -> Iterator[Digest | ClientFailure]:
        """Run the plain loop's program for each client, in as many threads as there are cores."""
        fleet = self._fleet(state)

        def train(place: int) -> Digest | ClientFailure:
            worker = self._workers[members[place]]
            work = request.work
            if epochs is not None:
                work = replace(work, epochs=int(epochs[place]))
            private = fleet.state_of(members[place]) if fleet else PrivateState()
            try:
                update, kept = worker.train(
                    state | private.latest,
                    work,
                    request.seed,
                    request.round,
                    control=control,
                    own_control={n: values[members[place]] for n, values in self._controls.items()},
                    secret=self._secret,
                    debug=self._debug,
                )
                result = digest(UpdateBlock.stack([update], Layout.of(update.arrays)))
            except Exception as error:
                if self._debug:
                    raise named(error, worker.client_id, request.round) from error
                return ClientFailure(worker.client_id, reason_of(error))
            if fleet and kept.private:
                fleet.set(members[place], replace(private, latest=kept.private))
            for name, value in kept.control.items():
                self._controls[name][members[place]] = value
            return result

        return in_order(train, range(len(members)), self._threads)

    def _scorer(
        self, state: Arrays, split: str, fleet: PrivateFleet | None
    ) -> Callable[[ClientWorker], tuple[str, dict[str, ErrorSums]] | ClientFailure]:
        def score(worker: ClientWorker) -> tuple[str, dict[str, ErrorSums]] | ClientFailure:
            private = fleet.state_of(self._places[worker.client_id]) if fleet else PrivateState()
            own = state | (private.best if split == "test" else private.latest)
            try:
                return worker.client_id, worker.evaluate(own, split)
            except Exception as error:
                if self._debug:
                    raise named(error, worker.client_id, 0) from error
                return ClientFailure(worker.client_id, reason_of(error))

        return score

    def _scored_together(
        self, state: Arrays, split: str, asked: frozenset[str]
    ) -> Iterator[tuple[str, dict[str, ErrorSums]] | ClientFailure]:
        workers = [worker for worker in self._workers if worker.client_id in asked]
        done = 0
        try:
            if (split, asked) not in self._evaluations:
                self._evaluations[split, asked] = Evaluation(workers, split, self._threads)
            for result in self._evaluations[split, asked].score(state):
                yield result
                done += 1
        except Exception:
            # One client's fault is nobody else's: do the rest one by one.
            yield from in_order(self._scorer(state, split, None), workers[done:], self._threads)

    def _name(self, message: Message) -> str:
        context = self._contexts[message.metadata.dst_node_id]
        return self._names[int(context.node_config["partition-id"])]

"""`LoopGrid`: a Flower `Grid` whose nodes live in this process and work one after the other.

This is the plain specification of an engine: a message goes to the node's `ClientApp`, its reply
comes back. An exception in a client becomes an error reply, as on Flower's own engines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl_inmetro.errors import Fault, FederationError, FlInmetroError
from fl_inmetro.federation import flower_compat, messages
from fl_inmetro.federation.client_program import client_app, load_private, save_private
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.private import (
    PrivateFleet,
    PrivateState,
    controls_of,
    stacked_controls,
)
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import StepError
from fl_inmetro.privacy.secret import Secret

#: Node ids start here; Flower keeps small ones for itself.
_FIRST_NODE = 1000


class Interrupted(Exception):  # noqa: N818 - a request of the user, not an error
    """The user asked the run to stop; the round in progress is discarded."""


class LoopGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Nodes in this process.

    Args:
        workers: One per node, in the order of node ids.
        should_stop: Looked at before each message; True raises `Interrupted`.
        debug: Stop at the first failure; the error names client, round and step.
        secret: What clients draw noise from, by client and round: of one training alone, or its
            noise would hide two different sums. None = a fresh one, so that the same training on
            another grid has other noise.
    """

    #: Asked the same again, the clients answer the same.
    repeats_itself = True

    def __init__(
        self,
        workers: Sequence[ClientWorker],
        should_stop: Callable[[], bool] = lambda: False,
        *,
        debug: bool = False,
        secret: Secret | None = None,
    ) -> None:
        self._secret = secret or Secret.fresh()
        self._run = flower_compat.enter_run()
        self._workers = list(workers)
        self._should_stop = should_stop
        self._debug = debug
        self._app: ClientApp = client_app(
            lambda context: self._workers[int(context.node_config["partition-id"])],
            secret=self._secret,
            batched=False,
            debug=debug,
        )
        self._contexts = {
            _FIRST_NODE + k: Context(
                self._run.run_id,
                _FIRST_NODE + k,
                {"partition-id": k, "num-partitions": len(workers)},
                RecordDict(),
                {},
            )
            for k in range(len(workers))
        }
        self._message_ids = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run; Flower's interface."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run of this grid."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower's interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @property
    def client_ids(self) -> list[str]:
        """The clients' names, in the order of the nodes."""
        return [worker.client_id for worker in self._workers]

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes, ascending."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Work on the messages at once and keep the replies; returns message ids."""
        ids = []
        for reply in self.send_and_receive(messages):
            ids.append(f"loop-{next(self._message_ids)}")
            self._replies[ids[-1]] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to earlier messages; each is handed out once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies; nobody is waited for, so `timeout` has no part."""
        del timeout
        return [self._work(message) for message in messages]

    def losses(self, state: Arrays, client_ids: Sequence[str]) -> dict[str, float]:
        """Return clients' mean training loss of a gradient model; nothing changes.

        Only the number of the best of several models is to leave a client (IFCA).
        """
        found = {}
        for worker in self._workers:
            self._check_stop()
            if worker.client_id in client_ids:
                found[worker.client_id] = worker.mean_loss(state)
        return found

    def tell(self, state: Arrays, best_round: int) -> None:
        """Let the clients know which round was the best."""
        if self._private_fleet(state):
            for context in self._contexts.values():
                save_private(context.state, load_private(context.state).told(best_round))

    def private_arrays(self, state: Arrays) -> Arrays:
        """Return what the clients keep to themselves, stacked, to be kept with a checkpoint.

        That is their private parameters and their control variates; empty where they have neither.
        """
        states = [load_private(context.state).current for context in self._contexts.values()]
        arrays = stacked_controls(states)
        if fleet := self._private_fleet(state):
            for k, private in enumerate(states):
                fleet.set(k, private)
            arrays |= fleet.to_arrays()
        return arrays

    def restore_private(self, state: Arrays, arrays: Arrays) -> None:
        """Take what `private_arrays` gave."""
        if not arrays:
            return
        fleet, controls = self._private_fleet(state), controls_of(arrays)
        if fleet:
            fleet.restore(arrays)
        for k, context in enumerate(self._contexts.values()):
            private = fleet.state_of(k) if fleet else PrivateState()
            own = {name: values[k] for name, values in controls.items()}
            save_private(context.state, replace(private, control=own))

    def best_private(self, place: int) -> Arrays:
        """Return the private parameters of a client of the best round; empty where it has none."""
        return load_private(self._contexts[_FIRST_NODE + place].state).best

    def _private_fleet(self, state: Arrays) -> PrivateFleet | None:
        names = self._workers[0].learner.private(state)
        if not names:
            return None
        return PrivateFleet({name: state[name] for name in sorted(names)}, len(self._workers))

    def _check_stop(self) -> None:
        if self._should_stop():
            raise Interrupted

    def _work(self, message: Message) -> Message:
        self._check_stop()
        node_id = message.metadata.dst_node_id
        context = self._contexts[node_id]
        worker = self._workers[int(context.node_config["partition-id"])]
        try:
            return self._app(message, context)
        except Interrupted:
            raise
        except Exception as error:
            if self._debug:
                config = message.content.config_records.get(messages.CONFIG, {})
                raise named(error, worker.client_id, int(config.get("server-round", 0))) from error
            reason = f"client `{worker.client_id}`: {reason_of(error)}"
            return flower_compat.error_reply(reason, message)


def reason_of(error: Exception) -> str:
    """Return a client's exception in one line."""
    if isinstance(error, FlInmetroError):
        return error.brief()
    return str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"


def named(error: Exception, client_id: str, round_: int) -> FederationError:
    """Return the error of debug mode: which client, round and step failed, and how."""
    where = f"client `{client_id}`, round {round_}"
    if isinstance(error, StepError):
        where = f"{where}, step {error.step}"
    what = f"a client's work failed: {reason_of(error)}"
    return FederationError(Fault("FL312", what, where, "without --debug the run goes on"))

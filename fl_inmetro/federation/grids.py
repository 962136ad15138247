"""`LoopGrid`: a Flower `Grid` whose nodes live in this process and work one after the other.

This is the plain specification of an engine: a message goes to the node's `ClientApp`, its reply
comes back. An exception in a client becomes an error reply, as on Flower's own engines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl_inmetro.errors import FlInmetroError
from fl_inmetro.federation import flower_compat
from fl_inmetro.federation.client_program import client_app
from fl_inmetro.learning.client import ClientWorker

#: Node ids start here; Flower keeps small ones for itself.
_FIRST_NODE = 1000


class Interrupted(Exception):  # noqa: N818 - a request of the user, not an error
    """The user asked the run to stop; the round in progress is discarded."""


class LoopGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Nodes in this process.

    Args:
        workers: One per node, in the order of node ids.
        should_stop: Looked at before each message; True raises `Interrupted`.
        debug: Let a client's exception through with the client's name, in place of an error reply.
    """

    def __init__(
        self,
        workers: Sequence[ClientWorker],
        should_stop: Callable[[], bool] = lambda: False,
        *,
        debug: bool = False,
    ) -> None:
        self._run = flower_compat.enter_run()
        self._workers = list(workers)
        self._should_stop = should_stop
        self._debug = debug
        self._app: ClientApp = client_app(
            lambda context: self._workers[int(context.node_config["partition-id"])]
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

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes, ascending."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Work on each message at once and keep the replies; returns message ids."""
        ids = []
        for message in messages:
            message_id = f"loop-{next(self._message_ids)}"
            self._replies[message_id] = self._work(message)
            ids.append(message_id)
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

    def _work(self, message: Message) -> Message:
        if self._should_stop():
            raise Interrupted
        node_id = message.metadata.dst_node_id
        context = self._contexts[node_id]
        try:
            return self._app(message, context)
        except Interrupted:
            raise
        except Exception as error:
            worker = self._workers[int(context.node_config["partition-id"])]
            if self._debug:
                error.add_note(f"in client `{worker.client_id}`, {message.metadata.message_type}")
                raise
            if isinstance(error, FlInmetroError):
                reason = error.brief()
            else:
                reason = f"{type(error).__name__}: {error}"
            return flower_compat.error_reply(f"client `{worker.client_id}`: {reason}", message)

"""A grid of nodes whose own noise leaves them: what they are asked for is booked before.

Where the noise is made here, a release leaves when the next model does, and is noted before that. A
node's noisy sum has left when its reply arrives, whether or not this process lives to read it. So
it is booked before the request is sent; and as a node that is asked again draws noise anew, a round
that is repeated after a restart is booked, and paid, again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_inmetro.federation.requests import CONFIG, ENROL, TRAIN

#: Books what the replies of a round will spend.
Book = Callable[[int], None]


class BookedGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Another grid; what nodes are asked to release is booked first.

    Args:
        inner: The grid.
        training: Books the updates, or the sums, of a round, from 1.
        enrolment: Books the sums of enrolment; None = no sum is asked for.
    """

    def __init__(self, inner: Any, training: Book | None, enrolment: Book | None = None) -> None:
        self._inner = inner
        self._training, self._enrolment = training, enrolment

    def set_run(self, run: Any) -> None:
        """As the inner grid."""
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        """As the inner grid."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As the inner grid."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """As the inner grid."""
        return self._inner.get_node_ids()  # type: ignore[no-any-return]

    def get_nodes(self, *given: Any, **named: Any) -> Any:
        """As the inner grid."""
        return self._inner.get_nodes(*given, **named)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Book what is asked for, and send.

        Raises:
            BudgetError: FL422, a budget would be exceeded; nothing is sent.
        """
        asked = list(messages)
        self._book(asked)
        return self._inner.push_messages(asked)  # type: ignore[no-any-return]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the inner grid."""
        return self._inner.pull_messages(message_ids)  # type: ignore[no-any-return]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Book what is asked for, send, and wait for the replies.

        Raises:
            BudgetError: FL422, a budget would be exceeded; nothing is sent.
        """
        asked = list(messages)
        self._book(asked)
        return self._inner.send_and_receive(asked, timeout=timeout)  # type: ignore[no-any-return]

    def _book(self, asked: Iterable[Message]) -> None:
        kinds = {one.metadata.message_type: one for one in asked}
        if self._enrolment and ENROL in kinds:
            self._enrolment(0)
        if self._training and TRAIN in kinds:
            self._training(int(kinds[TRAIN].content.config_records[CONFIG]["server-round"]))

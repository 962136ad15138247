"""A grid of nodes under `[privacy]`: they are told the promise, and their noise is booked before.

Where the noise is made here, a release leaves when the next model does, and is noted before that. A
node's noisy sum has left when its reply arrives, whether or not this process lives to read it. So
it is booked before the request is sent; and as a node that is asked again draws noise anew, a round
that is repeated after a restart is booked, and paid, again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_inmetro.federation.requests import CONFIG, with_claim
from fl_inmetro.privacy.claim import Claim

#: Books what the replies of a round will spend.
Book = Callable[[int], None]


class BookedGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Another grid; what nodes are asked to release is booked first.

    Args:
        inner: The grid.
        books: By type of message: books what all replies to it will spend, by round.
        claims: By type of message: what the nodes are told of it, for their own ledgers.
    """

    def __init__(
        self, inner: Any, books: Mapping[str, Book], claims: Mapping[str, Claim] | None = None
    ) -> None:
        self._inner = inner
        self._books, self._claims = books, claims or {}

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
        return self._inner.push_messages(self._booked(messages))  # type: ignore[no-any-return]

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
        asked = self._booked(messages)
        return self._inner.send_and_receive(asked, timeout=timeout)  # type: ignore[no-any-return]

    def _booked(self, messages: Iterable[Message]) -> list[Message]:
        """Book each round once that is asked for, and say with each request what it is part of."""
        asked = list(messages)
        kinds = {one.metadata.message_type: one for one in asked}
        for kind in kinds.keys() & self._books.keys():
            # What is asked at enrolment stands before the first round.
            about = kinds[kind].content.config_records.get(CONFIG, {})
            self._books[kind](int(about.get("server-round", 0)))
        for one in asked:
            if one.metadata.message_type in self._claims:
                with_claim(one.content, self._claims[one.metadata.message_type])
        return asked

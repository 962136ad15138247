"""Requests and replies on a grid of messages by the clock: nobody waits for the slowest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.closing import Closing

#: Looks for replies: so long after the first, so much rarer each time that nothing came, and no
#: rarer than Flower's own grids look.
_FIRST_LOOK_S, _GROWTH, _RAREST_LOOK_S = 0.02, 1.5, 3.0

#: Requests without an answer are looked for again in so many later exchanges.
_REMEMBERED = 16


@dataclass(frozen=True)
class Clock:
    """The time, and how to let it pass; tests have their own.

    Attributes:
        now_s: Seconds since any fixed moment.
        sleep: Lets so many seconds pass.
    """

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Answered:
    """What an exchange has come to.

    Attributes:
        late: Replies to earlier exchanges, which had closed before they came.
        closed_s: When this one closed, seconds from its start.
        timed_out: Whether it was given up.
    """

    late: Sequence[Message]
    closed_s: float
    timed_out: bool

    def silent(self, name: str) -> Fault:
        """Return why the reply of a client is not there."""
        if self.timed_out:
            return unanswered(name)
        closed = f"the round closed after {self.closed_s:.3g} s"
        return Fault("FL310", f"{closed}, before the reply of `{name}` came")


def unanswered(name: str) -> Fault:
    """Return the fault of a client of whom nothing was heard until the timeout."""
    return Fault("FL303", f"`{name}` did not answer in time")


class Awaited:
    """Requests to train that nobody has answered yet: a late answer is no replay.

    A replay answers what had been answered before.
    """

    def __init__(self) -> None:
        self._rounds: dict[str, list[int]] = {}

    def add(self, name: str, round_: int) -> None:
        """Note that a client has not answered in a round."""
        self._rounds[name] = [*self._rounds.get(name, ()), round_][-_REMEMBERED:]

    def answered(self, name: str, round_: int) -> bool:
        """Tell whether a client's answer for a round was missing; from now on it is not."""
        waiting = self._rounds.get(name, [])
        if round_ not in waiting:
            return False
        waiting.remove(round_)
        return True


class Exchange:
    """Sends requests and takes replies as they come, until a `Closing` says that it is over.

    What comes later is handed out by the next exchange, so that it is known as late.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        #: Requests of earlier exchanges that nobody has answered; keys, in the order of asking.
        self._left: list[dict[str, None]] = []

    def ask(
        self,
        grid: Grid,
        requests: Sequence[Message],
        closing: Closing,
        take: Callable[[Message], bool],
    ) -> Answered:
        """Send requests and hand every reply to `take`, until the exchange closes.

        Args:
            grid: The nodes.
            requests: One for each node that is asked.
            closing: When it is over; it also is when all nodes have answered.
            take: Called with each reply once; tells whether it counts.
        """
        clock = self._clock
        late = self._late(grid)
        began_s = clock.now_s()
        left = dict.fromkeys(grid.push_messages(requests))
        nodes = {message.metadata.dst_node_id for message in requests}
        arrivals_s: list[float] = []
        wait_s = _FIRST_LOOK_S
        while True:
            # The clock first: what came until this moment is then there to be pulled.
            now_s = clock.now_s() - began_s
            came = False
            for reply in grid.pull_messages(list(left)) if left else ():
                came = True
                left.pop(reply.metadata.reply_to_message_id, None)
                nodes.discard(reply.metadata.src_node_id)
                if take(reply):
                    arrivals_s.append(now_s)
            closes_s = closing.moment_s(arrivals_s)
            if not left or not nodes or now_s >= closes_s:
                break
            wait_s = _FIRST_LOOK_S if came else min(wait_s * _GROWTH, _RAREST_LOOK_S)
            clock.sleep(min(wait_s, closes_s - now_s))
        late += self._late(grid)
        if nodes:
            self._left = [*self._left, left][-_REMEMBERED:]
        return Answered(late, now_s, bool(nodes) and now_s >= closing.timeout_s)

    def _late(self, grid: Grid) -> list[Message]:
        """Take replies to earlier requests, and look no more for those that have come."""
        asked = [one for ids in self._left for one in ids]
        replies = list(grid.pull_messages(asked)) if asked else []
        come = {reply.metadata.reply_to_message_id for reply in replies}
        left = [{one: None for one in ids if one not in come} for ids in self._left]
        self._left = [ids for ids in left if ids]
        return replies


def wait_for_nodes(
    grid: Grid,
    wanted: int | None,
    least: int,
    timeout_s: float,
    clock: Clock | None = None,
) -> int:
    """Wait until the nodes have connected, and return how many there are.

    Flower may start the server before its nodes.

    Args:
        grid: The nodes.
        wanted: All that are expected; None = not known: until no more have come for a second.
        least: With fewer nothing can begin.
        timeout_s: How long to wait, seconds.
        clock: The time.

    Raises:
        FederationError: FL304, fewer than `least` when the time is over.
    """
    clock = clock or Clock()
    began_s = clock.now_s()
    count, since_s = 0, began_s
    while True:
        now_s = clock.now_s()
        found = len(list(grid.get_node_ids()))
        if found != count:
            count, since_s = found, now_s
        if wanted is not None and count >= max(wanted, least):
            return count
        if wanted is None and count >= least and now_s - since_s >= _SETTLED_S:
            return count
        if now_s - began_s >= timeout_s:
            break
        clock.sleep(min(_NODES_LOOK_S, began_s + timeout_s - now_s))
    if count >= least:
        return count
    raise FederationError(
        Fault(
            "FL304",
            f"{count} nodes have connected within {timeout_s:g} s, {least} are needed",
            "[federation] min-clients, start-timeout-s",
            "start the nodes, or raise `start-timeout-s`",
        )
    )


#: Between two looks for nodes, and without any new one for so long all are there.
_NODES_LOOK_S, _SETTLED_S = 0.1, 1.0

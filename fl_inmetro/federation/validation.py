"""Error sums of the clients: asked for, read, reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.closing import Closing
from fl_inmetro.federation.engines import InProcessEngine
from fl_inmetro.federation.exchange import Exchange
from fl_inmetro.federation.inbox import REFUSED, failed
from fl_inmetro.federation.roster import Roster
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays
from fl_inmetro.metrics import SUM_NAMES, ErrorSums
from fl_inmetro.privacy.sums import PrivateMetric

#: Name of the figure of all clients together, in the place of a client's.
ALL = "federation"


@dataclass(frozen=True)
class Hearing:
    """What is heard of the clients' errors.

    Attributes:
        metric: Under `[privacy]`, the one figure of a round that is released; None = no such.
        remembered: Whether the server may remember who had which error.
        asked: Whether clients are asked for exact sums at all: nodes that protect their windows
            from the server tell it none.
    """

    metric: PrivateMetric | None = None
    remembered: bool = True
    asked: bool = True


EVERYTHING = Hearing()


class Validation:
    """Evaluates models on the clients' windows.

    Args:
        roster: The clients; all of them are asked.
        group: Number of the federation (for events).
        emit: Where events go.
        exchange: How rounds that close by the clock ask.
        hearing: What is heard of them.
    """

    def __init__(
        self,
        roster: Roster,
        group: int,
        emit: events.Emit,
        exchange: Exchange | None = None,
        hearing: Hearing = EVERYTHING,
    ) -> None:
        self._exchange = exchange or Exchange()
        self._hearing, self._metric = hearing, hearing.metric
        self._nodes = roster.nodes
        self._names = {node: name for name, node in roster.nodes.items()}
        self._group = group
        self._emit = emit

    def ask(
        self,
        grid: Grid,
        number: int,
        state: Arrays,
        split: str,
        best_round: int,
        timeout: float,
        *,
        counted: Mapping[str, int] | None = None,
        closing: Closing | None = None,
    ) -> dict[str, ErrorSums]:
        """Return the error sums of `validation` or `test` by meter, sorted by name.

        Args:
            grid: The nodes.
            number: The round.
            state: The model.
            split: `validation` or `test`.
            best_round: The best round so far.
            timeout: How long to wait, seconds.
            counted: Client to the last round whose merge its reply was part of.
            closing: When to go on with the sums that have come; None = at the timeout.

        Nobody is asked where nothing is heard; then there are none.
        """
        if not self._hearing.asked:
            return {}
        if isinstance(grid, InProcessEngine):
            evaluated = grid.evaluate_blocks(state, split, best_round, list(self._nodes))
            return self._collected(number, evaluated)
        requests = self.requests(number, messages.pack(state), split, best_round, counted)
        if closing is None:
            return self.read(number, grid.send_and_receive(requests, timeout=timeout))
        replies: list[Message] = []

        def take(reply: Message) -> bool:
            replies.append(reply)
            return bool(reply.has_content())

        self._exchange.ask(grid, requests, closing, take)
        return self.read(number, replies)

    def requests(
        self,
        number: int,
        arrays: ArrayRecord,
        split: str,
        best_round: int,
        counted: Mapping[str, int] | None = None,
    ) -> list[Message]:
        """Return the messages that ask every client."""
        told = counted or {}
        return [
            Message(
                messages.evaluate_request(arrays, number, split, best_round, told.get(name)),
                node,
                messages.EVALUATE,
                group_id=str(number),
            )
            for name, node in self._nodes.items()
        ]

    def read(self, number: int, replies: Iterable[Message]) -> dict[str, ErrorSums]:
        """Return what messages say, without those that cannot be used."""
        return self._collected(number, self._readable(number, replies))

    def told(self, sums: Mapping[str, ErrorSums]) -> dict[str, float]:
        """Return what the server may remember of each client."""
        if not self._hearing.remembered:
            return {}
        return {name: meter.nmae for name, meter in sums.items()}

    def report(self, number: int, sums: Mapping[str, ErrorSums]) -> dict[str, float]:
        """Report each meter; return the nMAE of those that have one.

        With a private metric nobody is reported, and the one figure is that of `ALL`.

        Raises:
            PrivacyError: What the metric's `release` says.
        """
        if self._metric:
            errors = {name: meter.nmae for name, meter in sums.items() if name in self._nodes}
            return {ALL: self._metric.mean(errors, len(self._nodes), number)}
        for name, meter in sums.items():
            self._emit(
                events.ClientEvaluated(
                    self._group, number, name, meter.n, meter.mae_kwh, meter.nmae
                )
            )
        return {name: s.nmae for name, s in sums.items() if np.isfinite(s.nmae)}

    def _collected(
        self,
        number: int,
        evaluated: Iterable[tuple[str, dict[str, ErrorSums]] | ClientFailure],
    ) -> dict[str, ErrorSums]:
        sums: dict[str, ErrorSums] = {}
        for one in evaluated:
            if isinstance(one, ClientFailure):
                self._reject(number, one.client_id, failed(one))
            else:
                sums |= one[1]
        return dict(sorted(sums.items()))

    def _readable(
        self, number: int, replies: Iterable[Message]
    ) -> Iterator[tuple[str, dict[str, ErrorSums]]]:
        answered: set[str] = set()
        for reply in replies:
            name = self._names.get(reply.metadata.src_node_id, "unknown")
            try:
                reported = messages.read_evaluation(reply)
                # The one client of centralised training speaks for all meters.
                if name in answered or name == "unknown":
                    raise FederationError(Fault(REFUSED, f"`{name}` was not asked, or not twice"))
                if len(self._names) > 1 and set(reported) - {name}:
                    others = messages.shown(", ".join(f"`{other}`" for other in reported))
                    raise FederationError(Fault(REFUSED, f"`{name}` answered for {others}"))
            except FederationError as error:
                self._reject(number, name, error.faults[0])
                continue
            answered.add(name)
            yield name, reported

    def _reject(self, number: int, name: str, fault: Fault) -> None:
        reason = fault.reason()
        self._emit(events.ClientRejected(self._group, number, name, fault.code, reason))


def sums_bytes(sums: Mapping[str, ErrorSums]) -> int:
    """Return the bytes of error sums as they travel."""
    return 8 * len(SUM_NAMES) * len(sums)

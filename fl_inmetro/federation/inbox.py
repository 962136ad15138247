"""The replies of one round: read, judged alone and beside each other, reported, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Message

from fl_inmetro import events
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages, sums_gate
from fl_inmetro.federation.engines import Digested
from fl_inmetro.federation.exchange import Awaited, unanswered
from fl_inmetro.federation.gate import HELD_BYTES, Cohort, judge, marks_of, reply_marks
from fl_inmetro.federation.merge import Held
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.stack import Spool
from fl_inmetro.federation.standing import Standing
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, Layout, Update, UpdateBlock
from fl_inmetro.learning.work import LocalWork

#: Replies that come as messages are stacked so many at a time.
_BLOCK = 64

_PLAIN = LocalWork()

#: What is made of a block of updates.
Digest = Callable[[UpdateBlock], Digested]

#: The fault of a reply that was refused; it counts against the client.
REFUSED = "FL301"

#: That of one which came when its round had closed; it does not.
LATE = "FL310"


@dataclass(frozen=True)
class Received:
    """The good replies of a round.

    Attributes:
        digests: In the order of the clients; each has at least one.
        merged: What the merge needs of them, sums already added up.
    """

    digests: Sequence[Digested]
    merged: Sequence[Any]

    @property
    def good(self) -> int:
        """Number of good replies."""
        return sum(len(digest.client_ids) for digest in self.digests)

    @property
    def loss(self) -> float:
        """Mean training loss, weighted by n_k; nan without any reply."""
        weight = sum(float(digest.weights.sum()) for digest in self.digests)
        loss = sum(float(digest.weights @ digest.losses) for digest in self.digests)
        return loss / weight if weight else float("nan")


class Inbox:
    """Where the replies of one round arrive.

    Args:
        number: The round.
        state: The model that was sent.
        down: Bytes that each client was sent.
        roster: The clients.
        merge: How updates are merged.
        gate: `[gate]`.
        standing: The clients' records; refusals are entered.
        group: Number of the federation (for events).
        emit: Where events go.
        deltas: Whether replies are deltas (else sums).
        work: What the clients were asked for.
        may_repeat: Clients whose honest updates may be the same in two rounds.
        watching: Wraps the digest, to look at the updates of the round too.
    """

    def __init__(
        self,
        number: int,
        state: Arrays,
        down: int,
        roster: Roster,
        merge: Merge,
        gate: Gate,
        standing: Standing,
        group: int,
        emit: events.Emit,
        *,
        deltas: bool,
        work: LocalWork = _PLAIN,
        may_repeat: frozenset[str] = frozenset(),
        watching: Callable[[Digest], Digest] = lambda digest: digest,
    ) -> None:
        #: Judges a block and takes from it what the merge needs; runs where the block was made.
        self.digest: Digest = watching(self._digest)
        #: The round.
        self.number = number
        self._like = merge.reply_like(state)
        self._down = down
        self._up = Layout.of(self._like).n_bytes
        self._roster = roster
        #: How updates are merged.
        self.merge = merge
        self._gate = gate
        self._standing = standing
        self._group = group
        self._emit = emit
        self._deltas = deltas
        self._start_loss = work.start_loss
        self._losses = work.tells_loss
        self._may_repeat = may_repeat
        self._control_median = 0.0
        #: Bytes of all replies of the right form, refused ones too.
        self.bytes_up = 0
        self._spool = Spool(HELD_BYTES)
        #: Clients without a good reply in this round, and those whose replies were merged.
        self.failed: set[str] = set()
        self.accepted: set[str] = set()
        #: Client to the round whose request it answers, where that is not this one.
        self.answers: Mapping[str, int] = {}

    def _digest(self, block: UpdateBlock) -> Digested:
        judged = judge(
            block,
            self._roster.points,
            enabled=self._gate.enabled,
            start_loss=self._start_loss,
            losses=self._losses,
        )
        good = judged.block
        merged = self.merge.digest(good) if len(good) else None
        if isinstance(merged, Held):
            merged = merged.kept_by(self._spool)
        return Digested(
            good.client_ids,
            good.weights,
            good.losses,
            judged.norms,
            good.seconds,
            marks_of(good.matrix),
            judged.refused,
            merged,
            good,
        )

    def read(
        self,
        replies: Iterable[Message],
        request: messages.TrainRequest,
        names: Mapping[int, str],
        awaited: Awaited | None = None,
    ) -> Iterator[Digested]:
        """Read messages and stack them in the order of the clients' names.

        Args:
            replies: What came back.
            request: What was asked.
            names: Node id to client, of those who were asked.
            awaited: Requests of earlier rounds without an answer.
        """
        reading = self.reading(request, names, awaited)
        for reply in replies:
            reading.take(reply)
        yield from reading.close(unanswered)

    def reading(
        self,
        request: messages.TrainRequest,
        names: Mapping[int, str],
        awaited: Awaited | None = None,
    ) -> Reading:
        """Return what reads messages as they come; arguments as for `read`."""
        everybody = {node: name for name, node in self._roster.nodes.items()}
        return Reading(self, self._like, everybody, request, names, awaited or Awaited())

    def is_sound(self, update: Update) -> bool:
        """Tell whether an update would pass the gate as far as it can be judged alone."""
        judged = judge(
            UpdateBlock.stack([update], Layout.of(self._like)),
            self._roster.points,
            enabled=self._gate.enabled,
            start_loss=self._start_loss,
            losses=self._losses,
        )
        return not judged.refused

    def late(self, name: str, round_: int) -> None:
        """Report a reply that came when its round had closed; nothing is held against the client.

        It is not among the failed: its reply to this round may still come.
        """
        reason = f"its reply to round {round_} came after that round had closed"
        if round_ == self.number:
            reason = f"its reply to an earlier attempt at round {round_} came late"
        self._emit(events.ClientRejected(self._group, self.number, name, LATE, reason))

    def receive(self, digests: Iterable[Digested | ClientFailure]) -> Received:
        """Take all replies of the round, judge the cohort, and report who was refused."""
        cohort = Cohort(
            self._gate,
            self._standing,
            self.merge.digest,
            deltas=self._deltas,
            start_loss=self._start_loss,
            may_repeat=self._may_repeat,
            sums=partial(sums_gate.refused, points=self._roster.points, gate=self._gate),
        )
        for digest in digests:
            if isinstance(digest, ClientFailure):
                self.reject(digest.client_id, failed(digest))
            else:
                cohort.add(digest)
        good = []
        for digest in cohort.close():
            self.bytes_up += self._up * (len(digest.client_ids) + len(digest.refused))
            for name, fault in digest.refused.items():
                self.reject(name, fault)
            if digest.client_ids:
                good.append(digest)
        self._control_median = cohort.control_median
        return Received(good, cohort.merged)

    def accept(self, received: Received) -> None:
        """Report and remember the replies that are merged."""
        if self._control_median:
            self._standing.controls_sent(self._control_median)
        for digest in received.digests:
            self._standing.sent(digest.client_ids, reply_marks(digest, self._may_repeat))
            self.accepted |= set(digest.client_ids)
            self._standing.count({n: self.answers.get(n, self.number) for n in digest.client_ids})
            columns = (digest.weights, digest.losses, digest.norms[:, 0], digest.seconds)
            rows = zip(digest.client_ids, *(c.tolist() for c in columns), strict=True)
            for name, weight, loss, norm, seconds in rows:
                self._emit(
                    events.ClientReplied(
                        self._group,
                        self.number,
                        name,
                        weight,
                        loss,
                        norm,
                        self._down,
                        self._up,
                        seconds,
                    )
                )

    def reject(self, name: str, fault: Fault) -> None:
        """Report a client without a good reply; refusals count against it."""
        self.failed.add(name)
        self._emit(
            events.ClientRejected(self._group, self.number, name, fault.code, fault.reason())
        )
        if fault.code != REFUSED:
            return
        until = self._standing.strike(name, self.number)
        if until is not None:
            self._emit(events.ClientSuspended(self._group, self.number, name, until))


class Reading:
    """Replies of one round of messages, read one by one as they come.

    Args:
        inbox: Where refusals are reported.
        like: Arrays whose names, shapes and dtypes a reply must have.
        everybody: Node id to client, of the whole federation.
        request: What was asked.
        names: Node id to client, of those who were asked.
        awaited: Requests of earlier rounds without an answer.
    """

    def __init__(
        self,
        inbox: Inbox,
        like: Arrays,
        everybody: Mapping[int, str],
        request: messages.TrainRequest,
        names: Mapping[int, str],
        awaited: Awaited,
    ) -> None:
        self._inbox = inbox
        self._like = like
        self._everybody = everybody
        self._request = request
        self._names = names
        self._awaited = awaited
        self._updates: dict[str, Update] = {}
        self._silent = set(names.values())

    def take(self, reply: Message) -> Update | None:
        """Read a reply; return its update if it has the right form."""
        node = reply.metadata.src_node_id
        name = self._everybody.get(node, "unknown")
        try:
            if node not in self._names:
                raise FederationError(messages.malformed(node, "it was not asked"))
            update = messages.read_update(reply, name, self._like, self._request)
            if name in self._updates:
                raise FederationError(Fault(REFUSED, f"`{name}` answered twice"))
        except FederationError as error:
            if not self._is_late(reply, name):
                self._silent.discard(name)
                self._inbox.reject(name, error.faults[0])
            return None
        self._silent.discard(name)
        self._updates[name] = update
        return update

    def counts(self, reply: Message) -> bool:
        """Read a reply; tell whether it will count, as far as it can be judged alone."""
        update = self.take(reply)
        return update is not None and self._inbox.is_sound(update)

    def late(self, replies: Iterable[Message]) -> None:
        """Note replies to requests of earlier rounds, or of earlier attempts at this one."""
        for reply in replies:
            self._is_late(reply, self._everybody.get(reply.metadata.src_node_id, "unknown"))

    def close(self, why: Callable[[str], Fault]) -> Iterator[Digested]:
        """Report who is missing and why, and yield the updates in the order of clients' names."""
        for name in sorted(self._silent):
            self._awaited.add(name, self._request.round)
            self._inbox.reject(name, why(name))
        ordered = [self._updates[name] for name in sorted(self._updates)]
        layout = Layout.of(self._like)
        for k in range(0, len(ordered), _BLOCK):
            yield self._inbox.digest(UpdateBlock.stack(ordered[k : k + _BLOCK], layout))

    def _is_late(self, reply: Message, name: str) -> bool:
        round_ = messages.answered_round(reply)
        if round_ is None or not self._awaited.answered(name, round_):
            return False
        self._inbox.late(name, round_)
        return True


def failed(failure: ClientFailure) -> Fault:
    """Return the fault of a client whose work raised."""
    return Fault("FL303", "a client failed while it worked", failure.reason)

"""Rounds by the clock, on a clock of the tests' own: who is waited for, and who is only late."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.exchange import Clock, wait_for_nodes
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.progress import Progress, begin
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy, merge_for
from tests.engines import merged, same_bits
from tests.federation.hand import Hand
from tests.learning.ragged import COUNTS, learner, workers

MADE = learner("window_mlp", optimizer="sgd", eta_l=0.1, batch_size=8)
NEVER = 1e9


class Time:
    """A clock that only sleeping moves; remembers how long each sleep was."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a loop without rest"
        self.now_s += seconds
        self.slept_s.append(seconds)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, self.sleep)


class Slow(Grid):
    """Nodes of a loop grid whose answers take time, as messages of a real engine with ids.

    Args:
        time: The clock.
        takes: Client, round and kind of message to seconds.
        spoil: Clients whose updates are NaN.
    """

    def __init__(
        self,
        time: Time,
        takes: Callable[[str, int, str], float],
        spoil: Iterable[str] = (),
    ) -> None:
        self.inner = LoopGrid(workers(MADE))
        self._time, self._takes, self._spoil = time, takes, set(spoil)
        self._ids = itertools.count()
        self._under_way: dict[str, tuple[float, Message]] = {}
        self.pulled_at: list[float] = []

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        return self.inner.run

    def create_message(self, *args: Any) -> Message:
        return self.inner.create_message(*args)

    def get_node_ids(self) -> Iterable[int]:
        return self.inner.get_node_ids()

    def push_messages(self, messages_: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages_:
            ids.append(f"m{next(self._ids)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            (reply,) = self.inner.send_and_receive([message])
            name = self.inner.client_ids[message.metadata.dst_node_id - 1000]
            round_ = int(message.metadata.group_id)
            if name in self._spoil and message.metadata.message_type == messages.TRAIN:
                arrays = messages.unpack(reply.content[messages.ARRAYS])
                nan = {n: np.full_like(a, np.nan) for n, a in arrays.items()}
                reply.content[messages.ARRAYS] = messages.pack(nan)
            due_s = self._takes(name, round_, message.metadata.message_type)
            self._under_way[ids[-1]] = (self._time.now_s + due_s, reply)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.pulled_at.append(self._time.now_s)
        come = []
        for one in message_ids:
            due_s, reply = self._under_way.get(one, (NEVER, None))
            if reply is not None and due_s <= self._time.now_s:
                come.append(reply)
                del self._under_way[one]
        return come

    def send_and_receive(
        self, messages_: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.inner.send_and_receive(messages_, timeout=timeout)


def federation(
    grid: Grid, time: Time, rounds: int = 1, gate: Gate | None = None, **settings: Any
) -> tuple[Callable[[], Progress], list[events.Event]]:
    values = {"timeout_s": 60.0, "keep": "last", **settings}
    roster, state = enrol(grid, MADE, 0, 60)
    seen: list[events.Event] = []
    strategy = FederatedStrategy(
        roster,
        merge_for(MADE, StrategySettings()),
        closed_form=False,
        settings=Federation(**values),
        seed=0,
        gate=gate,
        clock=time.clock,
        emit=seen.append,
    )
    return lambda: strategy.run(grid, begin(state), rounds, values["timeout_s"]), seen


def of(kind: type, seen: Iterable[events.Event], round_: int = 0) -> list[Any]:
    found = [event for event in seen if isinstance(event, kind)]
    return [event for event in found if not round_ or event.round == round_]


def at_once(name: str, round_: int, kind: str) -> float:
    return 0.0


def paces(**seconds: float) -> Callable[[str, int, str], float]:
    """Training takes so long; clients that are not named, and evaluation, take none."""
    return lambda name, round_, kind: seconds.get(name, 0.0) if kind == messages.TRAIN else 0.0


def names(found: Iterable[Any]) -> list[str]:
    return sorted(event.client_id for event in found)


# --------------------------------------------------------------------------- who counts
def test_with_all_in_time_it_is_the_round_without_a_clock():
    time = Time()
    run, seen = federation(Slow(time, at_once), time, 3, deadline_s=5)
    plain, _ = federation(LoopGrid(workers(MADE)), Time(), 3)
    assert same_bits(run().state, plain().state)
    assert time.now_s == 0
    assert not of(events.ClientRejected, seen)


def test_the_wanted_number_closes_the_round():
    """Of seven, ⌈0.5 · 7⌉ = 4 are wanted and ⌈1.5 · 4⌉ = 6 asked; the fourth comes after 4 s."""
    time = Time()
    pace = {f"c{k}": float(k + 1) for k in range(7)}
    run, seen = federation(Slow(time, paces(**pace)), time, fraction_fit=0.5, over_selection=1.5)
    run()
    (started,) = of(events.RoundStarted, seen)
    assert len(started.selected) == 6
    by_pace = sorted(started.selected, key=pace.__getitem__)
    replied = names(of(events.ClientReplied, seen))
    # A look comes at most 3 s after the one before.
    assert set(by_pace[:4]) <= set(replied)
    rest = of(events.ClientRejected, seen)
    assert names(rest) == sorted(set(started.selected) - set(replied))
    assert rest
    assert all(e.code == "FL310" and "the round closed after" in e.reason for e in rest)
    assert pace[by_pace[3]] <= time.now_s < pace[by_pace[3]] + 3


def test_the_deadline_closes_a_round_that_has_its_quorum():
    time = Time()
    run, seen = federation(
        Slow(time, paces(c5=8, c6=NEVER)), time, deadline_s=5, quorum=0.6, gate=Gate(attempts=1)
    )
    state = run().state
    assert time.now_s == 5
    assert names(of(events.ClientReplied, seen)) == ["c0", "c1", "c2", "c3", "c4"]
    assert [(e.client_id, e.code) for e in of(events.ClientRejected, seen)] == [
        ("c5", "FL310"), ("c6", "FL310"),
    ]  # fmt: skip
    # The same merge as of those five, made by a plain loop.
    _, first = enrol(LoopGrid(workers(MADE)), MADE, 0, 60)
    from fl_inmetro.learning.work import LocalWork

    updates = [w.train(first, LocalWork(), 0, 1)[0] for w in workers(MADE)[:5]]
    assert same_bits(state, merged(merge_for(MADE, StrategySettings()), first, updates))


def test_without_its_quorum_the_deadline_waits_for_the_reply_that_makes_it():
    """⌈0.8 · 7⌉ = 6 replies: that of c5 comes after 20 s, c6's never."""
    time = Time()
    run, seen = federation(Slow(time, paces(c5=20, c6=NEVER)), time, deadline_s=5, quorum=0.8)
    run()
    assert 20 <= time.now_s < 23
    assert names(of(events.ClientReplied, seen)) == ["c0", "c1", "c2", "c3", "c4", "c5"]


def test_without_its_quorum_by_the_timeout_the_round_is_repeated_then_the_run_pauses():
    time = Time()
    grid = Slow(time, lambda name, round_, kind: NEVER if name > "c1" else 0.0)
    run, seen = federation(grid, time, deadline_s=5, quorum=3, timeout_s=30, gate=Gate(attempts=2))
    with pytest.raises(FederationError, match="round 1 has 2 good replies, it needs 3") as raised:
        run()
    assert raised.value.faults[0].code == "FL302"
    assert time.now_s == 60
    assert len(of(events.RoundStarted, seen)) == 2
    assert {e.code for e in of(events.ClientRejected, seen)} == {"FL303"}
    assert not of(events.ClientReplied, seen)


def test_a_reply_that_is_refused_closes_nothing():
    """Two send NaN at once; the other five are there after 9 s, and the deadline needs them."""
    time = Time()
    slow = {f"c{k}": 9.0 for k in range(2, 7)}
    grid = Slow(time, paces(**slow), spoil=["c0", "c1"])
    run, seen = federation(grid, time, deadline_s=1, quorum=2)
    run()
    assert 9 <= time.now_s < 12
    assert names(of(events.ClientReplied, seen)) == ["c2", "c3", "c4", "c5", "c6"]
    assert {(e.client_id, e.code) for e in of(events.ClientRejected, seen)} == {
        ("c0", "FL301"), ("c1", "FL301"),
    }  # fmt: skip


@pytest.mark.parametrize("turn", range(3))
def test_the_same_replies_give_the_same_bits_in_any_order(turn):
    time = Time()
    order = {f"c{k}": 1.0 + (k * (turn + 2)) % 5 for k in range(5)}
    run, seen = federation(
        Slow(time, paces(c5=NEVER, c6=NEVER, **order)), time, deadline_s=10, quorum=5
    )
    state = run().state
    time = Time()
    plain, _ = federation(Slow(time, paces(c5=NEVER, c6=NEVER)), time, deadline_s=10, quorum=5)
    assert same_bits(state, plain().state)
    assert len(of(events.ClientReplied, seen)) == 5


def test_the_deadline_bounds_evaluation_too():
    time = Time()
    grid = Slow(
        time, lambda name, round_, kind: NEVER if kind == "evaluate" and name == "c3" else 0
    )
    run, seen = federation(grid, time, 2, deadline_s=5)
    progress = run()
    assert time.now_s == 10
    assert progress.round == 2
    assert "c3" not in names(of(events.ClientEvaluated, seen))
    assert len(of(events.ClientEvaluated, seen)) == 2 * (len(COUNTS) - 1)


# ------------------------------------------------------------------------------ late replies
def test_a_late_reply_is_noted_in_the_next_round_and_no_strike():
    time = Time()

    def takes(name: str, round_: int, kind: str) -> float:
        return 7.0 if (name, round_, kind) == ("c2", 1, messages.TRAIN) else 0.0

    run, seen = federation(
        Slow(time, lambda n, r, k: takes(n, r, k) + (3 if r == 2 and n == "c0" else 0)),
        time, 3, deadline_s=5, gate=Gate(strikes=1),
    )  # fmt: skip
    progress = run()
    rejected = [(e.round, e.client_id, e.code) for e in of(events.ClientRejected, seen)]
    assert rejected == [(1, "c2", "FL310"), (2, "c2", "FL310")]
    assert "its reply to round 1 came after that round had closed" in [
        e.reason for e in of(events.ClientRejected, seen, 2)
    ]
    # Its reply to the second round counts, and nobody was struck.
    assert "c2" in names(of(events.ClientReplied, seen, 2))
    assert not progress.memory["standing.strikes"].any()
    assert not progress.memory["standing.suspended_until"].any()


class Delays:
    """c2's reply of round 1 is lost on the way, and delivered in the rounds that are named."""

    def __init__(self, *rounds: int) -> None:
        self._rounds = rounds
        self._kept: Message | None = None

    def __call__(self, asked: Any, replies: list[Message]) -> list[Message]:
        round_ = int(asked[0].metadata.group_id)
        if round_ == 1:
            (self._kept,) = [m for m in replies if m.metadata.src_node_id == 1002]
            return [m for m in replies if m is not self._kept]
        assert self._kept is not None
        again = Message(self._kept.content, reply_to=next(
            m for m in asked if m.metadata.dst_node_id == 1002))  # fmt: skip
        return [again, *replies] if round_ in self._rounds else replies


def test_late_once_is_late_and_twice_is_a_replay():
    hand = Hand(LoopGrid(workers(MADE)), messages.TRAIN, Delays(2, 3))
    run, seen = federation(hand, Time(), 3, gate=Gate(strikes=1))
    progress = run()
    rejected = [(e.round, e.client_id, e.code) for e in of(events.ClientRejected, seen)]
    assert rejected == [(1, "c2", "FL303"), (2, "c2", "FL310"), (3, "c2", "FL301")]
    # Its own replies to rounds 2 and 3 came too; only the replay is held against it.
    assert [e.round for e in of(events.ClientReplied, seen) if e.client_id == "c2"] == [2, 3]
    assert [e.round for e in of(events.ClientSuspended, seen)] == [3]
    assert progress.memory["standing.suspended_until"].astype(bool).sum() == 1


# ------------------------------------------------------------------------------------ looks
def test_looks_become_rarer_while_nothing_comes_and_never_pass_the_end():
    time = Time()
    grid = Slow(time, paces(c6=40.0))
    run, _ = federation(grid, time, deadline_s=50, timeout_s=50)
    run()
    assert time.now_s == pytest.approx(40, abs=3)
    growing = time.slept_s[1:]
    assert all(a <= b for a, b in itertools.pairwise(growing))
    assert max(growing) <= 3.0
    assert len(grid.pulled_at) < 40


class Joining:
    """Nodes that connect at moments."""

    def __init__(self, time: Time, moments_s: list[float]) -> None:
        self._time, self._moments_s = time, moments_s

    def get_node_ids(self) -> list[int]:
        return [k for k, moment in enumerate(self._moments_s) if moment <= self._time.now_s]


def waited(moments_s: list[float], wanted: int | None, least: int) -> tuple[int, float]:
    time = Time()
    grid: Any = Joining(time, moments_s)
    return wait_for_nodes(grid, wanted, least, 60, time.clock), time.now_s


def test_nodes_are_waited_for():
    assert waited([0, 0, 0], 3, 1) == (3, 0.0)
    count, at_s = waited([0, 2, 5], 3, 1)
    assert count == 3
    assert 5 <= at_s < 5.2
    # Not all of them come: after the whole time it begins with those that did.
    assert waited([0, 2], 3, 1) == (2, 60.0)


def test_unknown_numbers_of_nodes_are_there_when_no_more_come():
    count, at_s = waited([0.5, 0.7, 1.4], None, 1)
    assert count == 3
    assert 2.4 <= at_s < 2.7


def test_too_few_nodes_are_fl304():
    with pytest.raises(FederationError, match="1 nodes have connected within 60 s, 2") as raised:
        waited([3], None, 2)
    (fault,) = raised.value.faults
    assert fault.code == "FL304"
    assert "start-timeout-s" in fault.where

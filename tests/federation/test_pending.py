"""A round that did not count leaves nothing on the clients: refused, repeated, lost, crashed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.federation import messages
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.foreign import ForeignStrategy
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import merge_for
from fl_inmetro.learning.private import PendingRows, PrivateFleet, PrivateState
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import LocalWork
from tests.engines import ENGINES, grid_of, same_bits
from tests.federation.hand import Hand
from tests.federation.troubled import MADE, NAMES, REFUSED, REPEATED, Trouble, federation
from tests.learning.ragged import workers

both_engines = pytest.mark.parametrize("engine", ENGINES)


def values(number: float) -> Arrays:
    return {"w": np.array([number], np.float32)}


def held(state: PrivateState) -> tuple[float, float, float]:
    """Private value, control and best value; 0 where there is none."""
    now = state.current
    parts = (now.latest, now.control, state.best)
    return tuple(float(p["w"][0]) if p else 0.0 for p in parts)  # type: ignore[return-value]


# --------------------------------------------------------------------------------- one client
def test_what_counted_is_kept_and_what_did_not_is_dropped():
    state = PrivateState().told(0, 0).trained(values(1), values(10), 1)
    assert held(state) == (0, 0, 0)  # nobody has said anything of round 1
    assert held(state.told(0, 1)) == (1, 10, 0)
    assert held(state.told(0, 0)) == (0, 0, 0)
    # Round 1 counted and was the best; round 2 was refused; round 4 counted.
    state = state.told(1, 1).trained(values(2), values(20), 2)
    assert held(state.told(1, 1)) == (1, 10, 1)
    state = state.told(1, 1).trained(values(4), values(40), 4)
    assert held(state.told(4, 4)) == (4, 40, 4)


def test_the_next_word_decides_whatever_was_said_before():
    """The server dies after round 2, of which the client has heard, and goes on from round 1."""
    state = PrivateState().trained(values(1), {}, 1).told(1, 1).trained(values(2), {}, 2)
    assert held(state.told(1, 2)) == (2, 0, 1)
    assert held(state.told(1, 2).told(1, 1)) == (1, 0, 1)
    again = state.told(1, 2).told(1, 1).trained(values(3), {}, 2)
    assert held(again.told(2, 2)) == (3, 0, 3)


def test_a_server_that_says_nothing_means_that_all_counts():
    state = PrivateState().told(0).trained(values(1), values(10))
    assert held(state) == (1, 10, 0)
    # What is empty stays as it was, pending or not.
    assert held(state.trained({}, values(20), 2).told(0, 2)) == (1, 20, 0)
    assert held(state.trained(values(2), {}).told(0)) == (2, 10, 0)


@given(st.lists(st.tuples(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)), st.booleans())))
def test_stacked_rows_follow_one_client_after_the_other(rounds):
    """Who trains, who of them counts, and whether all hear of it at once or only the next time."""
    states = [PrivateState(values(0), values(0)) for _ in range(5)]
    fleet = PrivateFleet({"w": np.zeros(1, np.float32)}, 5)
    pending, counted = PendingRows(), dict.fromkeys(range(5), 0)
    for number, (trained, good, heard_at_once) in enumerate(rounds, 1):
        pending.settle({k: counted[k] for k in trained}, fleet.latest)
        places = np.array(sorted(trained), np.int64)
        pending.begin(number, places, fleet.latest)
        for k in sorted(trained):
            value = np.float32(100 * number + k)
            states[k] = states[k].told(0, counted[k]).trained(values(value), {}, number)
            fleet.latest["w"][k] = value
            if k in good:
                counted[k] = number
        if heard_at_once:
            states = [state.told(0, counted[k]) for k, state in enumerate(states)]
            pending.settle(counted, fleet.latest)
            assert [held(one)[0] for one in states] == fleet.latest["w"][:, 0].tolist()
    pending.settle(counted, fleet.latest)
    for k, state in enumerate(states):
        expected = 100 * counted[k] + k if counted[k] else 0
        assert held(state.told(0, counted[k]))[0] == expected == fleet.latest["w"][k, 0]


# ---------------------------------------------------------------------------- messages by hand
class Node:
    """The clients of a grid, asked by hand; SCAFFOLD with private heads."""

    def __init__(self, engine: str) -> None:
        self.grid = grid_of(engine, workers(MADE))
        _, self.state = enrol(self.grid, MADE, 0, 60)
        self.c = {n: np.zeros_like(self.state[n]) for n in MADE.shared(self.state)}

    def train(self, round_: int, counted: int | None, best: int = 0, node: int = 1003) -> Arrays:
        work = LocalWork(control="scaffold")
        request = messages.TrainRequest(round_, 5, work, best, counted_round=counted)
        content = messages.train_request(messages.pack(self.state), request, messages.pack(self.c))
        ask = Message(content, node, messages.TRAIN, group_id=str(round_))
        (reply,) = self.grid.send_and_receive([ask])
        return messages.unpack(reply.content.array_records[messages.ARRAYS])

    def evaluate(self, round_: int, counted: int | None, best: int = 0, node: int = 1003) -> float:
        content = messages.evaluate_request(
            messages.pack(self.state), round_, "validation", best, counted
        )
        ask = Message(content, node, messages.EVALUATE, group_id=str(round_))
        (reply,) = self.grid.send_and_receive([ask])
        return sum(one.abs_kwh for one in messages.read_evaluation(reply).values())

    def kept(self) -> Arrays:
        """Rows of the client; the control variates of who has none are zero."""
        arrays = self.grid.private_arrays(self.state)
        return {n: a[3] for n, a in arrays.items() if n != "told"}


@both_engines
def test_a_repeated_round_is_begun_where_it_began(engine):
    node = Node(engine)
    first = node.train(1, counted=0)
    assert same_bits(node.train(1, counted=0), first)
    assert same_bits(node.train(1, counted=0), first)
    # Then it counts: the same as a client that was asked once only.
    once = Node(engine)
    once.train(1, counted=0)
    assert same_bits(node.train(2, counted=1), once.train(2, counted=1))
    node.evaluate(2, counted=2)
    once.evaluate(2, counted=2)
    assert same_bits(node.kept(), once.kept())


@both_engines
def test_a_refused_reply_leaves_nothing(engine):
    """Refused in round 1: in round 2 the client is one that never took part."""
    node, fresh = Node(engine), Node(engine)
    one = node.train(1, counted=0)
    before = fresh.evaluate(1, counted=0)
    assert node.evaluate(1, counted=0) == before
    two = node.train(2, counted=0)
    assert same_bits(two, fresh.train(2, counted=0))
    assert not same_bits(one, two)
    node.evaluate(2, counted=2)
    fresh.evaluate(2, counted=2)
    assert same_bits(node.kept(), fresh.kept())
    assert any(a.any() for n, a in node.kept().items() if n.startswith("control."))


@both_engines
def test_a_round_that_counted_is_gone_on_from_and_scored_with(engine):
    node = Node(engine)
    node.train(1, counted=0)
    counts, not_ = node.evaluate(1, counted=1), Node(engine).evaluate(1, counted=0)
    assert counts != not_
    two = node.train(2, counted=1)
    untold = Node(engine)  # nobody speaks of counting: everything does
    untold.train(1, counted=None)
    assert untold.evaluate(1, counted=None) == counts
    assert same_bits(untold.train(2, counted=None), two)


def test_a_client_keeps_both_until_the_next_word():
    """On nodes of messages, whose server may die; the cohort's clients die with it."""
    node, fresh = Node("loop"), Node("loop")
    one = node.train(1, counted=0)
    told = node.evaluate(1, counted=1)
    # The server that said so died before it had saved round 1, and begins it again.
    assert same_bits(node.train(1, counted=0), one)
    assert node.evaluate(1, counted=1) == told
    assert node.evaluate(1, counted=0) == fresh.evaluate(1, counted=0)
    assert node.evaluate(1, counted=None) == fresh.evaluate(1, counted=0)


@both_engines
def test_the_best_round_is_one_that_counted(engine):
    node, fresh = Node(engine), Node(engine)
    for one in (node, fresh):
        one.train(1, counted=0)
        one.train(2, counted=1, best=1)  # round 1 was the best
    node.train(3, counted=1, best=1)  # round 2 was refused
    node.evaluate(3, counted=3, best=1)
    fresh.evaluate(2, counted=1, best=1)
    for name, value in fresh.kept().items():
        if name.startswith("best."):
            np.testing.assert_array_equal(node.kept()[name], value)
            assert (node.kept()[name.replace("best.", "latest.")] != value).any()


def test_a_request_says_it_and_is_read_back():
    for counted in (None, 0, 7):
        request = messages.TrainRequest(9, counted_round=counted)
        assert messages.TrainRequest.of(request.to_config()) == request
    asked = Message(
        messages.train_request(messages.pack(values(1)), messages.TrainRequest(9)), 1000, "train"
    )
    told = messages.with_counted(asked, 4)
    assert messages.counted_of(told.content[messages.CONFIG]) == 4
    assert messages.counted_of(asked.content[messages.CONFIG]) is None
    assert told.metadata.dst_node_id == 1000


# -------------------------------------------------------------------------- whole federations
class Spoiled(CohortGrid):
    """The cohort engine with the same trouble, without messages."""

    repeats_itself = False

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(workers(MADE))
        self._trouble = trouble

    def train_blocks(self, state, client_ids, request, digest, epochs=None, control=None):
        bad = self._trouble.spoiled(request.round)
        return super().train_blocks(
            state,
            client_ids,
            request,
            lambda block: digest(self._trouble.block(bad, block)),
            epochs,
            control,
        )


def loop(trouble: Trouble) -> Grid:
    return Hand(LoopGrid(workers(MADE)), messages.TRAIN, trouble)


def cohort_by_messages(trouble: Trouble) -> Grid:
    grid = CohortGrid(workers(MADE))
    assert len(list(grid.enrolments())) == len(NAMES)  # without its windows it has no batches
    return Hand(grid, messages.TRAIN, trouble)


GRIDS: dict[str, Callable[[Trouble], Grid]] = {
    "loop": loop,
    "cohort": Spoiled,
    "messages to the cohort": cohort_by_messages,
}
RESULT = ("state", "memory", "scores", "best")


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn", "fedavg"])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_repeated_round_ends_in_the_bits_of_one_that_was_not(grid, strategy):
    found = federation(GRIDS[grid](Trouble(REPEATED)), strategy)
    plain = federation(GRIDS[grid](Trouble({})), strategy)
    assert found["started"] == [1, 2, 2, 3, 4]
    assert plain["started"] == [1, 2, 3, 4]
    for key in RESULT:
        assert found[key] == plain[key], key


@pytest.mark.parametrize("grid", GRIDS)
def test_a_refused_client_is_as_if_it_had_not_been_asked(grid):
    """Its next round begins where its last good one ended; compared with lost requests."""
    found = federation(GRIDS[grid](Trouble(REPEATED | REFUSED)))
    assert [3, "c1"] in found["rejected"]
    lost = federation(Hand(Lossy(workers(MADE)), messages.TRAIN, Trouble(REPEATED)))
    if grid == "loop":
        for key in RESULT:
            assert found[key] == lost[key], key
    else:
        near(found, lost)


class Lossy(LoopGrid):
    """The request of round 3 to c1 never arrives."""

    def send_and_receive(self, messages_: Any, *, timeout: float | None = None) -> list[Message]:
        through = [
            m
            for m in messages_
            if (m.metadata.message_type, m.metadata.group_id, m.metadata.dst_node_id)
            != (messages.TRAIN, "3", 1001)
        ]
        return list(super().send_and_receive(through, timeout=timeout))


def near(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the rounding of float32."""
    assert one["best"] == other["best"]
    for key in ("state", "memory"):
        for name, bits in one[key].items():
            a, b = (np.frombuffer(bytes.fromhex(x), np.float32) for x in (bits, other[key][name]))
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for name, value in one["scores"].items():
        assert float.fromhex(value) == pytest.approx(float.fromhex(other["scores"][name]), rel=1e-4)


@pytest.mark.parametrize("grid", ["loop", "messages to the cohort"])
def test_a_flower_strategy_of_ones_own_leaves_nothing_of_a_refused_reply_either(grid):
    """The private head of c1 after a second round that refused it is that of the first."""

    def heads(rounds: int, when: dict[tuple[int, int], tuple[str, ...]]) -> Arrays:
        made = GRIDS[grid](Trouble(when))
        roster, state = enrol(made, MADE, 0, 60)
        arguments = {"min_train_nodes": 1, "min_available_nodes": 1}
        driver = ForeignStrategy(
            roster,
            merge_for(MADE, StrategySettings(), MADE.private(state), roster),
            closed_form=False,
            settings=Federation(),
            seed=0,
            inner=FedAvg(**arguments),
        )
        driver.run(made, begin(state), rounds, 60)
        arrays = made._grid.private_arrays(state)  # type: ignore[attr-defined]
        return {n: a for n, a in arrays.items() if n.startswith("latest.")}

    after, first = heads(2, {(2, 1): ("c1",)}), heads(1, {})
    plain = heads(2, {})
    for name, value in after.items():
        np.testing.assert_array_equal(value[1], first[name][1])
        np.testing.assert_array_equal(value[0], plain[name][0])
    assert any((plain[n][1] != first[n][1]).any() for n in plain)


def test_it_would_end_elsewhere_if_everything_counted(monkeypatch):
    """The tests above see the difference."""
    expected = federation(loop(Trouble(REPEATED | REFUSED)))
    monkeypatch.setattr("fl_inmetro.federation.requests.counted_of", lambda config: None)
    found = federation(loop(Trouble(REPEATED | REFUSED)))
    assert found["state"] != expected["state"]

"""When a round closes: the one rule, by hand and against a plain simulation of a server."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.federation import Federation
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation.closing import Closing, Quorum, replies_of

CASES = [
    # Replies after 1, 4 and 9 s.
    (Closing(2, 60), 4.0),  # with the second
    (Closing(3, 60), 9.0),
    (Closing(4, 60), 60.0),  # there is no fourth: nobody is waited for longer than that
    (Closing(4, 60, deadline_s=5, quorum=2), 5.0),  # two by the deadline are a quorum
    (Closing(4, 60, deadline_s=4, quorum=2), 4.0),  # the second comes in that very moment
    (Closing(4, 60, deadline_s=2, quorum=2), 4.0),  # not yet a quorum: the reply that makes it one
    (Closing(4, 60, deadline_s=2, quorum=4), 60.0),  # never one
    (Closing(4, 60, deadline_s=20, quorum=1), 20.0),
    (Closing(3, 60, deadline_s=20, quorum=1), 9.0),  # the last of those wanted
    (Closing(1, 60, deadline_s=20, quorum=1), 1.0),
    (Closing(4, 60, deadline_s=5), 5.0),  # no quorum is asked for
    (Closing(4, 3, deadline_s=5, quorum=1), 3.0),
]


@pytest.mark.parametrize(("closing", "moment_s"), CASES, ids=str)
def test_by_hand(closing, moment_s):
    for order in permutations((1.0, 4.0, 9.0)):
        assert closing.moment_s(order) == moment_s


def test_nobody_answers():
    assert Closing(1, 60).moment_s(()) == 60
    assert Closing(1, 60, deadline_s=5, quorum=1).moment_s(()) == 60
    assert Closing(1, 60, deadline_s=5).moment_s(()) == 5


def watched(closing: Closing, arrivals_s: list[int]) -> int:
    """A server that looks at every tick of a clock of whole seconds."""
    tick = 0
    while True:
        there = sum(moment <= tick for moment in arrivals_s)
        if there >= closing.enough or tick >= closing.timeout_s:
            return tick
        over = closing.deadline_s is not None and tick >= closing.deadline_s
        if over and there >= closing.quorum:
            return tick
        tick += 1


@given(
    st.lists(st.integers(0, 30), max_size=8),
    st.integers(1, 9),
    st.integers(1, 40),
    st.none() | st.integers(1, 40),
    st.integers(0, 9),
)
def test_as_a_server_that_looks_all_the_time(arrivals_s, enough, timeout_s, deadline_s, quorum):
    closing = Closing(enough, timeout_s, deadline_s, quorum)
    assert closing.moment_s(arrivals_s) == watched(closing, arrivals_s)


@pytest.mark.parametrize(
    ("quorum", "wanted", "replies"),
    [(0.5, 7, 4), (0.5, 8, 4), (1.0, 7, 7), (2, 7, 2), (9, 7, 9), (0.1, 70, 7), (0.3, 10, 3)],
)
def test_a_quorum_is_a_share_or_a_number(quorum, wanted, replies):
    """⌈0.3 · 10⌉ is 3, whatever 0.3 · 10 is in binary."""
    assert replies_of(quorum, wanted) == replies


def test_which_quorum_counts():
    gate = Gate(quorum=0.5)
    plain = Quorum(Federation(min_clients=2), gate, closed_form=False)
    assert [plain.needed(n) for n in (1, 4, 7)] == [2, 2, 4]
    own = Quorum(Federation(quorum=0.9), gate, closed_form=False)
    assert [own.needed(n) for n in (1, 10, 20)] == [1, 9, 18]
    number = Quorum(Federation(quorum=3), gate, closed_form=False)
    assert [number.needed(n) for n in (1, 10, 20)] == [3, 3, 3]
    # Sums of a closed-form model are no sample: who is there counts.
    sums = Quorum(Federation(min_clients=2), gate, closed_form=True)
    assert sums.needed(20) == 2
    assert Quorum(Federation(quorum=0.9), gate, closed_form=True).needed(20) == 18


def test_how_many_are_asked():
    """Bonawitz et al. (2019) ask 1.3 times the wanted: of 40 clients, half are 20, and 26 asked."""
    quorum = Quorum(Federation(fraction_fit=0.5, over_selection=1.3), Gate(), closed_form=False)
    assert quorum.aims(40, 40) == (20, 26)
    assert quorum.aims(40, 22) == (20, 22)  # no more than there are
    assert quorum.aims(40, 12) == (12, 12)
    assert quorum.aims(40, 0) == (0, 0)
    assert Quorum(Federation(), Gate(), closed_form=False).aims(7, 7) == (7, 7)


def test_what_is_waited_for():
    settings = Federation(deadline_s=5, quorum=0.5, timeout_s=60)
    quorum = Quorum(settings, Gate(), closed_form=False)
    assert quorum.closing(8, 60) == Closing(8, 60, 5.0, 4)
    assert quorum.evaluation(20, 60) == Closing(20, 60, 5.0, 10)
    # Over-selection alone ends no evaluation: all are scored.
    more = Quorum(Federation(over_selection=1.5), Gate(), closed_form=False)
    assert more.closing(8, 60) == Closing(8, 60, None, 4)
    assert more.evaluation(20, 60) is None
    assert quorum.fault(3, 4, 8) is None
    fault = quorum.fault(3, 3, 8)
    assert fault is not None
    assert (fault.code, fault.what) == ("FL302", "round 3 has 3 good replies, it needs 4")
    assert quorum.fault(3, 0, 0) is not None  # nobody was asked

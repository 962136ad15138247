"""What nodes noise themselves is booked before they are asked, each time that they are."""

import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from fl_inmetro.errors import BudgetError, Fault
from fl_inmetro.federation import flower_compat
from fl_inmetro.federation.booked_grid import BookedGrid
from fl_inmetro.federation.requests import (
    ENROL,
    EVALUATE,
    TRAIN,
    TrainRequest,
    claimed_in,
    evaluate_request,
    train_request,
)
from fl_inmetro.privacy.claim import Claim


class Nodes:
    """Stands for a grid of nodes; notes what it is sent."""

    run = "the run"

    def __init__(self, log):
        self.log = log

    def send_and_receive(self, messages, *, timeout=None):
        self.log += [("sent", one.metadata.message_type, timeout) for one in messages]
        return ["reply"]

    def push_messages(self, messages):
        self.log += [("pushed", one.metadata.message_type) for one in messages]
        return ["id"]

    def pull_messages(self, message_ids):
        return list(message_ids)

    def get_node_ids(self):
        return [7]


def training(number):
    return [Message(train_request(ArrayRecord(), TrainRequest(number)), 7, TRAIN)]


@pytest.fixture
def log():
    flower_compat.enter_run()
    return []


def booked(log):
    books = {
        TRAIN: lambda number: log.append(("booked", number)),
        ENROL: lambda number: log.append(("booked enrolment", number)),
    }
    return BookedGrid(Nodes(log), books)


def test_a_round_is_booked_before_it_is_sent_and_again_when_it_is_asked_again(log):
    grid = booked(log)
    assert grid.send_and_receive(training(3), timeout=5.0) == ["reply"]
    assert grid.push_messages(iter(training(3))) == ["id"]
    assert log == [("booked", 3), ("sent", TRAIN, 5.0), ("booked", 3), ("pushed", TRAIN)]


def test_enrolment_is_booked_and_evaluation_is_not(log):
    grid = booked(log)
    grid.send_and_receive([Message(RecordDict(), 7, ENROL)])
    grid.send_and_receive([Message(evaluate_request(ArrayRecord(), 1, "validation"), 7, EVALUATE)])
    assert log == [("booked enrolment", 0), ("sent", ENROL, None), ("sent", EVALUATE, None)]


def test_each_request_of_a_kind_says_which_promise_it_is_part_of(log):
    claim = Claim("north", "r1/mlp", "client", "t0", 1.5, 1.0, 0.5, 10)
    grid = BookedGrid(Nodes(log), {}, {TRAIN: claim})
    asked = [*training(1), *training(1)]
    scored = Message(evaluate_request(ArrayRecord(), 1, "validation"), 7, EVALUATE)
    grid.send_and_receive([*asked, scored])
    assert [claimed_in(one.content) for one in (*asked, scored)] == [claim, claim, None]
    assert TrainRequest.of(asked[0].content.config_records["config"]).round == 1


def test_beyond_the_budget_nothing_is_sent(log):
    def refuse(number):
        raise BudgetError(Fault("FL422", f"round {number} is too much"))

    grid = BookedGrid(Nodes(log), {TRAIN: refuse})
    for send in (grid.send_and_receive, grid.push_messages):
        with pytest.raises(BudgetError, match="round 3"):
            send(training(3))
    assert log == []


def test_all_else_is_the_inner_grid_s(log):
    grid = booked(log)
    assert grid.run == "the run"
    assert list(grid.get_node_ids()) == [7]
    assert list(grid.pull_messages(["a"])) == ["a"]

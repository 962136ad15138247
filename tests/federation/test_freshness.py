"""Replies and enrolments made by hand: which round, which model, how much a client may claim."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fl_inmetro import events
from fl_inmetro.errors import FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.roster import Roster, enrol
from fl_inmetro.learning.client import ClientWorker, Enrolment
from fl_inmetro.learning.update import Arrays, Update, with_control
from fl_inmetro.learning.work import LocalWork
from tests.engines import ENGINES, grid_of, same_bits
from tests.learning.ragged import COUNTS, learner, workers

both_engines = pytest.mark.parametrize("engine", ENGINES)

ASKED = messages.TrainRequest(5, 0, LocalWork(), version="m5")
LIKE: Arrays = {"w": np.zeros(2, np.float32)}
UPDATE = Update("c0", {"w": np.array([1, 2], np.float32)}, 7.0, 0.5, 0.1)


def reply(
    update: Update = UPDATE, request: messages.TrainRequest = ASKED, **config: Any
) -> Message:
    """What a client answers; `config` changes (or, None, removes) what it says of itself."""
    LoopGrid([])  # sets up the run that messages belong to
    content = messages.update_reply(update, update.arrays, request)
    for key, value in config.items():
        name = key.replace("_", "-")
        if value is None:
            del content[messages.CONFIG][name]
        else:
            content[messages.CONFIG][name] = value
    asked = Message(messages.train_request(messages.pack(LIKE), ASKED), 1001, messages.TRAIN)
    return Message(content, reply_to=asked)


def refused(message: Message, request: messages.TrainRequest = ASKED, like: Arrays = LIKE) -> str:
    with pytest.raises(FederationError) as caught:
        messages.read_update(message, "c0", like, request)
    (fault,) = caught.value.faults
    assert fault.code == "FL301"
    assert "1001" in fault.where
    return fault.what


def test_a_fresh_reply_is_read():
    read = messages.read_update(reply(), "c0", LIKE, ASKED)
    assert (read.client_id, read.weight, read.loss, read.seconds) == ("c0", 7.0, 0.5, 0.1)
    assert same_bits(read.arrays, UPDATE.arrays)
    assert np.isnan([read.start_loss, read.spread]).all()


def test_a_replayed_reply_is_refused():
    old = reply(request=messages.TrainRequest(3, version="m3"))
    assert "answers round 3, asked was 5" in refused(old)


def test_a_reply_to_another_model_is_refused():
    assert "model `m4`, sent was `m5`" in refused(reply(model_version="m4"))
    assert "model ``" in refused(reply(model_version=""))
    # A server that names no version is answered with none.
    plain = messages.TrainRequest(5)
    messages.read_update(reply(request=plain), "c0", LIKE, plain)
    assert "sent was ``" in refused(reply(), plain)


@pytest.mark.parametrize(
    "config",
    [
        {"server_round": None}, {"server_round": "5"}, {"server_round": 5.5},
        {"server_round": float("nan")}, {"server_round": [5]}, {"server_round": -5},
        {"model_version": None}, {"model_version": 5}, {"model_version": ["m5"]},
        {"client_id": None}, {"client_id": "c1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_reply_that_does_not_say_what_it_answers_is_refused(config):
    refused(reply(**config))


def test_what_was_asked_for_must_be_there():
    for work, key in (
        (LocalWork(start_loss=True), "start-loss"),
        (LocalWork(probe=True), "gradient-variance"),
    ):
        request = messages.TrainRequest(5, 0, work, version="m5")
        assert key in refused(reply(), request)
        update = Update("c0", UPDATE.arrays, 7.0, 0.5, 0.1, start_loss=0.75, spread=0.25)
        read = messages.read_update(reply(update, request), "c0", LIKE, request)
        assert read.start_loss == 0.75 or not work.start_loss
        assert read.spread == 0.25 or not work.probe
        # Nobody is asked: it is not read.
        read = messages.read_update(reply(update, request), "c0", LIKE, ASKED)
        assert np.isnan([read.start_loss, read.spread]).all()
        message = reply(update, request)
        message.content[messages.METRICS][key] = [0.5]
        refused(message, request)


def test_scaffold_sends_both_halves_or_is_refused():
    both = with_control(UPDATE.arrays)
    update = Update("c0", both, 7.0, 0.5)
    read = messages.read_update(reply(update), "c0", with_control(LIKE), ASKED)
    assert same_bits(read.arrays, both)
    refused(reply(), like=with_control(LIKE))
    refused(reply(update))


@both_engines
def test_a_client_says_back_which_round_and_model_it_answers(engine):
    made = learner("nlinear")
    grid = grid_of(engine, workers(made))
    _, state = enrol(grid, made, 0, 60)
    request = messages.TrainRequest(9, work=LocalWork(start_loss=True), version="abc")
    content = messages.train_request(messages.pack(state), request)
    asked = [Message(content, node, messages.TRAIN) for node in grid.get_node_ids()]
    for name, answer in zip(grid.client_ids, grid.send_and_receive(asked), strict=True):
        config = answer.content.config_records[messages.CONFIG]
        assert (config["server-round"], config["model-version"]) == (9, "abc")
        metrics = answer.content.metric_records[messages.METRICS]
        assert set(metrics) == {"num-examples", "loss", "seconds", "start-loss"}
        messages.read_update(answer, name, state, request)


# ------------------------------------------------------------------------------- enrolment
class Claiming(ClientWorker):
    """Says of itself what it likes."""

    claims: dict[str, Any]

    def enrol(self, *asked: Any) -> Enrolment:
        return Enrolment(**{**vars(super().enrol(*asked)), **self.claims})


def enrolled(
    engine: str, most_points: int | None = None, **claims: Any
) -> tuple[Roster, list[events.Event]]:
    """A federation in which c3 claims something."""
    made = learner("nlinear")
    members = workers(made)
    members[3] = Claiming(members[3].data, made)
    members[3].claims = claims
    seen: list[events.Event] = []
    roster, _ = enrol(
        grid_of(engine, members), made, 0, 60, emit=seen.append, most_points=most_points
    )
    return roster, seen


@both_engines
def test_the_roster_knows_the_windows(engine):
    roster, seen = enrolled(engine)
    assert dict(roster.windows) == COUNTS
    assert not seen
    for name, points in roster.points.items():
        assert 5 * COUNTS[name] < points <= roster.horizon * COUNTS[name]


@both_engines
@pytest.mark.parametrize(
    "claims",
    [
        {"points": 21 * 6 + 1},
        {"windows": 0},
        {"windows": -3},
        {"windows": 18},
        {"windows": 127},
        {"points": 2**54, "windows": 2**54},
    ],
    ids=str,
)
def test_more_points_than_the_windows_hold_are_refused(engine, claims):
    roster, seen = enrolled(engine, **claims)
    (rejected,) = seen
    assert isinstance(rejected, events.ClientRejected)
    assert (rejected.code, rejected.round) == ("FL301", 0)
    assert "c3" in rejected.reason
    assert "training points in" in rejected.reason
    assert list(roster.nodes) == [name for name in COUNTS if name != "c3"]


@both_engines
@pytest.mark.parametrize("name", ["", "c3\0", "c3\n", "\x1b[2J", "x" * 201, "\ud800"], ids=ascii)
def test_a_name_that_cannot_be_shown_is_refused(engine, name):
    roster, seen = enrolled(engine, client_id=name)
    (rejected,) = seen
    assert isinstance(rejected, events.ClientRejected)
    assert (rejected.code, rejected.round) == ("FL301", 0)
    assert "is no name of a client" in rejected.reason
    assert rejected.reason.isprintable()
    assert len(rejected.reason) < 300
    assert list(roster.nodes) == [name for name in COUNTS if name != "c3"]


@both_engines
def test_more_points_than_a_client_may_have_are_refused(engine):
    roster, seen = enrolled(engine, most_points=126, points=10**9, windows=10**9)
    (rejected,) = seen
    assert isinstance(rejected, events.ClientRejected)
    assert (rejected.code, rejected.client_id[:4]) == ("FL301", "node")
    assert "claims 1000000000 training points, the most a client may have is 126" in rejected.reason
    assert "c3" not in roster.points
    assert len(roster.points) == 6
    # Without a limit it is believed, and at the limit it is let in.
    assert enrolled(engine, points=10**9, windows=10**9)[0].points["c3"] == 10**9
    roster, seen = enrolled(engine, most_points=126)
    assert not seen
    assert len(roster.points) == 7


def test_an_enrolment_without_its_windows_is_refused():
    made = learner("nlinear")
    grid = LoopGrid(workers(made))
    ask = Message(messages.train_request(messages.pack(LIKE), ASKED), 1001, messages.ENROL)
    content = messages.enrolment_reply(workers(made)[0].enrol())
    assert messages.read_enrolment(Message(content, reply_to=ask)).windows == COUNTS["c0"]
    for wrong in (None, "20", float("inf"), [20]):
        content = messages.enrolment_reply(workers(made)[0].enrol())
        if wrong is None:
            del content[messages.CONFIG]["windows"]
        else:
            content[messages.CONFIG]["windows"] = wrong
        with pytest.raises(FederationError, match="FL301"):
            messages.read_enrolment(Message(content, reply_to=ask))
    assert len(grid.client_ids) == 7

"""A node's own ledger: by its own windows and noise, before anything leaves, within its budget."""

from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fl_inmetro.config.models import Ridge
from fl_inmetro.errors import BudgetError, PrivacyError
from fl_inmetro.federation import messages
from fl_inmetro.federation.client_program import client_app
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.own_ledger import OwnLedger
from fl_inmetro.federation.requests import PRIVACY, with_claim
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.exposure import windows_of_a_day
from fl_inmetro.learning.private_moments import WINDOW_NORM, MomentsAsked
from fl_inmetro.learning.private_ridge import PrivateRidgeLearner
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.claim import Claim
from fl_inmetro.privacy.ledger import Owner, ledger_path, read_ledger
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import spending
from tests.learning.ragged import clients, learner, state_of, workers

NETWORK = learner("nlinear", batch_size=8)
#: It has 20 training windows: batches of 8 draw each with chance 0.4.
WORKER = workers(NETWORK)[0]
PLAIN = LocalWork()
PRIVATE = LocalWork(2, dp=DpSgd(0.5, 1.5))
OF_CLIENTS = Claim("north", "r1/nlinear", "client", "t0", 1.5, 0.7, 0.25, 10)
OF_WINDOWS = replace(OF_CLIENTS, subject="window")


def train(ledger, round_=1, claim=OF_CLIENTS, work=PLAIN, worker=WORKER):
    ledger.trained(worker, messages.TrainRequest(round_, work=work), claim)


def written(folder, federation="north", worker=WORKER):
    path = ledger_path(folder / federation, Owner(federation, worker.client_id))
    return [entry.release for entry in read_ledger(path).entries]


def test_dp_sgd_counts_the_node_s_own_batches(tmp_path):
    assert len(WORKER.train_design.x) == 20
    for number in (1, 2):
        train(OwnLedger(tmp_path), number, OF_WINDOWS, PRIVATE)
    one, two = written(tmp_path)
    # Two epochs of 20 windows by 8: 6 steps, whatever the federation's ledger counts.
    assert one.spent() == Gaussian(1.5, 0.4, 6)
    assert (one.round, two.round, one.sensitivity, one.what) == (1, 2, 0.5, "update")
    assert (one.run, one.subject, one.group) == ("r1/nlinear", "window", 1)
    assert one.digest != two.digest


def test_a_node_that_is_asked_again_draws_anew_and_pays_again(tmp_path):
    for _ in range(2):
        train(OwnLedger(tmp_path), 1, OF_WINDOWS, PRIVATE)
    assert [one.round for one in written(tmp_path)] == [1, 1]


def test_steps_that_are_cut_are_counted_so(tmp_path):
    train(OwnLedger(tmp_path), 1, OF_WINDOWS, replace(PRIVATE, steps=1))
    assert written(tmp_path)[0].times == 1


def test_a_day_is_counted_by_the_node_s_own_windows(tmp_path):
    train(OwnLedger(tmp_path), 1, replace(OF_CLIENTS, subject="client-day"), PRIVATE)
    assert written(tmp_path)[0].group == windows_of_a_day(NETWORK, WORKER.data.train) > 1


def test_who_is_drawn_once_counts_all_rounds_at_once(tmp_path):
    """Not to be drawn hides, and is paid: in each of the ten rounds by a chance of a quarter."""
    for number in (3, 5, 9):
        train(OwnLedger(tmp_path), number)
    (only,) = written(tmp_path)
    assert only.spent() == Gaussian(1.5, 0.25, 10)
    # Another secret of the server is other noise on the same sums.
    train(OwnLedger(tmp_path), 9, replace(OF_CLIENTS, token="t1"))
    assert sum(one.times for one in written(tmp_path)) == 20


def test_where_all_take_part_each_round_is_counted_once(tmp_path):
    everybody = replace(OF_CLIENTS, sampling_rate=1.0)
    for number in (1, 2, 2):
        train(OwnLedger(tmp_path), number, everybody)
    assert spending(written(tmp_path)) == (Gaussian(1.5, 1.0, 2, "all"),)


def test_sums_of_ridge_and_of_enrolment_are_counted(tmp_path):
    ridge = PrivateRidgeLearner(Ridge(), by_client=False)
    worker = ClientWorker(clients()[0], ridge)
    ledger = OwnLedger(tmp_path)
    train(ledger, 1, OF_WINDOWS, LocalWork(dp=DpSgd(1.0, 2.0)), worker)
    ledger.enrolled(worker, MomentsAsked("nothing"), None)
    ledger.enrolled(worker, MomentsAsked("window", 3.0), OF_WINDOWS)
    ledger.enrolled(worker, MomentsAsked("client"), replace(OF_CLIENTS, sampling_rate=1.0))
    ledger.scored(worker, 1, replace(OF_CLIENTS, sampling_rate=1.0, noise_multiplier=9.0))
    ledger.scored(worker, 2, None)
    found = [(one.what, one.round, one.noise_multiplier) for one in written(tmp_path)]
    assert found == [
        ("statistics", 1, 2.0),
        ("scaler", 0, 3.0),
        ("scaler", 0, 1.5),
        ("metrics", 1, 9.0),
    ]
    assert written(tmp_path)[1].sensitivity == WINDOW_NORM
    assert {one.sampling for one in written(tmp_path)} == {"all"}


def test_beyond_its_own_budget_nothing_leaves(tmp_path):
    once = account((Gaussian(1.5, 0.4, 6),), 1e-6).epsilon
    ledger = OwnLedger(tmp_path, budget=1.01 * once, delta=1e-6)
    train(ledger, 1, OF_WINDOWS, PRIVATE)
    with pytest.raises(BudgetError, match="FL422"):
        train(ledger, 2, OF_WINDOWS, PRIVATE)
    (entry,) = read_ledger(
        ledger_path(tmp_path / "north", Owner("north", WORKER.client_id))
    ).entries
    assert entry.account[0]["epsilon"] == pytest.approx(once)
    assert entry.account[0]["scope"] == "client"


def test_a_node_with_a_budget_answers_nothing_that_promises_nothing(tmp_path):
    ledger = OwnLedger(tmp_path, budget=8.0)
    for asked in (
        lambda: train(ledger, claim=None),
        lambda: train(ledger, claim=OF_WINDOWS),  # it promises windows, and asks for no noise
        lambda: train(ledger, claim=OF_WINDOWS, work=LocalWork(dp=DpSgd(1.0, 0.0))),
        lambda: ledger.enrolled(WORKER, None, None),
        lambda: ledger.enrolled(WORKER, MomentsAsked("window", 3.0), None),
    ):
        with pytest.raises(PrivacyError, match="FL418"):
            asked()
    assert list(tmp_path.iterdir()) == []
    free = OwnLedger(tmp_path)  # without a budget it keeps a record, and forbids nothing
    train(free, claim=None)
    free.enrolled(WORKER, None, None)


def test_a_node_may_insist_on_whom_is_protected(tmp_path):
    ledger = OwnLedger(tmp_path, protect="window")
    for asked in (
        lambda: train(ledger),  # the server would add the noise, it says
        lambda: train(ledger, claim=None),
        lambda: ledger.scored(WORKER, 1, None),  # exact errors
    ):
        with pytest.raises(PrivacyError, match="FL418"):
            asked()
    train(ledger, claim=OF_WINDOWS, work=PRIVATE)
    assert [one.subject for one in written(tmp_path)] == ["window"]
    OwnLedger(tmp_path, protect="client").scored(WORKER, 1, None)


@pytest.mark.parametrize("name", ["..", ".", "../out", "a/b", "C:\\x"])
def test_a_federation_s_name_leads_nowhere(name, tmp_path):
    folder = tmp_path / "own"
    train(OwnLedger(folder), claim=replace(OF_CLIENTS, federation=name))
    (ledger,) = tmp_path.rglob("*.ledger")
    assert ledger.parents[2] == folder
    assert read_ledger(ledger).owner.federation == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"subject": "nobody"},
        {"federation": ""},
        {"run": "a\nb"},
        {"noise_multiplier": "much"},
    ],
)
def test_a_claim_that_cannot_be_is_refused(wrong):
    with pytest.raises(PrivacyError, match="FL423"):
        Claim.of({**OF_CLIENTS.to_plain(), **wrong})
    with pytest.raises(PrivacyError, match="FL423"):
        Claim.of({})


def test_the_node_writes_before_it_replies_and_refuses_as_a_node_does(tmp_path):
    folder = {"now": OwnLedger(tmp_path)}
    app = client_app(lambda context: WORKER, find_ledger=lambda context: folder["now"])
    LoopGrid([WORKER])  # sets up the run that messages belong to
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})

    def asked(claim):
        state = messages.pack(state_of(NETWORK))
        content = messages.train_request(state, messages.TrainRequest(1, work=PRIVATE))
        if claim:
            with_claim(content, claim)
        return app(Message(content, 1, messages.TRAIN, group_id="1"), context)

    assert messages.claimed_in(RecordDict({PRIVACY: ConfigRecord(OF_WINDOWS.to_plain())}))
    reply = asked(OF_WINDOWS)
    assert reply.content.array_records
    assert [one.what for one in written(tmp_path)] == ["update"]
    folder["now"] = OwnLedger(tmp_path, budget=1e-3)
    for claim, code in ((OF_WINDOWS, "FL422"), (None, "FL418")):
        with pytest.raises(PrivacyError, match=code):
            asked(claim)
    assert len(written(tmp_path)) == 1

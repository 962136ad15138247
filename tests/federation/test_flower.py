"""Our parts against Flower's own: identity, switches, the loop grid, and its stock FedAvg."""

import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fl_inmetro import events
from fl_inmetro.config.models import Mlp, NLinear, Ridge
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.errors import DataError, Fault, FederationError
from fl_inmetro.federation import flower_compat, messages
from fl_inmetro.federation.grids import Interrupted, LoopGrid
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy, merge_for
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.neural import MlpLearner, NLinearLearner
from fl_inmetro.learning.update import Arrays, Learner
from tests.engines import ENGINES, grid_of, same_bits
from tests.fleets import fleet, workers

MLP = MlpLearner(Mlp(hidden=(3,), features=("calendar",), batch_size=8))
SMOOTH = MlpLearner(Mlp(hidden=(3,), batch_size=8, loss="mse", optimizer="sgd", eta_l=0.05))
RIDGE = RidgeLearner(Ridge(features=("calendar",)))
NLIN = NLinearLearner(NLinear(context_h=24, optimizer="sgd", eta_l=0.05, batch_size=0))


def strategy(grid, learner: Learner, seed: int = 0, **settings):
    roster, state = enrol(grid, learner, seed, 60)
    made = FederatedStrategy(
        roster,
        merge_for(learner, StrategySettings()),
        closed_form=learner.closed_form,
        settings=Federation(**settings),
        seed=seed,
    )
    return made, state


def trained(grid, learner: Learner, rounds: int = 2, seed: int = 0, **settings) -> Arrays:
    made, state = strategy(grid, learner, seed, **settings)
    return made.run(grid, begin(state), rounds, 60).state


both_engines = pytest.mark.parametrize("engine", ENGINES)


# --------------------------------------------------------------------------- private parts
def test_flower_still_has_the_private_parts_we_touch():
    """Fails when Flower moves or changes `TaskIdentity`; then `flower_compat` has to follow."""
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    code = (
        "from fl_inmetro.federation import flower_compat\n"
        "from flwr.supercore.task_identity import TaskIdentity\n"
        "try:\n    TaskIdentity.run_id\nexcept RuntimeError:\n    print('unset')\n"
        "run = flower_compat.enter_run(5)\n"
        "print(run.run_id, TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id)\n"
        "print(flower_compat.enter_run(9).run_id)\n"  # an identity that is there is kept
        "from flwr.app import Message, RecordDict\n"
        "print(Message(RecordDict(), 7, 'train').metadata.src_node_id)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert out.stdout.split("\n")[:4] == ["unset", "5 5 1 1", "5", "1"]
    assert hasattr(Run, "create_empty")
    assert {"run_id", "node_id", "task_id"} <= set(dir(type(TaskIdentity)) + dir(TaskIdentity))


def test_flower_is_told_to_stay_offline():
    wanted = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    assert wanted == flower_compat.OFFLINE_ENVIRONMENT
    code = (
        "import os, fl_inmetro.federation.flower_compat as f\n"
        "print(all(os.environ[k] == v for k, v in f.OFFLINE_ENVIRONMENT.items()))"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLWR_")}
    clean["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean
    )
    assert out.stdout.strip() == "True"


# ------------------------------------------------------------------------------- the grid
class Failing(ClientWorker):
    """A client whose program breaks while it trains."""

    error: Exception = ValueError("no such column")

    def train(self, *args, **kwargs):
        raise self.error


def with_one_failing(error: Exception, **options) -> LoopGrid:
    members = workers(MLP, fleet(3))
    broken = Failing(members[1].data, MLP)
    broken.error = error
    return LoopGrid([members[0], broken, members[2]], **options)


def test_an_exception_in_one_client_does_not_stop_the_others():
    seen: list[events.Event] = []
    grid = with_one_failing(ValueError("no such column"))
    roster, state = enrol(grid, MLP, 0, 60)
    made = FederatedStrategy(
        roster, merge_for(MLP, StrategySettings()), closed_form=False,
        settings=Federation(num_server_rounds=1), seed=0, emit=seen.append,
    )  # fmt: skip
    made.run(grid, begin(state), 1, 60)
    (rejected,) = [e for e in seen if isinstance(e, events.ClientRejected)]
    assert (rejected.client_id, rejected.code) == ("c1", "FL303")
    assert "`c1`: ValueError: no such column" in rejected.reason
    assert sorted(e.client_id for e in seen if isinstance(e, events.ClientReplied)) == ["c0", "c2"]


def test_a_coded_error_of_a_client_keeps_its_code():
    grid = with_one_failing(DataError(Fault("FL206", "too short")))
    roster, state = enrol(grid, MLP, 0, 60)
    request = Message(
        messages.train_request(messages.pack(state), messages.TrainRequest(1)),
        roster.nodes["c1"],
        "train",
    )
    (reply,) = grid.send_and_receive([request])
    assert reply.has_error()
    assert reply.error.reason == "client `c1`: FL206 too short"


def test_debug_stops_at_the_exception_and_names_client_and_round():
    grid = with_one_failing(ValueError("no such column"), debug=True)
    with pytest.raises(FederationError) as caught:
        trained(grid, MLP, 1)
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL312", "client `c1`, round 1")
    assert "ValueError: no such column" in fault.what
    assert isinstance(caught.value.__cause__, ValueError)  # its traceback is not lost


def test_the_stop_is_looked_at_before_each_message():
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(Interrupted):
        enrol(LoopGrid(workers(MLP, fleet(3)), stop), MLP, 0, 60)
    assert asked == 3


def test_push_and_pull_hand_each_reply_out_once():
    grid = LoopGrid(workers(MLP, fleet(3)))
    requests = [Message(RecordDict(), node, messages.ENROL) for node in grid.get_node_ids()]
    ids = list(grid.push_messages(requests))
    assert len(set(ids)) == 3
    replies = list(grid.pull_messages(ids))
    assert [messages.read_enrolment(reply).client_id for reply in replies] == ["c0", "c1", "c2"]
    assert list(grid.pull_messages(ids)) == []
    assert grid.run.run_id == grid.create_message(RecordDict(), "train", 1000, "1").metadata.run_id


# ------------------------------------------------------------------------- order and seeds
class Shuffled(LoopGrid):
    """Nodes are listed, and replies arrive, in another order every time."""

    rng = random.Random(5)

    def get_node_ids(self) -> Iterable[int]:
        nodes = list(super().get_node_ids())
        self.rng.shuffle(nodes)
        return nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout=None):
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.rng.shuffle(replies)
        return replies


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_order_of_replies_changes_no_bit(fraction):
    for learner in (MLP, NLIN, RIDGE):
        plain = trained(LoopGrid(workers(learner)), learner, fraction_fit=fraction)
        mixed = trained(Shuffled(workers(learner)), learner, fraction_fit=fraction)
        assert same_bits(plain, mixed)


@both_engines
def test_the_node_a_client_sits_on_changes_no_bit(engine):
    """Node ids differ between engines; names do not."""
    plain = trained(grid_of(engine, workers(MLP)), MLP, fraction_fit=0.5)
    turned = trained(grid_of(engine, workers(MLP)[::-1]), MLP, fraction_fit=0.5)
    assert same_bits(plain, turned)


@both_engines
def test_same_seed_same_bits_other_seed_other_bits(engine):
    one, again, other = (trained(grid_of(engine, workers(MLP)), MLP, seed=s) for s in (1, 1, 2))
    assert same_bits(one, again)
    assert not same_bits(one, other)


@both_engines
def test_the_first_state_depends_on_the_seed_and_not_on_who_is_where(engine):
    states = [enrol(grid_of(engine, workers(MLP)[::step]), MLP, 3, 60)[1] for step in (1, -1)]
    assert same_bits(*states)
    fewer = enrol(grid_of(engine, workers(MLP, fleet(2))), MLP, 3, 60)[1]
    for name in ("layers.0.weight", "layers.2.bias"):
        assert (fewer[name] == states[0][name]).all()


@both_engines
def test_the_fraction_selects_clients_by_name(engine):
    seen: list[events.Event] = []
    grid = grid_of(engine, workers(MLP))
    roster, state = enrol(grid, MLP, 0, 60)
    made = FederatedStrategy(
        roster, merge_for(MLP, StrategySettings()), closed_form=False,
        settings=Federation(fraction_fit=0.3), seed=0, emit=seen.append,
    )  # fmt: skip
    made.run(grid, begin(state), 3, 60)
    rounds = [e.selected for e in seen if isinstance(e, events.RoundStarted)]
    assert [len(selected) for selected in rounds] == [2, 2, 2]  # ⌈0.3·4⌉
    replied = [(e.round, e.client_id) for e in seen if isinstance(e, events.ClientReplied)]
    assert replied == [(k + 1, name) for k, chosen in enumerate(rounds) for name in chosen]
    # Everybody evaluates.
    assert len([e for e in seen if isinstance(e, events.ClientEvaluated)]) == 3 * 4


# ------------------------------------------------------------------------- Flower's FedAvg
@pytest.mark.parametrize("learner", [SMOOTH, NLIN], ids=["mlp", "nlinear"])
@both_engines
def test_fedavg_equals_flowers_own(engine, learner):
    """The same clients under Flower's stock FedAvg: w ← Σ (n_k/n) w_k, two rounds.

    It asks without `reply = delta`, so our client answers with weights. It adds them in float32
    and we add deltas in float64, hence the tolerance; and SGD on a smooth loss, because Adam makes
    a step of η out of a gradient that is a rounding error.
    """
    grid = grid_of(engine, workers(learner))
    _, state = enrol(grid, learner, 0, 60)
    result = FedAvg().start(
        grid, messages.pack(state), num_rounds=2, train_config=ConfigRecord({"seed": 0})
    )
    theirs = messages.unpack(result.arrays)
    ours = trained(grid_of(engine, workers(learner)), learner, rounds=2)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], atol=1e-6)
    assert any(np.abs(ours[name] - state[name]).max() > 1e-3 for name in ours)
    # Its own averages of our metrics work too: one record each, weighted by the points.
    assert set(result.train_metrics_clientapp) == {1, 2}
    assert 0 < result.evaluate_metrics_clientapp[2]["wmape"] < 10


@both_engines
def test_our_strategy_has_flowers_interface(engine):
    grid = grid_of(engine, workers(MLP))
    made, state = strategy(grid, MLP, num_server_rounds=2)
    result = made.start(grid, messages.pack(state), num_rounds=2)
    again, _ = strategy(grid, MLP, num_server_rounds=2)
    best = again.run(grid, begin(state), 2, 60).best_state
    assert same_bits(messages.unpack(result.arrays), best)


# --------------------------------------------------------------------------- continuation
@pytest.mark.parametrize("stop", [1, 2, 3])
@both_engines
def test_a_federation_continued_from_its_progress_ends_in_the_same_bits(engine, stop):
    grid = grid_of(engine, workers(MLP))
    whole, state = strategy(grid, MLP, fraction_fit=0.5)
    uninterrupted = whole.run(grid, begin(state), 4, 60)
    first, _ = strategy(grid, MLP, fraction_fit=0.5)
    halfway = first.run(grid, begin(state), stop, 60)
    second, _ = strategy(grid_of(engine, workers(MLP)), MLP, fraction_fit=0.5)
    resumed = second.run(grid_of(engine, workers(MLP)), halfway, 4, 60)
    assert same_bits(resumed.state, uninterrupted.state)
    assert same_bits(resumed.best_state, uninterrupted.best_state)
    for name in ("round", "best_round", "best_nmae", "n_bytes"):
        assert getattr(resumed, name) == getattr(uninterrupted, name)


@both_engines
def test_the_best_round_is_the_one_with_the_lowest_validation_error(engine):
    seen: list[events.Event] = []
    grid = grid_of(engine, workers(NLIN))
    roster, state = enrol(grid, NLIN, 0, 60)
    kept: dict[int, Arrays] = {}
    made = FederatedStrategy(
        roster, merge_for(NLIN, StrategySettings(eta=4.0)), closed_form=False,
        settings=Federation(), seed=0, emit=seen.append,
        after_round=lambda progress: kept.update({progress.round: progress.state}),
    )  # fmt: skip
    progress = made.run(grid, begin(state), 6, 60)
    nmae = {e.round: e.nmae for e in seen if isinstance(e, events.RoundFinished)}
    best = min(nmae, key=nmae.__getitem__)
    assert progress.best_round == best
    assert progress.best_nmae == nmae[best]
    assert same_bits(progress.best_state, kept[best])
    flags = [e.is_best for e in seen if isinstance(e, events.RoundFinished)]
    lowest = np.minimum.accumulate(list(nmae.values()))
    assert flags == [k == 0 or lowest[k] < lowest[k - 1] for k in range(6)]


@both_engines
def test_bytes_of_a_round_by_hand(engine):
    """NLinear of 24 × 24 + 24 float32: 2400 bytes a model. Four clients."""
    seen: list[events.Event] = []
    grid = grid_of(engine, workers(NLIN))
    roster, state = enrol(grid, NLIN, 0, 60)
    made = FederatedStrategy(
        roster, merge_for(NLIN, StrategySettings()), closed_form=False,
        settings=Federation(fraction_fit=0.5), seed=0, emit=seen.append,
    )  # fmt: skip
    progress = made.run(grid, begin(state, roster.n_bytes), 1, 60)
    (finished,) = [e for e in seen if isinstance(e, events.RoundFinished)]
    assert roster.n_bytes == 0  # NLinear sends nothing at enrolment
    assert finished.bytes_down == 2 * 2400 + 4 * 2400  # to train, to evaluate
    assert finished.bytes_up == 2 * 2400 + 4 * 15 * 8  # deltas; fifteen sums of 8 bytes
    assert progress.n_bytes == finished.bytes_down + finished.bytes_up
    replies = [e for e in seen if isinstance(e, events.ClientReplied)]
    assert {(e.bytes_down, e.bytes_up) for e in replies} == {(2400, 2400)}


@both_engines
def test_bytes_of_enrolment_by_hand(engine):
    grid = grid_of(engine, workers(MLP))
    roster, state = enrol(grid, MLP, 0, 60)
    width = len(state["x_mean"])
    assert roster.n_bytes == 4 * 8 * (1 + 2 * width)  # n, Σx, Σx² in float64 from four clients

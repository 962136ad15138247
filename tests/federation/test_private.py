"""Private parameters: loop = cohort, from round to round, over a stop, and none of them travels."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fl_inmetro import session
from fl_inmetro.errors import ConfigError
from fl_inmetro.federation import messages
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import Interrupted, LoopGrid
from fl_inmetro.federation.merge import BUFFERS
from fl_inmetro.federation.progress import unpacked
from fl_inmetro.federation.roster import enrol
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.gradient import client_seed
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from tests.engines import ENGINES, Memory, apart, federated, grid_of, same_bits
from tests.fleets import tiny_config
from tests.learning.ragged import OPTIMIZERS, clients, config

both_engines = pytest.mark.parametrize("engine", ENGINES)

PRIVATE = {"window_mlp": ["head.*"], "lstm": ["rnn.*_hh_l0"], "mlp": ["layers.2.*"]}
NAMES = {
    "window_mlp": {"head.weight", "head.bias"},
    "lstm": {"rnn.weight_hh_l0", "rnn.bias_hh_l0"},
    "mlp": {"layers.2.weight", "layers.2.bias"},
}


def asked(model: str = "window_mlp", eta: float = 1e-3, **tables):
    settings = OPTIMIZERS["adam"] | {"private": PRIVATE[model], "batch_size": 8, "eta_l": eta}
    return config(
        model, settings,
        **{
            "federation": {"num_server_rounds": 5, "fraction_fit": 0.6, "local_epochs": 2},
            "strategy": {"mu": 0.2}, "execution": {"chunk": 2, "workers": 2}, **tables,
        },
    )  # fmt: skip


@pytest.mark.parametrize("model", PRIVATE)
def test_the_cohort_is_the_loop(model):
    """Sampled, with a proximal term, shared and private parts, latest and best."""
    how = asked(model)
    (loop, _, loop_grid), (cohort, _, cohort_grid) = (
        federated(engine, how, clients()) for engine in ENGINES
    )
    assert apart(cohort.state, loop.state) < 1e-5
    theirs, ours = (grid.private_arrays(loop.state) for grid in (loop_grid, cohort_grid))
    assert {name.partition(".")[2] for name in ours if name != "told"} == NAMES[model]
    assert apart(ours, theirs) < 1e-5
    # They are their clients' own: no two clients that trained have the same.
    latest = ours[f"latest.{sorted(NAMES[model])[0]}"]
    assert len(np.unique(latest.reshape(7, -1), axis=0)) >= 6
    for name, sums in cohort.sums.items():
        assert sums.nmae == pytest.approx(loop.sums[name].nmae, rel=1e-4)
    # Nothing trains the server's copy.
    start = learner_for(model, how.models)
    enrolled = ClientWorker(clients()[0], start).enrol()
    first = start.initial(enrolled.sums, how.seed, enrolled.x_shape, 6)
    for name in NAMES[model]:
        np.testing.assert_array_equal(cohort.state[name], first[name])


@both_engines
def test_one_client_by_hand_over_two_rounds(engine):
    """Private parts go on from where the client left them, shared ones from the mean."""
    how = asked(federation={"num_server_rounds": 2}, strategy={"mu": 0.0})
    outcome, _, grid = federated(engine, how, clients()[:2])
    made = learner_for(how.model, how.models)
    workers = [ClientWorker(one, made) for one in clients()[:2]]
    first = workers[0].enrol()
    state = made.initial({}, how.seed, first.x_shape, first.horizon)
    own = [{name: state[name] for name in NAMES["window_mlp"]} for _ in workers]
    for round_ in (1, 2):
        deltas, points = [], []
        for k, worker in enumerate(workers):
            seed = client_seed(how.seed, worker.client_id, round_)
            start = state | own[k]
            delta, _ = made.update(start, worker.train_design, LocalWork(), seed)
            own[k] = {name: start[name] + delta.pop(name) for name in own[k]}
            deltas.append(delta)
            points.append(worker.train_design.points)
        shares = np.array(points) / sum(points)
        state = state | {
            name: state[name] + shares[0] * deltas[0][name] + shares[1] * deltas[1][name]
            for name in deltas[0]
        }
    kept = grid.private_arrays(state)
    for k in (0, 1):
        for name, value in own[k].items():
            np.testing.assert_allclose(kept[f"latest.{name}"][k], value, rtol=1e-4, atol=1e-6)
    assert outcome.state.keys() == state.keys()


@both_engines
def test_the_best_round_is_remembered_by_the_clients(engine):
    """Steps so large that a round in the middle is the best: its private parts are scored."""
    how = asked(eta=0.5, federation={"num_server_rounds": 6, "fraction_fit": 1.0})
    shelf = Memory()
    outcome, _, grid = federated(engine, how, clients(), shelf)
    best = unpacked(*shelf.kept["g"])[0].best_round
    assert 0 < best < 6
    short = how.model_copy(
        update={"federation": how.federation.model_copy(update={"num_server_rounds": best})}
    )
    _, _, until = federated(engine, short, clients())
    then, now = until.private_arrays(outcome.state), grid.private_arrays(outcome.state)
    for name in NAMES["window_mlp"]:
        np.testing.assert_array_equal(now[f"best.{name}"], then[f"latest.{name}"])
        for place in range(7):
            np.testing.assert_array_equal(
                grid.best_private(place)[name], now[f"best.{name}"][place]
            )
    assert any((now[f"latest.{n}"] != now[f"best.{n}"]).any() for n in NAMES["window_mlp"])
    made = learner_for(how.model, how.models)
    for place, one in enumerate(clients()):
        worker = ClientWorker(one, made)
        sums = worker.evaluate(outcome.state | grid.best_private(place), "test")
        assert sums[one.client_id].abs_kwh == pytest.approx(
            outcome.sums[one.client_id].abs_kwh, rel=1e-6
        )


class Stop:
    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@both_engines
@pytest.mark.parametrize("after", [9, 22, 33, 55])
def test_a_federation_resumed_from_its_checkpoint_ends_in_the_same_bits(engine, after):
    how = asked(execution={"chunk": 1, "workers": 2})
    whole, uninterrupted = Memory(), Memory()
    federated(engine, how, clients(), uninterrupted)
    with pytest.raises(Interrupted):
        federated(engine, how, clients(), whole, should_stop=Stop(after))
    federated(engine, how, clients(), whole)
    assert same_bits(whole.kept["g"][0], uninterrupted.kept["g"][0])
    own = [name for name in whole.kept["g"][0] if name.startswith("own.")]
    assert len(own) == 2 * len(NAMES["window_mlp"]) + 1


class Watched(LoopGrid):
    """Keeps the names of everything that comes back."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[set[str]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout=None):
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.seen += [set(r.content.array_records["arrays"]) for r in replies
                      if r.metadata.message_type == "train"]  # fmt: skip
        return replies


class WatchedCohort(CohortGrid):
    """Keeps the names in every block."""

    seen: list[set[str]]

    def train_blocks(self, state, client_ids, request, digest, epochs=None, control=None):
        def watched(block):
            self.seen.append(set(block.layout.names))
            return digest(block)

        return super().train_blocks(state, client_ids, request, watched, epochs, control)


@pytest.mark.parametrize("grid", [Watched, WatchedCohort])
def test_no_private_parameter_is_in_a_reply(grid, monkeypatch):
    made_grids: list = []

    def build(engine, workers, execution, **options):
        made_grids.append(grid(workers))
        made_grids[-1].seen = []
        return made_grids[-1]

    monkeypatch.setattr("tests.engines.grid_of", build)
    outcome, _, _ = federated("any", asked(), clients())
    (watched,) = made_grids
    assert len(watched.seen) > 4
    wanted = set(outcome.state) - NAMES["window_mlp"] - BUFFERS
    assert all(names == wanted for names in watched.seen)


@both_engines
def test_a_foreign_strategy_gets_no_private_parameter_either(engine):
    """Asked for weights, a client answers with the shared state's, moved, and the server's copy."""
    how = asked("mlp")
    made = learner_for(how.model, how.models)
    grid = grid_of(engine, [ClientWorker(one, made) for one in clients()])
    roster, state = enrol(grid, made, 0, 60)
    request = messages.TrainRequest(1, delta=False)
    content = messages.train_request(messages.pack(state), request)
    asked_ = [
        Message(content, node, messages.TRAIN, group_id="1") for node in roster.nodes.values()
    ]
    for reply in grid.send_and_receive(asked_):
        back = messages.unpack(reply.content.array_records[messages.ARRAYS])
        for name in NAMES["mlp"]:
            np.testing.assert_array_equal(back[name], state[name])
        assert (back["layers.0.weight"] != state["layers.0.weight"]).any()


# ------------------------------------------------------------------------------- whole runs
def tiny(private: list[str], **values):
    return tiny_config(models={"mlp": {"hidden": [4], "private": private}}, **values)


@both_engines
def test_a_run_keeps_them_with_its_weights_and_scores_with_them(tmp_path: Path, engine: str):
    path = session.start(
        tiny(["layers.2.*"], engine=engine), "run", tmp_path, lambda event: None, lambda: False
    )
    arrays, _ = weights.load(path, "mlp-federated-g0000") or ({}, {})
    assert arrays["own.best.layers.2.weight"].shape == (4, 1, 4)
    assert arrays["own.best.layers.2.bias"].shape == (4, 1)


@both_engines
@pytest.mark.parametrize(("patterns", "found"), [(["nothing.*"], "none"), (["*"], "all")])
def test_patterns_that_fit_nothing_or_all_are_fl103(tmp_path, engine, patterns, found):
    with pytest.raises(ConfigError) as caught:
        session.start(
            tiny(patterns, engine=engine), "run", tmp_path, lambda event: None, lambda: False
        )
    (fault,) = caught.value.faults
    assert fault.code == "FL103"
    assert f"{found} of the model's parameters" in fault.what
    assert "layers.0.weight" in fault.where


def test_flowers_engine_refuses_them(tmp_path):
    with pytest.raises(ConfigError) as caught:
        session.start_on_flower(
            tiny(["layers.2.*"], engine="flower"), "run", tmp_path, lambda line: None
        )
    (fault,) = caught.value.faults
    assert fault.code == "FL306"
    assert "what clients keep to themselves" in fault.what
    assert not list(tmp_path.iterdir())


@both_engines
def test_a_client_whose_numbers_are_not_finite_keeps_the_values_it_had(engine):
    """Else it would be refused for ever, and no later round could be the best."""
    how = asked("window_mlp")
    made = learner_for("window_mlp", how.models)
    members = [ClientWorker(one, made) for one in clients()]
    grid = grid_of(engine, members)
    _, state = enrol(grid, made, 0, 60)
    names = sorted(NAMES["window_mlp"])
    before = {name: grid.private_arrays(state)[f"latest.{name}"].copy() for name in names}
    if isinstance(grid, CohortGrid):
        assert grid._trainer is not None
        population = grid._trainer._population
        start = int(population.rows(np.array([2])).start[0])
        population.rows(np.array([2])).residual[start, 0] = np.inf
    else:
        members[2].train_design.residual[0, 0] = np.inf
        members[2].train_design.known[0, 0] = 1
    content = messages.train_request(messages.pack(state), messages.TrainRequest(1))
    nodes = list(grid.get_node_ids())
    list(
        grid.send_and_receive(
            [Message(content, node, messages.TRAIN, group_id="1") for node in nodes]
        )
    )
    after = grid.private_arrays(state)
    for name in names:
        assert np.isfinite(after[f"latest.{name}"]).all()
        np.testing.assert_array_equal(after[f"latest.{name}"][2], before[name][2])
    moved = [k for k in range(7) if (after["latest.head.bias"][k] != before["head.bias"][k]).any()]
    assert moved == [0, 1, 3, 4, 5, 6]


@pytest.mark.parametrize("training", ["centralised", "local"])
def test_training_that_shares_nothing_has_nothing_private(tmp_path: Path, training: str):
    """The pooled client is nobody's own: its model is the one that is forecast with."""
    config_ = tiny_config(
        models={"mlp": {"private": ["layers.2.*"], "hidden": [5]}}, training=training
    )
    path = session.start(config_, "run", tmp_path, lambda event: None, lambda: False)
    trained = trained_model(RunRecord.open(path))
    assert trained.private == {}

"""IFCA: a round by hand, planted models found, and one cluster is the plain federation."""

import numpy as np
import pytest

from fl_inmetro import events
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.strategy import Strategy
from fl_inmetro.errors import FederationError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.federation.ifca import IfcaStrategy
from fl_inmetro.federation.joint import (
    CHANGED,
    MEMBERSHIP,
    SIZES,
    Choices,
    choose,
    joined_states,
    of_cluster,
    perturbed,
)
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.progress import begin, with_prefix
from fl_inmetro.federation.recipes import rule_factory
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.server_optimizers import Momentum
from fl_inmetro.federation.training import Group, train_group
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.table import learner as learner_for
from tests.engines import ENGINES, Memory, apart, grid_of, same_bits
from tests.federation.rounds import design, nlinear, planted
from tests.learning.ragged import clients, config

both_engines = pytest.mark.parametrize("engine", ENGINES)


def constant(*targets):
    """Windows that show nothing (x = 0): only the bias c learns, of e² = (c - r)²."""
    return design([[0.0]] * len(targets), [[r] for r in targets])


def model(bias):
    return {
        "linear.weight": np.zeros((1, 1), np.float32),
        "linear.bias": np.array([bias], np.float32),
    }


def strategy(grid, made, number, merge=None, rounds=1, first=True, **rest):
    roster, _ = enrol(grid, made, 0, 60)
    return IfcaStrategy(
        roster,
        merge or DeltaMerge(),
        clusters=number,
        every=1,
        chooses_first=first,
        closed_form=False,
        settings=Federation(num_server_rounds=rounds),
        seed=0,
        may_repeat=frozenset(roster.nodes),
        **rest,
    )


@both_engines
def test_a_round_by_hand(engine):
    # Models 0.5 and -0.5. d0 has r = 1 once, d1 r = 2 three times: both have less loss with 0.5.
    # d2 has r = -1 and takes the other. A step of 0.1 on (c - r)²: c - 0.2 (c - r).
    # d0: 0.5 + 0.1 = 0.6; d1: 0.5 + 0.3 = 0.8; by windows (0.6 + 3 · 0.8)/4 = 0.75. d2: -0.6.
    made = nlinear(eta_l=0.1)
    grid = grid_of(engine, planted(made, [constant(1), constant(2, 2, 2), constant(-1)]))
    start = joined_states([model(0.5), model(-0.5)], np.array([0, 0, 0]))
    after = strategy(grid, made, 2).run(grid, begin(start), 1, 60)
    assert after.state[MEMBERSHIP].tolist() == [0, 0, 1]
    assert of_cluster(0, after.state)["linear.bias"] == pytest.approx([0.75])
    assert of_cluster(1, after.state)["linear.bias"] == pytest.approx([-0.6])
    history = with_prefix("server.", after.memory)
    assert history[CHANGED].tolist() == [1]
    assert history[SIZES].tolist() == [[2, 1]]
    # Choosing: two models of 8 bytes down and a number of 8 up, for each of three; training: one
    # down and up each; validation: one down each, without windows no answer.
    assert after.n_bytes == 3 * (2 * 8 + 8) + 3 * (8 + 8) + 3 * 8


@both_engines
def test_each_model_has_a_server_optimiser_of_its_own(engine):
    # Momentum 0.5 at the server, v ← 0.5 v + Δ, c ← c + v. Model 0 of d0 (r = 1) from 0.5:
    # Δ = 0.1, v = 0.1, c = 0.6; Δ = 0.2 · 0.4 = 0.08, v = 0.13, c = 0.73.
    # Model 1 of d1 (r = -3) from -0.5: Δ = -0.5, c = -1; Δ = -0.4, v = -0.65, c = -1.65.
    made = nlinear(eta_l=0.1)
    grid = grid_of(engine, planted(made, [constant(1), constant(-3)]))
    start = joined_states([model(0.5), model(-0.5)], np.array([0, 1]))
    merge = DeltaMerge(Momentum(1.0, 0.5))
    after = strategy(grid, made, 2, merge, 2).run(grid, begin(start), 2, 60)
    assert of_cluster(0, after.state)["linear.bias"] == pytest.approx([0.73])
    assert of_cluster(1, after.state)["linear.bias"] == pytest.approx([-1.65])


@both_engines
def test_planted_models_are_found(engine):
    """Six clients of r about 2 and -2, mixed: each is with its own from the first round."""
    made = nlinear(eta_l=0.2)
    truth = [0, 1, 1, 0, 1, 0]
    off = [0.1, 0.15, -0.25, -0.3, 0.1, 0.2]  # none in the mean of a cluster
    workers = planted(made, [constant(2.0 - 4.0 * k + d) for k, d in zip(truth, off, strict=True)])
    grid = grid_of(engine, workers)
    start = joined_states([model(0.1), model(-0.1)], np.zeros(6, np.int64))
    after = strategy(grid, made, 2, rounds=20).run(grid, begin(start), 20, 60)
    assert after.state[MEMBERSHIP].tolist() == truth
    # (c - mean of r) shrinks by 1 - 2 · 0.2 in each round.
    assert of_cluster(0, after.state)["linear.bias"] == pytest.approx([2 - 1.9 * 0.6**20])
    assert with_prefix("server.", after.memory)[CHANGED].tolist() == [3] + [0] * 19


@both_engines
def test_a_cluster_with_too_few_for_the_rule_stands_still(engine):
    # Trimming one of each side needs three: those of r = 1, 2, 4 from 0.5 are moved by the middle
    # one, 0.5 + 0.2 · 1.5 = 0.8; the two of r = -3 leave their model where it is.
    made = nlinear(eta_l=0.1)
    grid = grid_of(engine, planted(made, [constant(r) for r in (1, 2, 4, -3, -3.5)]))
    start = joined_states([model(0.5), model(-0.5)], np.array([0, 0, 0, 1, 1]))
    settings = Strategy(rule="trimmed-mean", byzantine=1)
    merge = DeltaMerge(rule_of=rule_factory("trimmed-mean", settings))
    said = []
    after = strategy(grid, made, 2, merge, emit=said.append).run(grid, begin(start), 1, 60)
    assert of_cluster(0, after.state)["linear.bias"] == pytest.approx([0.8])
    assert of_cluster(1, after.state)["linear.bias"].tolist() == [-0.5]
    notes = [one.text for one in said if isinstance(one, events.Note)]
    assert any("cluster 2 stands still" in text for text in notes)
    replied = {one.client_id for one in said if isinstance(one, events.ClientReplied)}
    assert len(replied) == 3  # what was not merged does not count as accepted


@both_engines
def test_where_every_cluster_has_too_few_the_round_fails(engine):
    made = nlinear(eta_l=0.1)
    grid = grid_of(engine, planted(made, [constant(1), constant(-3)]))
    start = joined_states([model(0.5), model(-0.5)], np.array([0, 1]))
    settings = Strategy(rule="krum", byzantine=1)
    merge = DeltaMerge(rule_of=rule_factory("krum", settings))
    with pytest.raises(FederationError, match="FL314"):
        strategy(grid, made, 2, merge).run(grid, begin(start), 1, 60)


def test_choosing_stays_where_nothing_is_better_or_known():
    losses = [{"a": 1.0, "b": 1.0, "c": float("nan"), "d": 2.0}, {"a": 1.0, "b": 0.9, "c": 0.1}]
    now = np.array([1, 0, 0, 0])  # a ties, b gains, c and d cannot compare
    assert choose(losses, ["a", "b", "c", "d"], now).tolist() == [1, 1, 0, 0]


def test_perturbations_have_the_size_that_was_asked():
    state = {"w": np.zeros((50, 400), np.float32), "x_std": np.ones(3)}
    made = perturbed(state, ["w"], 2, 0.5, seed=1)
    for one in made:
        assert np.array_equal(one["x_std"], state["x_std"])
        # 20,000 draws of deviation 0.5/√400 = 0.025; its standard error is 0.025/200.
        assert one["w"].std() == pytest.approx(0.025, abs=5e-4)
    assert np.corrcoef(made[0]["w"].ravel(), made[1]["w"].ravel())[0, 1] == pytest.approx(
        0, abs=0.03
    )
    assert perturbed(state, ["w"], 1, 0.5, seed=1)[0] is state


# ------------------------------------------------------------------- beside the plain federation
RECIPES = {
    "fedavg": ({}, {"fraction_fit": 0.6}),
    "one step, Adam at the server, averaged": (
        {"name": "fedadam", "bias_correction": True, "average": 0.9},
        {"local_steps": 1},
    ),
    "median": ({"name": "median"}, {}),
}


def asked(recipe, rounds=4, **tables):
    strategy, federation = RECIPES[recipe]
    how = {"num_server_rounds": rounds, **federation}
    return config(
        "window_mlp",
        {"optimizer": "adam", "batch_size": 8, "eta_l": 3e-3},
        federation=how, strategy=strategy, execution={"chunk": 2, "workers": 1}, **tables,
    )  # fmt: skip


def trained(engine, how, choices=None, shelf=None, stop=lambda: False, seen=None):
    made = learner_for(how.model, how.models)
    workers = [ClientWorker(one, made) for one in clients()]
    grid = grid_of(engine, workers, should_stop=stop) if stop else grid_of(engine, workers)
    group = Group("g", 0, "federation", checkpointed=True)
    emit = (lambda event: None) if seen is None else seen.append
    return train_group(grid, group, made, how, shelf or Memory(), emit, choices=choices)


@both_engines
@pytest.mark.parametrize("recipe", RECIPES)
def test_one_cluster_is_the_federation_to_the_bit(engine, recipe):
    how = asked(recipe)
    seen = {True: [], False: []}
    plain = trained(engine, how, seen=seen[False])
    one = trained(engine, how, Choices(1, 1, {}, 0), seen=seen[True])
    assert same_bits(of_cluster(0, one.state), plain.state)
    assert one.n_bytes == plain.n_bytes
    assert {n: s.nmae for n, s in one.sums.items()} == {n: s.nmae for n, s in plain.sums.items()}

    def told(events_):
        kinds = (events.RoundStarted, events.ClientReplied, events.ClientEvaluated)
        return [
            {k: v for k, v in vars(e).items() if k != "seconds"}
            for e in events_
            if isinstance(e, kinds)
        ]

    assert told(seen[True]) == told(seen[False])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_cohort_is_the_loop(recipe):
    how = asked(recipe)
    names = [one.client_id for one in clients()]
    choices = Choices(2, 1, {name: k % 2 for k, name in enumerate(names)}, 0)
    loop, cohort = (trained(engine, how, choices) for engine in ENGINES)
    assert loop.state[MEMBERSHIP].tolist() == cohort.state[MEMBERSHIP].tolist()
    assert apart(cohort.state, loop.state) < 1e-5
    assert loop.n_bytes == cohort.n_bytes


@both_engines
def test_a_stopped_run_goes_on_to_the_same_bits(engine):
    how = asked("one step, Adam at the server, averaged", rounds=5)
    choices = Choices(2, 2, {}, 0, perturbation=0.3)
    whole = trained(engine, how, choices)
    shelf, asked_so_far = Memory(), [0]

    def stop():
        asked_so_far[0] += 1
        return "g-checkpoint" in shelf.kept and asked_so_far[0] > 60

    with pytest.raises(Interrupted):
        trained(engine, how, choices, shelf, stop)
    resumed = trained(engine, how, choices, shelf)
    assert same_bits(resumed.state, whole.state)
    assert resumed.n_bytes == whole.n_bytes

"""The learner of linear quantiles in a federation: engines, resume, stopping, scores, sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_inmetro import events
from fl_inmetro.config import check
from fl_inmetro.config.models import QuantileLinear
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation import sums_gate
from fl_inmetro.federation.attacks.forged_sums import scaled
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.learning.client import ClientWorker, pooled
from fl_inmetro.learning.quantile_linear import QuantileLinearLearner, is_done, rounds_of
from fl_inmetro.learning.table import learner
from fl_inmetro.learning.update import Arrays, Layout, Update, UpdateBlock
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import score_fleet
from fl_inmetro.models import quantile_linear as ql
from tests.engines import ENGINES, Memory, federated, same_bits
from tests.fleets import clients_of, fleet

CLIENTS = clients_of(fleet(6))[0]
FEATURES = ["day_profiles", "calendar"]
both_engines = pytest.mark.parametrize("engine", ENGINES)


def config(**own: Any) -> RunConfig:
    own = {"features": FEATURES, **own}
    plain = {"name": "t", "model": "quantile_linear", "models": {"quantile_linear": own}}
    return check({**plain, "federation": {"num_server_rounds": 3, "patience": 2}})


def of(kind: type, seen: list[events.Event]) -> list[Any]:
    return [event for event in seen if isinstance(event, kind)]


def sums_of(
    one: QuantileLinearLearner, state: Arrays, workers: list[ClientWorker]
) -> list[tuple[str, Arrays, float]]:
    return [
        (w.client_id, one.update(state, w.train_design, LocalWork(), 0)[0], w.train_design.points)
        for w in workers
    ]


def by_hand(one: QuantileLinearLearner, workers: list[ClientWorker]) -> Arrays:
    """Rounds without any of the federation's machinery."""
    shape = workers[0].train_design.x.shape[1:]
    state = one.initial({}, 0, shape, 24)
    for _ in range(one.settings.rounds):
        parts = [arrays for _, arrays, _ in sums_of(one, state, workers)]
        state = one.finish(state, {n: np.sum([p[n] for p in parts], axis=0) for n in parts[0]})
        if is_done(one, state):
            break
    return state


def said(state: Arrays) -> np.ndarray:
    """All that a model says of the test windows, in units of the scale.

    The weekdays' indicators add up to one, so that their coefficients are held by the small penalty
    alone, and to fewer digits than what they say together.
    """
    one = QuantileLinearLearner(config().models.quantile_linear)
    made = [ql.correction(state, one.design(c.test[0], targets=False).x) for c in CLIENTS]
    return np.concatenate(made)


@both_engines
def test_federated_is_pooled_is_by_hand_on_every_engine(engine):
    settings = config()
    outcome, seen, _ = federated(engine, settings, CLIENTS)
    one = QuantileLinearLearner(settings.models.quantile_linear)
    alone = by_hand(one, [ClientWorker(c, one) for c in CLIENTS])
    central, _, _ = federated(engine, settings, [pooled("pooled", CLIENTS)])
    assert is_done(one, outcome.state)
    for other in (alone, central.state):
        np.testing.assert_allclose(said(outcome.state), said(other), rtol=0, atol=1e-9)
    assert not of(events.ClientRejected, seen)
    rounds = of(events.RoundFinished, seen)
    # More rounds than `num_server_rounds` and `patience` ask for: they end when nothing is gained,
    # and the last model counts, whatever validation says of those on the way.
    assert 3 < len(rounds) < one.settings.rounds
    assert all(r.is_best for r in rounds)
    losses = [r.loss for r in rounds]
    assert losses[-1] < losses[1] < losses[0]
    scores = score_fleet(outcome.sums)
    assert 0.6 < scores["coverage_80"] < 0.95
    assert 0 < scores["pinball"] < scores["nmae"] / 2


def test_both_engines_agree():
    states = [federated(engine, config(), CLIENTS)[0].state for engine in ENGINES]
    np.testing.assert_allclose(said(states[0]), said(states[1]), rtol=0, atol=1e-10)


def test_bytes_are_those_of_what_is_sent():
    settings = config(rounds=2)
    outcome, seen, _ = federated("cohort", settings, CLIENTS)
    first, second = of(events.RoundFinished, seen)
    f = outcome.state["coefficients"].shape[1]
    # Down twice a round, to train and to validate: (1 + 3)·f coefficients, two moments of f − 1
    # features, ε and gain of three levels. Up: ridge's sums, then three levels' and the points.
    down = 8 * 2 * 6 * (4 * f + 2 * (f - 1) + 6)
    assert first.bytes_down == second.bytes_down == down
    grew = second.bytes_up - first.bytes_up
    assert grew == 8 * 6 * (3 * (f * f + f + 1) + 1 - (f * f + f + 1))


@both_engines
@pytest.mark.parametrize("after", [1, 4])
def test_resumed_from_a_checkpoint_it_ends_in_the_same_bits(engine, after):
    settings = config()
    whole, _, _ = federated(engine, settings, CLIENTS)
    shelf = Memory()

    def stopped() -> bool:
        kept = shelf.load_state("g-checkpoint")
        return bool(kept) and f'"round": {after}' in kept[1]["progress"]

    with pytest.raises(Interrupted):
        federated(engine, settings, CLIENTS, shelf, should_stop=stopped)
    again, seen, _ = federated(engine, settings, CLIENTS, shelf)
    assert of(events.RoundFinished, seen)[0].round == after + 1
    assert same_bits(whole.state, again.state)


def test_too_few_rounds_are_told():
    _, seen, _ = federated("loop", config(rounds=3), CLIENTS)
    assert len(of(events.RoundFinished, seen)) == 3
    assert any("had not converged after 3 rounds" in note.text for note in of(events.Note, seen))
    _, seen, _ = federated("loop", config(), CLIENTS)
    assert not [n for n in of(events.Note, seen) if "converged" in n.text]


def test_quantiles_do_not_cross_and_clients_without_a_past_have_no_forecast():
    settings = config()
    one = QuantileLinearLearner(settings.models.quantile_linear)
    workers = [ClientWorker(c, one) for c in CLIENTS]
    state = by_hand(one, workers)
    state["coefficients"] = state["coefficients"][[0, 3, 2, 1]]  # highest first: they all cross
    windows = CLIENTS[0].test[0]
    made = one.forecast(state, one.design(windows, targets=False))
    assert made.levels == (0.1, 0.5, 0.9)
    assert made.quantiles_kwh is not None
    assert (np.diff(made.quantiles_kwh, axis=-1) >= 0).all()
    raw = ql.correction(state, one.design(windows, targets=False).x)
    assert (np.diff(raw[..., 1:], axis=-1) < 0).mean() > 0.9
    np.testing.assert_array_equal(made.point_kwh, made.quantiles_kwh[..., 1])


def test_rounds_are_its_own_one_for_ridge_and_those_asked_of_networks():
    models = check({"name": "t"}).models
    own = learner("quantile_linear", models)
    assert rounds_of(own, 7) == QuantileLinear().rounds
    assert rounds_of(learner("ridge", models), 7) == 1
    assert rounds_of(learner("mlp", models), 7) == 7
    assert not is_done(learner("ridge", models), {})


# ---------------------------------------------------------------------------- made-up sums
def replies(state: Arrays, **forged: Any) -> tuple[UpdateBlock, dict[str, int]]:
    """The clients' sums of a round, some of them changed."""
    one = QuantileLinearLearner(config().models.quantile_linear)
    workers = [ClientWorker(c, one) for c in CLIENTS]
    made = [
        Update(name, forged[name](arrays) if name in forged else arrays, float(points), 0.1)
        for name, arrays, points in sums_of(one, state, workers)
    ]
    points = {w.client_id: w.train_design.points for w in workers}
    return UpdateBlock.stack(made, Layout.of(one.sums_like(state))), points


def refused(state: Arrays, **forged: Any) -> dict[str, str]:
    block, points = replies(state, **forged)
    found = sums_gate.refused([block], points=points, gate=Gate())
    return {name: fault.what for name, fault in found.items()}


@pytest.fixture(scope="module")
def begun() -> Arrays:
    settings = config(rounds=3)
    one = QuantileLinearLearner(settings.models.quantile_linear)
    return by_hand(one, [ClientWorker(c, one) for c in CLIENTS])


def test_honest_sums_pass_in_every_round(begun):
    one = QuantileLinearLearner(config().models.quantile_linear)
    fresh = one.initial({}, 0, (24, begun["coefficients"].shape[1] - 1), 24)
    assert refused(fresh) == {}
    assert refused(begun) == {}


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (lambda sums: scaled(sums, -30.0), "contradict"),
        (lambda sums: {n: 1000 * a if n != "points" else a for n, a in sums.items()}, "weigh"),
        (lambda sums: {**sums, "points": sums["points"] + 1}, "points and claims"),
        (lambda sums: {**sums, "moment": 1e4 * sums["moment"]}, "no rows can have its sums"),
        (lambda sums: {**sums, "gram": -sums["gram"]}, "below zero"),
    ],
)
def test_sums_that_cannot_be_are_refused(begun, forge, why):
    found = refused(begun, c2=forge)
    assert list(found) == ["c2"]
    assert why in found["c2"]


def test_a_fault_of_one_level_is_found(begun):
    def turned(sums: Arrays) -> Arrays:
        return {**sums, "square": sums["square"] * np.array([1.0, 1.0, -1.0])}

    assert list(refused(begun, c4=turned)) == ["c4"]

"""Sums that are made up, by hand on Flower's message type, on both engines of this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fl_inmetro import events
from fl_inmetro.config import check
from fl_inmetro.config.models import Mlp, Ridge
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.attacks.forged_sums import moved, scaled
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy, merge_for
from fl_inmetro.laboratory import check as laboratory_check
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.neural import MlpLearner
from tests.engines import ENGINES, grid_of, same_bits
from tests.federation.hand import Hand
from tests.fleets import clients_of, fleet

MLP = MlpLearner(Mlp(hidden=(2,), features=("calendar", "lags")))
RIDGE = RidgeLearner(Ridge(features=("calendar", "lags")))
CLIENTS = clients_of(fleet(6))[0]
FORGER = "c2"

both_engines = pytest.mark.parametrize("engine", ENGINES)


def of(kind: type, seen: list[events.Event]) -> list[Any]:
    return [event for event in seen if isinstance(event, kind)]


def forging(forge: Any, who: tuple[str, ...]) -> Any:
    """Replace the sums of some clients in their replies."""

    def change(asked: Any, replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.content.config_records[messages.CONFIG]["client-id"] in who:
                record = reply.content.array_records[messages.ARRAYS]
                sums = {name: array.numpy() for name, array in record.items()}
                reply.content[messages.ARRAYS] = messages.pack(forge(sums))
        return replies

    return change


def enrolled(
    engine: str, forge: Any = None, who: tuple[str, ...] = (FORGER,), **gate: Any
) -> tuple[Any, Any, list[events.Event]]:
    seen: list[events.Event] = []
    workers = [ClientWorker(one, MLP) for one in CLIENTS]
    grid = Hand(grid_of(engine, workers), messages.ENROL, forging(forge, who if forge else ()))
    roster, state = enrol(grid, MLP, 0, 60, emit=seen.append, gate=Gate(**gate))
    return roster, state, seen


def solved(
    engine: str, forge: Any = None, who: tuple[str, ...] = (FORGER,), left: Any = None, **gate: Any
) -> tuple[Any, list[events.Event]]:
    """One round of ridge."""
    seen: list[events.Event] = []
    workers = [ClientWorker(one, RIDGE) for one in CLIENTS if left is None or one.client_id in left]
    grid = grid_of(engine, workers)
    roster, state = enrol(grid, RIDGE, 0, 60, emit=seen.append)
    strategy = FederatedStrategy(
        roster,
        merge_for(RIDGE, StrategySettings()),
        closed_form=True,
        settings=Federation(num_server_rounds=1, min_clients=1),
        seed=0,
        gate=Gate(**gate),
        emit=seen.append,
    )
    hand = Hand(grid, messages.TRAIN, forging(forge, who if forge else ()))
    return strategy.run(hand, begin(state), 1, 60).state, seen


def changed(name: str, how: Any) -> Any:
    return lambda sums: {**sums, name: how(sums[name])}


ENROLMENTS = {
    "more rows than windows": (changed("n", lambda n: n * 1e12), "rows, its windows have"),
    "a sum that its squares do not bear": (
        changed("x_sum", lambda x: x + 1e12),
        "cannot have the sum",
    ),
    "squares below zero": (changed("x_sq_sum", lambda x: -x - 1), "cannot have the sum"),
    "far off": (lambda sums: moved(sums, 1e12), "from the cohort's median"),
    "farther than squares reach": (lambda sums: moved(sums, 1e150), "from the cohort's median"),
    "a hundred and fifty away": (lambda sums: moved(sums, 150.0), "from the cohort's median"),
}


@pytest.mark.parametrize("case", ENROLMENTS)
@both_engines
def test_a_made_up_enrolment_leaves_the_client_out(engine, case):
    forge, said = ENROLMENTS[case]
    roster, state, seen = enrolled(engine, forge)
    (rejected,) = of(events.ClientRejected, seen)
    assert (rejected.client_id, rejected.code, rejected.round) == (FORGER, "FL305", 0)
    assert said in rejected.reason
    assert list(roster.nodes) == [one.client_id for one in CLIENTS if one.client_id != FORGER]
    # The others have the standardisation of a federation without it, by a plain sum of rows.
    rows = [
        ClientWorker(one, MLP).train_design.x.astype(np.float64) for one in CLIENTS
        if one.client_id != FORGER
    ]  # fmt: skip
    together = np.concatenate([r.reshape(-1, r.shape[-1]) for r in rows])
    np.testing.assert_allclose(state["x_mean"], together.mean(axis=0), rtol=1e-5, atol=1e-6)


@both_engines
def test_without_the_gate_one_client_moves_the_mean_of_all(engine):
    """What the gate is for: 1e12 from one of six moves the mean by about a sixth of it."""
    _, state, seen = enrolled(engine, lambda sums: moved(sums, 1e12), enabled=False)
    assert not of(events.ClientRejected, seen)
    assert (state["x_mean"] > 1e11).all()


@both_engines
def test_nobody_honest_is_left_out(engine):
    roster, state, seen = enrolled(engine)
    assert not of(events.ClientRejected, seen)
    assert len(roster.nodes) == 6
    assert same_bits(state, enrolled(engine, enabled=False)[1])


@both_engines
def test_the_median_is_not_carried_away_by_what_passes(engine):
    """Two of six lie 5 away: within the limit, and the pooled mean follows them."""
    forge, who = (lambda sums: moved(sums, 5.0)), ("c1", "c4")
    honest = enrolled(engine, statistics="median")[1]["x_mean"]
    pooled = enrolled(engine, forge, who)[1]["x_mean"]
    median = enrolled(engine, forge, who, statistics="median")[1]["x_mean"]
    assert (pooled - enrolled(engine)[1]["x_mean"] > 1.5).all()  # 2/6 of 5 is 1.67
    assert np.abs(median - honest).max() < 0.5


SUMS = {
    "turned beyond what rows can have": (
        changed("moment", lambda m: -1000 * m),
        "no rows can have its sums",
    ),
    "more points than it has": (changed("gram", lambda g: g * 1e12), "points and claims"),
    "not symmetric": (
        changed("gram", lambda g: g + np.triu(np.full(g.shape, g.max()), 1)),
        "not symmetric",
    ),
    "squares below zero": (changed("square", lambda s: -s), "below zero"),
    "residuals a thousand times": (lambda sums: scaled(sums, -1000.0), "its residual lies"),
    "residuals turned": (lambda sums: scaled(sums, -3.0), "contradict those of the others"),
}


@pytest.mark.parametrize("case", SUMS)
@both_engines
def test_made_up_sums_are_refused_and_the_others_are_solved(engine, case):
    forge, said = SUMS[case]
    state, seen = solved(engine, forge)
    (rejected,) = of(events.ClientRejected, seen)
    assert (rejected.client_id, rejected.code, rejected.round) == (FORGER, "FL301", 1)
    assert said in rejected.reason
    others = {one.client_id for one in CLIENTS} - {FORGER}
    assert {e.client_id for e in of(events.ClientReplied, seen)} == others
    # Exactly the federation that never had it.
    assert same_bits(state, solved(engine, left=others)[0])


@both_engines
def test_an_honest_round_is_solved_as_without_the_gate(engine):
    state, seen = solved(engine)
    assert not of(events.ClientRejected, seen)
    assert same_bits(state, solved(engine, enabled=False)[0])


@both_engines
def test_fit_can_be_left_to_the_user(engine):
    _, seen = solved(engine, lambda sums: scaled(sums, -3.0), fit=False)
    assert not of(events.ClientRejected, seen)


def test_forged_sums_are_those_of_rows():
    """By hand: rows 1 and 3 moved by 2 are 3 and 5; Σ = 8, Σ² = 34. Residuals twice: m 2, s 4."""
    sums = {"n": np.array([2.0]), "x_sum": np.array([4.0]), "x_sq_sum": np.array([10.0])}
    found = moved(sums, 2.0)
    assert [found[name].item() for name in ("n", "x_sum", "x_sq_sum")] == [2, 8, 34]
    one = {"gram": np.eye(1), "moment": np.array([3.0]), "square": np.array([9.0])}
    assert [a.item() for a in scaled(one, -2.0).values()] == [1, -6, 36]
    assert moved({}, 2.0) == {}


@pytest.mark.parametrize(
    ("model", "attacks", "defences", "said"),
    [
        ("ridge", ["sign-flip"], ["fedavg"], "is on updates"),
        ("mlp", ["poisoned-sums"], ["fedavg"], "is on sums"),
        ("ridge", ["poisoned-sums"], ["median"], "a rule for updates"),
        ("ridge", ["poisoned-sums"], ["fedavg-no-gate", "fedavg"], ""),
        ("mlp", ["poisoned-enrolment"], ["median"], ""),
    ],
)
def test_the_laboratory_tries_attacks_where_they_apply(model, attacks, defences, said):
    config = check({"model": model, "attack": {"attacks": attacks, "defences": defences}})
    if not said:
        laboratory_check(config)
        return
    with pytest.raises(FederationError, match=said) as caught:
        laboratory_check(config)
    assert caught.value.faults[0].code == "FL317"

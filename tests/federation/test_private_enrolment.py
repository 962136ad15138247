"""Enrolment and validation under `[privacy]`, on both engines of this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_inmetro import events
from fl_inmetro.config.models import Mlp
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.public_scales import public_scales
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.recipes import merge_for
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.federation.validation import ALL, Hearing, Validation
from fl_inmetro.learning.client import ClientWorker, Enrolment
from fl_inmetro.learning.neural import MlpLearner
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateMetric, PrivateSums
from tests.engines import ENGINES, grid_of, same_bits
from tests.fleets import clients_of, fleet

GROUPS = ("calendar", "lags")
MLP = MlpLearner(Mlp(hidden=(2,), features=GROUPS))
SCALES = public_scales(feature_names(GROUPS))
CLIENTS = clients_of(fleet(5))[0]
SECRET = Secret(bytes(range(32)))

both_engines = pytest.mark.parametrize("engine", ENGINES)


def sums(protect: Any, z: float | None) -> PrivateSums:
    return PrivateSums(protect, z, SECRET, lambda *noted: None)


class Watched(ClientWorker):
    """Shows what leaves it, and may say something else."""

    left: dict[str, Any]
    forged: dict[str, Any] | None = None

    def enrol(self, *asked: Any) -> Enrolment:
        told = super().enrol(*asked)
        if self.forged is not None:
            told = replace(told, sums=self.forged)
        self.left = told.sums
        return told


def enrolled(engine: str, private: PrivateSums | None, forged: Any = None) -> Any:
    workers = [Watched(client, MLP) for client in CLIENTS]
    workers[2].forged = forged
    seen: list[events.Event] = []
    grid = grid_of(engine, workers, secret=SECRET)
    roster, state = enrol(grid, MLP, 0, 60.0, 0, seen.append, private=private)
    refused = [e for e in seen if isinstance(e, events.ClientRejected)]
    return roster, state, workers, refused, grid


@both_engines
@pytest.mark.parametrize("protect", ["client", "window", "client-day"])
def test_no_sum_leaves_as_it_is(engine, protect):
    _, _, workers, refused, _ = enrolled(engine, sums(protect, 1.0))
    assert not refused
    for worker in workers:
        assert set(worker.left) == {"moments"}
    _, _, workers, _, _ = enrolled(engine, sums(protect, None))
    assert all(worker.left == {} for worker in workers)


@pytest.mark.parametrize("z", [None, 0.0, 1.0])
@pytest.mark.parametrize("protect", ["client", "window"])
def test_both_engines_begin_alike(protect, z):
    (_, one, *_), (_, other, *_) = (enrolled(engine, sums(protect, z)) for engine in ENGINES)
    assert same_bits(one, other)


@both_engines
def test_public_scales_take_the_place_of_sums(engine):
    _, state, *_ = enrolled(engine, sums("client", None))
    assert state["x_mean"] == pytest.approx(SCALES.mean, abs=1e-6)
    assert state["x_std"] == pytest.approx(SCALES.std, rel=1e-6)


@both_engines
def test_what_was_not_asked_for_is_refused(engine):
    forged = {"moments": np.zeros(3)}
    roster, _, _, refused, _ = enrolled(engine, sums("client", 1.0), forged)
    assert "c2" not in roster.nodes
    assert len(roster.nodes) == 4
    assert "sends other sums than it was asked for" in refused[0].reason


@both_engines
def test_one_liar_moves_the_scales_by_no_more_than_a_client_may(engine):
    lie = {"moments": np.full(2 * int(SCALES.of_readings.sum()), 1e12)}
    _, honest, *_ = enrolled(engine, sums("client", 0.0))
    roster, lied, _, refused, _ = enrolled(engine, sums("client", 0.0), lie)
    assert not refused  # nobody's sums decide about anybody
    assert len(roster.nodes) == 5
    moved = (lied["x_mean"] - honest["x_mean"]) / SCALES.std
    assert np.linalg.norm(moved) <= 2 * 5.0 / 5 + 1e-6  # one of five clients, replaced


@both_engines
def test_a_round_is_scored_by_one_figure(engine):
    roster, state, _, _, grid = enrolled(engine, None)
    noted: list[Any] = []
    metric = PrivateMetric("client", 0.0, 10.0, SECRET, lambda *what: noted.append(what))

    def trained(metric: PrivateMetric | None) -> tuple[float, list[events.Event]]:
        seen: list[events.Event] = []
        strategy = FederatedStrategy(
            roster,
            merge_for(MLP, StrategySettings(), frozenset(), roster, 1, 0, 2),
            closed_form=False,
            settings=Federation(num_server_rounds=2),
            seed=0,
            emit=seen.append,
            hearing=Hearing(metric, remembered=False),
        )
        progress = strategy.run(grid, begin(state), 2, 60.0)
        return progress.best_nmae, seen

    exact, seen = trained(None)
    assert any(isinstance(e, events.ClientEvaluated) for e in seen)
    private, seen = trained(metric)
    assert not any(isinstance(e, events.ClientEvaluated) for e in seen)
    assert private == pytest.approx(exact, rel=1e-12)  # no noise, nothing cut: the same figure
    assert [what[:2] for what in noted] == [(1, 5.0), (2, 5.0)]


def test_noise_is_on_the_figure_and_nobody_else_is_told():
    metric = PrivateMetric("client", 2.0, 1.0, SECRET, lambda *noted: None)
    roster, *_ = enrolled("cohort", None)
    seen: list[events.Event] = []
    validation = Validation(roster, 0, seen.append, hearing=Hearing(metric, remembered=False))
    found = validation.report(3, {})
    assert set(found) == {ALL}
    # z L/2 / K = 0.2: within five deviations of the middle, and not the middle.
    assert 0 < abs(found[ALL] - 0.5) < 1.0
    assert validation.told({"c0": ErrorSums()}) == {}
    assert not seen


def test_where_nothing_is_heard_nobody_is_asked():
    roster, state, *_ = enrolled("cohort", None)
    validation = Validation(roster, 0, lambda event: None, hearing=Hearing(asked=False))
    # No node could answer: there is no grid.
    assert validation.ask(object(), 1, state, "validation", 0, 1.0) == {}  # type: ignore[arg-type]
    assert validation.ask(object(), 1, state, "test", 0, 1.0) == {}  # type: ignore[arg-type]

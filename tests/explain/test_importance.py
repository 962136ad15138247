"""Permutation importance: by hand, against a plain loop, and against the run's own scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest

from fl_inmetro.config.models import Ridge
from fl_inmetro.data.features import feature_names
from fl_inmetro.errors import FederationError
from fl_inmetro.explain.blocks import Block, moved
from fl_inmetro.explain.importance import (
    ClientSums,
    Deal,
    Importance,
    Look,
    Rise,
    client_sums,
    importance,
)
from fl_inmetro.explain.study import study
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.models.design import Design
from fl_inmetro.plan import Job
from fl_inmetro.seeds import derive
from fl_inmetro.trained import trained_model


@dataclass(frozen=True)
class Targets:
    """Stands for windows: all that is asked of them here is what was measured."""

    kwh: np.ndarray

    def target_kwh(self) -> np.ndarray:
        return self.kwh


def linear(x: np.ndarray, beta: list[float]) -> Look:
    """A ridge of given coefficients on a base of zero and a scale of one; blocks x0, x1, …"""
    shape = x.shape[:2]
    nothing = np.zeros(shape, dtype=np.float32)
    level = (np.ones(shape[0]), np.full(shape[0], -np.inf))
    design = Design(x, nothing, *level, nothing, nothing)
    state = {
        "coefficients": np.array([*beta, 0.0]),
        "x_mean": np.zeros(len(beta)),
        "x_std": np.full(len(beta), 100.0),
    }
    learner = RidgeLearner(Ridge())
    blocks = {f"x{k}": Block(f"x{k}", np.array([k])) for k in range(len(beta))}

    def forecast(deal: Deal | None):
        seen = design if deal is None else moved(design, blocks[deal.block], deal.order)
        return learner.forecast(state, seen)

    return Look(tuple(blocks), forecast)


def test_all_permutations_raise_the_squared_error_of_a_linear_model_by_twice_its_variance():
    """y = βx + γz without noise, forecast by the same. Over all permutations π of the N windows
    E (β x_π(n) + γ z_n − y_n)² = E β² (x_π(n) − x_n)² = 2 β² Var(x), at each step of the horizon,
    with the variance of N: each pair is met equally often."""
    rng = derive(1, "hand")
    x = rng.normal(size=(4, 3, 2)).astype(np.float32)
    own = linear(x, [2.0, -0.5])
    seen = Targets(2.0 * x[..., 0].astype(float) - 0.5 * x[..., 1].astype(float))
    orders = [np.array(order) for order in permutations(range(4))]
    sums = client_sums(own, seen, orders)
    assert sums.plain.sq_kwh2 == pytest.approx(0, abs=1e-10)
    for k, beta in enumerate((2.0, -0.5)):
        rise = np.mean([one.sq_kwh2 for one in sums.dealt[f"x{k}"]]) / 12
        by_hand = 2 * beta**2 * x[..., k].astype(float).var(axis=0).mean()
        assert rise == pytest.approx(by_hand, rel=1e-6)


def test_with_two_windows_the_absolute_error_follows_by_hand():
    """x = 0 and 3, β = 2, one step, y = βx + 10: exchanged, both forecasts are 6 off, the load is
    10 and 16, so nMAE grows from 0 to 6 / 13. A base is exchanged by the same rule."""
    x = np.array([[[0.0, 1.0]], [[3.0, 1.0]]], dtype=np.float32)
    own = linear(x, [2.0, 10.0])
    sums = client_sums(own, Targets(np.array([[10.0], [16.0]])), [np.array([1, 0])])
    found = Importance({"a": sums}, {})
    assert found.scores("a")["nmae"] == 0
    assert found.rises("x0", "a")["nmae"].mean == pytest.approx(6 / 13)
    # The same in both windows: to exchange it changes nothing, to the bit.
    assert sums.dealt["x1"] == (sums.plain,)


def test_a_column_that_the_model_ignores_has_no_importance_at_all():
    rng = derive(2, "ignored")
    x = rng.normal(size=(6, 4, 2)).astype(np.float32)
    own = linear(x, [1.0, 0.0])
    orders = [derive(2, "order", k).permutation(6) for k in range(3)]
    sums = client_sums(own, Targets(rng.normal(3, 1, size=(6, 4))), orders)
    assert sums.dealt["x1"] == (sums.plain,) * 3
    rise = Importance({"a": sums}, {}).rises("x1", "a")["nmae"]
    assert (rise.mean, rise.deviation) == (0.0, 0.0)
    assert Importance({"a": sums}, {}).rises("x0", "a")["nmae"].mean > 0


def test_a_rise_is_a_mean_and_a_standard_deviation():
    assert Rise.of(1.0, [1.5, 2.5]) == Rise(1.0, pytest.approx(0.5**0.5))
    assert np.isnan(Rise.of(1.0, [1.5]).deviation)


@pytest.mark.parametrize("training", ["federated", "local"])
def test_ridge_equals_a_plain_loop(made, training):
    """Window by window and column by column, from the coefficients themselves."""
    model = trained_model(made.record, "ridge", training)
    clients = {name: one.test for name, one in made.prepared.clients.items()}
    found = importance(model, clients, "feature", 2, 5)
    names = feature_names(model.learner.settings.features)
    for client, (windows,) in clients.items():
        state = model.state_for(client)
        design = model.learner.design(windows, targets=False)
        mean, std, beta = (state[key] for key in ("x_mean", "x_std", "coefficients"))
        y = windows.target_kwh()
        for repeat in range(2):
            order = derive(5, "importance", client, repeat).permutation(len(windows))
            for feature in ("lag_1d", "median_28d", "lead"):
                k = names.index(feature)
                total, load, points = 0.0, 0.0, 0
                for n in range(len(windows)):
                    for h in range(24):
                        row = design.x[n, h].astype(float)
                        row[k] = design.x[order[n], h, k]
                        cut = np.minimum(np.maximum(row, mean - 5 * std), mean + 5 * std)
                        f = sum(cut[j] * beta[j] for j in range(len(names))) + beta[-1]
                        kwh = max((design.base[n, h] + f) * design.scale_kwh[n], 0.0)
                        if np.isfinite(y[n, h]):
                            total += abs(kwh - y[n, h])
                            load += y[n, h]
                            points += 1
                told = found.clients[client].dealt[feature][repeat]
                assert told.n == points
                assert told.nmae == pytest.approx(total / load, rel=1e-9)


@pytest.mark.parametrize(
    "model", ["ridge", "mlp", "nlinear", "gru", "tide", "cyclenet", "ensemble"]
)
@pytest.mark.parametrize("training", ["local", "federated", "personalised"])
def test_with_the_input_as_it_is_a_model_has_the_scores_of_the_run(made, model, training):
    _has_the_scores_of_the_run(made, model, training)


@pytest.mark.parametrize("model", ["ridge", "mlp", "ensemble"])
def test_calibrated_quantiles_have_the_scores_of_the_run(calibrated, model):
    _has_the_scores_of_the_run(calibrated, model, "federated")


def _has_the_scores_of_the_run(made, model, training):
    told = study(made.record, trained_model(made.record, model, training), (), "group", 1)
    rows = {(row["model"], row["training"]): row for row in made.record.scores()}
    for name in ("nmae", "pinball"):
        kept = rows[model, training][name]
        assert told[name] == (None if kept is None else pytest.approx(kept, rel=1e-9))
    assert told["left_out"] == {}
    assert {row["block"] for row in told["rows"]} >= {
        "mlp": {"profile", "lags", "day_profiles", "recent", "calendar"},
        "gru": {"profile", "past_day_1", "past_day_2"},
        "ensemble": {"profile", "last_reading", "lags", "past_day_1"},
    }.get(model, set())


def test_the_fleet_is_made_of_the_clients_sums_alone(made):
    """Whoever is asked alone tells the same; the fleet's nMAE is the mean of theirs."""
    model = trained_model(made.record, "mlp", "federated")
    whole = study(made.record, model, (), "group", 2)
    alone = {name: study(made.record, model, (name,), "group", 2) for name in whole["clients"]}
    for name, one in alone.items():
        assert one["clients"][name] == whole["clients"][name]
    for place, row in enumerate(whole["rows"]):
        own = [one["rows"][place]["nmae"] for one in alone.values()]
        assert row["nmae"] == pytest.approx(np.mean(own), rel=1e-9)


def test_the_windows_of_several_meters_add_up_to_their_client(made):
    model = trained_model(made.record, "ridge", "federated")
    (a,), (b,) = [one.test for one in made.prepared.clients.values()][:2]
    both = importance(model, {"both": (a, b)}, "group", 2, 5).clients["both"]
    parts = [importance(model, {"both": (one,)}, "group", 2, 5).clients["both"] for one in (a, b)]
    assert both.plain == parts[0].plain + parts[1].plain
    for block, sums in both.dealt.items():
        assert sums == tuple(
            x + y for x, y in zip(parts[0].dealt[block], parts[1].dealt[block], strict=True)
        )


def test_a_block_that_a_client_has_not_leaves_its_scores_alone():
    plain = ErrorSums(n=2, abs_kwh=1.0, n_load=2, load_kwh=4.0)
    worse = ErrorSums(n=2, abs_kwh=3.0, n_load=2, load_kwh=4.0)
    found = Importance(
        {"a": ClientSums(plain, {"x": (worse,)}), "b": ClientSums(plain, {"z": (plain,)})}, {}
    )
    # (3/4 − 1/4) / 2 over two clients of whom one has the block.
    assert found.rises("x")["nmae"].mean == pytest.approx(0.25)
    assert found.rises("x", "b")["nmae"].mean == 0


# ---------------------------------------------------------------------------------- faults
def test_an_unknown_client_is_fl360(made):
    model = trained_model(made.record, "mlp", "federated")
    with pytest.raises(FederationError) as caught:
        study(made.record, model, ("nobody", "no one"), "group", 1)
    assert [fault.code for fault in caught.value.faults] == ["FL360", "FL360"]
    assert "4 clients" in caught.value.faults[0].where


def test_one_window_is_nothing_to_exchange_fl364(made):
    model = trained_model(made.record, "mlp", "federated")
    name, one = next(iter(made.prepared.clients.items()))
    with pytest.raises(FederationError) as caught:
        importance(model, {name: (one.test[0].take(np.array([0])),)}, "group", 1, 3)
    assert caught.value.faults[0].code == "FL364"


def test_a_client_without_a_model_is_left_out_and_named(made):
    model = trained_model(made.record, "mlp", "local")
    name, one = next(iter(made.prepared.clients.items()))
    found = importance(model, {name: one.test, "stranger": one.test}, "group", 1, 3)
    assert list(found.clients) == [name]
    assert found.left_out == {"stranger": "no_model"}


def test_a_model_of_an_unknown_kind_is_fl363(made):
    class Strange:
        job = Job("mlp", "federated")

    name, one = next(iter(made.prepared.clients.items()))
    with pytest.raises(FederationError) as caught:
        importance(Strange(), {name: one.test}, "group", 1, 3)
    assert caught.value.faults[0].code == "FL363"

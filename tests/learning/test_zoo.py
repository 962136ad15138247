"""The zoo as learners: what each sees, how it finds its sizes again, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.config import check, load
from fl_inmetro.config.models import Models
from fl_inmetro.data.features import row_features
from fl_inmetro.errors import ConfigError
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import learner
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.models.design import MIN_DEVIATION, context_design, profile_design
from tests.engines import apart, federated
from tests.fleets import clients_of, fleet, series, tiny_config, windows

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {"network": "examples.own_network:DayFilters"}
SIZES: dict[str, dict[str, Any]] = {
    "dlinear": {},
    "sparsetsf": {"period_h": 6},
    "cyclenet": {},
    "tide": {"width": 6},
    "nhits": {"pools": [5, 1], "hidden": [6]},
    "segrnn": {"segment": 6, "width": 5},
    "tsmixer": {"width": 3},
    "tsmixer without rows": {"width": 3, "features": []},
}


def made(name: str, **changes: Any) -> GradientLearner:
    model = name.split()[0]
    own = OWN if model == "own" else SIZES.get(name, {})
    settings = {"context_h": 24, "loss": "mse", **own, **changes}
    found = learner(model, Models.model_validate({model: settings}))
    assert isinstance(found, GradientLearner)
    return found


def first_state(one: GradientLearner, design) -> dict:
    return one.initial(one.enrol(design), 4, design.x.shape[1:], design.base.shape[1])


# ------------------------------------------------------------------------------ every learner
@pytest.mark.parametrize("loss", ["mse", "quantile"])
@pytest.mark.parametrize("context_h", [24, 36])
@pytest.mark.parametrize("name", SIZES)
def test_a_state_says_the_sizes_of_its_network(name, context_h, loss):
    one = made(name, context_h=context_h, loss=loss)
    design = one.design(windows(series("a", 20), [15, 16], horizon=12))
    state = first_state(one, design)
    module = one.loaded(state)
    expected = (2, 12) if loss == "mse" else (2, 12, 4)
    assert module(torch.from_numpy(design.x)).shape == expected
    forecast = one.forecast(state, design)
    np.testing.assert_allclose(
        forecast.mean_kwh, design.base * design.scale_kwh[:, None], rtol=1e-6
    )


@pytest.mark.parametrize("name", SIZES)
def test_each_learns_what_only_the_context_tells(name):
    """One kWh an hour on even days, two on odd ones: the profile can only say 1.5."""
    energy = np.repeat(np.tile([1.0, 2.0], 30), 24)
    part = windows(type(series("a"))("a", series("a").start_utc_s, 3600, energy), range(28, 60))
    one = made(name, loss="mae", eta_l=0.01, batch_size=8, context_h=48)
    design = one.design(part)
    state = first_state(one, design)
    base = np.abs(design.base * design.scale_kwh[:, None] - part.target_kwh()).mean()
    assert base == pytest.approx(0.5, abs=0.03)
    for round_ in range(6):
        delta, _ = one.update(state, design, LocalWork(10), round_)
        state = {key: value + delta.get(key, 0) for key, value in state.items()}
    error = np.abs(one.forecast(state, design).mean_kwh - part.target_kwh()).mean()
    assert error < 0.3 * base


def test_rows_stand_behind_the_context_and_are_standardised_by_the_sums():
    one = made("tide", features=["calendar", "lags"])
    part = windows(series("a", 40, gaps=0.1), range(20, 40))
    design = one.design(part)
    rows = row_features(part, ("calendar", "lags")).x
    np.testing.assert_array_equal(design.x[:, 24:], rows.reshape(len(part), -1))
    np.testing.assert_array_equal(design.x[:, :24], profile_design(part, 24).x)
    state = first_state(one, design)
    flat = rows.reshape(-1, rows.shape[2]).astype(np.float64)
    np.testing.assert_allclose(state["x_mean"], flat.mean(axis=0), rtol=1e-5, atol=1e-6)
    spread = np.where(flat.std(axis=0) > 1e-6, flat.std(axis=0), 1)
    np.testing.assert_allclose(state["x_std"], spread, rtol=1e-4)


# ------------------------------------------------------------------------------------ cycles
def test_the_place_in_the_week_is_that_of_the_local_clock():
    # 2024-01-01 is a Monday, so day 15 is a Tuesday: hour 24 of the week. In São Paulo midnight
    # UTC is 21:00 of the Monday.
    part = windows(series("a", 20), [15])
    assert made("cyclenet").design(part).x[0, -1] == 24
    there = type(part)(part.series, part.issue_index, part.horizon, "America/Sao_Paulo")
    assert made("cyclenet").design(there).x[0, -1] == 21
    assert made("cyclenet", cycle_h=24).design(there).x[0, -1] == 21
    quarters = windows(series("a", 20, resolution_s=900), [15])
    one = made("cyclenet")
    design = one.design(quarters)
    assert design.x[0, -1] == 96
    assert first_state(one, design)["cycle.table"].shape == (672,)


def test_a_cycle_stays_on_its_client():
    config = tiny_config(
        model="cyclenet", models={"cyclenet": {"context_h": 24}},
        federation={"num_server_rounds": 2},
    )  # fmt: skip
    clients = clients_of(fleet(3))[0]
    outcome, _, grid = federated("loop", config, clients)
    assert not outcome.state["cycle.table"].any()  # the server never saw one
    own = [grid.best_private(place)["cycle.table"] for place in range(3)]
    assert all(table.any() for table in own)
    assert not np.array_equal(own[0], own[1])
    other, _, cohort = federated("cohort", config, clients)
    assert apart(other.state, outcome.state) < 1e-5
    for place in range(3):
        theirs = cohort.best_private(place)["cycle.table"]
        np.testing.assert_allclose(theirs, own[place], rtol=1e-3, atol=1e-5)


# ----------------------------------------------------------------------------- normalisation
def test_a_window_is_normalised_by_its_own_mean_and_deviation():
    part = windows(series("a", 40, gaps=0.1, level_kwh=3.0), range(20, 40))
    plain = profile_design(part, 48)
    own = profile_design(part, 48, normalise="window")
    for n in range(len(part)):
        context = plain.x[n].astype(np.float64) + 1  # in units of the scale
        deviation = np.sqrt(np.mean((context - context.mean()) ** 2) + MIN_DEVIATION**2)
        np.testing.assert_allclose(
            own.x[n], (context - context.mean()) / deviation, rtol=1e-4, atol=1e-5
        )
        assert own.scale_kwh[n] == pytest.approx(plain.scale_kwh[n] * deviation)
        # ŷ = profile + σ f, so a correction of nothing is the same forecast.
        assert own.base[n] * deviation == pytest.approx(plain.base[n], rel=1e-5)
        known = own.known[n] > 0
        np.testing.assert_allclose(
            own.residual[n][known] * deviation, plain.residual[n][known], rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(own.known, plain.known)


def test_a_window_without_a_wave_is_not_blown_up():
    level = type(series("a"))("a", series("a").start_utc_s, 3600, np.full(40 * 24, 2.0))
    design = profile_design(windows(level, [30]), 24, normalise="window")
    assert design.scale_kwh == pytest.approx([0.2])  # a tenth of the mean load
    assert not design.x.any()


def test_the_last_value_too_is_in_units_of_the_window():
    part = windows(series("a", 40), [30])
    plain, own = context_design(part, 24), context_design(part, 24, normalise="window")
    factor = own.scale_kwh[0] / plain.scale_kwh[0]
    np.testing.assert_allclose(own.x * factor, plain.x, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own.to_kwh(own.residual), plain.to_kwh(plain.residual), rtol=1e-5)


@pytest.mark.parametrize("name", [*SIZES, "nlinear", "patchtst"])
def test_every_context_model_takes_the_setting(name):
    part = windows(series("a", 20), [15, 16], horizon=12)
    design, scaled = made(name, normalise="window").design(part), made(name).design(part)
    assert design.x.shape == scaled.x.shape
    assert not np.array_equal(design.scale_kwh, scaled.scale_kwh)


# ------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("name", "changes", "resolution_s", "said"),
    [
        ("segrnn", {"segment": 7}, 3600, "a segment of 7 steps of 3600 s does not divide"),
        ("sparsetsf", {"period_h": 5}, 3600, "a period of 5 steps of 3600 s is odd"),
        ("sparsetsf", {"period_h": 10}, 3600, "a period of 10 steps of 3600 s does not divide"),
        ("sparsetsf", {"period_h": 6.5}, 3600, "6.5 h are no whole number of steps of 3600 s"),
        ("cyclenet", {"cycle_h": 0.25}, 1800, "0.25 h are no whole number of steps of 1800 s"),
        ("cyclenet", {"context_h": 24.1}, 3600, "24.1 h are no whole number of steps"),
    ],
)
def test_sizes_that_do_not_fit_are_told(name, changes, resolution_s, said):
    part = windows(series("a", 20, resolution_s=resolution_s), [15])
    with pytest.raises(ConfigError) as caught:
        made(name, **changes).design(part)
    (fault,) = caught.value.faults
    assert fault.code == "FL114"
    assert said in fault.what


@pytest.mark.parametrize(
    ("model", "wrong", "said"),
    [
        ("dlinear", {"average": 24}, "moving average of 24 steps has no middle"),
        ("nhits", {"pools": [1, 6]}, "`pools` fall from coarse to fine and end with 1"),
        ("nhits", {"pools": []}, "`pools` fall"),
        ("own", {"network": "nothing"}, "network"),
    ],
)
def test_settings_that_cannot_be_are_told(model, wrong, said):
    with pytest.raises(ConfigError) as caught:
        check({"models": {model: wrong}})
    (fault,) = caught.value.faults
    assert fault.code == "FL102"
    assert said in f"{fault.what} {fault.where}"


# ------------------------------------------------------------------------------- of one's own
class Wrong(nn.Module):
    def __init__(self, context: int, horizon: int) -> None:
        super().__init__()
        self.map = nn.Linear(context, horizon + 1)

    def forward(self, x):
        return self.map(x)


class Failing(Wrong):
    def forward(self, x):
        raise KeyError("x")


class Unknown(Wrong):
    def __init__(self, context: int, horizon: int) -> None:
        super().__init__(context, horizon)
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)


class Keeping(Wrong):
    def __init__(self, context: int, horizon: int) -> None:
        super().__init__(context, horizon)
        self.register_buffer("mean", torch.zeros(3))


def not_a_network(context: int, horizon: int) -> int:
    return context + horizon


NUMBER = 3


def begun(**changes: Any) -> None:
    one = made("own", **changes)
    first_state(one, one.design(windows(series("a", 20), [15])))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Wrong", "gives (2, 25) for two windows, not (2, 24)"),
        ("Failing", "fails on two windows of 24 steps: KeyError: 'x'"),
        ("Unknown", "no first values are known for the parameters of BatchNorm1d"),
        ("Keeping", "keeps a buffer `mean`"),
        ("not_a_network", "makes a int, no torch.nn.Module"),
        ("NUMBER", "is no class but of type int"),
        ("Missing", "the module has no `Missing`"),
    ],
)
def test_a_network_that_cannot_be_used_is_told(name, said):
    with pytest.raises(ConfigError) as caught:
        begun(network=f"tests.learning.test_zoo:{name}")
    (fault,) = caught.value.faults
    assert fault.code == "FL115"
    assert said in fault.what
    assert fault.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": "no_such_file:Network"}, "there is no module `no_such_file`"),
        ({"network": None}, "no network is named"),
        ({"loss": "quantile"}, "cannot be made with (24, 24, 4): TypeError"),
    ],
)
def test_what_is_not_there_is_told(changes, said):
    with pytest.raises(ConfigError) as caught:
        begun(**changes)
    (fault,) = caught.value.faults
    assert fault.code == "FL115"
    assert said in fault.what


def test_the_example_trains_in_a_federation(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    config = load(EXAMPLES / "own_network.toml")
    assert config.models.own.network == "own_network:DayFilters"
    part = windows(series("a", 40), range(20, 40))
    one = learner(config.model, config.models)
    assert isinstance(one, GradientLearner)
    design = one.design(part)
    state = first_state(one, design)
    assert state["context_and_horizon"].tolist() == [168, 24]
    assert state["filters.weight"].any()
    assert not state["head.weight"].any()
    before = one.mean_loss(state, design)
    for round_ in range(5):
        delta, _ = one.update(state, design, LocalWork(2), round_)
        state = {key: value + delta.get(key, 0) for key, value in state.items()}
    assert one.mean_loss(state, design) < before
    sys.modules.pop("own_network", None)


@pytest.mark.parametrize(
    ("settings", "base"),
    [({}, "median"), ({"loss": "quantile"}, "median"), ({"loss": "mse"}, "mean"),
     ({"base": "mean"}, "mean"), ({"loss": "mse", "base": "median"}, "median")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["window_mlp", "gru", "patchtst", "dlinear", "cyclenet", "tide"])
def test_the_base_is_what_the_loss_aims_at(name, settings, base):
    part = windows(series("a", 40, gaps=0.1), range(20, 40))
    rows = row_features(part, ())
    wanted = {"mean": rows.base, "median": rows.median}
    made = learner(name, Models.model_validate({name: settings})).design(part)
    np.testing.assert_array_equal(made.base, wanted[base])
    assert np.abs(rows.base - rows.median).max() > 0.01

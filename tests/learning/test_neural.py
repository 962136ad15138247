"""The context models as learners: what they see, how they start, that they learn, and a new one."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.config import check
from fl_inmetro.config.models import Models
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.errors import ConfigError
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import LEARNERS, learner
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.models.design import row_design
from fl_inmetro.seeds import derive
from tests.fleets import MONDAY, series, windows

METHODS = Path(__file__).parents[2] / "docs" / "methods.md"
NEW = ("window_mlp", "gru", "lstm", "patchtst")
CONTEXT = ("nlinear", *NEW)
TRAINING = {"optimizer": "sgd", "eta_l": 0.1, "batch_size": 0, "context_h": 30, "loss": "mse"}
SIZES = {
    "nlinear": {},
    "window_mlp": {"hidden": [7, 5]},
    "gru": {"hidden": 6, "layers": 2},
    "lstm": {"hidden": 6, "layers": 2},
    "patchtst": {"width": 8, "heads": 2, "layers": 1, "feed_forward": 12},
}


def made(name: str, **changes) -> GradientLearner:
    return learner(name, Models.model_validate({name: {**TRAINING, **SIZES[name], **changes}}))


def first_state(one: GradientLearner, design) -> dict:
    return one.initial({}, 4, design.x.shape[1:], design.base.shape[1])


# ----------------------------------------------------------------------------- what they see
@pytest.mark.parametrize("name", list(LEARNERS))
def test_nothing_after_the_issue_time_is_seen(name):
    one = series("a", 40, gaps=0.1)
    other = one.energy_kwh.copy()
    other[30 * 24 :] = derive(1, "other future").uniform(50, 90, other.size - 30 * 24)
    named = {"own": {"network": "examples.own_network:DayFilters"}}
    learned = learner(name, Models.model_validate(named))
    designs = [
        learned.design(windows(ClientSeries("a", MONDAY, 3600, energy), [28, 30]), targets=False)
        for energy in (one.energy_kwh, other)
    ]
    for field in ("x", "base", "scale_kwh", "floor_kwh"):
        np.testing.assert_array_equal(*(getattr(design, field) for design in designs))


@pytest.mark.parametrize("name", NEW)
def test_the_first_forecast_is_the_day_type_profile(name):
    part = windows(series("a", 40, gaps=0.1), range(10, 40))
    one = made(name)
    design = one.design(part)
    np.testing.assert_array_equal(design.base, row_design(part, ()).base)
    forecast = one.forecast(first_state(one, design), design).mean_kwh
    np.testing.assert_allclose(forecast, design.base * design.scale_kwh[:, None], rtol=1e-6)


@pytest.mark.parametrize("name", CONTEXT)
@pytest.mark.parametrize("context_h", [24, 30, 31])
def test_a_state_says_the_sizes_of_its_network(name, context_h):
    one = made(name, context_h=context_h)
    design = one.design(windows(series("a", 20), [15, 16], horizon=5))
    assert design.x.shape == (2, context_h)
    state = first_state(one, design)
    module = one.module(state)
    assert {key: p.shape for key, p in module.named_parameters()} == {
        key: value.shape for key, value in state.items()
    }
    assert module(torch.from_numpy(design.x)).shape == (2, 5)


def test_a_window_mlp_may_have_no_hidden_layer():
    one = made("window_mlp", hidden=[])
    design = one.design(windows(series("a", 20), [15], horizon=5))
    state = first_state(one, design)
    assert {key: value.shape for key, value in state.items()} == {
        "head.weight": (5, 30),
        "head.bias": (5,),
    }
    assert one.forecast(state, design).mean_kwh.shape == (1, 5)


# ---------------------------------------------------------------------------- how they train
@pytest.mark.parametrize("name", CONTEXT)
def test_a_full_batch_step_is_the_gradient_of_autograd(name):
    one = made(name)
    design = one.design(windows(series("a", 40, gaps=0.1), range(10, 40))).trainable()
    # Away from zero, so that every layer has a slope.
    state = {
        key: (value + derive(2, key).normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in first_state(one, design).items()
    }
    leaves = {key: torch.tensor(value, requires_grad=True) for key, value in state.items()}
    output = torch.func.functional_call(one.module(state), leaves, (torch.from_numpy(design.x),))
    known = torch.from_numpy(design.known) > 0
    loss = ((output - torch.from_numpy(design.residual))[known] ** 2).mean()
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    delta, found = one.update(state, design, LocalWork(1), 0)
    assert found == pytest.approx(loss.item(), rel=1e-5)
    assert list(delta) == list(leaves)
    for key, slope in zip(leaves, slopes, strict=True):
        assert slope.abs().max() > 0, key
        np.testing.assert_allclose(delta[key], -0.1 * slope.numpy(), rtol=1e-3, atol=2e-6)


def every_other_day(first: float = 1.0, second: float = 2.0) -> ClientSeries:
    """One kWh an hour on even days, two on odd ones: the profile can only say 1.5."""
    return ClientSeries("a", MONDAY, 3600, np.repeat(np.tile([first, second], 30), 24))


@pytest.mark.parametrize("name", CONTEXT)
def test_each_learns_what_only_the_context_tells(name):
    one = made(name, optimizer="adam", eta_l=0.01, batch_size=8, loss="mae")
    part = windows(every_other_day(), range(28, 60))
    design = one.design(part)
    state = first_state(one, design)
    base = np.abs(design.base * design.scale_kwh[:, None] - part.target_kwh()).mean()
    # NLinear's base is yesterday's value, always wrong by 1; four Mondays, say, hold two days of
    # each kind, and 20 working days ten: the profile is wrong by a half.
    assert base == pytest.approx(1.0 if name == "nlinear" else 0.5, abs=0.03)
    for round_ in range(4):
        delta, _ = one.update(state, design, LocalWork(10), round_)
        state = {key: state[key] + delta[key] for key in state}
    error = np.abs(one.forecast(state, design).mean_kwh - part.target_kwh()).mean()
    assert error < 0.3 * base


# ----------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 5}, "`heads` = 5 does not divide `width` = 32"),
        ({"stride": 17}, "`stride` = 17 is above `patch` = 16"),
    ],
)
def test_sizes_of_patchtst_that_do_not_fit_are_told(wrong, said):
    with pytest.raises(ConfigError) as caught:
        check({"models": {"patchtst": wrong}})
    (fault,) = caught.value.faults
    assert fault.code == "FL102"
    assert said in fault.what


def test_a_patch_longer_than_the_context_is_told():
    part = windows(series("a", 20), [15])
    with pytest.raises(ConfigError) as caught:
        made("patchtst", context_h=12).design(part)
    (fault,) = caught.value.faults
    assert fault.code == "FL109"
    assert "16 steps does not fit into a context of 12 h, which is 12 steps of 3600 s" in fault.what
    # The same 12 hours are 48 steps of a quarter of an hour.
    quarters = windows(series("a", 20, resolution_s=900), [15])
    assert made("patchtst", context_h=12).design(quarters).x.shape == (1, 48)


# --------------------------------------------------------------------------------- a new one
def test_the_network_of_the_documentation_trains_in_a_federation():
    """The example of `docs/methods.md` is the file of the examples, and it is trained."""
    (code,) = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.S)
    assert code == (METHODS.parents[1] / "examples" / "own_network.py").read_text(encoding="utf-8")
    own = {"network": "examples.own_network:DayFilters", "context_h": 48, "eta_l": 0.01}
    one = learner("own", Models.model_validate({"own": own}))
    assert isinstance(one, GradientLearner)
    clients = (every_other_day(), every_other_day(30.0, 10.0))
    designs = [one.design(windows(client, range(28, 60))) for client in clients]
    state = first_state(one, designs[0])
    assert isinstance(one.module(state), nn.Module)

    def loss() -> float:
        return sum(one.update(state, design, LocalWork(1), 0)[1] for design in designs)

    before = loss()
    for round_ in range(10):
        deltas = [one.update(state, design, LocalWork(4), round_)[0] for design in designs]
        trained = {key: state[key] + (deltas[0][key] + deltas[1][key]) / 2 for key in deltas[0]}
        state |= trained
    assert loss() < 0.3 * before

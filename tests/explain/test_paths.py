"""Attributions: exact for linear models, by hand for a ReLU, against a fine plain integral."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.config.models import Models
from fl_inmetro.explain.blocks import Block, blocks_of
from fl_inmetro.explain.paths import FIRST_STEPS, TOLERANCE, baseline_of, parts_of
from fl_inmetro.learning.table import learner
from fl_inmetro.models.design import Design
from fl_inmetro.seeds import derive
from fl_inmetro.trained import trained_model
from tests.fleets import series, windows


def design_of(x) -> Design:
    x = np.asarray(x, dtype=np.float32)
    nothing = np.zeros((1, x.shape[1]), dtype=np.float32)
    return Design(x, nothing, np.ones(1), np.full(1, -np.inf), nothing, nothing)


def columns(count: int) -> list[Block]:
    return [Block(f"x{k}", np.array([k])) for k in range(count)]


def test_a_relu_by_hand():
    """f = max(x₁ + x₂ − 1, 0) at (2, 1) from (0, 0): on the way a·(2, 1) the sum 3a − 1 is above
    zero from a = 1/3 on, so each slope is 1 for two thirds of the way: parts 2 · 2/3 and 1 · 2/3,
    together f = 2. 64 middles
    miss a third of the way by 1/192, more than a thousandth of it: more are taken."""
    one = learner("mlp", Models.model_validate({"mlp": {"hidden": [1], "loss": "mse"}}))
    state = {
        "layers.0.weight": np.float32([[1, 1]]),
        "layers.0.bias": np.float32([-1]),
        "layers.2.weight": np.float32([[1]]),
        "layers.2.bias": np.float32([0]),
        "x_mean": np.float32([0, 0]),
        "x_std": np.float32([1, 1]),
    }
    parts = parts_of(one, state, design_of([[[2.0, 1.0]]]), columns(2), None)
    assert parts.answer == pytest.approx([2])
    assert parts.at_baseline == pytest.approx([0])
    assert parts.blocks["x0"] == pytest.approx([4 / 3], rel=TOLERANCE)
    assert parts.blocks["x1"] == pytest.approx([2 / 3], rel=TOLERANCE)
    assert np.abs(parts.missing).max() <= TOLERANCE * 2
    assert parts.steps > FIRST_STEPS


def test_a_linear_network_is_exact():
    """Coefficient × standardised feature, cut at five deviations; nothing is missing."""
    rng = derive(1, "linear")
    weight, mean, std = rng.normal(size=5), rng.normal(size=5), rng.uniform(0.5, 2, 5)
    one = learner("mlp", Models.model_validate({"mlp": {"hidden": [], "loss": "mae"}}))
    state = {
        "layers.0.weight": np.float32(weight[None]),
        "layers.0.bias": np.float32([0.3]),
        "x_mean": np.float32(mean),
        "x_std": np.float32(std),
    }
    x = mean + std * rng.uniform(-3, 3, size=(1, 4, 5))
    parts = parts_of(one, state, design_of(x), columns(5), None)
    z = (x[0] - mean) / std
    for k in range(5):
        np.testing.assert_allclose(parts.blocks[f"x{k}"], weight[k] * z[:, k], atol=1e-5)
    np.testing.assert_allclose(parts.at_baseline, 0.3, atol=1e-6)
    np.testing.assert_allclose(parts.missing, 0, atol=1e-5)
    assert parts.steps == FIRST_STEPS


@pytest.mark.parametrize("training", ["federated", "local"])
def test_ridge_is_coefficient_times_distance_from_the_mean(made, training):
    model = trained_model(made.record, "ridge", training)
    name, data = next(iter(made.prepared.clients.items()))
    seen = data.test[0].take(np.array([2]))
    state, one = model.state_for(name), model.learner
    design = one.design(seen, targets=False)
    parts = parts_of(one, state, design, blocks_of(one, seen, "feature"), None)
    beta, mean, std = (state[key] for key in ("coefficients", "x_mean", "x_std"))
    cut = np.clip(design.x[0].astype(float), mean - 5 * std, mean + 5 * std)
    by_hand = (cut - mean) * beta[:-1]
    got = np.stack(list(parts.blocks.values()), axis=1)
    np.testing.assert_allclose(got, by_hand, atol=1e-6)
    np.testing.assert_allclose(parts.at_baseline, mean @ beta[:-1] + beta[-1], atol=1e-6)
    np.testing.assert_allclose(parts.missing, 0, atol=1e-6)
    assert parts.steps == 0


def test_quantile_linear_is_taken_apart_level_by_level():
    """Two levels that do not cross: each has its own coefficients."""
    models = Models.model_validate({"quantile_linear": {"levels": [0.5, 0.9]}})
    one = learner("quantile_linear", models)
    state = {
        "coefficients": np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [2.0, 1.0, 0, 5.0]]),
        "x_mean": np.array([1.0, 0, 0]),
        "x_std": np.full(3, 10.0),
    }
    x = design_of([[[3.0, 0.5, 1.0]]])
    median = parts_of(one, state, x, columns(3), 0.5)
    high = parts_of(one, state, x, columns(3), 0.9)
    mean = parts_of(one, state, x, columns(3), None)
    assert [float(v[0]) for v in median.blocks.values()] == pytest.approx([4, 0, 0])
    assert [float(v[0]) for v in high.blocks.values()] == pytest.approx([4, 0.5, 0])
    assert [float(v[0]) for v in mean.blocks.values()] == pytest.approx([2, 0, 0])
    assert high.at_baseline == pytest.approx([7])


@pytest.mark.parametrize("model", ["mlp", "gru", "tide"])
def test_integrated_gradients_equal_a_fine_plain_integral(made, model):
    """One step of the horizon, the trapezoid rule with 4,000 parts, in float64."""
    trained = trained_model(made.record, model, "federated")
    name, data = next(iter(made.prepared.clients.items()))
    seen = data.test[0].take(np.array([3]))
    one, state = trained.learner, trained.state_for(name)
    design = one.design(seen, targets=False)
    blocks = blocks_of(one, seen, "group")
    level = 0.9 if one.head.levels else None
    parts = parts_of(one, state, design, blocks, level)
    module: nn.Module = one.loaded(state).eval().double()
    x = torch.from_numpy(design.x).double()
    start = torch.from_numpy(baseline_of(one, state, design, blocks)).double()
    count, hour = 4000, 18
    total = torch.zeros_like(x[0])
    for part in torch.linspace(0, 1, count + 1, dtype=torch.float64).split(500):
        way = start + part.reshape(-1, *[1] * (x.ndim - 1)) * (x - start)
        way.requires_grad_(True)
        raw = module(way)
        answer = one.head.mean(raw) if level is None else one.head.quantiles(raw)[..., 2]
        (slope,) = torch.autograd.grad(answer[:, hour].sum(), way)
        weight = torch.where((part == 0) | (part == 1), 0.5, 1.0).double() / count
        total += (slope * weight.reshape(-1, *[1] * (x.ndim - 1))).sum(0)
    each = total * (x - start)[0]
    swing = float(np.abs(parts.answer - parts.at_baseline).max())
    for block in blocks[1:]:
        own = float(each[..., block.columns].sum())
        assert parts.blocks[block.name][hour] == pytest.approx(own, abs=2 * TOLERANCE * swing)
    assert swing > 0


def test_an_average_day_is_zero_once_standardised():
    """Row features at their mean; a context at zero; the place in a cycle as it is."""
    seen = windows(series(days=40), [30])
    settings = {"tide": {"context_h": 48}, "cyclenet": {"context_h": 48}}
    models = Models.model_validate(settings)
    tide, cyclenet = learner("tide", models), learner("cyclenet", models)
    design = tide.design(seen, targets=False)
    mean = np.arange(tide.columns, dtype=np.float32)
    blocks = blocks_of(tide, seen, "group")
    at = baseline_of(tide, {"x_mean": mean}, design, blocks)
    assert not at[0, :48].any()
    np.testing.assert_array_equal(at[0, 48:], np.tile(mean, 24))
    design = cyclenet.design(seen, targets=False)
    at = baseline_of(cyclenet, {}, design, blocks_of(cyclenet, seen, "group"))
    assert not at[0, :48].any()
    assert at[0, 48] == design.x[0, 48]
    rows = learner("mlp", models).design(seen, targets=False)
    mean = np.arange(rows.x.shape[2], dtype=np.float32)
    at = baseline_of(learner("mlp", models), {"x_mean": mean}, rows, [])
    np.testing.assert_array_equal(at[0], np.tile(mean, (24, 1)))

"""Ratios of a first layer: exact for one window by hand, none through noise, and which layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.config.models import Models
from fl_inmetro.leakage.ratio import Doors, doors_of, mean_input, ratio_attack
from fl_inmetro.leakage.scene import chosen, noisy, scene_of
from fl_inmetro.leakage.view import View, view_of
from fl_inmetro.learning.table import learner
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.units import HOUR_S
from tests.fleets import clients_of, fleet
from tests.leakage.conftest import finished

SECRET = Secret(b"k" * 32)


def plain(width: int, layers=("linear",), parts: bool = False) -> Doors:
    return Doors(layers, width, parts, np.zeros(width), np.ones(width))


def test_one_window_is_read_off_exactly():
    # y = W x + b and any loss: dW = g x', db = g. With g = (1, -2, 0) and x = (3, 5):
    # sum db dW / sum db^2 = ((3, 5) + 4 (3, 5)) / 5 = (3, 5). The unit without a gradient counts
    # nothing.
    g, x = np.array([1.0, -2.0, 0.0]), np.array([3.0, 5.0])
    update = {"linear.weight": np.outer(g, x), "linear.bias": g}
    assert mean_input(update, plain(2)) == pytest.approx(x, abs=1e-12)


def test_many_windows_give_their_weighted_mean():
    # Two windows that come back alike from one unit: the plain mean.
    x = np.array([[1.0, 0.0], [3.0, 4.0]])
    g = np.array([[0.5], [0.5]])
    update = {"linear.weight": g.T @ x, "linear.bias": g.sum(axis=0)}
    assert mean_input(update, plain(2)) == pytest.approx([2.0, 2.0])


def test_what_was_standardised_comes_back_in_its_own_units():
    doors = replace(plain(2), mean=np.array([10.0, 20.0]), std=np.array([2.0, 4.0]))
    g, x = np.array([3.0]), np.array([12.0, 12.0])
    update = {"linear.weight": np.outer(g, (x - doors.mean) / doors.std), "linear.bias": g}
    assert mean_input(update, doors) == pytest.approx(x)


def test_parts_that_add_up_are_added_up():
    x, g = np.array([3.0, 5.0]), np.array([1.0])
    update = {
        "trend.weight": np.outer(g, x / 4),
        "trend.bias": g,
        "rest.weight": np.outer(2 * g, 3 * x / 4),
        "rest.bias": 2 * g,
    }
    assert mean_input(update, plain(2, ("trend", "rest"), parts=True)) == pytest.approx(x)


def test_an_update_of_nothing_tells_nothing():
    update = {"linear.weight": np.zeros((3, 2)), "linear.bias": np.zeros(3)}
    assert mean_input(update, plain(2)) == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "layers", "parts"),
    [
        ("nlinear", {"linear"}, False),
        ("dlinear", {"trend", "season"}, True),
        ("window_mlp", None, False),
        ("mlp", {"layers.0"}, False),
        ("gru", None, None),
        ("patchtst", None, None),
    ],
)
def test_the_layers_that_inputs_come_in_by(name, layers, parts):
    made = learner(name, Models())
    client = clients_of(fleet(3))[0][0]
    design = made.design(client.train[0]).trainable()
    state = made.initial(made.enrol(design), 0, design.x.shape[1:], design.base.shape[1])
    # Heads that start at zero let nothing through to what is before them.
    rng = np.random.default_rng(0)
    state = {
        n: a + np.float32(0.1) * rng.normal(size=a.shape).astype(np.float32) * (n[:2] != "x_")
        for n, a in state.items()
    }
    doors = doors_of(made.loaded(state).eval(), design.x)
    if parts is None:
        assert doors is None
        return
    assert doors is not None
    assert doors.parts == parts
    assert len(doors.layers) == (2 if parts else 1)
    if layers == {"linear"} or layers == {"layers.0"}:
        assert set(doors.layers) == layers
    # By autograd, for one window and any loss that comes back: the input itself.
    module = made.loaded(state).train()
    one = torch.from_numpy(design.x[:1])
    outputs = module(one)
    back = torch.linspace(0.5, 1.5, outputs.numel()).reshape(outputs.shape)
    (outputs * back).sum().backward()
    found = mean_input({n: p.grad.numpy() for n, p in module.named_parameters()}, doors)
    if name != "mlp":  # a window of it is 24 rows, each with a weight of its own
        width = doors.width
        assert found == pytest.approx(design.x[0, :width], abs=2e-3)


class Two(nn.Module):
    """A layer that is given the inputs, and one that is given others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(torch.relu(self.outer(x)) + 7)


def test_a_layer_behind_another_is_no_door():
    doors = doors_of(Two(), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    assert doors is not None
    assert doors.layers == ("outer",)


def test_shapes_are_laid_beside_each_other_without_their_level():
    view = View("profile", np.arange(3))
    assert view.of(np.array([4.0, 5.0, 6.0])) == pytest.approx([0.0, 1.0, 2.0])
    assert view.of(np.array([[-1.0, 0.0, 1.0]])) == pytest.approx(np.array([[0.0, 1.0, 2.0]]))


def test_the_readings_among_the_inputs():
    mlp, nlinear = learner("mlp", Models()), learner("nlinear", Models())
    view = view_of(nlinear, HOUR_S, 168)
    assert (view.what, len(view.columns)) == ("profile", 168)
    features = view_of(mlp, HOUR_S, 50)
    assert features.what == "features"
    assert 20 < len(features.columns) < 50  # not the calendar's


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contexts")
    return finished(folder, "--set", "model=nlinear")


def test_without_noise_a_plain_step_gives_the_mean_profile_away_and_with_noise_it_does_not(
    contexts,
):
    scene = scene_of(contexts.record, secret=SECRET, prepared=contexts.prepared)
    found, what = ratio_attack(scene, scene.names)
    assert what == "profile"
    assert {one.attack for one in found} == {"ratio", "gradient"}

    def median(attack: str, name: str = "nrmse") -> float:
        return float(np.median([getattr(one, name) for one in found if one.attack == attack]))

    population = median("gradient", "nrmse_population")
    assert median("gradient") < 0.3 * population
    # Planted: noise ten times the gradient's largest number on each.
    doors = doors_of(scene.learner.loaded(scene.state), scene.design(scene.names[0]).x)
    assert doors is not None
    name = scene.names[0]
    clean = scene.gradient(name)
    length = max(float(np.abs(a).max()) for a in clean.values())
    view = view_of(scene.learner, HOUR_S, 168)
    true = view.of(scene.design(name).x.mean(axis=0))
    errors = []
    for share in (0.0, 10.0):
        blurred = noisy(clean, share * length, np.random.default_rng(1))
        errors.append(float(np.abs(view.of(mean_input(blurred, doors)) - true).mean()))
    assert errors[1] > 3 * errors[0]


def test_the_gradient_of_the_scene_is_that_of_the_loss(contexts):
    scene = scene_of(contexts.record, secret=SECRET, prepared=contexts.prepared)
    name, rows = scene.names[1], np.array([0, 3, 4])
    seen = scene.gradient(name, rows)
    design = chosen(scene.design(name), rows)
    by_probe, _, _ = scene.plain.probe(scene.state, design, 0)
    for key, value in by_probe.items():
        np.testing.assert_allclose(-seen[key], value, rtol=1e-4, atol=1e-6)


def test_a_first_model_that_lets_nothing_through_is_left_for_the_last(tmp_path, contexts):
    run = finished(tmp_path, "--set", "model=window_mlp")
    scene = scene_of(run.record, secret=SECRET, prepared=run.prepared)
    assert scene.at == "last"
    first = scene_of(run.record, at="first", secret=SECRET, prepared=run.prepared)
    still = first.gradient(first.names[0])
    assert not still["layers.0.weight"].any()
    assert scene.gradient(scene.names[0])["layers.0.weight"].any()
    assert scene_of(contexts.record, prepared=contexts.prepared).at == "first"

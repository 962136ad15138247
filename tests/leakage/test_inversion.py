"""Windows by descent: one is rebuilt, noise hides it, and guesses are put in the best order."""

import itertools

import numpy as np
import pytest

from fl_inmetro.leakage.inversion import Descent, _order, inversion_attack, inverted
from fl_inmetro.leakage.scene import scene_of
from fl_inmetro.leakage.view import view_of
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.units import HOUR_S
from tests.leakage.conftest import finished

SECRET = Secret(b"k" * 32)
QUICK = Descent(steps=150, restarts=1)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("contexts"), "--set", "model=nlinear")


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hidden")
    noise = ("--set", "privacy.protect=client", "--set", f"privacy.ledger={folder / 'ledgers'}")
    return finished(folder, "--set", "model=nlinear", *noise)


def medians(run, sizes, descent=QUICK):
    scene = scene_of(run.record, secret=SECRET, prepared=run.prepared)
    found = inversion_attack(scene, scene.names[:3], sizes, descent)
    return {
        size: (
            float(np.median([one.nrmse for one in found if one.windows == size])),
            float(np.median([one.nrmse_population for one in found if one.windows == size])),
        )
        for size in sizes
    }


def test_one_window_is_rebuilt_and_noise_hides_it(contexts, hidden):
    open_, with_noise = medians(contexts, (1, 2)), medians(hidden, (1, 2))
    assert open_[1][0] < 0.1 * open_[1][1]
    assert open_[2][0] < open_[2][1]
    for error, guess in with_noise.values():
        assert error > 0.9 * guess


def test_descent_alone_finds_a_window_too(contexts):
    """From the others' mean, without the ratio: the gradient of one window has one direction."""
    scene = scene_of(contexts.record, secret=SECRET, prepared=contexts.prepared)
    name, rows = scene.names[0], np.array([7])
    true = scene.design(name).x[rows].astype(np.float64)
    others = [scene.design(one).x.mean(axis=0) for one in scene.names[1:]]
    prior = np.mean(others, axis=0).astype(np.float64)
    view = view_of(scene.learner, HOUR_S, true.shape[-1])
    rng = np.random.default_rng(0)
    seen = scene.gradient(name, rows)
    found = inverted(scene, seen, prior, 1, view, rng, Descent(steps=600, restarts=1))
    apart = np.linalg.norm(view.of(found) - view.of(true))
    assert apart < 0.4 * np.linalg.norm(view.of(prior[None]) - view.of(true))


def test_more_windows_than_there_are_is_left_out(contexts):
    scene = scene_of(contexts.record, secret=SECRET, prepared=contexts.prepared)
    few = len(scene.design(scene.names[0]).x)
    assert inversion_attack(scene, scene.names[:1], (few + 1,), QUICK) == []


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_guesses_are_put_where_they_come_closest(count):
    rng = np.random.default_rng(count)
    true = rng.normal(size=(count, 4))
    mixed = rng.permutation(count)
    guess = true[mixed] + 0.01 * rng.normal(size=(count, 4))
    order = _order(true, guess)
    assert sorted(order) == list(range(count))
    assert np.abs(guess[order] - true).max() < 0.1


def test_the_order_of_a_few_is_the_best_there_is():
    rng = np.random.default_rng(3)
    true, guess = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))

    def cost(order):
        return sum(float(((true[k] - guess[place]) ** 2).sum()) for k, place in enumerate(order))

    best = min(cost(order) for order in itertools.permutations(range(4)))
    assert cost(_order(true, guess)) == pytest.approx(best)

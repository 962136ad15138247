"""DP-SGD: by hand, against plain autograd example by example, and loop against cohort."""

import numpy as np
import pytest
import torch

from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import DpSgd, LocalWork
from tests.engines import apart, flat
from tests.learning.private_steps import by, design, nlinear, zeros
from tests.learning.ragged import SIZES, learner, state_of, workers

both_engines = pytest.mark.parametrize("engine", ["loop", "cohort"])


@both_engines
def test_one_step_by_hand(engine):
    """NLinear from zero, MSE, two windows: x = (1, 0), r = 2 and x = (0, 2), r = −1.

    Example gradients −2r·(x, 1): (−4, 0 | −4) of norm √32 and (0, 4 | 2) of norm √20. With C = 5
    the first is cut to 5/√32 of itself, the second passes. Sum over the batch size 2, η = 0.1:
    Δ = −0.05·[5/√32·(−4, 0 | −4) + (0, 4 | 2)].
    """
    one = design([[1, 0], [0, 2]], [[2], [-1]])
    cut = 5 / np.sqrt(32)
    (delta,) = by(engine, nlinear(), zeros(), [one], LocalWork(dp=DpSgd(5.0, 0.0)))
    np.testing.assert_allclose(delta["linear.weight"], [[0.2 * cut, -0.2]], rtol=1e-6)
    np.testing.assert_allclose(delta["linear.bias"], [0.2 * cut - 0.1], rtol=1e-5)


@both_engines
def test_an_example_is_the_mean_of_its_known_points_by_hand(engine):
    """Two steps of horizon; of the second window only the first is known.

    x = 1, r = (3, 1): gradient (−2·3/2, −2·1/2) = (−3, −1), twice (weight, bias). x = 1,
    r = (5, ?): (−10, 0). No clip is active. Mean of two, η = 0.1: 0.05·((3, 1) + (10, 0)).
    """
    one = design([[1], [1]], [[3, 1], [5, 99]], [[1, 1], [1, 0]])
    state = {"linear.weight": np.zeros((2, 1), np.float32), "linear.bias": np.zeros(2, np.float32)}
    (delta,) = by(engine, nlinear(), state, [one], LocalWork(dp=DpSgd(100.0, 0.0)))
    np.testing.assert_allclose(delta["linear.weight"], [[0.65], [0.05]], rtol=1e-6)
    np.testing.assert_allclose(delta["linear.bias"], [0.65, 0.05], rtol=1e-6)


@both_engines
def test_a_sum_is_divided_by_the_batch_that_is_expected(engine):
    """x = (1, 0), r = 2: gradient (−4, 0 | −4), no clip, η = 0.1.

    Of one window in batches of 8, q = 1: one is expected, 0.4. Of four alike in batches of 2,
    q = 1/2 and two are expected: m drawn ones move 0.4·m/2, also where m is not two.
    """
    work = LocalWork(steps=1, dp=DpSgd(100.0, 0.0))
    (delta,) = by(engine, nlinear(batch_size=8), zeros(), [design([[1, 0]], [[2]])], work)
    np.testing.assert_allclose(delta["linear.weight"], [[0.4, 0]], rtol=1e-6)
    alike = [design([[1, 0]] * 4, [[2]] * 4)] * 60
    moved = np.array([flat(d)[1] for d in by(engine, nlinear(batch_size=2), zeros(), alike, work)])
    drawn = moved / 0.2
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-5)
    assert set(drawn.round()) == {0, 1, 2, 3, 4}  # the chance to miss one of them: 4 %, if 60 drew


@both_engines
def test_without_noise_and_clip_it_is_plain_training(engine):
    """Where all windows have as many known points, the mean of means is the mean (q = 1)."""
    rng = np.random.default_rng(0)
    one = design(rng.normal(size=(8, 2)), rng.normal(size=(8, 1)))
    private = LocalWork(3, mu=0.1, dp=DpSgd(1e6, 0.0))
    (clipped,) = by(engine, nlinear(batch_size=8), zeros(), [one], private)
    plain, _ = nlinear(batch_size=8).update(zeros(), one, LocalWork(3, mu=0.1), 5)
    assert np.linalg.norm(flat(plain)) > 0.05
    assert apart(clipped, plain) < 1e-5


@pytest.mark.parametrize("clip", [1e-3, 0.05, 1e6])
@pytest.mark.parametrize("model", SIZES)
def test_one_step_is_the_clipped_gradients_of_autograd(model, clip):
    """Each window's gradient by itself, through the plain network."""
    made = learner(model, optimizer="sgd", eta_l=0.5, batch_size=0, loss="mse")
    state = state_of(made)
    one = workers(made)[4].train_design  # 8 windows
    module = made.loaded(state)
    parameters = dict(module.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    cut = 0
    for n in range(len(one.x)):
        known = torch.from_numpy(one.known[n]) > 0
        error = module(torch.from_numpy(one.x[n : n + 1]))[0] - torch.from_numpy(one.residual[n])
        own = torch.autograd.grad((error[known] ** 2).mean(), list(parameters.values()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in own)))
        cut += norm > clip
        for name, g in zip(parameters, own, strict=True):
            total[name] += g * min(1.0, clip / norm)
    assert (clip == 1e6) == (cut == 0)
    expected = {name: -0.5 * g.numpy() / len(one.x) for name, g in total.items()}
    for engine in ("loop", "cohort"):
        (delta,) = by(engine, made, state, [one], LocalWork(dp=DpSgd(clip, 0.0)))
        # The deltas of tiny steps carry the rounding of the parameters they were added to.
        assert apart(delta, expected) < (3e-2 if clip == 1e-3 else 1e-3)


@pytest.mark.parametrize("batch_size", [8, 0])
@pytest.mark.parametrize("model", SIZES)
def test_the_cohort_draws_the_loops_noise(model, batch_size):
    """Unequal clients, several epochs, noise and clip and a proximal term at once."""
    made = learner(
        model, optimizer="adam", eta_l=1e-3, batch_size=batch_size, loss="huber", private=[]
    )
    state = state_of(made)
    designs = [worker.train_design for worker in workers(made)]
    work = LocalWork(2, mu=0.1, dp=DpSgd(0.1, 0.8))
    loop, cohort = (by(engine, made, state, designs, work) for engine in ("loop", "cohort"))
    for one, other in zip(cohort, loop, strict=True):
        assert np.linalg.norm(flat(other)) > 1e-3
        assert apart(add(state, one), add(state, other)) < 1e-5
        assert apart(one, other) < 1e-2


def add(state: Arrays, delta: Arrays) -> Arrays:
    return {name: state[name] + value for name, value in delta.items()}


@both_engines
def test_noise_has_its_deviation_and_is_each_clients_own(engine):
    """From an optimum (r = 0) only the noise moves: Δ = −η·zC·N(0, 1)/(q_k n_k), here over 1.

    300 clients × 3 parameters: the deviation of an estimated deviation is 1/√(2·900) = 2.4 %.
    """
    designs = [design([[1, 0]], [[0]])] * 300
    work = LocalWork(dp=DpSgd(2.0, 1.5))
    made = nlinear(batch_size=4)
    drawn = np.array([flat(d) for d in by(engine, made, zeros(), designs, work)])
    expected = 0.1 * 1.5 * 2.0
    assert drawn.std() == pytest.approx(expected, rel=0.08)
    assert abs(drawn.mean()) < 4 * expected / 30
    assert len(np.unique(drawn[:, 0])) == 300
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.25
    again = np.array([flat(d) for d in by(engine, made, zeros(), designs[:5], work)])
    np.testing.assert_allclose(again, drawn[:5], rtol=1e-6)

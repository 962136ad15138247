"""A client's local epochs: by hand, by autograd, and as one step of the pooled gradient."""

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.config.models import Mlp, NLinear
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.learning import gradient
from fl_inmetro.learning.client import ClientWorker, Kept, pooled
from fl_inmetro.learning.gradient import client_seed
from fl_inmetro.learning.neural import MlpLearner, NLinearLearner
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.learning.work import LocalWork, batches
from fl_inmetro.models.design import Design
from fl_inmetro.models.networks import RowMlp
from tests.engines import merged
from tests.fleets import clients_of, fleet

LOSSES = ("mae", "mse", "huber")


def by_hand(x: list, residual: list, known: list | None = None) -> Design:
    """Context windows (N, L) with targets (N, H), base 0 and scale 1."""
    r = np.array(residual, dtype=np.float32)
    mask = np.ones_like(r) if known is None else np.array(known, dtype=np.float32)
    ones, zeros = np.ones(len(r)), np.zeros(len(r))
    return Design(np.array(x, dtype=np.float32), np.zeros_like(r), ones, zeros, r * mask, mask)


def nlinear(loss: str = "mse", **settings) -> NLinearLearner:
    values = {"optimizer": "sgd", "eta_l": 0.1, "batch_size": 0, **settings}
    return NLinearLearner(NLinear(loss=loss, **values))


def zeros(context: int = 2, horizon: int = 1) -> Arrays:
    return {
        "linear.weight": np.zeros((horizon, context), dtype=np.float32),
        "linear.bias": np.zeros(horizon, dtype=np.float32),
    }


# ------------------------------------------------------------------------------- by hand
def test_nlinear_step_by_hand():
    # From w = 0 the errors are −r = −2, −1; loss = (4 + 1)/2. ∂/∂w = (2/2) Σ e·x =
    # −2·(1, 0) − 1·(−1, 2) = (−1, −2); ∂/∂b = −3. With η = 0.1: Δw = (0.1, 0.2), Δb = 0.3.
    design = by_hand([[1, 0], [-1, 2]], [[2], [1]])
    delta, loss = nlinear().update(zeros(), design, LocalWork(1), 0)
    assert loss == pytest.approx(2.5)
    np.testing.assert_allclose(delta["linear.weight"], [[0.1, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(delta["linear.bias"], [0.3], rtol=1e-6)


def test_two_clients_of_one_window_by_hand():
    # Alone, client 1 moves by η·2·2·(1, 0) = (0.4, 0), b 0.4; client 2 by η·2·1·(−1, 2) =
    # (−0.2, 0.4), b 0.2. Half of each: (0.1, 0.2) and 0.3, the step of the two windows together.
    learner = nlinear()
    parts = [by_hand([[1, 0]], [[2]]), by_hand([[-1, 2]], [[1]])]
    deltas = [learner.update(zeros(), part, LocalWork(1), 0)[0] for part in parts]
    np.testing.assert_allclose(deltas[0]["linear.weight"], [[0.4, 0]], rtol=1e-6)
    np.testing.assert_allclose(deltas[1]["linear.weight"], [[-0.2, 0.4]], rtol=1e-6)
    both = 0.5 * deltas[0]["linear.weight"] + 0.5 * deltas[1]["linear.weight"]
    np.testing.assert_allclose(both, [[0.1, 0.2]], rtol=1e-6)


def test_mae_and_huber_by_hand():
    # Signs of the errors −2 and −0.5: ∂MAE/∂w = ½·(−x₁ − x₂). Huber is linear beyond 1 and e
    # within: ½·(−1·x₁ − 0.5·x₂). x₁ = (1, 0), x₂ = (0, 1), η = 0.1.
    design = by_hand([[1, 0], [0, 1]], [[2], [0.5]])
    mae, mae_loss = nlinear("mae").update(zeros(), design, LocalWork(1), 0)
    np.testing.assert_allclose(mae["linear.weight"], [[0.05, 0.05]], rtol=1e-6)
    assert mae_loss == pytest.approx(1.25)
    huber, huber_loss = nlinear("huber").update(zeros(), design, LocalWork(1), 0)
    np.testing.assert_allclose(huber["linear.weight"], [[0.05, 0.025]], rtol=1e-6)
    assert huber_loss == pytest.approx((1.5 + 0.125) / 2)  # 2 − ½ and ½·0.25


def test_unknown_points_have_no_part():
    # Two steps; the second is known in the second window only. Points: 3.
    design = by_hand([[1, 0], [0, 1]], [[3, 100], [6, 9]], [[1, 0], [1, 1]])
    delta, loss = nlinear().update(zeros(horizon=2), design, LocalWork(1), 0)
    assert loss == pytest.approx((9 + 36 + 81) / 3)
    expected = 0.1 * 2 / 3 * np.array([[3, 6], [0, 9]])
    np.testing.assert_allclose(delta["linear.weight"], expected, rtol=1e-6)


def test_windows_that_cannot_be_used_have_no_part():
    whole = by_hand([[1, 0], [5, 5], [-1, 2]], [[2], [7], [1]], [[1], [0], [1]])
    few = by_hand([[1, 0], [-1, 2]], [[2], [1]])
    a, b = (nlinear().update(zeros(), design, LocalWork(1), 0)[0] for design in (whole, few))
    np.testing.assert_array_equal(a["linear.weight"], b["linear.weight"])


def test_the_loss_is_that_of_the_last_epoch():
    # One window x = 1, r = 1, η = 0.1, MSE: w₁ = b₁ = 0.2, ŷ = 0.4, loss 0.36 in the second epoch.
    design = by_hand([[1.0]], [[1.0]])
    _, loss = nlinear().update(zeros(1), design, LocalWork(2), 0)
    assert loss == pytest.approx(0.36, rel=1e-5)


# --------------------------------------------------------------------- against other loops
@pytest.fixture(scope="module")
def members():
    return clients_of(fleet(3, gaps=0.1))[0]


def learners(loss: str, **settings) -> list[Learner]:
    values = {"optimizer": "sgd", "eta_l": 0.05, "batch_size": 0, "loss": loss, **settings}
    return [
        MlpLearner(Mlp(hidden=(5,), **values)),
        NLinearLearner(NLinear(context_h=30, **values)),
    ]


def started(learner: Learner, members: list) -> tuple[list[ClientWorker], Arrays]:
    workers = [ClientWorker(member, learner) for member in members]
    enrolments = [worker.enrol() for worker in workers]
    sums = {name: np.sum([e.sums[name] for e in enrolments], axis=0) for name in enrolments[0].sums}
    first = enrolments[0]
    return workers, learner.initial(sums, 4, first.x_shape, first.horizon)


def pooled_design(learner: Learner, members: list) -> Design:
    parts = [learner.design(member.train[0]).trainable() for member in members]
    return Design(*(np.concatenate([getattr(p, n) for p in parts]) for n in vars(parts[0])))


def penalty(loss: str, error: torch.Tensor) -> torch.Tensor:
    """The three losses written out."""
    if loss == "mae":
        return error.abs()
    if loss == "mse":
        return error**2
    return torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)


def plain_gradient(learner, state: Arrays, design: Design, loss: str) -> Arrays:
    """∂/∂w of the mean loss over all known points, as one graph over functional calls."""
    module = learner.module(state)
    trained = {name for name, _ in module.named_parameters()}
    leaves = {name: torch.tensor(state[name], requires_grad=name in trained) for name in state}
    output = torch.func.functional_call(module, leaves, (torch.from_numpy(design.x),))
    known = torch.from_numpy(design.known) > 0
    error = (output - torch.from_numpy(design.residual))[known]
    value = penalty(loss, error).mean()
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(value, list(wanted.values()))
    return {name: g.numpy() for name, g in zip(wanted, gradients, strict=True)}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", [0, 1], ids=["mlp", "nlinear"])
def test_one_federated_step_is_one_step_of_the_pooled_gradient(members, loss, kind):
    """E = 1, full batch, SGD: w − η Σ (n_k/n) ∇L_k = w − η ∇L, since L = Σ (n_k/n) L_k."""
    learner = learners(loss)[kind]
    workers, state = started(learner, members)
    updates = [worker.train(state, LocalWork(1), 0, 1)[0] for worker in workers]
    federated = merged(DeltaMerge(), state, updates)
    expected = plain_gradient(learner, state, pooled_design(learner, members), loss)
    moved = 0.0
    for name, g in expected.items():
        np.testing.assert_allclose(federated[name], state[name] - 0.05 * g, atol=1e-6)
        moved = max(moved, float(np.abs(0.05 * g).max()))
    assert moved > 1e-4  # the tolerance does not hide the step
    # The pooled client of centralised training makes the same step.
    centre, _ = ClientWorker(pooled("pooled", members), learner).train(state, LocalWork(1), 0, 1)
    assert centre.weight == sum(update.weight for update in updates)
    for name, delta in centre.arrays.items():
        np.testing.assert_allclose(state[name] + delta, federated[name], atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_client_step_is_minus_eta_times_the_autograd_gradient(members, loss):
    for learner in learners(loss):
        (worker, *_), state = started(learner, members)
        update, kept = worker.train(state, LocalWork(1), 0, 1)
        assert kept == Kept()
        design = learner.design(members[0].train[0]).trainable()
        for name, g in plain_gradient(learner, state, design, loss).items():
            np.testing.assert_allclose(update.arrays[name], -0.05 * g, atol=2e-7)
        assert set(update.arrays) == set(state) - {"x_mean", "x_std"}


TORCH = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, **settings: torch.optim.SGD(p, momentum=0.9, **settings),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("optimizer", TORCH)
def test_epochs_and_batches_equal_a_loop_of_torch_optim(members, optimizer):
    """Three epochs of batches of 5, in the order that is drawn from the client's seed."""
    kind = {"optimizer": "sgd", "momentum": 0.9} if optimizer == "momentum" else {
        "optimizer": optimizer
    }  # fmt: skip
    learner = learners("huber", batch_size=5, weight_decay=0.02, **kind)[0]
    workers, state = started(learner, members)
    update, _ = workers[1].train(state, LocalWork(3), root_seed=8, round_=2)

    design = learner.design(members[1].train[0]).trainable()
    module = RowMlp(design.x.shape[2], (5,))
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    reference = TORCH[optimizer](module.parameters(), lr=0.05, weight_decay=0.02)
    criterion = nn.HuberLoss()
    steps = list(batches(len(design.x), 5, 3, client_seed(8, "c1", 2)))
    losses, weights = [], []
    for rows in steps:
        known = torch.from_numpy(design.known[rows]) > 0
        output = module(torch.from_numpy(design.x[rows]))
        value = criterion(output[known], torch.from_numpy(design.residual[rows])[known])
        reference.zero_grad()
        value.backward()
        reference.step()
        losses.append(value.item())
        weights.append(int(known.sum()))
    last = slice(len(steps) * 2 // 3, None)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(
            update.arrays[name], parameter.detach().numpy() - state[name], atol=2e-6
        )
    assert update.loss == pytest.approx(np.average(losses[last], weights=weights[last]), rel=1e-5)
    assert update.weight == design.known.sum()


def test_the_shared_state_is_not_trained_in_place(members):
    for learner in learners("mae"):
        (worker, *_), state = started(learner, members)
        before = {name: array.copy() for name, array in state.items()}
        worker.train(state, LocalWork(2, mu=0.1), 0, 1)
        for name, array in before.items():
            np.testing.assert_array_equal(state[name], array)


def test_same_seed_same_bits_other_round_other_bits(members):
    learner = learners("mae", batch_size=3)[0]
    (worker, *_), state = started(learner, members)
    one, again, later = (worker.train(state, LocalWork(), 5, round_)[0] for round_ in (1, 1, 2))
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], again.arrays[name])
    assert any((one.arrays[n] != later.arrays[n]).any() for n in one.arrays)
    seeds = {client_seed(r, c, k) for r in (0, 1) for c in ("a", "b") for k in (1, 2)}
    assert len(seeds) == 8


def test_mlp_features_are_standardised_by_the_pooled_moments(members):
    learner = learners("mae")[0]
    _, state = started(learner, members)
    rows = pooled_design(learner, members).x.reshape(-1, len(state["x_mean"])).astype(np.float64)
    np.testing.assert_allclose(state["x_mean"], rows.mean(axis=0), atol=1e-6)
    std = rows.std(axis=0)
    np.testing.assert_allclose(state["x_std"], np.where(std > 1e-6, std, 1.0), atol=2e-6)


def test_forecasting_in_batches_changes_nothing(members, monkeypatch):
    for learner in learners("mae"):
        (worker, *_), state = started(learner, members)
        state = merged(DeltaMerge(), state, [worker.train(state, LocalWork(), 0, 1)[0]])
        design = learner.design(members[0].train[0], targets=False)
        whole = learner.forecast(state, design).mean_kwh
        monkeypatch.setattr(gradient, "FORECAST_BATCH", 7)
        np.testing.assert_allclose(learner.forecast(state, design).mean_kwh, whole, rtol=1e-6)
        monkeypatch.undo()


def test_gradient_learners_have_no_closed_form():
    for learner in learners("mae"):
        with pytest.raises(TypeError, match="closed form"):
            learner.finish({}, {})
        with pytest.raises(TypeError, match="closed form"):
            learner.sums_like({})

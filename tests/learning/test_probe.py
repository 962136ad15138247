"""A look at the received model: by hand, against autograd on all windows, loop = cohort."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.roster import enrol
from fl_inmetro.learning.gradient import client_seed
from fl_inmetro.learning.update import Update
from fl_inmetro.learning.work import CONTROL, DpSgd, LocalWork, StepError, batches
from fl_inmetro.models.design import Design
from tests.engines import ENGINES, apart, flat, grid_of, same_bits
from tests.federation.rounds import Plain, answers, design, nlinear, planted, zeros
from tests.learning.ragged import SIZES, learner, state_of, workers
from tests.learning.test_gradient import plain_gradient

PROBE = LocalWork(probe=True)
LOOK = LocalWork(probe=True, start_loss=True)
both_engines = pytest.mark.parametrize("engine", ENGINES)


def ask(engine: str, made, members, state, work: LocalWork) -> dict[str, Update]:
    grid = grid_of(engine, members)
    enrol(grid, made, 0, 60)
    request = messages.TrainRequest(3, 8, work)
    return answers(grid, state, grid.client_ids, request, {n: state[n] for n in made.shared(state)})


# ------------------------------------------------------------------------------- by hand
@both_engines
def test_one_look_by_hand(engine):
    """Two windows, x = 0, r = 2 and 1, from b = 0: loss (4 + 1)/2, ∂/∂b = −4 and −2, mean −3.

    One batch of both: no spread. Batches of one: ((−4 + 3)² + (−2 + 3)²)/2 = 1.
    """
    one = design([[0], [0]], [[2], [1]])
    for size, spread in ((0, 0.0), (2, 0.0), (1, 1.0)):
        made = nlinear(batch_size=size)
        update = ask(engine, made, planted(made, [one]), zeros(), LOOK)["d0"]
        assert update.arrays["linear.bias"] == pytest.approx(-3, rel=1e-6)
        assert update.arrays["linear.weight"].item() == 0
        assert update.loss == update.start_loss == pytest.approx(2.5)
        assert update.spread == pytest.approx(spread, abs=1e-12)
        assert update.weight == 2


@both_engines
def test_batches_count_by_their_known_points(engine):
    """Horizon 2: r = (3, 1) and (5, unknown). Batches of one window, of 2 points and of 1.

    Gradients of the biases −(3, 1) and (−10, 0); their mean by points −(16/3, 2/3), loss 35/3.
    Spread: 2/3·(49 + 1)/9 + 1/3·(196 + 4)/9 = 100/9.
    """
    one = design([[0], [0]], [[3, 1], [5, 99]], [[1, 1], [1, 0]])
    made = nlinear(batch_size=1)
    update = ask(engine, made, planted(made, [one]), zeros(horizon=2), LOOK)["d0"]
    np.testing.assert_allclose(update.arrays["linear.bias"], [-16 / 3, -2 / 3], rtol=1e-6)
    assert update.loss == pytest.approx(35 / 3)
    assert update.spread == pytest.approx(100 / 9)


def test_the_spread_is_that_of_sampling_without_replacement():
    """8 windows of one point each in batches of 2: (8 − 2)/(2·7) of the variance of windows.

    The mean over many orders, to four of its standard errors.
    """
    rng = np.random.default_rng(1)
    one = design(rng.normal(size=(8, 1)), rng.normal(size=(8, 1)))
    whole, _, single = nlinear(batch_size=1).probe(zeros(), one, 0)
    found = [nlinear(batch_size=2).probe(zeros(), one, seed) for seed in range(300)]
    spreads = np.array([spread for _, _, spread in found])
    error = spreads.std() / np.sqrt(len(spreads))
    assert spreads.mean() == pytest.approx(single * 6 / 14, abs=4 * error)
    assert error < 0.05 * single
    assert apart(found[7][0], whole) < 1e-6


# ------------------------------------------------------------------------------ by autograd
def part_of(one: Design, windows: np.ndarray) -> Design:
    return Design(*(getattr(one, name)[windows] for name in vars(one)))


@both_engines
@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("model", SIZES)
def test_it_is_autograd_on_all_windows(engine, model, loss):
    made = learner(model, loss=loss, batch_size=8, private=[])
    state = state_of(made)
    found = ask(engine, made, workers(made), state, LOOK)
    for worker in workers(made):
        one, update = worker.train_design, found[worker.client_id]
        expected = plain_gradient(made, state, one, loss)
        assert np.linalg.norm(flat(expected)) > 1e-3
        assert apart(update.arrays, expected) < 1e-5
        # Batch by batch, as the local epoch would see them.
        spread = 0.0
        for batch in batches(len(one.x), 8, 1, client_seed(8, worker.client_id, 3)):
            part = part_of(one, batch)
            own = flat(plain_gradient(made, state, part, loss))
            spread += part.points / one.points * np.square(own - flat(expected)).sum()
        # (one step of a gradient's rounding beside its square)
        size = np.square(flat(expected)).sum()
        assert update.spread == pytest.approx(spread, rel=1e-4, abs=1e-9 * size)
        assert update.weight == one.points
        assert update.loss == pytest.approx(forward_loss(made, state, one, loss), rel=1e-5)


def forward_loss(made, state, one: Design, loss: str) -> float:
    """The mean penalty of a forecast, point by point."""
    forecast = made.forecast(state, replace(one, floor_kwh=np.full(len(one.x), -np.inf))).mean_kwh
    error = (forecast / one.scale_kwh[:, None] - one.base - one.residual)[one.known > 0]
    if loss == "mae":
        return float(np.abs(error).mean())
    if loss == "mse":
        return float((error**2).mean())
    size = np.abs(error)
    return float(np.where(size < 1, error**2 / 2, size - 0.5).mean())


@both_engines
@pytest.mark.parametrize("model", SIZES)
def test_the_start_loss_is_a_forward_pass_and_changes_no_bit_of_the_training(engine, model):
    made = learner(model, loss="huber", batch_size=8, eta_l=1e-3)
    state = state_of(made)
    with_it = ask(engine, made, workers(made), state, LocalWork(2, start_loss=True))
    without = ask(engine, made, workers(made), state, LocalWork(2))
    for worker in workers(made):
        name = worker.client_id
        expected = forward_loss(made, state, worker.train_design, "huber")
        assert with_it[name].start_loss == pytest.approx(expected, rel=1e-5)
        assert same_bits(with_it[name].arrays, without[name].arrays)
        assert with_it[name].loss == without[name].loss
        assert np.isnan(without[name].start_loss)


def test_a_gradient_step_is_a_training_step():
    """Full batch, one epoch of plain SGD: Δ = −η g."""
    made = learner("window_mlp", optimizer="sgd", eta_l=0.1, batch_size=0)
    state = state_of(made)
    looks = ask("cohort", made, workers(made), state, PROBE)
    steps = ask("cohort", made, workers(made), state, LocalWork())
    for name, update in looks.items():
        expected = {n: -0.1 * g for n, g in update.arrays.items()}
        assert apart(steps[name].arrays, expected) < 1e-4
        assert update.spread == pytest.approx(0, abs=1e-12)
        assert np.isnan(update.start_loss)


# ---------------------------------------------------------------------- what is left alone
@both_engines
def test_a_look_changes_neither_private_parameters_nor_controls(engine):
    made = learner("window_mlp", private=("head.*",), batch_size=8, eta_l=1e-2)
    plain = Plain.on(engine, workers(made), made, LocalWork(control="scaffold"))
    plain.round()
    before = {name: value.copy() for name, value in plain.kept().items()}
    assert any(name.startswith(CONTROL) for name in before)
    request = messages.TrainRequest(2, 8, LOOK)
    like = {n: plain.state[n] for n in made.shared(plain.state)}
    found = answers(plain.grid, plain.state, plain.grid.client_ids, request, like)
    assert same_bits(plain.kept(), before)
    for place, worker in enumerate(workers(made)):
        own = {n: before[f"latest.{n}"][place] for n in ("head.weight", "head.bias")}
        state = plain.state | own
        # Looked at with the client's own head; only the shared part is sent.
        expected = plain_gradient(made, state, worker.train_design, "mae")
        update = found[worker.client_id]
        assert set(update.arrays) == set(like)
        assert apart(update.arrays, {n: expected[n] for n in like}) < 1e-4
        loss = forward_loss(made, state, worker.train_design, "mae")
        assert update.start_loss == pytest.approx(loss, rel=1e-5)


def test_debug_names_the_client_of_a_loss_that_is_not_finite():
    made = nlinear(batch_size=1)
    designs = [design([[0]], [[1]]), design([[0], [0]], [[1], [np.inf]])]
    members = planted(made, designs)
    with pytest.raises(StepError) as loop:
        members[1].train(zeros(), PROBE, 0, 1, debug=True)
    grid = CohortGrid(members, debug=True)
    enrol(grid, made, 0, 60)
    request = messages.TrainRequest(1, work=PROBE)
    with pytest.raises(FederationError) as cohort:
        list(grid.train_blocks(zeros(), ["d0", "d1"], request, lambda block: block))
    (fault,) = cohort.value.faults
    assert fault.where == f"client `d1`, round 1, step {loop.value.step}"
    assert "the loss is inf" in fault.what
    # Without debug the client's own numbers are spoilt, and nobody else's.
    grid = CohortGrid(planted(made, designs))
    enrol(grid, made, 0, 60)
    found = list(grid.train_blocks(zeros(), ["d0", "d1"], request, lambda block: block))
    for column in ("losses", "spreads", "matrix"):
        finite = [bool(np.isfinite(row).all()) for b in found for row in getattr(b, column)]
        assert finite == [True, False]


def test_the_whole_gradient_is_not_for_clients_that_keep_to_dp():
    with pytest.raises(ValueError, match="DP-SGD"):
        LocalWork(probe=True, dp=DpSgd(1.0, 1.0))

"""The cohort engine against the plain loop: every model, optimiser and loss, in one federation.

The loop is the specification. Both start from the same seeds; what differs is how sums are ordered
in a product, so the models may differ by rounding and by nothing else.
"""

from dataclasses import replace
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch

from fl_inmetro import events
from fl_inmetro.config import RunConfig, check
from fl_inmetro.config.models import NLinear
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.rules import BUFFERS
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.cohort import train_chunk
from fl_inmetro.learning.gradient import GradientLearner, client_seed
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.neural import NLinearLearner
from fl_inmetro.learning.rows import Rows, RowStore, training_arrays
from fl_inmetro.learning.table import LEARNERS
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import LocalWork, StepError
from tests.engines import apart, federated, flat, same_bits
from tests.learning.ragged import (
    COUNTS,
    OPTIMIZERS,
    SIZES,
    clients,
    config,
    learner,
    state_of,
    workers,
)

LOSSES = ("mae", "mse", "huber")

#: What else a federation may ask for. Five of them: every model and optimiser meets each.
CIRCUMSTANCES: list[dict[str, Any]] = [
    {"batch_size": 8, "epochs": 2, "mu": 0.0, "execution": {"chunk": 2, "workers": 2}},
    {"batch_size": 0, "epochs": 2, "mu": 0.3, "execution": {"chunk": 3, "workers": 1}},
    {"batch_size": 5, "epochs": 1, "mu": 0.3, "execution": {"chunk": 64, "workers": 2},
     "weight_decay": 0.05},
    {"batch_size": 32, "epochs": 2, "mu": 0.0, "execution": {"chunk": 1, "workers": 2}},
    {"batch_size": 7, "epochs": 2, "mu": 1.0, "execution": {"chunk": 4, "workers": 1},
     "weight_decay": 0.01},
]  # fmt: skip
CASES = list(zip(product(SIZES, OPTIMIZERS, LOSSES), cycle(CIRCUMSTANCES), strict=False))


def ids(case: Any) -> str:
    return "-".join(case[0])


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_cohort_is_the_loop(case):
    """Five rounds of seven unequal clients, of whom five are drawn in each."""
    (model, optimizer, loss), how = case
    settings = OPTIMIZERS[optimizer] | {
        "loss": loss,
        "batch_size": how["batch_size"],
        "weight_decay": how.get("weight_decay", 0.0),
    }
    tables = {
        "federation": {
            "num_server_rounds": 5, "fraction_fit": 0.6, "local_epochs": how["epochs"],
        },
        "strategy": {"mu": how["mu"]},
        "execution": how["execution"],
    }  # fmt: skip
    asked = config(model, settings, **tables)
    (loop, loop_events, _), (cohort, cohort_events, _) = (
        federated(engine, asked, clients()) for engine in ("loop", "cohort")
    )
    assert apart(cohort.state, loop.state) < 1e-5
    # Not because nothing moved: the difference is as small beside what training changed.
    start = first_state(asked)
    moved = {name: value - start[name] for name, value in loop.state.items()}
    difference = {name: cohort.state[name] - value for name, value in loop.state.items()}
    trained_from = {name: value for name, value in start.items() if name not in BUFFERS}
    assert np.linalg.norm(flat(moved)) > 1e-4 * np.linalg.norm(flat(trained_from))
    assert np.linalg.norm(flat(difference)) < 1e-3 * np.linalg.norm(flat(moved))
    # What the two said on their way, in the same order.
    assert [type(event) for event in cohort_events] == [type(event) for event in loop_events]
    for one, other in zip(replies(cohort_events), replies(loop_events), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("loss", ["quantile", "student-t", "hurdle"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_cohort_is_the_loop_with_other_heads(optimizer, loss):
    """A network of several numbers per step: four for three quantiles and a mean."""
    # Adam makes a whole step of a gradient that is zero but for rounding; the shortcut, which
    # starts at zero, has such gradients where a feature is the same in a whole batch.
    settings = {**OPTIMIZERS[optimizer], "loss": loss, "batch_size": 7}
    settings |= {"shortcut": optimizer == "sgd", "copies": 2 if loss == "quantile" else 1}
    tables = {
        "federation": {"num_server_rounds": 4, "fraction_fit": 0.6, "local_epochs": 2},
        "strategy": {"mu": 0.3},
        "execution": {"chunk": 3, "workers": 2},
    }
    asked = config("mlp", settings, **tables)
    (loop, loop_events, _), (cohort, cohort_events, _) = (
        federated(engine, asked, clients()) for engine in ("loop", "cohort")
    )
    assert apart(cohort.state, loop.state) < 1e-5
    start = first_state(asked)
    moved = {name: value - start[name] for name, value in loop.state.items()}
    assert np.linalg.norm(flat(moved)) > 1e-3 * np.linalg.norm(flat(start))
    for one, other in zip(replies(cohort_events), replies(loop_events), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert cohort.sums.keys() == loop.sums.keys()
    for name, sums in loop.sums.items():
        assert cohort.sums[name].abs_kwh == pytest.approx(sums.abs_kwh, rel=1e-4)


def first_state(asked: RunConfig) -> Arrays:
    made = learner_for(asked.model, asked.models)
    return enrol(LoopGrid([ClientWorker(one, made) for one in clients()]), made, asked.seed, 60)[1]


def replies(seen: list[events.Event]) -> list[dict[str, float]]:
    """Round, client, weight, loss and norm of each reply."""
    return [
        {
            "round": e.round, "client": int(e.client_id[1:]), "weight": e.weight, "loss": e.loss,
            "norm": e.update_norm,
        }
        for e in seen
        if isinstance(e, events.ClientReplied)
    ]  # fmt: skip


def test_every_model_optimiser_and_loss_occurs():
    """A learner that is added to the table has to be added here."""
    assert len(CASES) == len(SIZES) * len(OPTIMIZERS) * len(LOSSES)
    assert set(SIZES) == {*LEARNERS} - {"ridge", "quantile_linear"}
    assert len(CASES) % len(CIRCUMSTANCES)  # so that the circumstances wander over the cases


@pytest.mark.parametrize("workers_", [1, 2])
def test_ridge_is_the_loop(workers_):
    """Sums in float64, added client by client instead of in blocks."""
    asked = check({"model": "ridge", "execution": {"workers": workers_}})
    (loop, loop_events, _), (cohort, cohort_events, _) = (
        federated(engine, asked, clients()) for engine in ("loop", "cohort")
    )
    np.testing.assert_allclose(
        cohort.state["coefficients"], loop.state["coefficients"], rtol=1e-9, atol=1e-12
    )
    for one, other in zip(replies(cohort_events), replies(loop_events), strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    assert cohort.sums.keys() == loop.sums.keys()


# ------------------------------------------------------------------------------- one chunk
def chunk_of(made: GradientLearner, chosen: list[int], spoil: Any = None) -> Rows:
    """The windows of some clients in flat arrays; `spoil` may change one client's."""
    store, count = RowStore(), []
    for place in chosen:
        arrays = training_arrays(workers(made)[place].train_design)
        if spoil:
            arrays = spoil(place, arrays)
        store.append(arrays)
        count.append(len(arrays["x"]))
    return Rows.of(store.finish(), np.array(count))


def trained(
    made: GradientLearner,
    chosen: list[int],
    epochs: list[int] | int = 1,
    spoil: Any = None,
    work: LocalWork | None = None,
    **options: Any,
):
    """Train clients as one chunk, and return each one's deltas and loss."""
    state = state_of(made)
    each = epochs if isinstance(epochs, list) else [epochs] * len(chosen)
    lifted = Lifted(made.module(state))
    result = train_chunk(
        made, lifted, state, chunk_of(made, chosen, spoil), work or LocalWork(), np.array(each),
        [client_seed(8, f"c{k}", 3) for k in chosen], **options,
    )  # fmt: skip
    layout = Layout.of({name: state[name] for name in lifted.names}, lifted.turned)
    return [layout.arrays(row) for row in result.matrix], result.losses


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize("batch_size", [8, 0])
def test_each_client_has_its_own_epochs_and_batches(model, batch_size):
    """Clients of 20, 14, 3, 21, 8, 1 and 16 windows that train for 1 to 4 epochs."""
    # With nothing private: `train_chunk` is told of it from outside.
    made = learner(model, batch_size=batch_size, loss="huber", eta_l=1e-3, private=[])
    epochs, chosen = [1, 3, 4, 1, 2, 4, 2], list(range(7))
    work = LocalWork(mu=0.2)
    deltas, losses = trained(made, chosen, epochs, work=work)
    state = state_of(made)
    for k, worker in enumerate(workers(made)):
        design = worker.train_design
        assert len(design.x) == COUNTS[worker.client_id]
        alone, loss = made.update(
            state, design, replace(work, epochs=epochs[k]), client_seed(8, f"c{k}", 3)
        )
        assert losses[k] == pytest.approx(loss, rel=1e-5)
        assert np.linalg.norm(flat(alone)) > 1e-3
        assert apart(deltas[k], alone) < 1e-3


def test_a_chunk_by_hand():
    """Two clients of one window and of two, NLinear from zero, MSE, SGD of 0.1, one full batch.

    Client 1: x = (1, 0), r = 2: Δw = 0.1·2·2·(1, 0) = (0.4, 0), Δb = 0.4, loss 4. Client 2:
    x = (1, 0) and (−1, 2), r = 2 and 1: Δw = (0.1, 0.2), Δb = 0.3, loss (4 + 1)/2.
    """
    made = NLinearLearner(NLinear(loss="mse", optimizer="sgd", eta_l=0.1, batch_size=0))
    x = torch.tensor([[1.0, 0], [1, 0], [-1, 2]])
    r = torch.tensor([[2.0], [2], [1]])
    rows = Rows(x, r, torch.ones(3, 1), np.array([0, 1]), np.array([1, 2]))
    state = {"linear.weight": np.zeros((1, 2), np.float32), "linear.bias": np.zeros(1, np.float32)}
    lifted = Lifted(made.module(state))
    done = train_chunk(made, lifted, state, rows, LocalWork(), np.array([1, 1]), [5, 6])
    # By name: bias, then weight.
    np.testing.assert_allclose(done.matrix, [[0.4, 0.4, 0], [0.3, 0.1, 0.2]], rtol=1e-6)
    assert done.losses.tolist() == pytest.approx([4, 2.5])
    assert done.steps.tolist() == [1, 1]


# ----------------------------------------------------------------- one client and the others
def with_value(value: float, field: str, sick: int):
    """Put a value into one client's last window."""

    def spoil(place: int, arrays: dict[str, Any]) -> dict[str, Any]:
        if place != sick:
            return arrays
        changed = arrays[field].copy()
        changed[-1].flat[0] = value
        return {**arrays, field: changed, "known": np.ones_like(arrays["known"])}

    return spoil


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("field", ["x", "residual"])
@pytest.mark.parametrize("model", [name for name in SIZES if name != "mlp"])
def test_a_client_that_is_not_finite_touches_nobody_else(model, field, value):
    """To the last bit: the others as they are beside a healthy client."""
    made = learner(model, loss="mse", batch_size=8)
    healthy, fine = trained(made, [0, 1, 2, 3], 2)
    beside, losses = trained(made, [0, 1, 2, 3], 2, with_value(value, field, 1))
    for k in (0, 2, 3):
        assert same_bits(beside[k], healthy[k])
        assert losses[k] == fine[k]
    finite = np.isfinite(flat(beside[1])).all() and np.isfinite(losses[1])
    assert not finite or value == 3e38  # a recurrent network may saturate on what is huge
    # Without the client at all, the others are what they were, to rounding.
    without, _ = trained(made, [0, 2, 3], 2)
    for row, k in enumerate((0, 2, 3)):
        assert apart(without[row], beside[k]) < 1e-5


@pytest.mark.parametrize("model", ["nlinear", "lstm"])
def test_debug_names_the_step_and_the_client_as_the_loop_does(model):
    """The last window of client 1 (14 windows) comes in a drawn step of its two."""
    made = learner(model, loss="mse", batch_size=8)
    spoil = with_value(np.nan, "residual", 1)
    with pytest.raises(StepError) as cohort:
        trained(made, [3, 1, 2], 2, spoil, debug=True)
    arrays = spoil(1, training_arrays(workers(made)[1].train_design))
    design = workers(made)[1].train_design
    broken = replace(design, residual=arrays["residual"], known=arrays["known"])
    with pytest.raises(StepError) as loop:
        made.update(state_of(made), broken, LocalWork(2), client_seed(8, "c1", 3), debug=True)
    assert (cohort.value.step, cohort.value.row) == (loop.value.step, 1)
    assert "the loss is nan" in str(cohort.value)
    assert "the loss is nan" in str(loop.value)
    # Without debug both go on.
    trained(made, [3, 1, 2], 2, spoil)


def test_the_check_is_asked_before_every_step_and_may_end_the_work():
    asked = []

    def check_() -> None:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt

    made = learner("nlinear", batch_size=8)
    trained(made, [0, 4], 1, check=lambda: asked.append(1))
    assert len(asked) == 3  # 20 windows in batches of 8
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        trained(made, [0, 4], 2, check=check_)
    assert len(asked) == 4

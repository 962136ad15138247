"""A node's own DP-SGD, as a chunk of one client: the loop's, to rounding, for every model."""

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from torch import Tensor, nn

from fl_inmetro.federation import messages
from fl_inmetro.federation.client_program import client_app
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.learning import alone
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.work import CONTROL, DpSgd, LocalWork
from tests.engines import apart, flat, same_bits
from tests.learning.private_steps import ROOT, design, nlinear, zeros
from tests.learning.ragged import SIZES, learner, state_of, workers

WORK = LocalWork(2, mu=0.1, dp=DpSgd(0.1, 0.5))


def both(worker: ClientWorker, state, work: LocalWork, **options):
    """The answer of one client, batched and window by window."""
    return (
        worker.train(state, work, 1, 2, secret=ROOT, batched=batched, **options)
        for batched in (True, False)
    )


@pytest.mark.parametrize("model", SIZES)
def test_it_is_the_loop(model):
    made = learner(model, batch_size=8, eta_l=1e-3)
    state = state_of(made)
    for k in (0, 5):  # 20 windows, and one
        (ours, kept), (loop, own) = both(workers(made)[k], state, WORK)
        assert np.linalg.norm(flat(loop.arrays)) > 1e-3
        assert apart(ours.arrays, loop.arrays) < 1e-3
        assert kept.private.keys() == own.private.keys() == made.private(state)
        for name, value in own.private.items():
            np.testing.assert_allclose(kept.private[name], value, rtol=1e-4, atol=1e-5)
        assert np.isnan(ours.loss)


def test_scaffolds_halves_come_back():
    made = learner("window_mlp", batch_size=8, optimizer="sgd", eta_l=0.05)
    state = state_of(made)
    control = {name: np.full_like(state[name], 0.1) for name in made.shared(state)}
    work = LocalWork(2, dp=DpSgd(0.1, 0.5), control="scaffold")
    (ours, kept), (loop, own) = both(workers(made)[0], state, work, control=control)
    assert any(name.startswith(CONTROL) for name in loop.arrays)
    assert apart(ours.arrays, loop.arrays) < 1e-4
    assert apart(kept.control, own.control) < 1e-4


@pytest.mark.parametrize("batched", [True, False])
def test_scaffolds_half_says_nothing_that_the_noisy_update_does_not_say(batched):
    """By plain steps Δc = −c − Δw/(S·η): it costs no privacy of its own (SCAFFOLD, option II)."""
    eta = 0.05
    made = learner("nlinear", batch_size=8, optimizer="sgd", eta_l=eta)
    state = state_of(made)
    control = {name: np.full_like(state[name], 0.1) for name in made.shared(state)}
    own = {name: np.full_like(state[name], -0.2) for name in control}
    work = LocalWork(2, dp=DpSgd(0.1, 0.5), control="scaffold")
    worker = workers(made)[0]  # 20 windows by 8: three steps an epoch
    update, _ = worker.train(
        state, work, 1, 2, secret=ROOT, batched=batched, control=control, own_control=own
    )
    for name, c in control.items():
        expected = -c - update.arrays[name] / (6 * eta)
        np.testing.assert_allclose(update.arrays[CONTROL + name], expected, rtol=1e-3, atol=1e-4)


class Drawn(nn.Module):
    """It holds a parameter itself, so it has no batched form."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.scale = nn.Parameter(self.linear.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * self.scale)


def test_a_network_without_a_batched_form_is_trained_by_the_loop(monkeypatch):
    made = nlinear(batch_size=2)
    monkeypatch.setattr(made, "module", lambda state: Drawn())
    state = {**zeros(), "scale": np.ones((1, 2), np.float32)}
    one = design(np.eye(2).repeat(2, 0), [[1], [2], [3], [4]])
    found = alone.update_alone(made, state, one, WORK, 3, secret=ROOT)
    expected = made.update(state, one, WORK, 3, secret=ROOT)
    assert same_bits(found[0], expected[0])


def test_it_needs_a_secret_too():
    with pytest.raises(ValueError, match="secret"):
        alone.update_alone(nlinear(), zeros(), design([[1, 0]], [[1]]), WORK, 3)


def test_a_node_draws_a_secret_of_its_own_for_every_training(monkeypatch):
    """Asked the same twice, it answers otherwise; and never takes a window at a time."""
    made = learner("nlinear", batch_size=8)
    monkeypatch.setattr(GradientLearner, "update", None)
    worker, state = workers(made)[0], state_of(made)
    app = client_app(lambda context: worker)
    LoopGrid([worker])  # sets up the run that messages belong to
    content = messages.train_request(messages.pack(state), messages.TrainRequest(1, work=WORK))
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    answers = [app(Message(content, 1, messages.TRAIN, group_id="1"), context) for _ in range(2)]
    one, other = (messages.unpack(a.content.array_records[messages.ARRAYS]) for a in answers)
    assert not same_bits(one, other)

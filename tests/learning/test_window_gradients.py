"""The clipped sum by structure: each way of taking a norm, and windows that are not finite."""

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.learning import window_gradients
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.window_gradients import clipped_sums
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.models.heads import PointHead
from tests.engines import apart, flat
from tests.learning.private_steps import by, design
from tests.learning.ragged import SIZES, learner, state_of, workers


def sums_and_reference(module: nn.Module, x: torch.Tensor, r: torch.Tensor, clip: float):
    """Two clients of the same network and half of the windows each; and autograd in float64."""
    lifted = Lifted(module)
    state = {name: value.detach().numpy() for name, value in module.named_parameters()}
    leaves = [torch.cat([one, one]) for one in lifted.stacked(state)]
    mask = torch.ones_like(r)
    _, sums = clipped_sums(lifted, leaves, x, r, mask, PointHead("mse"), clip)
    ours = [
        torch.cat([own.flatten() for own in part]) for part in zip(*lifted.plain(sums), strict=True)
    ]
    exact = module.double()
    expected = []
    for one, target in zip(x.double().chunk(2), r.double().chunk(2), strict=True):
        total = None
        for n in range(len(one)):
            loss = (exact(one[n : n + 1]) - target[n]).square().mean()
            own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*exact.parameters()])])
            own = own * min(1.0, clip / float(own.norm()))
            total = own if total is None else total + own
        expected.append(total)
    return ours, expected


class Rows(nn.Module):
    """A perceptron on each of the rows of a window."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x))).squeeze(-1)


class Twice(nn.Module):
    """One matrix that is met twice: its gradient is the sum of both, clipped once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(torch.tanh(self.map(x)))


@pytest.mark.parametrize("clip", [0.05, 1e6])
@pytest.mark.parametrize(
    ("rows", "width", "hidden", "held"),
    # Products made at once, one by one, and rows against rows (4·3·(90 + 90) < 90·90).
    [(3, 5, 4, None), (3, 5, 4, 1), (3, 90, 90, None), (3, 90, 90, 1)],
)
def test_every_way_to_a_norm_is_autograds(rows, width, hidden, held, clip, monkeypatch):
    if held:
        monkeypatch.setattr(window_gradients, "_HELD", held)
    torch.manual_seed(0)
    x, r = torch.randn(8, rows, width), torch.randn(8, rows)
    ours, expected = sums_and_reference(Rows(width, hidden), x, r, clip)
    for own, reference in zip(ours, expected, strict=True):
        assert float((own - reference).norm()) < 1e-5 * float(reference.norm())


@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_a_layer_that_is_called_twice_has_one_gradient(clip):
    torch.manual_seed(1)
    x, r = torch.randn(6, 4), torch.randn(6, 4)
    ours, expected = sums_and_reference(Twice(4), x, r, clip)
    for own, reference in zip(ours, expected, strict=True):
        assert float((own - reference).norm()) < 1e-5 * float(reference.norm())


@pytest.mark.parametrize("width", [6, 80])
def test_rows_that_cancel_are_clipped_by_what_is_left(width):
    """Two rows of a window, alike but for a millionth, with slopes of opposite signs.

    y = w·a + b with w = b = 0: slopes −r and r (the mean of two points), so that the gradient is
    r·(a₂ − a₁) where each row has r·a. In float32, |Σ|² from rows against rows would be nothing but
    rounding. Both ways are asked for: 80 numbers of width 1 are few, so the limit is lowered.
    """
    torch.manual_seed(2)
    base = torch.randn(1, 1, width)
    x = torch.cat([base, base + 1e-3 * torch.randn(1, 1, width)], dim=1).repeat(2, 1, 1)
    r = 1e3 * torch.tensor([[-1.0, 1.0]]).repeat(2, 1)
    module = nn.Sequential(nn.Linear(width, 1), nn.Flatten(1))
    nn.init.zeros_(module[0].weight)
    nn.init.zeros_(module[0].bias)
    for cheaper in (4, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(window_gradients, "_CHEAPER", cheaper)
            ours, expected = sums_and_reference(module.float(), x, r, 0.5)
        for own, reference in zip(ours, expected, strict=True):
            assert float(reference.norm()) == pytest.approx(0.5)
            assert float(own.norm()) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("spoilt", ["x", "residual"])
@pytest.mark.parametrize("model", SIZES)
def test_a_window_that_is_not_finite_counts_nothing_and_touches_no_other(model, spoilt):
    """Sum over eight windows of which one is spoilt: that of the seven, over the batch of eight."""
    made = learner(model, optimizer="sgd", eta_l=0.5, batch_size=0, loss="mse", private=[])
    state, whole = state_of(made), workers(made)[4].train_design
    work = LocalWork(dp=DpSgd(0.05, 0.0))
    x, residual = whole.x.copy(), whole.residual.copy()
    (x if spoilt == "x" else residual)[3].flat[0] = np.nan
    known = whole.known.copy()
    known[3] = 1
    left = np.arange(8) != 3
    one = design(x, np.where(known > 0, residual, 0), known)
    rest = design(whole.x[left], whole.residual[left], whole.known[left])
    for engine in ("loop", "cohort"):
        spoilt_sum, rest_sum = (by(engine, made, state, [d], work)[0] for d in (one, rest))
        assert np.linalg.norm(flat(rest_sum)) > 1e-3
        eight_sevenths = {name: value * 8 / 7 for name, value in spoilt_sum.items()}
        assert apart(eight_sevenths, rest_sum) < 1e-4

"""The light optimisers against `torch.optim`, step by step, and one step by hand."""

import numpy as np
import pytest
import torch

from fl_inmetro.learning.optimizers import AdamW, Sgd


def quadratic(parameters: list[torch.Tensor]) -> torch.Tensor:
    """Some smooth loss whose gradient differs in every element and step."""
    return sum(((p - k) ** 2 * (1 + torch.arange(p.numel()).view(p.shape))).sum()
               for k, p in enumerate(parameters, start=1))  # fmt: skip


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("ours", "theirs"), [(Sgd, torch.optim.SGD), (AdamW, torch.optim.AdamW)])
def test_twenty_steps_equal_torch(ours, theirs, weight_decay):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape) for shape in ((3, 2), (4,), ())]
    mine, other = (
        [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in start]
        for _ in range(2)
    )
    optimizer = ours(mine, 0.01, weight_decay)
    reference = theirs(other, lr=0.01, weight_decay=weight_decay)
    for _ in range(20):
        optimizer.step(torch.autograd.grad(quadratic(mine), mine))
        reference.zero_grad()
        quadratic(other).backward()
        reference.step()
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_sgd_by_hand():
    # w = 2, g = 3, η = 0.1, λ = 0.5: w − 0.1·(3 + 0.5·2) = 1.6.
    w = torch.tensor([2.0], dtype=torch.float64)
    Sgd([w], 0.1, 0.5).step([torch.tensor([3.0], dtype=torch.float64)])
    assert w.item() == pytest.approx(1.6, rel=1e-15)


def test_the_first_adam_step_is_eta_whatever_the_gradient():
    # m̂ = g and v̂ = g² after one step: η·g/(|g| + ε) = ±η (to ε/|g|).
    w = torch.tensor([1.0, 1.0], dtype=torch.float64)
    AdamW([w], 0.25, 0.0).step([torch.tensor([4.0, -0.01], dtype=torch.float64)])
    assert w.tolist() == pytest.approx([0.75, 1.25], abs=1e-6)


def test_gradients_are_not_changed():
    w, g = torch.ones(3), torch.full((3,), 2.0)
    for kind in (Sgd, AdamW):
        kind([w], 0.1, 0.1).step([g])
    assert (g == 2).all()

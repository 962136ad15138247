"""A client's local optimiser, in a form that costs little per step.

A client starts a fresh optimiser in every round and takes a few dozen small steps, so what counts
is the cost of one step on a few small tensors: the fused list operations below take a third of
`torch.optim`'s time there, and importing `torch.optim`'s machinery alone takes seconds.
`tests/learning` holds them equal to `torch.optim.SGD` and `torch.optim.AdamW`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sgd:
    """Plain stochastic gradient descent: w ← w − η (g + λw)."""

    def __init__(self, parameters: Sequence[Tensor], eta: float, weight_decay: float) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._eta = eta
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters in place."""
        slope = list(gradients)
        if self._weight_decay:
            slope = list(torch._foreach_add(slope, self._parameters, alpha=self._weight_decay))
        torch._foreach_add_(self._parameters, slope, alpha=-self._eta)


class AdamW:
    """Adam with decoupled weight decay.

    Source: Kingma & Ba (2015), Algorithm 1; Loshchilov & Hutter (2019), Algorithm 2.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Sequence[Tensor], eta: float, weight_decay: float) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._eta = eta
        self._weight_decay = weight_decay
        self._first = [torch.zeros_like(p) for p in self._parameters]
        self._second = [torch.zeros_like(p) for p in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters in place."""
        self._steps += 1
        slope = list(gradients)
        if self._weight_decay:
            torch._foreach_mul_(self._parameters, 1 - self._eta * self._weight_decay)
        torch._foreach_lerp_(self._first, slope, 1 - self.BETA_1)
        torch._foreach_mul_(self._second, self.BETA_2)
        torch._foreach_addcmul_(self._second, slope, slope, value=1 - self.BETA_2)
        # w ← w − η m̂ / (√v̂ + ε), with the two bias corrections folded into the step and the root.
        correction_1 = 1 - self.BETA_1**self._steps
        correction_2 = 1 - self.BETA_2**self._steps
        root = list(torch._foreach_sqrt(self._second))
        torch._foreach_div_(root, correction_2**0.5)
        torch._foreach_add_(root, self.EPSILON)
        torch._foreach_addcdiv_(self._parameters, self._first, root, -self._eta / correction_1)

"""A client's local optimiser, in a form that costs little per step.

A client starts a fresh optimiser in every round and takes a few dozen small steps, so what counts
is the cost of one step on a few small tensors: the fused list operations below take a third of
`torch.optim`'s time there, and importing `torch.optim`'s machinery alone takes seconds.
They are elementwise, so the same code moves one client's parameters, or those of a whole chunk of
clients stacked along a leading axis. `tests/learning` holds them equal to `torch.optim`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fl_inmetro.config.models import Gradient


class Optimizer(ABC):
    """Moves parameters in place."""

    def __init__(self, parameters: Sequence[Tensor], eta: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._eta = eta
        self._weight_decay = weight_decay
        #: Moments: lists parallel to the parameters.
        self._slots: list[list[Tensor]] = []

    def narrow(self, clients: int) -> None:
        """Go on with the first `clients` of stacked parameters; the others are done."""
        self._parameters = [p[:clients] for p in self._parameters]
        self._slots = [[s[:clients] for s in slot] for slot in self._slots]

    @abstractmethod
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters; the gradients may be overwritten."""

    def _slot(self) -> None:
        self._slots.append([torch.zeros_like(p) for p in self._parameters])


class Sgd(Optimizer):
    """Stochastic gradient descent: v ← βv + g + λw, w ← w − ηv.

    Source: Sutskever et al. (2013), eq. 1–2, in the form of `torch.optim.SGD` (η outside v).
    """

    def __init__(
        self, parameters: Sequence[Tensor], eta: float, weight_decay: float, momentum: float = 0.0
    ) -> None:
        super().__init__(parameters, eta, weight_decay)
        self._momentum = momentum
        if momentum:
            self._slot()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters in place."""
        slope = list(gradients)
        if self._weight_decay:
            slope = list(torch._foreach_add(slope, self._parameters, alpha=self._weight_decay))
        if self._momentum:
            velocity = self._slots[0]
            torch._foreach_mul_(velocity, self._momentum)
            torch._foreach_add_(velocity, slope)
            slope = velocity
        torch._foreach_add_(self._parameters, slope, alpha=-self._eta)


class Adam(Optimizer):
    """Adam; the decay is part of the gradient (`decoupled=False`) or shrinks the weights (AdamW).

    Source: Kingma & Ba (2015), Algorithm 1; Loshchilov & Hutter (2019), Algorithm 2.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(
        self, parameters: Sequence[Tensor], eta: float, weight_decay: float, *, decoupled: bool
    ) -> None:
        super().__init__(parameters, eta, weight_decay)
        self._decoupled = decoupled
        self._steps = 0
        self._slot()
        self._slot()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters in place."""
        self._steps += 1
        slope = list(gradients)
        if self._weight_decay and self._decoupled:
            torch._foreach_mul_(self._parameters, 1 - self._eta * self._weight_decay)
        elif self._weight_decay:
            slope = list(torch._foreach_add(slope, self._parameters, alpha=self._weight_decay))
        first, second = self._slots
        torch._foreach_lerp_(first, slope, 1 - self.BETA_1)
        torch._foreach_mul_(second, self.BETA_2)
        torch._foreach_addcmul_(second, slope, slope, value=1 - self.BETA_2)
        # w ← w − η m̂ / (√v̂ + ε), with the two bias corrections folded into the step and the root.
        correction_1 = 1 - self.BETA_1**self._steps
        correction_2 = 1 - self.BETA_2**self._steps
        root = list(torch._foreach_sqrt(second))
        torch._foreach_div_(root, correction_2**0.5)
        torch._foreach_add_(root, self.EPSILON)
        torch._foreach_addcdiv_(self._parameters, first, root, -self._eta / correction_1)


def optimizer_of(settings: Gradient, parameters: Sequence[Tensor], rate: float = 1.0) -> Optimizer:
    """Return a fresh optimiser of the kind that the settings name, at a share of their rate."""
    eta = settings.eta_l * rate
    if settings.optimizer == "sgd":
        return Sgd(parameters, eta, settings.weight_decay, settings.momentum)
    decoupled = settings.optimizer == "adamw"
    return Adam(parameters, eta, settings.weight_decay, decoupled=decoupled)

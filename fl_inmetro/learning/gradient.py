"""Gradient learners: a client's local epochs, in simple code.

This plain loop is the specification of the cohort engine (`learning/cohort.py`).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro import seeds
from fl_inmetro.config.models import Gradient
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning import dp_sgd
from fl_inmetro.learning.optimizers import optimizer_of
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import (
    CONTROL,
    DpSgd,
    LocalWork,
    StepError,
    Watch,
    batches,
    steps_of,
)
from fl_inmetro.metrics import Forecast
from fl_inmetro.models.design import Design
from fl_inmetro.models.heads import head_of
from fl_inmetro.privacy.secret import Secret

#: Windows per forward pass when forecasting.
FORECAST_BATCH = 4096


class GradientLearner(ABC):
    """A PyTorch module trained by local epochs of SGD or Adam; sends parameter deltas."""

    name: str
    closed_form = False

    def __init__(self, settings: Gradient) -> None:
        self.settings = settings
        self.head = head_of(settings)

    @property
    def outputs(self) -> int:
        """Raw numbers that the module gives for each forecast step."""
        return self.head.outputs

    def slower(self, factor: float) -> Self:
        """Return the learner with a local learning rate `factor` times its own."""
        other = copy.copy(self)
        rate = self.settings.eta_l * factor
        other.settings = self.settings.model_copy(update={"eta_l": rate})
        return other

    @abstractmethod
    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build what the module sees."""

    @abstractmethod
    def enrol(self, design: Design) -> Arrays:
        """Return the sums that `initial` needs."""

    @abstractmethod
    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Return the first state: parameters, and buffers that are not trained."""

    @abstractmethod
    def module(self, state: Arrays) -> nn.Module:
        """Return a module of the state's sizes (its values are loaded afterwards)."""

    def private(self, state: Arrays) -> frozenset[str]:
        """Return the names of the parameters that stay on each client."""
        patterns = self.settings.private
        if not patterns:
            return frozenset()
        return frozenset(
            name
            for name, _ in self.module(state).named_parameters()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        )

    def shared(self, state: Arrays) -> tuple[str, ...]:
        """Return the names of the parameters that are trained and shared."""
        private = self.private(state)
        return tuple(n for n, _ in self.module(state).named_parameters() if n not in private)

    def update(
        self,
        state: Arrays,
        design: Design,
        work: LocalWork,
        seed: int,
        *,
        shift: Mapping[str, NDArray[Any]] | None = None,
        secret: Secret | None = None,
        debug: bool = False,
    ) -> tuple[Arrays, float]:
        """Run the local epochs and return the delta w_k − w of every trained parameter.

        The loss is the mean over the known points of a batch; the client's order of windows is
        drawn from `seed`, once per epoch. The optimiser starts fresh. The loss that is returned is
        the task's, over the last epoch.
        `shift` is added to every gradient of the shared parameters it names. With SCAFFOLD, the
        mean of the gradients as they come, before anything is added to them, is returned under
        `CONTROL` and the name of each shared parameter.
        With `work.dp`, windows are drawn and gradients noised from `secret`, which is of this
        client and this training alone (`learning/dp_sgd.py`); the loss is NaN.
        Source: McMahan et al. (2017), Algorithm 1, ClientUpdate; `learning/control.py`.

        Raises:
            ValueError: DP-SGD without a secret.
            StepError: In debug mode, the step that failed, or at which the loss was not finite.
        """
        rows = design.trainable()
        module = self.loaded(state)
        module.train()
        names = [name for name, _ in module.named_parameters()]
        parameters: list[Tensor] = list(module.parameters())
        shared = [name not in self.private(state) for name in names]
        weight = work.mu + work.alpha
        anchors = [parameter.detach().clone() for parameter in parameters] if weight else []
        constants = {names.index(name): torch.from_numpy(a) for name, a in (shift or {}).items()}
        sums = {
            k: torch.zeros_like(parameter)
            for k, parameter in enumerate(parameters)
            if work.control == "scaffold" and shared[k]
        }
        optimizer = optimizer_of(self.settings, parameters, work.rate)
        x, residual, known = (torch.from_numpy(a) for a in (rows.x, rows.residual, rows.known))
        size = self.settings.batch_size or len(x)
        per_epoch = -(-len(x) // size) if size else 0
        last_epoch = steps_of(len(x), size, work.epochs, work.steps) - per_epoch
        private: _PrivateSteps | None = None
        if work.dp:
            drawn = dp_sgd.Draws(dp_sgd.checked(work, secret), len(x), size)
            private = _PrivateSteps(work.dp, drawn, parameters)
            order = dp_sgd.batches(drawn, len(x), size, work)
        else:
            order = batches(len(x), size, work.epochs, seed, work.steps)
        loss_sum = point_sum = 0.0
        steps = 0
        with Watch(debug=debug) as watch:
            for step, windows in enumerate(order):
                watch.step = step
                batch = torch.from_numpy(windows)
                if private is None:
                    mask = known[batch]
                    points = float(mask.sum())
                    errors = self.penalties(module, x[batch], residual[batch])
                    loss = (errors * mask).sum() / points
                    gradients = list(torch.autograd.grad(loss, parameters))
                    if debug:
                        check_loss(step, float(loss.detach()))
                else:
                    # One by one: what is not finite in a window may not touch another.
                    each = (slice(n, n + 1) for n in windows.tolist())
                    losses = (
                        (self.penalties(module, x[n], residual[n]) * known[n]).sum()
                        / known[n].sum()
                        for n in each
                    )
                    gradients = private(losses, step if debug else None)
                steps += 1
                for k, total in sums.items():
                    total += gradients[k]
                if weight:
                    _pull(gradients, parameters, anchors, shared, weight)
                for k, constant in constants.items():
                    gradients[k] = gradients[k] + constant
                optimizer.step(gradients)
                if step >= last_epoch and private is None:
                    loss_sum += float(loss.detach()) * points
                    point_sum += points
        deltas = {
            name: parameter.detach().numpy() - state[name]
            for name, parameter in zip(names, parameters, strict=True)
        }
        deltas |= {CONTROL + names[k]: (total / max(steps, 1)).numpy() for k, total in sums.items()}
        return deltas, loss_sum / point_sum if point_sum else float("nan")

    def mean_loss(self, state: Arrays, design: Design) -> float:
        """Return the mean task loss over all known training points; NaN where there is none."""
        rows = design.trainable()
        module = self.loaded(state)
        module.eval()
        loss_sum = 0.0
        with torch.no_grad():
            for start in range(0, len(rows.x), FORECAST_BATCH):
                part = slice(start, start + FORECAST_BATCH)
                x, residual, known = (
                    torch.from_numpy(a[part]) for a in (rows.x, rows.residual, rows.known)
                )
                losses = self.penalties(module, x, residual) * known
                loss_sum += float(losses.sum(dtype=torch.float64))
        return loss_sum / rows.points if rows.points else float("nan")

    def probe(
        self, state: Arrays, design: Design, seed: int, *, debug: bool = False
    ) -> tuple[Arrays, float, float]:
        """Return the gradient g of the mean task loss, that loss, and how far batches are from g.

        g is by the shared parameters alone. The last number is Σ_b (n_b / n) ‖g_b − g‖² over the
        mini-batches b of one local epoch, in its usual order; n_b of the n known points are in b.
        It estimates the variance of a stochastic gradient under sampling without replacement, as
        the local steps sample: 0 for a single batch, and for N windows of as many points each in
        batches of B about (N − B) / (B (N − 1)) of the variance from window to window.

        Raises:
            StepError: In debug mode, the step at which the loss was not finite.
        """
        rows = design.trainable()
        module = self.loaded(state)
        module.eval()
        private = self.private(state)
        shared = {n: p for n, p in module.named_parameters() if n not in private}
        x, residual, known = (torch.from_numpy(a) for a in (rows.x, rows.residual, rows.known))
        epoch = list(batches(len(x), self.settings.batch_size or len(x), 1, seed))

        def looks() -> Iterator[tuple[float, float, list[Tensor]]]:
            """Yield the share of the points, the loss and the gradient of each batch."""
            with Watch(debug=debug) as watch:
                for step, windows in enumerate(epoch):
                    watch.step = step
                    batch = torch.from_numpy(windows)
                    points = float(known[batch].sum())
                    errors = self.penalties(module, x[batch], residual[batch])
                    loss = (errors * known[batch]).sum() / points
                    if debug:
                        check_loss(step, float(loss.detach()))
                    own = torch.autograd.grad(loss, list(shared.values()))
                    yield points / rows.points, float(loss.detach()), [g.double() for g in own]

        mean = [torch.zeros_like(p, dtype=torch.float64) for p in shared.values()]
        mean_loss = spread = 0.0
        for share, loss, own in looks():
            mean_loss += share * loss
            mean = [m + share * g for m, g in zip(mean, own, strict=True)]
        for share, _, own in looks():
            spread += share * sum(
                float((g - m).square().sum()) for m, g in zip(mean, own, strict=True)
            )
        gradient = {n: m.float().numpy() for n, m in zip(shared, mean, strict=True)}
        return gradient, mean_loss if epoch else float("nan"), spread

    def sums_like(self, state: Arrays) -> Arrays:
        """Not used: a reply is a delta of the state."""
        raise TypeError(f"{self.name} is trained in rounds, not in closed form")

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Not used: deltas are merged by the server optimiser."""
        raise TypeError(f"{self.name} is trained in rounds, not in closed form")

    def forecast(self, state: Arrays, design: Design) -> Forecast:
        """Forecast in kWh; means of shape (N, H), and the head's quantiles."""
        return self.forecast_with(self.loaded(state).eval(), design)

    def forecast_with(self, module: nn.Module, design: Design) -> Forecast:
        """Forecast by a module of `loaded`: to make one takes longer than to forecast a client."""
        means: list[NDArray[np.float32]] = []
        quantiles: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in torch.from_numpy(design.x).split(FORECAST_BATCH):
                raw = module(part)
                means.append(self.head.mean(raw).numpy())
                if (own := self.head.quantiles(raw)) is not None:
                    quantiles.append(own.numpy())
        mean = np.concatenate(means) if means else np.zeros_like(design.base)
        levels = self.head.levels
        if not levels:
            return Forecast(design.to_kwh(mean))
        shape = (*design.base.shape, len(levels))
        values = np.concatenate(quantiles) if quantiles else np.zeros(shape, np.float32)
        return Forecast(design.to_kwh(mean), levels, design.to_kwh(values))

    def loaded(self, state: Arrays) -> nn.Module:
        """Return a module with copies of the state's values (other clients share the state)."""
        module = self.module(state)
        module.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        return module

    def penalties(self, module: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
        """Return the head's penalty of each step; (N, …), (N, H) → (N, H)."""
        return self.head.penalty(module(x), residual)


def client_seed(root: int, client_id: str, round_: int) -> int:
    """Return the seed of a client's work in a round: it depends on nothing else."""
    return seeds.derive_seed(root, "client", client_id, "round", round_)


def check_loss(step: int, loss: float, row: int = 0) -> None:
    """Look at a loss, in debug mode.

    Raises:
        StepError: It is not finite.
    """
    if not math.isfinite(loss):
        raise StepError(step, f"the loss is {loss}", row)


class _PrivateSteps:
    """Makes clipped and noised gradients of the losses of windows, one after the other."""

    def __init__(self, dp: DpSgd, draws: dp_sgd.Draws, parameters: Sequence[Tensor]) -> None:
        self._dp = dp
        self._draws = draws
        self._parameters = list(parameters)

    def __call__(self, losses: Iterable[Tensor], step: int | None) -> list[Tensor]:
        """Return (Σ clip(g_i, C) + noise) / (q_k n_k).

        Args:
            losses: Of each window in the batch, with its graph; perhaps none.
            step: In debug mode, the number of the step.
        """
        total = [torch.zeros_like(p) for p in self._parameters]
        for loss in losses:
            if step is not None:
                check_loss(step, float(loss.detach()))
            own = torch.autograd.grad(loss, self._parameters)
            norm = torch.sqrt(sum((g.square().sum() for g in own), start=torch.zeros(())))
            if factor := float(dp_sgd.factors(norm, self._dp.clip)):  # 0 times infinity is no 0
                torch._foreach_add_(total, list(own), alpha=factor)
        room = np.empty(sum(p.numel() for p in self._parameters), np.float32)
        self._draws.noise(room)
        normal = dp_sgd.parted(torch.from_numpy(room), self._parameters)
        return dp_sgd.noised(total, normal, self._dp, torch.tensor(self._draws.expected))


@torch.no_grad()
def _pull(
    gradients: list[Tensor],
    parameters: list[Tensor],
    anchors: list[Tensor],
    shared: list[bool],
    mu: float,
) -> None:
    """Add the slope of the proximal term, μ(w − w_global), to the shared parameters' gradients."""
    for k, is_shared in enumerate(shared):
        if is_shared:
            gradients[k] = gradients[k] + mu * (parameters[k] - anchors[k])

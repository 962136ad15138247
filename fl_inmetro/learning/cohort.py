"""Train a chunk of clients as one batched computation.

It does for C clients at once what `GradientLearner.update` does for one, step by step: the same
windows in the same order, the same loss, the same optimiser. Clients may have any numbers of
windows, batch sizes and epochs: short batches are padded and masked, and clients are ordered by
their number of steps, so that those who are done fall off the end.
A client's numbers meet nobody else's: one whose loss is not finite spoils only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_inmetro import seeds
from fl_inmetro.learning.chunk import BatchReader, ChunkParameters, StepPlan, gradients_of, slopes
from fl_inmetro.learning.gradient import GradientLearner, noise_of
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.optimizers import optimizer_of
from fl_inmetro.learning.rows import Rows
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import CONTROL, DpSgd, LocalWork, StepError, Watch
from fl_inmetro.models.heads import Head

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a chunk of C clients brings back.

    Attributes:
        matrix: Deltas of the shared parameters, shape (C, P); with SCAFFOLD, behind them the mean
            gradients c_k⁺, shape (C, 2P).
        private: New values of the private parameters, each (C, …).
        losses: Shape (C,).
        steps: Steps that each client took, shape (C,).
    """

    matrix: NDArray[np.float32]
    private: Arrays
    losses: NDArray[np.float64]
    steps: Ints


def train_chunk(
    learner: GradientLearner,
    lifted: Lifted,
    state: Arrays,
    rows: Rows,
    work: LocalWork,
    epochs: Ints,
    client_seeds: Sequence[int],
    *,
    private: Arrays | None = None,
    shift: Mapping[str, NDArray[Any]] | None = None,
    layout: Layout | None = None,
    debug: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Trained:
    """Do the local work of a round for C clients.

    Args:
        learner: The learner.
        lifted: Its network for many clients (`stepped` where `work` clips example by example).
        state: The shared state.
        rows: The clients' windows.
        work: What is asked of all; `epochs` replaces its own epochs.
        epochs: Epochs of each client, shape (C,).
        client_seeds: Seed of each client's work.
        private: Values of the private parameters, each (C, …).
        shift: Added to every gradient of these shared parameters, each (C, …).
        layout: Place of the shared deltas in a row of the matrix; None = all trained parameters.
        debug: Look at every loss.
        check: Called before each step; may raise.

    Raises:
        StepError: In debug mode, the first step and client whose loss was not finite; for a chunk
            of one client, the step that raised.
    """
    private, shift = private or {}, shift or {}
    device = rows.x.device
    if layout is None:
        shared = {n: state[n] for n in lifted.names if n not in private}
        layout = Layout.of(shared, lifted.turned)
    settings, head = learner.settings, learner.head
    plan = StepPlan(rows, settings.batch_size, epochs, client_seeds, work.steps)
    clients = len(plan.order)
    averaged = work.control == "scaffold"
    held = ChunkParameters(
        lifted, state, private, layout, plan.order, device, layout.width if averaged else 0
    )
    # Views of the matrix: what is left of it when the start is taken away are the deltas.
    parameters = held.values
    lifted.load_buffers(state, device)
    of_shared = [k for k, name in enumerate(lifted.names) if name not in private]
    weight = work.mu + work.alpha
    pulled = of_shared if weight else []
    shifts = {
        k: held.of_clients(lifted, k, shift[name], plan.order)
        for k, name in enumerate(lifted.names)
        if name in shift
    }
    #: Sums of the gradients as they come: of the task, clipped and noised where that is asked.
    sums = {}
    if averaged:
        places = layout.with_control().slices()
        sums = {k: held.part(k, places[CONTROL + lifted.names[k]]) for k in of_shared}
    noise = [
        np.random.default_rng(seeds.derive_seed(client_seeds[k], "noise"))
        for k in plan.order
        if work.dp
    ]
    sizes = _sizes(rows.count[plan.order], settings.batch_size).to(device)
    optimizer = optimizer_of(settings, parameters, work.rate)
    leaves: list[Tensor] = []
    loss_sum, point_sum = torch.zeros(2, clients, dtype=torch.float64, device=device)
    read = BatchReader(rows)
    active = -1
    with Watch(debug=debug and clients == 1) as watch:
        for step in range(int(plan.steps[0])):
            watch.step = step
            check()
            if (now := plan.active(step)) != active:
                active = now
                optimizer.narrow(active)
                leaves = [p[:active].detach().requires_grad_() for p in parameters]
                lifted.bind(leaves)
            x, residual, mask = read(*plan.batch(step, active))
            if work.dp is None:
                raw = lifted(x)
                pull, points = slopes(head, raw, residual, mask, active)
                gradients = gradients_of(raw, pull, leaves)
            else:
                raw, gradients = _private_gradients(
                    lifted, leaves, x, residual, mask, head, work.dp, noise, sizes[:active]
                )
                points = mask.view(active, -1).sum(1)
            last_epoch = plan.is_last_epoch(step, active)
            if debug or last_epoch.any():
                losses = (head.penalty(raw.detach(), residual) * mask).view(active, -1).sum(1)
                if debug and not torch.isfinite(losses).all():
                    bad = int((~torch.isfinite(losses)).nonzero()[0])
                    why = f"the loss is {float(losses[bad] / points[bad])}"
                    raise StepError(step, why, int(plan.order[bad]))
                if not last_epoch.all():
                    counted = torch.from_numpy(last_epoch).to(device)
                    losses, points = (
                        torch.where(counted, losses, 0.0),
                        torch.where(counted, points, 0.0),
                    )
                loss_sum[:active] += losses
                point_sum[:active] += points
            for k, total in sums.items():
                total[:active] += gradients[k]
            for k in pulled:
                gradients[k] = gradients[k] + weight * (parameters[k][:active] - held.start[k])
            for k, constant in shifts.items():
                gradients[k] = gradients[k] + constant[:active]
            optimizer.step(gradients)
    back = np.argsort(plan.order)
    held.matrix.sub_(held.before)
    if averaged:
        steps = torch.from_numpy(plan.steps).to(device).unsqueeze(1)
        held.whole[:, layout.width :].div_(steps.clamp_min(1))
    found = held.whole.cpu().numpy()
    in_order = bool((back == np.arange(clients)).all())
    own = {
        name: lifted.plain_of(k, parameters[k]).cpu().contiguous().numpy()[back]
        for k, name in enumerate(lifted.names)
        if name in private
    }
    losses = (loss_sum / point_sum).cpu().numpy()[back]
    return Trained(found if in_order else found[back], own, losses, plan.steps[back])


def _sizes(count: Ints, batch_size: int) -> Tensor:
    """Return the batch size that was asked for, by client."""
    return torch.from_numpy(np.full_like(count, batch_size) if batch_size else count).float()


def _private_gradients(
    lifted: Lifted,
    leaves: Sequence[Tensor],
    x: Tensor,
    residual: Tensor,
    mask: Tensor,
    head: Head,
    dp: DpSgd,
    noise: Sequence[np.random.Generator],
    sizes: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Return the raw outputs, and each client's clipped and noised mean gradient.

    Every example is treated as a client of its own, with a copy of its client's parameters.
    """
    clients = leaves[0].shape[0]
    each = x.shape[0] // clients
    copies = [leaf.detach().repeat_interleave(each, dim=0).requires_grad_() for leaf in leaves]
    lifted.bind(copies)
    raw = lifted(x)
    lifted.bind(leaves)
    # A padded row has no point: its slope is zero, so what it is divided by does not matter.
    weight = mask / mask.sum(1, keepdim=True).clamp_min(1)
    slope = head.slope(raw.detach(), residual)
    pull = slope * (weight.unsqueeze(-1) if head.outputs > 1 else weight)
    own = gradients_of(raw, pull, copies)
    norm = torch.stack([g.flatten(1).square().sum(1) for g in own]).sum(0).sqrt()
    factor = (dp.clip / norm.clamp_min(1e-12)).clamp(max=1.0).view(clients, 1, each)
    sums = [
        torch.bmm(factor, g.reshape(clients, each, -1)).view(clients, *g.shape[1:]) for g in own
    ]
    one = lifted.plain([total[:1] for total in sums])
    drawn = [noise_of(generator, one) for generator in noise[:clients]]
    result = []
    for k, total in enumerate(sums):
        normal = lifted.kept(k, torch.stack([d[k][0] for d in drawn])).to(total.device)
        mean = total + dp.noise_multiplier * dp.clip * normal
        result.append(mean / sizes.view(-1, *[1] * (total.dim() - 1)))
    return raw, result

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

from fl_inmetro.learning import dp_sgd
from fl_inmetro.learning.chunk import (
    BatchReader,
    ChunkParameters,
    DrawnPlan,
    StepPlan,
    gradients_of,
    slopes,
)
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.optimizers import optimizer_of
from fl_inmetro.learning.rows import Rows
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.window_gradients import clipped_sums
from fl_inmetro.learning.work import CONTROL, DpSgd, LocalWork, StepError, Watch
from fl_inmetro.privacy.secret import Secret

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a chunk of C clients brings back.

    Attributes:
        matrix: Deltas of the shared parameters, shape (C, P); with SCAFFOLD, behind them the mean
            gradients c_k⁺, shape (C, 2P).
        private: New values of the private parameters, each (C, …).
        losses: Shape (C,); with DP-SGD, NaN.
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
    secrets: Sequence[Secret] | None = None,
    layout: Layout | None = None,
    debug: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Trained:
    """Do the local work of a round for C clients.

    Args:
        learner: The learner.
        lifted: Its network for many clients.
        state: The shared state.
        rows: The clients' windows.
        work: What is asked of all; `epochs` replaces its own epochs.
        epochs: Epochs of each client, shape (C,).
        client_seeds: Seed of each client's work.
        private: Values of the private parameters, each (C, …).
        shift: Added to every gradient of these shared parameters, each (C, …).
        secrets: What each client's DP-SGD draws from; of this training alone.
        layout: Place of the shared deltas in a row of the matrix; None = all trained parameters.
        debug: Look at every loss.
        check: Called before each step; may raise.

    Raises:
        StepError: In debug mode, the first step and client whose loss was not finite; for a chunk
            of one client, the step that raised.
        ValueError: DP-SGD without secrets.
    """
    private, shift = private or {}, shift or {}
    device = rows.x.device
    if layout is None:
        shared = {n: state[n] for n in lifted.names if n not in private}
        layout = Layout.of(shared, lifted.turned)
    settings, head = learner.settings, learner.head
    drawn = _drawn_plan(rows, settings.batch_size, epochs, secrets, work)
    plan = drawn or StepPlan(rows, settings.batch_size, epochs, client_seeds, work.steps)
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
            if drawn is None:
                raw = lifted(x)
                pull, points = slopes(head, raw, residual, mask, active)
                gradients = gradients_of(raw, pull, leaves)
                last_epoch = plan.is_last_epoch(step, active)
            else:
                assert work.dp is not None
                raw, clipped = clipped_sums(lifted, leaves, x, residual, mask, head, work.dp.clip)
                gradients = _noised(lifted, clipped, work.dp, drawn)
                points = mask.view(active, -1).sum(1)
                last_epoch = np.zeros(active, np.bool_)  # what a loss says has no noise
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


def _drawn_plan(
    rows: Rows,
    batch_size: int,
    epochs: Ints,
    secrets: Sequence[Secret] | None,
    work: LocalWork,
) -> DrawnPlan | None:
    """Return the draws of DP-SGD; None without it."""
    if work.dp is None:
        return None
    if secrets is None:
        raise ValueError("DP-SGD needs a secret of each client to draw from")
    return DrawnPlan(rows, batch_size, epochs, secrets, work.steps)


def _noised(lifted: Lifted, sums: list[Tensor], dp: DpSgd, plan: DrawnPlan) -> list[Tensor]:
    """Return each client's noised mean gradient; the sums are overwritten."""
    active = len(sums[0])
    one = [tensor[0] for tensor in lifted.plain(sums)]
    normal = dp_sgd.parted(plan.noise(active, lifted.parameters), one)
    kept = [lifted.kept(k, own) for k, own in enumerate(normal)]
    return dp_sgd.noised(sums, kept, dp, plan.expected[:active])

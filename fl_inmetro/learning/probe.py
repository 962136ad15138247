"""One look at the received model by a chunk of clients: its loss, and its gradient.

Nothing is trained. `GradientLearner.mean_loss` and `GradientLearner.probe` are the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_inmetro.learning.chunk import BatchReader, ChunkParameters, StepPlan, gradients_of, slopes
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.rows import Rows
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import StepError, Watch


@dataclass(frozen=True, eq=False)
class Probed:
    """What a chunk of C clients found.

    Attributes:
        losses: Mean task loss over all known points, shape (C,).
        steps: Batches that each looked at, shape (C,).
        gradients: Of that loss by the shared parameters, shape (C, P); (C, 0) where not asked.
        spreads: Σ_b (n_b / n) ‖g_b − g‖² over the mini-batches b of one epoch, shape (C,).
    """

    losses: NDArray[np.float64]
    steps: NDArray[np.int64]
    gradients: NDArray[np.float32]
    spreads: NDArray[np.float64]


def probe_chunk(
    learner: GradientLearner,
    lifted: Lifted,
    state: Arrays,
    rows: Rows,
    client_seeds: Sequence[int],
    layout: Layout,
    *,
    private: Mapping[str, NDArray[Any]],
    gradients: bool = True,
    debug: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Probed:
    """Look at the received model on all windows, in the batches that a local epoch would have.

    The spread is summed up as the batches come, without keeping one of them.
    Source: West (1979), "Updating Mean and Variance Estimates", for weighted sums.

    Args:
        learner: The learner.
        lifted: Its network for many clients.
        state: The shared state.
        rows: The clients' windows.
        client_seeds: Seed of each client's work.
        layout: Place of the shared parameters in a row of the gradients.
        private: Values of the private parameters, each (C, …).
        gradients: Whether they are wanted, or only losses.
        debug: Look at every loss.
        check: Called before each step; may raise.

    Raises:
        StepError: In debug mode, the first step and client whose loss was not finite.
    """
    device, head = rows.x.device, learner.head
    clients = len(rows.count)
    plan = StepPlan(rows, learner.settings.batch_size, np.ones(clients, np.int64), client_seeds)
    held = ChunkParameters(lifted, state, private, layout, plan.order, device)
    lifted.load_buffers(state, device)
    place_of = {name: k for k, name in enumerate(lifted.names)}
    wanted = [place_of[name] for name in layout.names] if gradients else []
    shape = (clients, layout.width if gradients else 0)
    mean = torch.zeros(shape, dtype=torch.float64, device=device)
    loss_sum, point_sum, scatter = torch.zeros(3, clients, dtype=torch.float64, device=device)
    read = BatchReader(rows)
    with Watch(debug=debug and clients == 1) as watch:
        for step in range(int(plan.steps[0])):
            watch.step = step
            check()
            active = plan.active(step)
            leaves = [p[:active].detach().requires_grad_(gradients) for p in held.values]
            lifted.bind(leaves)
            x, residual, mask = read(*plan.batch(step, active))
            with torch.set_grad_enabled(gradients):
                raw = lifted(x)
            losses = (head.penalty(raw.detach(), residual) * mask).view(active, -1).sum(1)
            points = mask.view(active, -1).sum(1)
            if debug and not torch.isfinite(losses).all():
                bad = int((~torch.isfinite(losses)).nonzero()[0])
                why = f"the loss is {float(losses[bad] / points[bad])}"
                raise StepError(step, why, int(plan.order[bad]))
            loss_sum[:active] += losses
            point_sum[:active] += points
            if not gradients:
                continue
            pull, _ = slopes(head, raw, residual, mask, active)
            own = gradients_of(raw, pull, [leaves[k] for k in wanted])
            found = torch.cat([g.reshape(active, -1) for g in own], dim=1).double()
            away = found - mean[:active]
            share = points / point_sum[:active]
            mean[:active] += share.unsqueeze(1) * away
            scatter[:active] += points * (away * (found - mean[:active])).sum(1)
    back = np.argsort(plan.order)
    return Probed(
        (loss_sum / point_sum).cpu().numpy()[back],
        plan.steps[back],
        mean.float().cpu().numpy()[back],
        (scatter / point_sum).cpu().numpy()[back],
    )

"""Which part of an input moves a model's answer by how much: integrated gradients, and exact terms.

A gradient model's answer f(x) is taken apart along the straight way from a baseline x₀,

    c_j = (x_j − x₀_j) ∫₀¹ ∂f/∂x_j (x₀ + a (x − x₀)) da,    Σ_j c_j = f(x) − f(x₀),

with the integral as the mean of the gradients at the middles of m equal parts of the way; m is
doubled until the sum is right to a thousandth of the swing |f(x) − f(x₀)|, or no longer.
Source: Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks", eq. 1 to 3.

The other learners are linear in their (cut) features, so that a block's part is what is lost when
it alone takes the baseline's values: coefficient × (feature − mean), exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro.explain.blocks import Block
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.neural import ContextLearner, MlpLearner
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.forecast import SAME_LEVEL
from fl_inmetro.models.design import Design
from fl_inmetro.models.heads import Head

Floats = NDArray[np.float64]

#: Parts of the way that are tried: the first, and the most.
FIRST_STEPS, MOST_STEPS = 64, 16_384

#: What may be missing of the swing.
TOLERANCE = 1e-3

#: Points of the way in one forward pass.
_BATCH = 128


@dataclass(frozen=True, eq=False)
class Parts:
    """An answer taken apart, relative to the base, in units of the scale.

    Attributes:
        at_baseline: Shape (H,), f(x₀).
        answer: Shape (H,), f(x).
        blocks: Block to its part, (H,).
        steps: Parts of the way, m; 0 where none was needed.
    """

    at_baseline: Floats
    answer: Floats
    blocks: Mapping[str, Floats]
    steps: int

    @property
    def missing(self) -> Floats:
        """Shape (H,), what the parts leave of the swing."""
        found: Floats = self.answer - self.at_baseline - sum(self.blocks.values())
        return found


def parts_of(
    learner: Learner, state: Arrays, design: Design, blocks: Sequence[Block], level: float | None
) -> Parts:
    """Take the answer to one window apart.

    Args:
        learner: Of the model.
        state: Its parameters.
        design: What it sees of one window, N = 1.
        blocks: The parts of the input; all columns that may differ from the baseline.
        level: A quantile's; None = of the mean.
    """
    baseline = baseline_of(learner, state, design, blocks)
    if not isinstance(learner, GradientLearner):
        return _one_by_one(learner, state, design, baseline, blocks, level)
    module = learner.loaded(state).eval()
    # A row's answer depends on that row alone; elsewhere each step of the horizon asks for a way.
    rows = isinstance(learner, MlpLearner)
    x, start = (torch.from_numpy(np.ascontiguousarray(a)) for a in (design.x, baseline))
    with torch.no_grad():
        ends = [_output(module, learner.head, one, level)[0].double() for one in (x, start)]
    answer, at_baseline = (end.numpy() for end in ends)
    swing = float(np.abs(answer - at_baseline).max())
    steps = FIRST_STEPS
    while True:
        slopes = _mean_slopes(module, learner.head, x, start, level, steps, rows=rows)
        each = slopes * (x - start)[0].double().numpy()
        found = {
            block.name: each[:, block.columns].sum(axis=1) for block in blocks if not block.is_base
        }
        parts = Parts(at_baseline, answer, found, steps)
        if np.abs(parts.missing).max() <= TOLERANCE * swing or steps >= MOST_STEPS:
            return parts
        steps *= 2


def baseline_of(
    learner: Learner, state: Arrays, design: Design, blocks: Sequence[Block]
) -> NDArray[np.float32]:
    """Return the input of an average day, of the shape of `x`.

    Row features stand at their mean over all that the model was trained on (`x_mean`, from sums of
    the federation), which is zero once they are standardised. A context stands at its zero: as if
    every step had been the trailing mean (with window normalisation: the window's own; NLinear: the
    last reading). What belongs to no block stays as it is.
    """
    result: NDArray[np.float32] = design.x.copy()
    mean = np.asarray(state.get("x_mean", np.zeros(0)), dtype=np.float32)
    if design.x.ndim == 3:
        result[...] = mean
        return result
    horizon = design.base.shape[1]
    own = [block.columns for block in blocks if not block.is_base]
    columns = np.sort(np.concatenate(own)) if own else np.zeros(0, dtype=np.int64)
    assert isinstance(learner, ContextLearner)
    first = len(columns) - horizon * len(mean)
    result[:, columns[:first]] = 0.0
    result[:, columns[first:]] = np.tile(mean, horizon)
    return result


# ------------------------------------------------------------------------------ internals
def _output(module: nn.Module, head: Head, x: Tensor, level: float | None) -> Tensor:
    """Return the mean, or the quantile of a level; shape (N, H)."""
    raw = module(x)
    if level is None:
        return head.mean(raw)
    quantiles = head.quantiles(raw)
    assert quantiles is not None
    return quantiles[..., _place(head.levels, level)]


def _place(levels: Sequence[float], level: float) -> int:
    return next(k for k, own in enumerate(levels) if abs(own - level) < SAME_LEVEL)


def _mean_slopes(
    module: nn.Module,
    head: Head,
    x: Tensor,
    start: Tensor,
    level: float | None,
    steps: int,
    *,
    rows: bool,
) -> Floats:
    """Return the mean gradient along the way of each step's answer; (H, F), or (H, columns)."""
    total: Floats | None = None
    share = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    for part in share.to(x.dtype).split(_BATCH):
        way = start + part.reshape(-1, *([1] * (x.ndim - 1))) * (x - start)
        way.requires_grad_(True)
        answer = _output(module, head, way, level)
        if rows:
            (slope,) = torch.autograd.grad(answer.sum(), way)
            own = slope.double().sum(dim=0)
        else:
            own = torch.stack(
                [
                    torch.autograd.grad(column.sum(), way, retain_graph=True)[0].double().sum(dim=0)
                    for column in answer.unbind(dim=1)
                ]
            )
        total = own.numpy() if total is None else total + own.numpy()
    assert total is not None
    result: Floats = total / steps
    return result


def _one_by_one(
    learner: Learner,
    state: Arrays,
    design: Design,
    baseline: NDArray[np.float32],
    blocks: Sequence[Block],
    level: float | None,
) -> Parts:
    inputs = [design.x, baseline]
    named = [block for block in blocks if not block.is_base]
    for block in named:
        without = design.x.copy()
        without[..., block.columns] = baseline[..., block.columns]
        inputs.append(without)
    answer, at_baseline, *less = _corrections(learner, state, np.concatenate(inputs), level)
    found = {block.name: answer - one for block, one in zip(named, less, strict=True)}
    return Parts(at_baseline, answer, found, 0)


def _corrections(
    learner: Learner, state: Arrays, x: NDArray[np.float32], level: float | None
) -> Floats:
    """Return f(x) of N inputs by asking for forecasts on a base of zero with a scale of one."""
    shape = x.shape[:2]
    nothing = np.zeros(shape, dtype=np.float32)
    bare = Design(x, nothing, np.ones(shape[0]), np.full(shape[0], -np.inf), nothing, nothing)
    made = learner.forecast(state, bare)
    column = point(made, level)
    assert column is not None
    return column


def point(forecast: Forecast, level: float | None) -> Floats | None:
    """Return the mean (`level` None) or the quantile of a level; None where there is none."""
    return forecast.mean_kwh if level is None else forecast.at(level)

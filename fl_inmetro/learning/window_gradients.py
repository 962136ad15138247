"""The clipped sum of windows' gradients for many clients at once, without a copy of their networks.

A matrix is by far the most of a network's numbers, and a window's gradient of it is a product of
what the matrix met and of the slope there: Σ_t a_t g_tᵀ over the rows t that the window has in the
layer. So one forward pass, and one backward pass to the layers' outputs, give all that is needed:
first the norms, then the sum of the clipped gradients, as one weighted product per matrix.
The norm of a window with one row is |a| |g|. With several, the product itself is made, some windows
at a time; or, where a matrix is large beside the rows, |Σ a_t g_tᵀ|² = Σ_ts (a_t · a_s)(g_t · g_s),
in double precision, because these sums cancel and a norm that comes out too small clips too little.
All other parameters (LayerNorm, positions, cycles, convolutions) get a copy for each window.
Sources: Goodfellow (2015), "Efficient per-example gradient computations"; Li, Tramèr, Liang &
Hashimoto (2022), "Large language models can be strong differentially private learners", section 4;
Bu, Wang, Zha & Karypis (2022), "Differentially private optimization on large model at small cost".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_inmetro.learning import dp_sgd
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.stacked import Tap
from fl_inmetro.models.heads import Head

#: Numbers of windows' gradients that are held at once: about what the cache of a core holds.
_HELD = 1 << 17

#: Where products of rows are so many times fewer than a matrix's numbers, they are cheaper.
_CHEAPER = 4


@dataclass(frozen=True, eq=False)
class _Matrix:
    """What a matrix met of each window; several calls of a layer stand one after the other.

    Attributes:
        weight: Place of the matrix.
        biases: Places of what is added to its product.
        turned: Whether it is kept as (C, in, out); else (C, out, in).
        a: Shape (C·B, T, in).
        g: Shape (C·B, T, out).
    """

    weight: int
    biases: tuple[int, ...]
    turned: bool
    a: Tensor
    g: Tensor

    def without(self, bad: Tensor) -> _Matrix:
        """Return it with the windows of a mask (C·B,) as zeros."""
        drop = bad.view(-1, 1, 1)
        a, g = self.a.masked_fill(drop, 0.0), self.g.masked_fill(drop, 0.0)
        return _Matrix(self.weight, self.biases, self.turned, a, g)

    def squares(self) -> Tensor:
        """Return the squared norm of each window's gradient, (C·B,)."""
        rows, size = self.a.shape[1], self.a.shape[2] * self.g.shape[2]
        own = self.g.sum(1).square().sum(1) * len(self.biases)
        if rows == 1:
            return own + self.a.square().sum((1, 2)) * self.g.square().sum((1, 2))
        gram = _CHEAPER * rows * (self.a.shape[2] + self.g.shape[2]) < size
        at_once = max(1, _HELD // (rows * rows if gram else size))
        parts = zip(self.a.split(at_once), self.g.split(at_once), strict=True)
        if gram:
            return own + torch.cat([_of_rows(a.double(), g.double()) for a, g in parts])
        return (
            own
            + torch.cat(
                [torch.linalg.vector_norm(torch.bmm(a.mT, g).flatten(1), dim=1) for a, g in parts]
            ).square()
        )

    def add_sums(self, sums: list[Tensor], factors: Tensor) -> None:
        """Add Σ_i f_i · gradient_i of each client; factors (C, B)."""
        clients = len(factors)
        g = (self.g * factors.view(-1, 1, 1)).view(clients, -1, self.g.shape[2])
        a = self.a.reshape(clients, -1, self.a.shape[2])
        sums[self.weight].baddbmm_(*((a.mT, g) if self.turned else (g.mT, a)))
        for k in self.biases:
            sums[k].add_(g.sum(1).view_as(sums[k]))


def clipped_sums(
    lifted: Lifted,
    leaves: Sequence[Tensor],
    x: Tensor,
    residual: Tensor,
    mask: Tensor,
    head: Head,
    clip: float,
) -> tuple[Tensor, list[Tensor]]:
    """Return the raw outputs, and the sum of each client's clipped gradients.

    A window's loss is the mean over its known points. A window without any counts nothing, nor does
    one whose gradient is not finite.

    Args:
        lifted: The network.
        leaves: Its parameters as it keeps them, each (C, …).
        x: Inputs, (C·B, …), client after client.
        residual: Shape (C·B, H).
        mask: Of the known points, shape (C·B, H).
        head: What the raw outputs mean.
        clip: Largest norm of a window's gradient over all parameters.
    """
    clients = len(leaves[0])
    bound = [
        leaf.detach().requires_grad_()
        if lifted.is_matrix(k)
        else leaf.detach().repeat_interleave(len(x) // clients, dim=0).requires_grad_()
        for k, leaf in enumerate(leaves)
    ]
    lifted.bind(bound)
    raw, taps = lifted.tapped(x)
    # A padded row has no point: its slope is zero, so what it is divided by does not matter.
    weight = mask / mask.sum(1, keepdim=True).clamp_min(1)
    slope = head.slope(raw.detach(), residual)
    pull = slope * (weight.unsqueeze(-1) if head.outputs > 1 else weight)
    copied = [k for k in range(len(leaves)) if not lifted.is_matrix(k)]
    # A layer may be called twice, and two matrices may be met at one place.
    outputs = list({id(tap.z): tap.z for _, tap in taps}.values())
    total = torch.dot(raw.reshape(-1), pull.reshape(-1))
    wanted = [*outputs, *(bound[k] for k in copied)]
    found = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    at = {id(z): g for z, g in zip(outputs, found[: len(outputs)], strict=True)}
    copies = dict(zip(copied, found[len(outputs) :], strict=True))
    matrices = _matrices(taps, at, len(x), lifted)

    squares = torch.stack(
        [m.squares() for m in matrices] + [g.flatten(1).square().sum(1) for g in copies.values()]
    ).sum(0)
    factors = dp_sgd.factors(squares.sqrt().float(), clip)
    if not torch.isfinite(squares).all():  # zero times infinity is no zero
        bad = ~torch.isfinite(squares)
        matrices = [m.without(bad) for m in matrices]
        copies = {
            k: g.masked_fill(bad.view(-1, *[1] * (g.dim() - 1)), 0.0) for k, g in copies.items()
        }
    factors = factors.view(clients, -1)
    sums = [torch.zeros_like(leaf) for leaf in leaves]
    for matrix in matrices:
        matrix.add_sums(sums, factors)
    for k, g in copies.items():
        own = torch.bmm(factors.unsqueeze(1), g.reshape(*factors.shape, -1))
        sums[k].add_(own.view_as(sums[k]))
    return raw, sums


def _matrices(
    taps: Sequence[tuple[dict[str, int], Tap]], at: dict[int, Tensor], windows: int, lifted: Lifted
) -> list[_Matrix]:
    """Return what each matrix met, window by window."""
    met: dict[int, list[tuple[tuple[int, ...], Tensor, Tensor]]] = {}
    for places, tap in taps:
        g = at[id(tap.z)].reshape(*tap.a.shape[:2], -1)
        if tap.scale is not None:
            g = g * tap.scale
        biases = tuple(places[name] for name in tap.biases)
        a, g = (rows.reshape(windows, -1, rows.shape[-1]) for rows in (tap.a, g))
        met.setdefault(places[tap.weight], []).append((biases, a, g))
    return [
        _Matrix(k, calls[0][0], lifted.names[k] in lifted.turned, *_joined(calls))
        for k, calls in met.items()
    ]


def _joined(calls: Sequence[tuple[tuple[int, ...], Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(calls) == 1:
        return calls[0][1], calls[0][2]
    return torch.cat([a for _, a, _ in calls], dim=1), torch.cat([g for _, _, g in calls], dim=1)


def _of_rows(a: Tensor, g: Tensor) -> Tensor:
    """Return Σ_ts (a_t · a_s)(g_t · g_s) of each window."""
    result: Tensor = (torch.bmm(a, a.mT) * torch.bmm(g, g.mT)).sum((1, 2))
    return result

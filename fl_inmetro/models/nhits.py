"""N-HiTS: stacks that look at the context at several rates, each on what the last left over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_inmetro.models.layers import by_step


class Nhits(nn.Module):
    """Blocks from coarse to fine; the forecasts are added, the backcasts subtracted.

    Shapes: x (N, L) → (N, H), or (N, H, R).
    Source: Challu, Olivares, Oreshkin, Garza Ramírez, Mergenthaler-Canseco & Dubrawski (2023),
    "N-HiTS: Neural Hierarchical Interpolation for Time Series Forecasting", AAAI, section 3; one
    block in each stack.
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        pools: Sequence[int],
        hidden: Sequence[int],
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        last = len(pools) - 1
        self.blocks = nn.ModuleList(
            NhitsBlock(context, horizon, pool, hidden, outputs, backcasts=k < last)
            for k, pool in enumerate(pools)
        )
        # So the first forecast is the base profile, and each block is given the context.
        self.starts_at_zero = tuple(
            f"blocks.{k}.{name}"
            for k in range(len(pools))
            for name in ("forecast", *(("backcast",) if k < last else ()))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        forecasts: list[Tensor] = []
        for block in self.blocks:
            backcast, forecast = block(x)
            forecasts.append(forecast)
            if backcast is not None:
                x = x - backcast
        return torch.stack(forecasts).sum(dim=0)


class NhitsBlock(nn.Module):
    """Max pooling, a perceptron, and a few knots that are interpolated linearly to every step.

    The knots of the horizon are ⌈H/pool⌉ for each output, those of the context ⌈L/pool⌉ (the
    paper's expressiveness ratio is set to the pooling). The last block has no backcast: nobody
    would see it.

    Shapes: x (N, L) → backcast (N, L) or None, forecast (N, H) or (N, H, R).
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        pool: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        backcasts: bool,
    ) -> None:
        super().__init__()
        self.context, self.horizon, self.outputs, self.pool = context, horizon, outputs, pool
        layers: list[nn.Module] = []
        width = -(-context // pool)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.backcast = nn.Linear(width, -(-context // pool)) if backcasts else None
        self.forecast = nn.Linear(width, -(-horizon // pool) * outputs)

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return what the block explains of the context, and its share of the forecast."""
        pooled = functional.max_pool1d(x.unsqueeze(1), self.pool, ceil_mode=True).squeeze(1)
        seen = self.layers(pooled)
        knots = self.forecast(seen).unflatten(1, (-1, self.outputs)).transpose(1, 2)  # (N, R, K)
        forecast = by_step(
            _interpolated(knots, self.horizon).transpose(1, 2).flatten(1), self.outputs
        )
        if self.backcast is None:
            return None, forecast
        return _interpolated(self.backcast(seen).unsqueeze(1), self.context).squeeze(1), forecast


def _interpolated(knots: Tensor, steps: int) -> Tensor:
    """Return values between the knots, which stand in the middles of equal parts; (N, R, steps)."""
    if knots.shape[-1] == steps:
        return knots
    result: Tensor = functional.interpolate(knots, size=steps, mode="linear")
    return result

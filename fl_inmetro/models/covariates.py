"""Networks that see the context and what is known of each forecast step: TiDE and TSMixer."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fl_inmetro.models.design import CLIP
from fl_inmetro.models.layers import by_step


class FutureRows(nn.Module):
    """What both share: x holds the context and, behind it, the rows of the horizon.

    Shapes: x (N, L + H·F). The rows are standardised by `x_mean` and `x_std`, (F,), buffers that
    come from the sums of the federation, and cut at five deviations.
    """

    x_mean: Tensor
    x_std: Tensor

    def __init__(self, context: int, horizon: int, features: int) -> None:
        super().__init__()
        self.context, self.horizon, self.features = context, horizon, features
        self.register_buffer("x_mean", torch.zeros(features))
        self.register_buffer("x_std", torch.ones(features))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context (N, L) and the standardised rows (N, H, F)."""
        rows = x[:, self.context :].reshape(x.shape[0], self.horizon, self.features)
        return x[:, : self.context], ((rows - self.x_mean) / self.x_std).clamp(-CLIP, CLIP)


class Tide(FutureRows):
    """TiDE: a dense encoder of context and projected covariates, a dense decoder, step by step.

    The F covariates of each step are projected to `projected`; context and projections go through
    `layers` residual blocks of `width`; as many, the last of them to `decoded` numbers for each
    step; a last block makes of these and the step's own projection the R outputs; a linear map of
    the context is added. The paper's dropout is left out, its covariates of the past are not used,
    and the projection and the last block have no LayerNorm, which of one or two numbers leaves
    nothing but signs.

    Shapes: x (N, L + H·F) → (N, H), or (N, H, R).
    Source: Das, Kong, Leach, Mathur, Sen & Yu (2023), "Long-term Forecasting with TiDE:
    Time-series Dense Encoder", TMLR, section 4.
    """

    starts_at_zero = ("temporal.down", "temporal.skip", "residual")

    def __init__(
        self,
        context: int,
        horizon: int,
        features: int,
        *,
        width: int,
        layers: int = 1,
        projected: int = 4,
        decoded: int = 8,
        outputs: int = 1,
    ) -> None:
        super().__init__(context, horizon, features)
        self.outputs = outputs
        self.projection = ResidualBlock(features, width, projected, norm=False)
        sizes = [context + horizon * projected, *[width] * (2 * layers - 1), horizon * decoded]
        self.dense = nn.Sequential(
            *(ResidualBlock(size, width, after) for size, after in pairwise(sizes))
        )
        self.temporal = ResidualBlock(decoded + projected, width, outputs, norm=False)
        self.residual = nn.Linear(context, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        context, rows = self.parts(x)
        known = self.projection(rows)
        decoded = self.dense(torch.cat([context, known.flatten(1)], dim=1))
        each = torch.cat([decoded.unflatten(1, (self.horizon, -1)), known], dim=2)
        return by_step(self.temporal(each).flatten(1) + self.residual(context), self.outputs)


class ResidualBlock(nn.Module):
    """norm(W₂ ReLU(W₁ x) + W_s x), each map with its bias; `norm` is LayerNorm.

    Shapes: x (…, in) → (…, out). Source: Das et al. (2023), figure 1 (right).
    """

    def __init__(self, size: int, hidden: int, after: int, *, norm: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(size, hidden)
        self.down = nn.Linear(hidden, after)
        self.skip = nn.Linear(size, after)
        self.norm = nn.LayerNorm(after) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's answer."""
        result: Tensor = self.norm(self.down(torch.relu(self.up(x))) + self.skip(x))
        return result


class TsMixer(FutureRows):
    """TSMixer: perceptrons that mix the steps and the features in turn, with covariates ahead.

    The context is mapped to the horizon's steps and widened to `width` features, the covariates of
    each step to as many; `layers` mixers follow, and a linear map of each step. With F = 0 it is
    the context alone. As elsewhere in the house, LayerNorm before each part stands where the paper
    has BatchNorm, which mixes a client's windows; no dropout. The last map starts at zero.

    Shapes: x (N, L + H·F) → (N, H), or (N, H, R).
    Source: Chen, Li, Arik, Yoder & Pfister (2023), "TSMixer: An All-MLP Architecture for Time
    Series Forecasting", TMLR, section 3 and, for the covariates, section 4 (TSMixer-Ext); one
    channel.
    """

    starts_at_zero = ("head",)

    def __init__(
        self,
        context: int,
        horizon: int,
        features: int,
        *,
        width: int,
        layers: int,
        feed_forward: int,
        outputs: int = 1,
    ) -> None:
        super().__init__(context, horizon, features)
        self.outputs = outputs
        self.align = nn.Linear(context, horizon)
        self.widen = nn.Linear(1, width)
        self.covariates = nn.Linear(features, width) if features else None
        wide = 2 * width if features else width
        self.mixers = nn.Sequential(*(Mixer(horizon, wide, feed_forward) for _ in range(layers)))
        self.head = nn.Linear(wide, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        context, rows = self.parts(x)
        mixed = self.widen(self.align(context).unsqueeze(-1))
        if self.covariates is not None:
            mixed = torch.cat([mixed, self.covariates(rows)], dim=2)
        return by_step(self.head(self.mixers(mixed)).flatten(1), self.outputs)


class Mixer(nn.Module):
    """A map over the steps, then a perceptron over the features, each added to what it was given.

    Shapes: x (N, H, d) → (N, H, d). Source: Chen et al. (2023), figure 1.
    """

    def __init__(self, steps: int, width: int, feed_forward: int) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(width)
        self.time = nn.Linear(steps, steps)
        self.feature_norm = nn.LayerNorm(width)
        self.features = nn.Sequential(
            nn.Linear(width, feed_forward), nn.ReLU(), nn.Linear(feed_forward, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed sequence."""
        over_time = self.time(self.time_norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + torch.relu(over_time)
        result: Tensor = x + self.features(self.feature_norm(x))
        return result

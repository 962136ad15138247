"""Networks of linear maps: NLinear, and perceptrons on rows of features or on the context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro.models.design import CLIP
from fl_inmetro.models.layers import by_step

#: Share of the linear map in what a perceptron with a shortcut gives.
SHORTCUT = 0.1


class RowMlp(nn.Module):
    """A perceptron applied to each forecast step's row; weights shared over steps.

    Shapes: x (N, H, F) → (N, H), or (N, H, R) with R > 1 outputs. Without hidden layers it is
    linear. With `skip`, (F, R), output r is what the layers give plus x · skip[:, r]: they correct
    a first guess that stands among the features, such as an empirical quantile of the client's own.
    With `shortcut`, a tenth of a linear map of the features is added, which starts at zero: what is
    linear need not be made of ReLUs. (A tenth, because a step of Adam moves all its weights by as
    much as those of the hidden layers, and there they do not add up.)
    With K `copies` there are K such perceptrons side by side, each with R / K of the outputs.
    """

    x_mean: Tensor
    x_std: Tensor
    skip: Tensor | None

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        outputs: int = 1,
        skip: NDArray[np.float32] | None = None,
        *,
        shortcut: bool = False,
        copies: int = 1,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        own = outputs // copies
        self.layers = _perceptron(features, hidden, own)
        self.shortcut = nn.Linear(features, own, bias=False) if shortcut else None
        more = range(copies - 1)
        self.others = nn.ModuleList(_perceptron(features, hidden, own) for _ in more)
        bare = more if shortcut else ()
        self.shortcuts = nn.ModuleList(nn.Linear(features, own, bias=False) for _ in bare)
        # With several numbers for a step, or where it is asked for, the last layer starts at zero,
        # too: the guess comes first.
        place = 2 * len(hidden)
        last = (
            (f"layers.{place}", *(f"others.{k}.{place}" for k in more))
            if own > 1 or zero_start
            else ()
        )
        self.starts_at_zero = ("shortcut", *(f"shortcuts.{k}" for k in bare), *last)
        self.register_buffer("x_mean", torch.zeros(features))
        self.register_buffer("x_std", torch.ones(features))
        # It follows from the settings, so it is no part of the state that travels.
        guess = None if skip is None else torch.from_numpy(np.tile(skip, (1, copies)))
        self.register_buffer("skip", guess, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction; x holds raw features."""
        standard = ((x - self.x_mean) / self.x_std).clamp(-CLIP, CLIP)
        result: Tensor = self.layers(standard)
        if self.shortcut is not None:
            result = result + SHORTCUT * self.shortcut(standard)
        if self.others:
            parts = [other(standard) for other in self.others]
            for k, shortcut in enumerate(self.shortcuts):
                parts[k] = parts[k] + SHORTCUT * shortcut(standard)
            result = torch.cat([result, *parts], dim=-1)
        if self.skip is not None:
            result = result + x @ self.skip
        return result.squeeze(-1) if self.outputs == 1 else result


def _perceptron(features: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = features
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class NLinear(nn.Module):
    """One linear map from the context to the horizon, relative to the last value.

    Shapes: x (N, L) → (N, H), or (N, H, R). Starts at zero: before training the forecast is the
    last value.
    Source: Zeng, Chen, Zhang & Xu (2023), "Are Transformers Effective for Time Series
    Forecasting?", AAAI, section 4 (NLinear).
    """

    starts_at_zero = ("linear",)

    def __init__(self, context: int, horizon: int, outputs: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.linear = nn.Linear(context, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the last value."""
        return by_step(self.linear(x), self.outputs)


class WindowMlp(nn.Module):
    """A perceptron from the whole context to the whole horizon, ReLU between its layers.

    Shapes: x (N, L) → (N, H), or (N, H, R). Its last layer starts at zero.
    """

    starts_at_zero = ("head",)

    def __init__(self, context: int, horizon: int, hidden: Sequence[int], outputs: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        layers: list[nn.Module] = []
        width = context
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        return by_step(self.head(self.layers(x)), self.outputs)

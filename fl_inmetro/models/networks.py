"""The gradient models as PyTorch modules: a correction to the base profile, scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro import seeds
from fl_inmetro.models.design import CLIP


class RowMlp(nn.Module):
    """A perceptron applied to each forecast step's row; weights shared over steps.

    Shapes: x (N, H, F) → (N, H).
    """

    x_mean: Tensor
    x_std: Tensor

    def __init__(self, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = features
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))
        self.register_buffer("x_mean", torch.zeros(features))
        self.register_buffer("x_std", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction; x holds raw features."""
        standard = ((x - self.x_mean) / self.x_std).clamp(-CLIP, CLIP)
        result: Tensor = self.layers(standard).squeeze(-1)
        return result


class NLinear(nn.Module):
    """One linear map from the context to the horizon, relative to the last value.

    Shapes: x (N, L) → (N, H). Starts at zero: before training the forecast is the last value.
    Source: Zeng, Chen, Zhang & Xu (2023), "Are Transformers Effective for Time Series
    Forecasting?", AAAI, section 4 (NLinear).
    """

    def __init__(self, context: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(context, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the last value."""
        result: Tensor = self.linear(x)
        return result


def initial_parameters(module: nn.Module, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw initial parameters from the run's own generator, as `nn.Linear` does by default.

    Weights and biases are uniform on ±1/√fan_in; no global generator is touched, so every engine
    starts from the same values. NLinear starts at zero.
    """
    fan_in = {
        name: layer.in_features
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }
    state: dict[str, NDArray[np.float32]] = {}
    for name, parameter in module.named_parameters():
        shape = tuple(parameter.shape)
        if isinstance(module, NLinear):
            state[name] = np.zeros(shape, dtype=np.float32)
            continue
        bound = 1.0 / np.sqrt(fan_in[name.rpartition(".")[0]])
        draw = seeds.derive(seed, "initial", name).uniform(-bound, bound, shape)
        state[name] = draw.astype(np.float32)
    return state

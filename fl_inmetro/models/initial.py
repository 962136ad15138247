"""First values of a network's parameters, drawn by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_inmetro import seeds
from fl_inmetro.models.layers import Cycle, Positions

#: Standard deviation of the first table of positions.
POSITION_SCALE = 0.02


def initial_parameters(module: nn.Module, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw initial parameters from the run's own generator, at the scales of `torch.nn`.

    Uniform on ±1/√fan_in for linear maps and convolutions (weights and biases), ±1/√hidden for
    LSTM and GRU; 1 and 0 for LayerNorm; normal with deviation 0.02 for positions;
    0 for cycles. Layers that the
    module names in `starts_at_zero` start at zero. Each parameter has a generator named after it,
    and no global one is touched, so every engine starts from the same values.

    Raises:
        TypeError: The module holds parameters in a layer that is not known here.
    """
    zero: tuple[str, ...] = getattr(module, "starts_at_zero", ())
    layers = dict(module.named_modules())
    state: dict[str, NDArray[np.float32]] = {}
    for name, parameter in module.named_parameters():
        layer, _, local = name.rpartition(".")
        shape = tuple(parameter.shape)
        draw = seeds.derive(seed, "initial", name)
        value = np.zeros(shape) if layer in zero else _draw(layers[layer], local, shape, draw)
        state[name] = value.astype(np.float32)
    return state


def _draw(
    layer: nn.Module, name: str, shape: tuple[int, ...], draw: np.random.Generator
) -> NDArray[np.float64]:
    if isinstance(layer, nn.LayerNorm):
        return np.ones(shape) if name == "weight" else np.zeros(shape)
    if isinstance(layer, Cycle):
        return np.zeros(shape)
    if isinstance(layer, Positions):
        return draw.normal(0.0, POSITION_SCALE, shape)
    if isinstance(layer, nn.Linear):
        fan_in = layer.in_features
    elif isinstance(layer, nn.Conv1d | nn.Conv2d):
        fan_in = layer.in_channels // layer.groups * int(np.prod(layer.kernel_size))
    elif isinstance(layer, nn.LSTM | nn.GRU):
        fan_in = layer.hidden_size
    else:
        raise TypeError(f"no first values are known for the parameters of {type(layer).__name__}")
    bound = 1.0 / np.sqrt(fan_in)
    return draw.uniform(-bound, bound, shape)

"""Networks over a drive's steps: an LSTM and a Transformer that tell the power of each step."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

#: Kinds of networks.
Kind = Literal["lstm", "transformer"]

#: Size of a residual that the head's numbers are multiples of, in kW.
RESIDUAL_KW = 5.0


class Lstm(nn.Module):
    """Hochreiter and Schmidhuber's LSTM (*Neural Computation* 9, 1997) and a linear head.

    (B, T, F) → power (B, T) in units of the caller. The head starts at zero.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(inputs, width, batch_first=True)
        self.skip = nn.Linear(inputs, 1)
        self.head = nn.Linear(width, 1)
        _start_at_zero(self.skip, self.head)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Return the power of each step; what lies behind a chunk's end changes nothing before."""
        hidden, _ = self.cell(x)
        power: Tensor = (self.head(hidden) + self.skip(x)).squeeze(-1)
        return power * real


class Transformer(nn.Module):
    """A Transformer encoder (Vaswani et al. 2017) with the norm first, causal, sine positions.

    (B, T, F) → power (B, T). The head starts at zero.
    """

    def __init__(self, inputs: int, width: int, heads: int = 4, layers: int = 1) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.skip = nn.Linear(inputs, 1)
        self.head = nn.Linear(width, 1)
        _start_at_zero(self.skip, self.head)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Return the power of each step; a step sees itself and those before."""
        steps = x.shape[1]
        later = torch.triu(torch.ones(steps, steps, dtype=torch.bool), diagonal=1)
        hidden = self.enter(x) + positions(steps, self.enter.out_features)
        hidden = self.layers(hidden, mask=later)
        power: Tensor = (self.head(hidden) + self.skip(x)).squeeze(-1)
        return power * real


def positions(steps: int, width: int) -> Tensor:
    """Return sines and cosines of the step's number (T, width): Vaswani et al., 3.5."""
    at = torch.arange(steps)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    found = torch.zeros(steps, width)
    found[:, 0::2] = torch.sin(at * rate)
    found[:, 1::2] = torch.cos(at * rate)
    return found


def network(kind: Kind, inputs: int, width: int, seed: int) -> nn.Module:
    """Return a network with weights drawn from the seed, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Lstm(inputs, width) if kind == "lstm" else Transformer(inputs, width)


def _start_at_zero(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

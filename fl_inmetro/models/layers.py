"""Layers of our own, and the shape that every network's answer has."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def by_step(numbers: Tensor, outputs: int) -> Tensor:
    """Return `outputs` numbers for each step; (N, H·R) → (N, H), or (N, H, R) with R > 1."""
    if outputs == 1:
        return numbers
    parts: Tensor = numbers.unflatten(-1, (-1, outputs))
    return parts


class Positions(nn.Module):
    """A learned table added to every sample: where in a sequence a step stands.

    Shapes: x (N, S, d) → (N, S, d); `table` (S, d).
    """

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(steps, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the table added."""
        return x + self.table


class Cycle(nn.Module):
    """A learned value for each step of a cycle, such as the hours of a week.

    Shapes: place (N, T), whole numbers → (N, T), `table[place mod W]`; `table` (W,). It starts at
    zero.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(steps))

    def forward(self, place: Tensor) -> Tensor:
        """Return the value of each place."""
        values: Tensor = self.table[place.remainder(len(self.table))]
        return values

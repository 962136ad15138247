"""Recurrent forecasters: GRU and LSTM over the context, step by step."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fl_inmetro.models.layers import by_step


class RecurrentForecaster(nn.Module):
    """A recurrent network over the context; a linear map from its last state to the horizon.

    Shapes: x (N, L) → (N, H), or (N, H, R); the network sees (N, L, 1). Each window begins with a
    state of zeros. The map starts at zero.
    Source: Hochreiter & Schmidhuber (1997) for the LSTM, with the forget gate of Gers et al.
    (2000); Cho et al. (2014) for the GRU; both in the form of `torch.nn`.
    """

    starts_at_zero = ("head",)

    def __init__(
        self, kind: Literal["gru", "lstm"], horizon: int, hidden: int, layers: int, outputs: int = 1
    ) -> None:
        super().__init__()
        self.outputs = outputs
        cell = nn.GRU if kind == "gru" else nn.LSTM
        self.rnn = cell(1, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        output, _ = self.rnn(x.unsqueeze(-1))
        return by_step(self.head(output[:, -1]), self.outputs)

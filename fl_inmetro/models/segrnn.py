"""SegRNN: a GRU over segments of the context that forecasts all segments of the horizon at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl_inmetro.models.layers import Positions, by_step


class SegRnn(nn.Module):
    """Segments of w steps are embedded (linear, ReLU) and read by a GRU, one after the other.

    Each of the H/w segments ahead is one more step of the same GRU from the last state, given a
    learned position in place of a segment (parallel multi-step forecasting), and mapped to its w
    values. The paper's positions are half of the segment, half of the channel; a client has one
    channel, so all of the width is the segment's. Its dropout is left out; its subtraction of the
    last value is left to the design. The last map starts at zero.

    Shapes: x (N, L) → (N, H), or (N, H, R); w divides L and H.
    Source: Lin, Lin, Wu, Zhao, Mo & Zhang (2023), "SegRNN: Segment Recurrent Neural Network for
    Long-Term Time Series Forecasting", arXiv 2308.11200, section 4.

    Raises:
        ValueError: The segment does not divide context and horizon.
    """

    starts_at_zero = ("head",)

    def __init__(
        self, context: int, horizon: int, segment: int, width: int, outputs: int = 1
    ) -> None:
        super().__init__()
        if context % segment or horizon % segment:
            raise ValueError(
                f"a segment of {segment} does not divide {context} and {horizon} steps"
            )
        self.segment, self.outputs = segment, outputs
        self.ahead, self.width = horizon // segment, width
        self.embedding = nn.Linear(segment, width)
        self.positions = Positions(self.ahead, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, segment * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        segments = torch.relu(self.embedding(x.unflatten(1, (-1, self.segment))))
        past, _ = self.rnn(segments)
        last = past[:, -1].repeat_interleave(self.ahead, dim=0)
        places = self.positions(x.new_zeros(x.shape[0], self.ahead, self.width))
        state, _ = self.rnn(places.reshape(-1, 1, self.width), last.unsqueeze(0).contiguous())
        return by_step(self.head(state[:, 0]).reshape(x.shape[0], -1), self.outputs)

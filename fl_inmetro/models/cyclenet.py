"""CycleNet: a learned cycle is taken off the context, and its continuation is added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fl_inmetro.models.layers import Cycle, by_step


class CycleNet(nn.Module):
    """A cycle Q of W values, and a network that forecasts what is not in it.

    ŷ_h = f(x − Q[past])_h + Q[(φ + h) mod W], where φ is the place of the first forecast step in
    the cycle; the last step of the context is at φ − 1, or with a lead at φ − lead − 1. f is
    linear, or a perceptron with `hidden` layers. Q starts at zero, as in the paper, and so does
    f's last layer. With R outputs the cycle is added to each.

    Shapes: x (N, L + 1), the context and, last, φ + W · lead → (N, H), or (N, H, R). Parameters of
    the linear form: (L + 1) · H · R + W.
    Source: Lin, Lin, Hu, Wu, Mo & Zhong (2024), "CycleNet: Enhancing Time Series Forecasting
    through Modeling Periodic Patterns", NeurIPS, section 3. There every channel has a cycle; here
    a client is a channel, and its cycle need not leave it.
    """

    starts_at_zero = ("cycle", "head")

    def __init__(
        self,
        context: int,
        horizon: int,
        cycle: int,
        hidden: Sequence[int] = (),
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.horizon, self.outputs, self.period = horizon, outputs, cycle
        self.cycle = Cycle(cycle)
        layers: list[nn.Module] = []
        width = context
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        context, phase = x[:, :-1], x[:, -1:].round().long()
        steps = torch.arange(-context.shape[1], self.horizon, device=x.device)
        # The cycle goes round: W · lead changes no place, and says how far back the context ends.
        lead = (steps < 0) * (phase // self.period)
        of_cycle = self.cycle(phase + steps - lead)
        past, ahead = of_cycle[:, : context.shape[1]], of_cycle[:, context.shape[1] :]
        rest = by_step(self.head(self.layers(context - past)), self.outputs)
        result: Tensor = rest + (ahead if self.outputs == 1 else ahead.unsqueeze(-1))
        return result

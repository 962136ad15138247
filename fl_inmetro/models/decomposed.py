"""DLinear and SparseTSF: linear maps of a context that is taken apart first."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fl_inmetro.models.layers import by_step


class DLinear(nn.Module):
    """A moving average and what is left of it, each mapped linearly to the horizon, and added.

    trend = mean of the `average` steps around each, the ends repeated; ŷ = W_t trend + W_r (x −
    trend), with a bias each. Both maps start at zero; the paper starts them at 1/L, which here
    would forecast the context's mean on top of the base profile.

    Shapes: x (N, L) → (N, H), or (N, H, R). Parameters: 2 · (L + 1) · H · R.
    Source: Zeng, Chen, Zhang & Xu (2023), "Are Transformers Effective for Time Series
    Forecasting?", AAAI, section 4 (DLinear); `average` = 25 is theirs.

    Raises:
        ValueError: `average` is even: it would have no middle.
    """

    starts_at_zero = ("trend", "remainder")

    def __init__(self, context: int, horizon: int, average: int = 25, outputs: int = 1) -> None:
        super().__init__()
        if average % 2 == 0:
            raise ValueError(f"a moving average of {average} steps has no middle")
        self.average, self.outputs = average, outputs
        self.trend = nn.Linear(context, horizon * outputs)
        self.remainder = nn.Linear(context, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        half = self.average // 2
        ends = functional.pad(x.unsqueeze(1), (half, half), mode="replicate")
        trend = functional.avg_pool1d(ends, self.average, stride=1).squeeze(1)
        return by_step(self.trend(trend) + self.remainder(x - trend), self.outputs)


class SparseTsf(nn.Module):
    """One small map from period to period, the same for every time of the period.

    The context less its mean is smoothed, x + conv(x), with a kernel of 1 + 2⌊w/2⌋ steps for a
    period of w steps; then the L/w values of each time of the period are mapped to its H/w values
    of the horizon by one matrix without bias. The paper adds the mean again; here the base profile
    stands in its place. The matrix starts at zero.

    Shapes: x (N, L) → (N, H), or (N, H, R); w divides L and H. Parameters: (L/w)(H/w)R plus the
    kernel; 925 for L = H = 720 and w = 24, as in the paper.
    Source: Lin, Lin, Wu, Chen & Yang (2024), "SparseTSF: Modeling Long-term Time Series
    Forecasting with 1k Parameters", ICML, section 3.

    Raises:
        ValueError: The period does not divide context and horizon.
    """

    starts_at_zero = ("across",)

    def __init__(self, context: int, horizon: int, period: int, outputs: int = 1) -> None:
        super().__init__()
        if context % period or horizon % period:
            raise ValueError(f"a period of {period} does not divide {context} and {horizon} steps")
        self.period, self.outputs = period, outputs
        half = period // 2
        self.smooth = nn.Conv1d(1, 1, kernel_size=1 + 2 * half, padding=half, bias=False)
        self.across = nn.Linear(context // period, horizon // period * outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        x = x - x.mean(dim=1, keepdim=True)
        x = x + self.smooth(x.unsqueeze(1)).squeeze(1)
        slots = x.unflatten(1, (-1, self.period)).transpose(1, 2)  # (N, w, L/w)
        ahead = self.across(slots).unflatten(2, (-1, self.outputs))  # (N, w, H/w, R)
        return by_step(ahead.transpose(1, 2).flatten(1), self.outputs)

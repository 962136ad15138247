"""What a learner sees of N windows, in units of each client's own scale.

Every learner predicts a correction to a base profile: ŷ = scale · (base + f(x)). The scale and the
base come from the client's past and stay on the client.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import row_features, trailing_scale_kwh
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import HOUR_S

#: Standardised features are cut here, so that one strange reading cannot throw a forecast away.
CLIP = 5.0

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Design:
    """Inputs, and targets where they are known.

    Attributes:
        x: Shape (N, H, F) for row models, (N, L) for context models.
        base: Shape (N, H).
        scale_kwh: Shape (N,); NaN where the past is too short for a forecast.
        residual: Shape (N, H), target / scale − base; 0 where unknown.
        known: Shape (N, H), 1 where the target is known and the window is usable, else 0.
    """

    x: Rows
    base: Rows
    scale_kwh: Floats
    residual: Rows
    known: Rows

    @property
    def points(self) -> int:
        """Number of known target points: the weight n_k of a client."""
        return int(np.count_nonzero(self.known))

    def to_kwh(self, correction: NDArray[np.floating]) -> Floats:
        """Turn the correction f(x), shape (N, H), into a forecast in kWh.

        Consumption is not negative, so the forecast is cut at zero.
        """
        scaled = self.base.astype(np.float64) + correction
        forecast: Floats = np.maximum(scaled, 0.0) * self.scale_kwh[:, None]
        return forecast

    def trainable(self) -> Design:
        """Return the windows with a usable past and at least one known target."""
        rows = np.isfinite(self.scale_kwh) & self.known.any(axis=1)
        return Design(
            self.x[rows],
            self.base[rows],
            self.scale_kwh[rows],
            self.residual[rows],
            self.known[rows],
        )


def row_design(windows: Windows, features: tuple[str, ...], *, targets: bool = True) -> Design:
    """Build the design of row models (ridge, MLP) from the row features."""
    rows = row_features(windows, features)
    return _with_targets(windows, rows.x, rows.base, rows.scale_kwh, targets)


def context_design(windows: Windows, context_steps: int, *, targets: bool = True) -> Design:
    """Build the design of context models: the last L steps relative to the last of them.

    A missing step takes the value of the day before, and the trailing mean where that is missing
    too. The base is the last value, as in NLinear.
    """
    scale_kwh = trailing_scale_kwh(windows)
    per_day = steps_per_day(windows.series.resolution_s)
    with np.errstate(invalid="ignore"):
        past = windows.past.lookback(context_steps + per_day) / scale_kwh[:, None]
    context, day_before = past[:, per_day:], past[:, :-per_day]
    context = np.where(np.isnan(context), day_before, context)
    context = np.where(np.isnan(context), 1.0, context)
    last = context[:, -1:]
    base = np.broadcast_to(last, (len(windows), windows.horizon)).astype(np.float32)
    return _with_targets(windows, (context - last).astype(np.float32), base, scale_kwh, targets)


def context_steps(context_h: float, resolution_s: int) -> int:
    """Return the number of steps of a context in hours (at least one)."""
    return max(1, round(context_h * HOUR_S / resolution_s))


def _with_targets(
    windows: Windows, x: Rows, base: Rows, scale_kwh: Floats, targets: bool
) -> Design:
    shape = (len(windows), windows.horizon)
    if not targets:
        empty = np.zeros(shape, dtype=np.float32)
        return Design(x, base, scale_kwh, empty, empty)
    with np.errstate(invalid="ignore"):
        residual = windows.target_kwh() / scale_kwh[:, None] - base
    known = np.isfinite(residual)
    return Design(
        x,
        base,
        scale_kwh,
        np.where(known, residual, 0.0).astype(np.float32),
        known.astype(np.float32),
    )

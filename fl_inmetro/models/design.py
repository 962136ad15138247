"""What a learner sees of N windows, in units of each client's own scale.

Every learner predicts a correction to a base profile: ŷ = scale · (base + f(x)). The scale and the
base come from the client's past and stay on the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import Level, row_features, trailing_level
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S, HOUR_S

#: Standardised features are cut here, so that one strange reading cannot throw a forecast away.
CLIP = 5.0

#: A window's deviation is at least so much, in units of the client's scale.
MIN_DEVIATION = 0.1

#: What a context is divided by: the client's trailing mean, or the window's own deviation.
Normalise = Literal["scale", "window"]

#: The day-type profile that context models correct.
Base = Literal["mean", "median"]

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Design:
    """Inputs, and targets where they are known.

    Attributes:
        x: Shape (N, H, F) for row models; (N, L) for context models, with more behind it where a
            model wants more: the rows of the horizon, (N, H · F), or the place in a cycle, (N, 1).
        base: Shape (N, H).
        scale_kwh: Shape (N,); NaN where the past is too short for a forecast.
        floor_kwh: Shape (N,); no forecast is below it.
        residual: Shape (N, H), target / scale − base; 0 where unknown.
        known: Shape (N, H), 1 where the target is known and the window may be trained on, else 0.
    """

    x: Rows
    base: Rows
    scale_kwh: Floats
    floor_kwh: Floats
    residual: Rows
    known: Rows

    @property
    def points(self) -> int:
        """Number of known target points: the weight n_k of a client."""
        return int(np.count_nonzero(self.known))

    def to_kwh(self, correction: NDArray[np.floating]) -> Floats:
        """Turn the correction f(x) into a forecast in kWh, cut at the floor.

        Shapes: (N, H), or (N, H, Q) for Q quantiles of each step; so is the result.
        """
        base, scale_kwh = self.base.astype(np.float64), self.scale_kwh[:, None]
        floor_kwh = self.floor_kwh[:, None]
        if correction.ndim == 3:
            base, scale_kwh, floor_kwh = base[..., None], scale_kwh[..., None], floor_kwh[..., None]
        result: Floats = np.maximum((base + correction) * scale_kwh, floor_kwh)
        return result

    def absolute(self) -> Design:
        """Return the same with a base of zero: the targets are whole shares of the scale."""
        residual = np.where(self.known > 0, self.residual + self.base, 0.0).astype(np.float32)
        return replace(self, base=np.zeros_like(self.base), residual=residual)

    def rows(self, rows: slice) -> Design:
        """Return some of the windows; the arrays are shared, not copied."""
        return Design(*(getattr(self, field.name)[rows] for field in fields(self)))

    def trainable(self) -> Design:
        """Return the windows with a usable past and at least one known target."""
        rows = np.isfinite(self.scale_kwh) & self.known.any(axis=1)
        if rows.all():
            return self  # the usual case: no copy of what may be gigabytes
        return Design(*(getattr(self, field.name)[rows] for field in fields(self)))


def joined(parts: Sequence[Design]) -> Design:
    """Return the windows of several designs as one."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(Design)]
    return Design(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def row_design(windows: Windows, features: tuple[str, ...], *, targets: bool = True) -> Design:
    """Build the design of row models (ridge, MLP) from the row features."""
    rows = row_features(windows, features)
    return _with_targets(windows, rows.x, rows.base, rows.level, targets)


def context_design(
    windows: Windows,
    context_steps: int,
    *,
    targets: bool = True,
    normalise: Normalise = "scale",
) -> Design:
    """Build the design of NLinear: the last L steps relative to the last of them, the base.

    A missing step takes the value of the day before, and the trailing mean where that is missing
    too. Shapes: `x` (N, L).
    """
    level = trailing_level(windows)
    context = _context(windows, context_steps, level)
    if normalise == "window":
        deviation = _deviation(context)
        context, level = context / deviation, _in_deviations(level, deviation)
    last = context[:, -1:]
    base = np.broadcast_to(last, (len(windows), windows.horizon)).astype(np.float32)
    return _with_targets(windows, (context - last).astype(np.float32), base, level, targets)


def profile_design(
    windows: Windows,
    context_steps: int,
    *,
    targets: bool = True,
    normalise: Normalise = "scale",
    features: tuple[str, ...] = (),
    cycle_steps: int = 0,
    base: Base = "mean",
) -> Design:
    """Build the design of the other context models: the last L steps relative to the trailing mean.

    The base is a day-type profile, that of row models or its median: a context of a week says
    nothing of what Sundays are like at a client. Nor does it say what single high readings of the
    28 days have put into their mean, which the median does without. Missing steps are filled as for
    NLinear.

    With `normalise = "window"` the context is (c − μ)/σ of the window's own mean and deviation, and
    σ takes the place of the scale: ŷ = profile + σ · f((c − μ)/σ). Both stay on the client, as the
    scale does. σ = √(variance + 0.1²) in units of the scale, for a window of standstill has none.
    Source: Kim et al. (2022), "Reversible Instance Normalization for Accurate Time-Series
    Forecasting against Distribution Shift", ICLR, eq. 1 and 2, without the affine map; there the
    mean is added again, here the profile has that part.

    Shapes: `x` (N, L); with `features`, (N, L + H · F), the rows of the horizon behind the context;
    with `cycle_steps` W, one more column: the place φ of the first forecast step in a cycle that
    begins on Monday at 00:00 local time, as φ + W · lead.
    """
    rows = row_features(windows, features)
    level, profile = rows.level, rows.median if base == "median" else rows.base
    context = _context(windows, context_steps, level)
    if normalise == "window":
        deviation = _deviation(context)
        context = (context - context.mean(axis=1, keepdims=True)) / deviation
        level, profile = _in_deviations(level, deviation), (profile / deviation).astype(np.float32)
    else:
        context = context - 1
    parts = [context]
    if rows.x.shape[2]:
        parts.append(rows.x.reshape(len(windows), -1).astype(np.float64))
    if cycle_steps:
        place = _place(windows, cycle_steps) + cycle_steps * windows.lead
        parts.append(place[:, None].astype(np.float64))
    return _with_targets(
        windows, np.concatenate(parts, axis=1).astype(np.float32), profile, level, targets
    )


def context_steps(context_h: float, resolution_s: int) -> int:
    """Return the number of steps of a context in hours (at least one)."""
    return max(1, round(context_h * HOUR_S / resolution_s))


def _context(windows: Windows, context_steps: int, level: Level) -> Floats:
    """Return the last L steps in units of the scale, without gaps; shape (N, L)."""
    per_day = steps_per_day(windows.series.resolution_s)
    with np.errstate(invalid="ignore"):
        past = windows.past.lookback(context_steps + per_day) / level.scale_kwh[:, None]
    context, day_before = past[:, per_day:], past[:, :-per_day]
    context = np.where(np.isnan(context), day_before, context)
    return np.where(np.isnan(context), 1.0, context)


def _deviation(context: Floats) -> Floats:
    """Return the deviation of each window in units of the scale; (N, L) → (N, 1)."""
    result: Floats = np.sqrt(context.var(axis=1, keepdims=True) + MIN_DEVIATION**2)
    return result


def _in_deviations(level: Level, deviation: Floats) -> Level:
    return replace(level, scale_kwh=level.scale_kwh * deviation[:, 0])


def _place(windows: Windows, cycle_steps: int) -> NDArray[np.int64]:
    """Return the place of the first forecast step in the cycle; shape (N,)."""
    clock = windows.target_clock
    second = clock.weekday[:, 0] * DAY_S + clock.second_of_day[:, 0]
    place: NDArray[np.int64] = second // windows.series.resolution_s % cycle_steps
    return place


def _with_targets(windows: Windows, x: Rows, base: Rows, level: Level, targets: bool) -> Design:
    if not targets:
        empty = np.zeros((len(windows), windows.horizon), dtype=np.float32)
        return Design(x, base, level.scale_kwh, level.floor_kwh, empty, empty)
    with np.errstate(invalid="ignore"):
        residual = windows.target_kwh() / level.scale_kwh[:, None] - base
    known = np.isfinite(residual) & level.trainable[:, None]
    return Design(
        x,
        base,
        level.scale_kwh,
        level.floor_kwh,
        np.where(known, residual, 0.0).astype(np.float32),
        known.astype(np.float32),
    )

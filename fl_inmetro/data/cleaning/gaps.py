"""Gaps in a regular series: where they are, and filling their beginnings from the past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def trim(start_utc_s: int, energy_kwh: Floats, step_s: int) -> tuple[int, Floats]:
    """Cut missing steps off both ends. Shapes: (T,) in, (T',) out; T' = 0 when all are missing."""
    valid = np.flatnonzero(np.isfinite(energy_kwh))
    if not valid.size:
        return start_utc_s, energy_kwh[:0]
    first, last = int(valid[0]), int(valid[-1]) + 1
    return start_utc_s + first * step_s, energy_kwh[first:last]


def gaps(energy_kwh: Floats) -> tuple[Ints, Ints]:
    """Return the first step and the length of every run of missing steps."""
    missing = np.concatenate(([False], ~np.isfinite(energy_kwh), [False])).astype(np.int8)
    edge = np.diff(missing)
    start = np.flatnonzero(edge == 1)
    return start, np.flatnonzero(edge == -1) - start


def fill_from_past(energy_kwh: Floats, most_steps: int, steps_per_day: int) -> tuple[Floats, int]:
    """Fill the first `most_steps` steps of every gap with what was measured at that time before.

    A step takes the reading of the day before, or else that of a week before; without either it
    stays missing. Filled values are no readings: nothing is filled from them. That the first steps
    of a long gap are filled too is the price of not looking ahead: while a gap lasts nobody knows
    how long it will.

    Returns the series, shape (T,), and the number of steps filled.
    """
    start, length = gaps(energy_kwh)
    if not start.size:
        return energy_kwh, 0
    wanted = np.flatnonzero(~np.isfinite(energy_kwh))
    wanted = wanted[wanted - np.repeat(start, length) < most_steps]
    result = energy_kwh.copy()
    for back in (7 * steps_per_day, steps_per_day):  # the day before is the stronger
        from_ = wanted - back
        known = (from_ >= 0) & np.isfinite(energy_kwh[np.maximum(from_, 0)])
        result[wanted[known]] = energy_kwh[from_[known]]
    return result, int(np.isfinite(result[wanted]).sum())

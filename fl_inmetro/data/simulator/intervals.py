"""Puts uses of an appliance (start, duration, power) into 15-minute bins without loss of energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.simulator.clock import BIN_MIN, Clock, Floats


def place(
    clock: Clock,
    minute_of_day: Floats,
    duration_min: Floats | float,
    power_kw: Floats | float,
    keep: NDArray[np.bool_] | None = None,
) -> Floats:
    """Return the energy of rectangular uses per bin.

    Shapes: `minute_of_day` (D, ...) local minutes, which may pass 1440 (after midnight); duration,
    power and `keep` (False: this use does not happen) broadcast against it. Returns (T,) in kWh.
    What falls outside the simulation is cut off.
    """
    start = clock.day_start_min.reshape(-1, *([1] * (minute_of_day.ndim - 1))) + minute_of_day
    wanted = np.ones(start.shape, bool) if keep is None else np.broadcast_to(keep, start.shape)
    return bin_energy_kwh(
        start[wanted],
        np.broadcast_to(duration_min, start.shape)[wanted],
        np.broadcast_to(power_kw, start.shape)[wanted],
        clock.bins,
    )


def bin_energy_kwh(start_min: Floats, duration_min: Floats, power_kw: Floats, bins: int) -> Floats:
    """Return the energy in each 15-minute bin of N uses of constant power.

    Shapes: (N,) minutes from bin 0, minutes, kW; returns (bins,) in kWh. The part of a use that
    lies in a bin is exact: power x overlap.
    """
    start = np.clip(start_min, 0.0, bins * float(BIN_MIN))
    end = np.clip(start_min + np.maximum(duration_min, 0.0), 0.0, bins * float(BIN_MIN))
    first = np.floor(start / BIN_MIN).astype(np.int64)
    count = np.maximum(np.ceil(end / BIN_MIN).astype(np.int64) - first, 0)
    # One row per (use, touched bin): position of the row within its use, then the overlap.
    use = np.repeat(np.arange(count.size), count)
    within = np.arange(use.size) - np.repeat(np.cumsum(count) - count, count)
    touched = first[use] + within
    overlap_min = np.minimum(end[use], (touched + 1.0) * BIN_MIN) - np.maximum(
        start[use], touched * float(BIN_MIN)
    )
    energy = power_kw[use] * np.maximum(overlap_min, 0.0) / 60.0
    # Without any use, numpy would count in integers.
    return np.bincount(touched, weights=energy, minlength=bins)[:bins].astype(np.float64)

"""Gaps in a regular series: where they are, and straight lines across the short ones."""

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


def fill_short(energy_kwh: Floats, most_steps: int) -> tuple[Floats, int]:
    """Fill gaps of at most `most_steps` steps by straight lines between their neighbours.

    A gap at either end has no two neighbours and stays. Returns the series and the steps filled.
    """
    start, length = gaps(energy_kwh)
    inner = (length <= most_steps) & (start > 0) & (start + length < energy_kwh.size)
    if not inner.any():
        return energy_kwh, 0
    result = energy_kwh.copy()
    for first, size in zip(start[inner], length[inner], strict=True):
        left, right = energy_kwh[first - 1], energy_kwh[first + size]
        result[first : first + size] = left + (right - left) * np.arange(1, size + 1) / (size + 1)
    return result, int(length[inner].sum())

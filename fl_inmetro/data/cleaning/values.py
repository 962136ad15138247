"""Readings that cannot be what they say: zeros, negatives, impossible lows, flat lines, outliers.

Each function only finds; what is done with the find is decided by the caller and reported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def zeros(energy_kwh: Floats) -> Bools:
    """Find exact zeros (for sources that write 0 for what they do not have)."""
    return np.equal(energy_kwh, 0.0)


def negatives(energy_kwh: Floats) -> Bools:
    """Find readings below zero."""
    return energy_kwh < 0.0


def below(energy_kwh: Floats, floor_kwh: float) -> Bools:
    """Find readings under a level that the source cannot have."""
    return energy_kwh < floor_kwh


def flat_lines(energy_kwh: Floats, steps: int) -> Bools:
    """Find non-zero values that stay exactly equal for at least `steps` steps in a row.

    Zero is left out: an empty house may well use nothing for days. Missing values break a run.
    """
    flat = np.zeros(energy_kwh.shape, dtype=bool)
    if energy_kwh.size < max(steps, 2):
        return flat
    # NaN differs from NaN, so that every missing value is a run of its own.
    edge = np.flatnonzero(energy_kwh[1:] != energy_kwh[:-1]) + 1
    low = np.concatenate(([0], edge))
    high = np.concatenate((edge, [energy_kwh.size]))
    long = (high - low >= max(steps, 2)) & np.isfinite(energy_kwh[low]) & (energy_kwh[low] != 0)
    for start, stop in zip(low[long], high[long], strict=True):
        flat[start:stop] = True
    return flat


def outliers(energy_kwh: Floats, factor: float) -> Bools:
    """Find readings above `factor` times the 99th percentile of the client's non-zero readings.

    Zeros are left out of the percentile, or a client that is mostly off would have none at all.
    """
    known = energy_kwh[np.isfinite(energy_kwh) & (energy_kwh > 0)]
    if known.size < 100:  # a 99th percentile of fewer readings is their maximum
        return np.zeros(energy_kwh.shape, dtype=bool)
    return energy_kwh > factor * float(np.percentile(known, 99))

"""Readings that cannot be what they say: zeros, negatives, impossible lows, flat lines, outliers.

Each function only finds; what is done with the find is decided by the caller and reported.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: The limit of outliers is renewed every day for so long, then every week.
DAILY_DAYS = 28
#: From then on, and with so many readings, the limit is `factor` times the percentile.
SETTLED_DAYS = 14
FEWEST_SETTLED = 100
#: Fewer positive readings than this are no measure of anything.
FEWEST = 12


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


def stuck(energy_kwh: Floats, steps: int) -> Bools:
    """Find the readings of a flat line from the one on with which it lasts for `steps` steps.

    Those before it are part of the line too, but when they were made nobody could know that: a
    rule that masked them would let a reading depend on later ones.
    """
    steps = max(steps, 2)
    found = np.zeros(energy_kwh.shape, dtype=bool)
    if energy_kwh.size < steps:
        return found
    same = np.concatenate(([0], np.cumsum(energy_kwh[1:] == energy_kwh[:-1])))
    lasts = same[steps - 1 :] - same[: same.size - steps + 1] == steps - 1
    found[steps - 1 :] = lasts & (energy_kwh[steps - 1 :] != 0)
    return found


def outliers(utc_s: Ints, energy_kwh: Floats, factor: float) -> Bools:
    """Find readings above `factor` times the 99th percentile of the readings before them.

    The limit is taken from the client's positive readings before the reading's block: a day in the
    first four weeks after the first positive reading, then a week. No later reading has a part in
    it. Zeros are left out, or a client that is mostly off would have no limit at all.

    Little is known in the beginning: the first day is not judged, and until two weeks and
    `FEWEST_SETTLED` readings are there the limit is `factor` times higher. Outliers themselves
    count in later limits, so that a lasting change of level is accepted once it makes up a
    hundredth of the readings.

    Shapes: `utc_s` (ascending) and `energy_kwh` (N,), NaN = no reading; returns (N,).
    """
    found = np.zeros(energy_kwh.shape, dtype=bool)
    rows = np.flatnonzero(energy_kwh > 0)  # NaN is not
    if not rows.size:
        return found
    known = energy_kwh[rows]
    day = (utc_s[rows] - utc_s[rows[0]]) // DAY_S
    weeks = (day - DAILY_DAYS) // 7
    block = np.where(day < DAILY_DAYS, day, DAILY_DAYS + weeks)
    edges = np.flatnonzero(np.diff(block)) + 1
    # Only the largest readings can be on either side of a 99th percentile.
    most = known.size // 100 + 2
    top = np.sort(known[: edges[0] if edges.size else 0])[-most:]
    for start, stop in pairwise((*edges.tolist(), known.size)):
        settled = day[start] >= SETTLED_DAYS and start >= FEWEST_SETTLED
        if start >= FEWEST:
            limit_kwh = factor * _percentile_99(top, start) * (1.0 if settled else factor)
            found[rows[start:stop]] = known[start:stop] > limit_kwh
        top = np.sort(np.concatenate((top, known[start:stop])))[-most:]
    return found


def outliers_in_hindsight(energy_kwh: Floats, factor: float) -> Bools:
    """Find readings above `factor` times the 99th percentile of the whole series.

    For reports only: the limit knows the future. Shapes: (N,) in and out.
    """
    known = energy_kwh[energy_kwh > 0]
    if known.size < FEWEST_SETTLED:
        return np.zeros(energy_kwh.shape, dtype=bool)
    return energy_kwh > factor * float(np.percentile(known, 99))


def _percentile_99(top: Floats, count: int) -> float:
    """Return the 99th percentile of `count` values of which the largest are given, ascending.

    Linear between ranks, as `numpy.percentile`.
    """
    rank = 0.99 * (count - 1)
    low = int(rank)
    high = min(low + 1, count - 1)
    first = count - top.size  # rank of the smallest that is there
    below, above = float(top[low - first]), float(top[high - first])
    return below + (above - below) * (rank - low)

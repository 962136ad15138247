"""Suspected mistakes of unit: a client, or a part of one, on another level than the rest.

Nothing is ever rescaled: a factor of 4 or 1000 is a suspicion, not a proof.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]

#: Factor to what it would mean, and how far from it (as a ratio) still counts.
FACTORS: tuple[tuple[float, float, str], ...] = (
    (1000.0, 1.6, said("unit_wh")),
    (0.001, 1.6, said("unit_mwh")),
    (4.0, 1.15, said("unit_kw")),
    (0.25, 1.15, said("unit_kwh")),
)
#: Clients must agree this well before one of them can stand out (robust standard deviations).
SIGMAS = 4.0
#: Fewer clients say nothing about what is usual.
FEWEST = 4
#: Weeks on each side of a change of level.
SIDE_WEEKS = 4
#: Weekly medians on one side of a change may differ by at most this ratio.
STEADY = 1.3


def level(energy_kwh: Floats) -> float:
    """Return the median of the positive readings, NaN without any."""
    known = energy_kwh[energy_kwh > 0]
    return float(np.median(known)) if known.size else float("nan")


def _matching(ratio: float) -> tuple[float, str] | None:
    for factor, tolerance, meaning in FACTORS:
        if factor / tolerance <= ratio <= factor * tolerance:
            return factor, meaning
    return None


def odd_clients(levels: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """Find clients whose level is a unit's factor away from the median client.

    A client stands out when its log level is more than `SIGMAS` robust standard deviations (1.4826
    times the median absolute deviation, at least 5 %) from the median. So factor 4 is found only
    where the others are much alike.

    Returns:
        Client to (factor, meaning).
    """
    known = {name: value for name, value in levels.items() if value > 0}
    if len(known) < FEWEST:
        return {}
    logs = np.log(np.array(list(known.values())))
    middle = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.05)
    found: dict[str, tuple[float, str]] = {}
    for name, log in zip(known, logs, strict=True):
        match = _matching(float(np.exp(log - middle)))
        if match and abs(log - middle) > SIGMAS * spread:
            found[name] = match
    return found


def change_of_level(energy_kwh: Floats, step_s: int) -> tuple[int, float, str] | None:
    """Find the strongest lasting change of level by a unit's factor within a series.

    Compares the weekly medians of up to four weeks on both sides of every week's start; each side
    needs two weeks that agree within `STEADY`.

    Returns:
        Step at which the new level starts, the factor, its meaning; None when there is none.
    """
    week = 7 * DAY_S // step_s
    weeks = energy_kwh.size // week
    if weeks < 4:
        return None
    blocks = energy_kwh[: weeks * week].reshape(weeks, week)
    medians = np.array([level(block) for block in blocks])
    best: tuple[float, int, float, str] | None = None
    for at in range(2, weeks - 1):
        sides = medians[max(at - SIDE_WEEKS, 0) : at], medians[at : at + SIDE_WEEKS]
        known = [side[np.isfinite(side)] for side in sides]
        if any(side.size < 2 or side.max() / side.min() > STEADY for side in known):
            continue
        ratio = float(np.median(known[1]) / np.median(known[0]))
        match = _matching(ratio)
        if match:
            miss = abs(np.log(ratio / match[0]))
            if best is None or miss < best[0]:
                best = (miss, at * week, *match)
    return best[1:] if best else None

"""Meter registers (running totals) to energy per step, with resets and roll-over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A register that falls from above this share of a power of ten to below the rest has rolled over.
NEAR_FULL = 0.9
#: The energy of a roll-over step may be at most so many times the largest step seen otherwise.
PLAUSIBLE = 10.0


@dataclass(frozen=True, eq=False)
class Differences:
    """What a register says about each step.

    Attributes:
        energy: Shape (N,), in the register's unit: the increase from this reading to the next; NaN
            for the last reading, across gaps, and where the register was reset.
        reset: Indices of readings followed by a reset.
        rollover: Indices of readings followed by a roll-over (their energy is repaired).
    """

    energy: Floats
    reset: Ints
    rollover: Ints


def differences(utc_s: Ints, register: Floats, own_s: Ints) -> Differences:
    """Take the increase of a register over each step.

    Over a gap the increase is known only as a whole, so its steps stay missing. A register that
    falls was reset, and the step is missing, unless it fell from just under a power of ten to just
    above zero: then it rolled over.

    Shapes: all (N,), `utc_s` ascending without repeats.
    """
    energy = np.full(register.shape, np.nan)
    if register.size < 2:
        none = np.zeros(0, dtype=np.int64)
        return Differences(energy, none, none)
    increase = np.diff(register)
    increase[np.diff(utc_s) != own_s[:-1]] = np.nan
    fell = np.flatnonzero(increase < 0)
    usual = np.nanmax(increase[increase >= 0], initial=0.0)
    before, after = register[fell], register[fell + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        full = 10.0 ** np.ceil(np.log10(np.maximum(before, 1.0)))
    over = full - before + after
    rolled = (
        (before >= NEAR_FULL * full)
        & (after >= 0)
        & (after <= (1 - NEAR_FULL) * full)
        & (over <= PLAUSIBLE * usual)
    )
    increase[fell] = np.where(rolled, over, np.nan)
    energy[:-1] = increase
    return Differences(energy, fell[~rolled], fell[rolled])

"""A cell's capacity some cycles ahead, from its own past and from what other cells have done.

    C(k+h) − C(k) = β₀ + β₁·h·trend(k) + β₂·(C(k) − C̄(k)) + e

trend is the slope of the capacity over the last discharges, C̄ its mean over the last few: after a
rest a cell holds more for a while, and loses that again. A regression on three columns, so cells
(or their owners) send sums once. A cell adds the sums of its own pairs as soon as the later one of
a pair is measured; the fleet counts as so many pairs of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.batteries import Discharges
from fl_inmetro.ev.calibration import Sums, total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.regression import INTERCEPT, regress, sums_of_rows

COLUMNS = (INTERCEPT, "trend_ah", "deviation_ah")

#: Discharges over which the trend goes, and those that the deviation is from.
TREND, RECENT = 20, 10

#: A cell's own pairs that the fleet is worth: after about as many the cell's own past decides.
FLEET_PAIRS = 20.0


@dataclass(frozen=True)
class Pairs:
    """Discharges of one cell with one that lies `horizon` later [pair].

    Attributes:
        cycle: Number of the earlier one.
        x: What is known then [pair, column of `COLUMNS`].
        capacity_ah: Of the earlier one.
        ahead_ah: Of the later one.
        horizon: Between them.
    """

    cycle: NDArray[np.int64]
    x: Floats
    capacity_ah: Floats
    ahead_ah: Floats
    horizon: int

    @property
    def sums(self) -> Sums:
        """Return what leaves the cell."""
        return sums_of_rows(COLUMNS, self.x, self.ahead_ah - self.capacity_ah)


def pairs(cell: Discharges, horizon: int = 10) -> Pairs:
    """Return all pairs of a cell's discharges, with what is known at the earlier one.

    Raises:
        DataError: FL221, no two discharges lie so far apart.
    """
    at = {int(cycle): i for i, cycle in enumerate(cell.cycle)}
    first = [i for cycle, i in at.items() if cycle + horizon in at]
    if not first or horizon < 1:
        what = f"no two discharges lie {horizon} apart"
        raise DataError(Fault("FL221", what, f"cell {cell.cell}"))
    later = [at[int(cell.cycle[i]) + horizon] for i in first]
    x = np.array([_known(cell, i, horizon) for i in first])
    capacity = cell.capacity_ah
    return Pairs(cell.cycle[first], x, capacity[first], capacity[later], horizon)


def fleet_sums(cells: Sequence[Pairs]) -> Sums:
    """Add cells up.

    Raises:
        FederationError: FL368, there are none.
    """
    return total(cell.sums for cell in cells)


def forecasts(cell: Pairs, fleet: Sums, fleet_pairs: float = FLEET_PAIRS) -> Floats:
    """Forecast each later capacity at the time of the earlier one, in Ah [pair].

    Args:
        cell: Its pairs; only those whose later discharge has been measured by then are learned.
        fleet: Sums of other cells.
        fleet_pairs: How many of the cell's own pairs the fleet counts as; infinity for a cell that
            learns nothing of its own.
    """
    change = cell.ahead_ah - cell.capacity_ah
    alone = np.isinf(fleet_pairs)
    found = []
    for i, cycle in enumerate(cell.cycle):
        done = cell.cycle + cell.horizon <= cycle
        sums = fleet
        if not alone and done.any():
            own = sums_of_rows(COLUMNS, cell.x[done], change[done])
            sums = own + weighed(fleet, fleet_pairs / fleet.n)
        found.append(regress(sums).predict(cell.x[i : i + 1])[0])
    told: Floats = cell.capacity_ah + np.array(found)
    return told


def weighed(sums: Sums, weight: float) -> Sums:
    """Return sums whose rows all weigh so much."""
    return Sums(sums.terms, sums.xx * weight, sums.xy * weight, sums.yy * weight, sums.n)


def _known(cell: Discharges, i: int, horizon: int) -> list[float]:
    """Return what is known at discharge i: nothing of a later one."""
    cycle, capacity = cell.cycle[: i + 1], cell.capacity_ah[: i + 1]
    last, when = capacity[-TREND:], cycle[-TREND:]
    away = when - when.mean()
    # Two discharges make no trend: their difference is mostly noise.
    slope = float(away @ last / (away @ away)) if len(last) > 2 else 0.0
    return [1.0, horizon * slope, float(capacity[-1] - capacity[-RECENT:].mean())]

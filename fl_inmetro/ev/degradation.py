"""What a trip takes more of when the battery has aged: consumption as a square of the loss.

    UEC(BDR) = a₀ + a₁·BDR + a₂·BDR²

UEC, the unit energy consumption, is the energy for a distance, in kWh/100 km. BDR, the battery
degradation ratio, is the share of the capacity that is lost: BDR = 1 − C/C₀, 0 of a new battery
and 0.2 at the usual end of its life in a car. It is a regression on 1, BDR and BDR², so it is found
from sums of powers, of many cars or cells as exactly as of one.

The law is one of the empirical forms in reviews of electric vehicles' consumption; it says nothing
of causes, and nothing beyond the losses that were seen. `store_kwh_per_100km` gives the part of it
that cells themselves show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.batteries import Discharges
from fl_inmetro.ev.calibration import Sums
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.regression import INTERCEPT, Regression, only, regress, sums_of_rows
from fl_inmetro.metrics.student import two_sided_bound

COLUMNS = (INTERCEPT, "BDR", "BDR²")

#: Discharges that tell what a cell was like when it was fresh.
_FRESH = 5


def degradation_ratio(capacity_ah: Floats, fresh_ah: float) -> Floats:
    """Return the share of the capacity that is lost, 1 − C/C₀; a little below 0 is noise.

    Raises:
        DataError: FL221, a capacity that is none.
    """
    if not (np.all(np.isfinite(capacity_ah)) and np.all(capacity_ah > 0) and fresh_ah > 0):
        raise DataError(Fault("FL221", "a capacity is missing, or not above 0", "capacity_ah"))
    ratio: Floats = 1.0 - capacity_ah / fresh_ah
    return ratio


def store_kwh_per_100km(
    terminal_kwh_per_100km: float, mean_voltage_v: Floats, fresh_voltage_v: float
) -> Floats:
    """Return the consumption as the battery's store feels it.

    A car takes the same energy at the terminals whatever the cells' age, but an aged cell gives its
    charge at a lower voltage: the same kWh take more Ah, and the fresh cell's voltage is what they
    were worth. So UEC = UEC at the terminals · V̄_fresh/V̄.

    Args:
        terminal_kwh_per_100km: Of the car, with any battery.
        mean_voltage_v: Energy over charge of a discharge [discharge].
        fresh_voltage_v: Of the new cell under the same load.
    """
    consumption: Floats = terminal_kwh_per_100km * fresh_voltage_v / mean_voltage_v
    return consumption


def law_sums(ratio: Floats, uec_kwh_per_100km: Floats) -> Sums:
    """Return what leaves a car or a cell: sums over its trips or discharges, both [row]."""
    x = np.column_stack([np.ones(len(ratio)), ratio, ratio**2])
    return sums_of_rows(COLUMNS, x, uec_kwh_per_100km)


def cell_law_sums(cell: Discharges, terminal_kwh_per_100km: float) -> Sums:
    """Return the sums of a cell's discharges; its first five are what it was when it was fresh.

    Args:
        cell: All under one load: the voltage tells of age only then.
        terminal_kwh_per_100km: Of the car that has such cells.

    Raises:
        DataError: FL221, loads that differ by more than a tenth.
    """
    if np.ptp(cell.load_a) > 0.1 * cell.load_a.mean():
        raise DataError(Fault("FL221", "discharges under several loads", f"cell {cell.cell}"))
    fresh_ah = float(cell.capacity_ah[:_FRESH].mean())
    fresh_v = float(cell.mean_voltage_v[:_FRESH].mean())
    uec = store_kwh_per_100km(terminal_kwh_per_100km, cell.mean_voltage_v, fresh_v)
    return law_sums(degradation_ratio(cell.capacity_ah, fresh_ah), uec)


@dataclass(frozen=True)
class Extremum:
    """Where the law turns, and how surely.

    Attributes:
        ratio: BDR* = −a₁/(2·a₂).
        ratio_error: Its standard error, to first order in those of a₁ and a₂ (delta method).
        low: Of its 95 % interval: Fieller's (1954), which holds also where a₂ is hardly known.
        high: Of the same; infinite on both sides where a₂ = 0 cannot be excluded.
        uec_kwh_per_100km: The law's value there.
        minimum: Whether it is one, or a maximum.
    """

    ratio: float
    ratio_error: float
    low: float
    high: float
    uec_kwh_per_100km: float
    minimum: bool


@dataclass(frozen=True)
class Law:
    """A fitted UEC(BDR).

    Attributes:
        regression: On `COLUMNS`.
    """

    regression: Regression

    def at(self, ratio: Floats) -> Floats:
        """Return UEC in kWh/100 km at degradation ratios of any one shape."""
        return self.regression.predict(_powers(ratio))

    def interval_at(self, ratio: Floats, level: float = 0.8) -> tuple[Floats, Floats]:
        """Return low and high of new measurements at degradation ratios [row]."""
        return self.regression.prediction_interval(_powers(ratio), level)

    def extremum(self, level: float = 0.95) -> Extremum:
        """Return where the law turns; it may lie far from all losses that were seen."""
        a0, a1, a2 = (float(value) for value in self.regression.coefficient)
        v11, v12, v22 = (
            float(self.regression.covariance[i, j]) for i, j in ((1, 1), (1, 2), (2, 2))
        )
        if a2 == 0:
            return Extremum(math.inf, math.inf, -math.inf, math.inf, math.nan, False)
        at = -a1 / (2 * a2)
        slope1, slope2 = -1 / (2 * a2), a1 / (2 * a2**2)
        variance = slope1**2 * v11 + 2 * slope1 * slope2 * v12 + slope2**2 * v22
        low, high = -math.inf, math.inf
        t2 = two_sided_bound(level, self.regression.degrees) ** 2
        # All r with (a₁ + 2·a₂·r)² ≤ t²·var(a₁ + 2·a₂·r): a quadratic in r.
        c2, c1, c0 = 4 * (a2**2 - t2 * v22), 4 * (a1 * a2 - t2 * v12), a1**2 - t2 * v11
        if c2 > 0:
            root = math.sqrt(max(c1**2 - 4 * c2 * c0, 0.0))
            low, high = (-c1 - root) / (2 * c2), (-c1 + root) / (2 * c2)
        uec = a0 + a1 * at + a2 * at**2
        return Extremum(at, math.sqrt(max(variance, 0.0)), low, high, uec, a2 > 0)


def law(sums: Sums) -> Law:
    """Fit the law to sums of one or of many.

    Raises:
        FederationError: FL371, fewer than three different ratios, or none left to judge by; FL372,
            sums of other columns.
    """
    return Law(regress(only(sums, COLUMNS)))


def _powers(ratio: Floats) -> Floats:
    return np.stack([np.ones_like(ratio), ratio, ratio**2], axis=-1)

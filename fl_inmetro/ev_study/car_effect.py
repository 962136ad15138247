"""What one car needs more than its fleet, per kilometre: private, learned from its own trips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fl_inmetro.ev.drives import Floats

#: Numbers that a car sends: trips, the sum of its errors per km and of their squares.
NUMBERS = 3


@dataclass(frozen=True)
class CarEffects:
    """A car's mean error per km, drawn towards none by as much as trips of one car differ.

    The best linear prediction of a random effect (Robinson, *Statistical Science* 6, 1991):
    b = Σ e / (n + σ_w² / σ_b²), with the variances between and within cars found from sums.

    Attributes:
        trips_to_trust: σ_w² / σ_b²: after so many trips half of the mean error is the car's.
        errors_kwh_per_km: Of training cars, by car: sum and number. They stay on the cars.
    """

    trips_to_trust: float
    errors_kwh_per_km: Mapping[str, tuple[float, int]]

    def of(self, car: str, errors_kwh_per_km: Floats | None = None) -> float:
        """Return what a car needs more, in kWh per km; nothing where nobody knows.

        Args:
            car: That may have been in training.
            errors_kwh_per_km: Of trips of its own beside those of training [trip].
        """
        total, count = self.errors_kwh_per_km.get(car, (0.0, 0))
        if errors_kwh_per_km is not None:
            total += float(errors_kwh_per_km.sum())
            count += len(errors_kwh_per_km)
        return total / (count + self.trips_to_trust) if count else 0.0


def car_effects(errors_kwh_per_km: Mapping[str, Floats]) -> CarEffects:
    """Find both variances from each car's number, sum and sum of squares (one-way layout).

    Errors of the training trips are a little too small, as the model has seen them; cars then
    look more alike than they are, and effects come out too small rather than too large.
    """
    counts = np.array([len(errors) for errors in errors_kwh_per_km.values()], dtype=np.float64)
    sums = np.array([errors.sum() for errors in errors_kwh_per_km.values()])
    squares = np.array([float(errors @ errors) for errors in errors_kwh_per_km.values()])
    own = {car: (float(e.sum()), len(e)) for car, e in errors_kwh_per_km.items()}
    cars, trips = len(counts), counts.sum()
    if cars < 2 or trips <= cars:
        return CarEffects(np.inf, own)
    within = float((squares - sums**2 / counts).sum() / (trips - cars))
    mean = sums.sum() / trips
    spread = float((counts * (sums / counts - mean) ** 2).sum())
    usual = (trips - (counts**2).sum() / trips) / (cars - 1)
    between = (spread / (cars - 1) - within) / usual
    return CarEffects(within / between if between > 0 else np.inf, own)

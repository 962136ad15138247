"""Models of a trip's energy that need no physics: energy per kilometre."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.trips import Trips

#: Bytes of a number on the wire, of these models' sums.
_BYTES = 8


@dataclass(frozen=True)
class Rate:
    """All energy over all kilometres, of the fleet or of the car.

    Attributes:
        kwh_per_km: The fleet's; NaN for local training.
        own_kwh_per_km: By car, where each has its own.
        moved_bytes: Two sums up and one rate down, of each car.
    """

    kwh_per_km: float
    own_kwh_per_km: Mapping[str, float]
    moved_bytes: int
    parameters: int = 1

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return kWh [trip]; see `Fitted.predict`."""
        if not self.own_kwh_per_km:
            return self.kwh_per_km * trips.distance_km
        if car not in self.own_kwh_per_km:
            raise no_own_model(car)
        return self.own_kwh_per_km[car] * trips.distance_km


@dataclass(frozen=True)
class RateFamily:
    """Distance alone: the least that a model has to beat."""

    name: str = "rate"

    def fit(self, fleet: Fleet, training: Training, seed: int) -> Rate:
        """Train; see `Family.fit`."""
        sums = {
            car: (trips.terminal_kwh.sum(), trips.distance_km.sum()) for car, trips in fleet.items()
        }
        if training == "local":
            return Rate(np.nan, {car: float(kwh / km) for car, (kwh, km) in sums.items()}, 0)
        kwh, km = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        return Rate(float(kwh / km), {}, 3 * _BYTES * len(fleet) if training == "federated" else 0)

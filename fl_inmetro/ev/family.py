"""A family of models of a trip's energy: how it is trained over cars, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.trips import Trips

#: `local`: each car alone. `federated`: trips stay on their cars. `central`: all are in one place.
Training = Literal["local", "federated", "central"]

#: Trips to learn from, by car.
Fleet = Mapping[str, Trips]


class Fitted(Protocol):
    """A trained model."""

    @property
    def parameters(self) -> int:
        """Return how many numbers were learned (of one car's model, where each has its own)."""
        ...

    @property
    def moved_bytes(self) -> int:
        """Return what went over the network to learn them, both ways, of all cars."""
        ...

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return the energy at the battery's terminals, in kWh [trip].

        Args:
            car: Whose trips; may be one that took no part in training, unless it was `local`.
            trips: To predict; what was measured of the battery in them is not looked at.
            own: Earlier trips of this car with their measurements, to learn from on the car; a
                car that took part has those of its training without being told.

        Raises:
            FederationError: FL369, a local model of a car that has none.
        """
        ...


class Family(Protocol):
    """A kind of model."""

    @property
    def name(self) -> str:
        """Return its name in tables."""
        ...

    def fit(self, fleet: Fleet, training: Training, seed: int) -> Fitted:
        """Train on the trips of a fleet.

        Args:
            fleet: By car; at least one trip each.
            training: How.
            seed: Root of all draws.
        """
        ...


def no_own_model(car: str) -> FederationError:
    """Return the error of a local model that is asked for a car that trained none."""
    return FederationError(
        Fault(
            "FL369",
            f"`{car}` trained no model of its own",
            f"car {car}",
            "give its earlier trips as `own`, or train federated",
        )
    )

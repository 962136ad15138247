"""Boosted trees and forests on features of a trip's drive, alone or over calibrated physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.physics_family import FittedPhysics, PhysicsFamily
from fl_inmetro.ev.trip_features import drive_features
from fl_inmetro.ev.trips import Trips
from fl_inmetro.ev_study.car_effect import NUMBERS, CarEffects, car_effects
from fl_inmetro.trees.boost import Settings, Trained, bagged, boosted, random_forest
from fl_inmetro.trees.grow import Growth

#: How the trees of a fleet are made.
Way = Literal["boosted", "bagged", "forest"]

#: Hundreds of trips, not millions of rows: small trees, many of them, all rows.
BOOSTED = Settings(trees=200, rate=0.05, bins=32, growth=Growth(depth=3, l2=2.0, least_rows=5))
FOREST = Settings(
    trees=200, bins=32, growth=Growth(depth=8, least_rows=3, columns=0.4, by_node=True)
)


@dataclass(frozen=True)
class FittedTrees:
    """Trees of a fleet, or of each car.

    Attributes:
        trees: By car for local training; under the name "" the fleet's.
        physics: What they correct; None where they stand alone.
        effects: Of the cars; None for local training.
        moved_bytes: See `Fitted`.
    """

    trees: Mapping[str, Trained]
    physics: FittedPhysics | None
    effects: CarEffects | None
    moved_bytes: int

    @property
    def parameters(self) -> int:
        """Return the numbers in the trees (of one car, where each has its own) and the physics."""
        one = next(iter(self.trees.values())).ensemble.parameters
        return one + (self.physics.parameters if self.physics else 0)

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return kWh [trip]; see `Fitted.predict`."""
        effect = 0.0
        if self.effects is not None:
            errors = None
            if own is not None:
                errors = (own.terminal_kwh - self._kwh(car, own, own)) / own.distance_km
            effect = self.effects.of(car, errors)
        return self._kwh(car, trips, own) + effect * trips.distance_km

    def _kwh(self, car: str, trips: Trips, own: Trips | None) -> Floats:
        name = car if self.effects is None else ""
        if name not in self.trees:
            raise no_own_model(car)
        per_km = self.trees[name].ensemble.predict(drive_features(trips.drives).values)
        kwh: Floats = per_km * trips.distance_km
        return kwh if self.physics is None else kwh + self.physics.predict(car, trips, own)


@dataclass(frozen=True)
class TreeFamily:
    """Trees that tell the consumption of a trip, or what physics leaves of it, per kilometre.

    `boosted` and `forest` are grown from sums over cars and equal those of all trips in one place;
    `bagged` adds trees that each car grew alone.

    Attributes:
        way: How they are made.
        physics: Whether they correct the calibrated physics (`PhysicsFamily`).
        settings: Of the trees; None for the way's own.
    """

    way: Way = "boosted"
    physics: bool = False
    settings: Settings | None = None
    names: Mapping[tuple[str, bool], str] = field(
        default_factory=lambda: {
            ("boosted", False): "boosted_trees",
            ("bagged", False): "bagged_trees",
            ("forest", False): "random_forest",
            ("boosted", True): "physics_boosted_trees",
            ("bagged", True): "physics_bagged_trees",
            ("forest", True): "physics_forest",
        }
    )

    @property
    def name(self) -> str:
        """Return the family's name."""
        return self.names[self.way, self.physics]

    def fit(self, fleet: Fleet, training: Training, seed: int) -> FittedTrees:
        """Train; see `Family.fit`."""
        physics = PhysicsFamily().fit(fleet, training, seed) if self.physics else None
        rows = {}
        for car, trips in fleet.items():
            known = physics.predict(car, trips) if physics else 0.0
            target = (trips.terminal_kwh - known) / trips.distance_km
            rows[car] = (car, drive_features(trips.drives).values, target)
        if training == "local":
            alone = {car: self._trained([one], "central", seed) for car, one in rows.items()}
            return FittedTrees(alone, physics, None, 0)
        trained = self._trained(list(rows.values()), training, seed)
        errors = {car: target - trained.ensemble.predict(x) for car, (_, x, target) in rows.items()}
        moved = 0
        if training == "federated":
            moved = (trained.sent_bytes + 8 * NUMBERS) * len(fleet)
            moved += physics.moved_bytes if physics else 0
        return FittedTrees({"": trained}, physics, car_effects(errors), moved)

    def _trained(
        self, rows: list[tuple[str, Floats, Floats]], training: Training, seed: int
    ) -> Trained:
        usual = FOREST if self.way == "forest" else BOOSTED
        settings = replace(self.settings or usual, seed=seed)
        if training == "central":
            # In one place there is nobody to bag over.
            x, y = (np.concatenate([one[i] for one in rows]) for i in (1, 2))
            rows = [("all", x, y)] if self.way == "bagged" else rows
        if self.way == "forest":
            return random_forest(rows, settings)
        return (bagged if self.way == "bagged" else boosted)(rows, settings)

"""The physics as a family: an ordinary car, one calibrated by sums, and one with a learned rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fl_inmetro.ev.calibration import PRIOR_SD, TERMS, Sums, calibrate, sums_of, term_powers, total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.residual import COLUMNS, SPREADS_KW, design
from fl_inmetro.ev.trip_sets import some
from fl_inmetro.ev.trips import Trips
from fl_inmetro.units import HOUR_S

#: How far one car may lie from its fleet, as shares of how far any car lies from the ordinary one.
CAR_SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)

#: Trips of each car that the share is chosen by; more say the same and take longer.
_TRIED = 12

#: Bytes of a number on the wire.
_BYTES = 8


@dataclass(frozen=True)
class Columns:
    """What the energy is linear in.

    Attributes:
        ordinary: The car whose terms they are.
        rest: Whether the learned rest's columns stand beside the physical ones.
    """

    ordinary: Vehicle = field(default_factory=Vehicle)
    rest: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return their names."""
        return COLUMNS if self.rest else TERMS

    def powers_kw(self, trips: Trips) -> Floats:
        """Return their powers [sample, column]."""
        physical = term_powers(trips.drives, self.ordinary)
        return design(physical, trips.drives, trips.battery_deg_c) if self.rest else physical

    def sums(self, trips: Trips) -> Sums:
        """Return what leaves a car of some trips."""
        return sums_of(self.powers_kw(trips), trips.interval_kw, trips.drives, self.names)

    def energies_kwh(self, trips: Trips) -> Floats:
        """Return the energy of each column over each trip [trip, column]."""
        powers = self.powers_kw(trips)
        by_trip: Floats = np.add.reduceat(powers, trips.drives.offsets[:-1])
        return by_trip * (trips.drives.step_s / HOUR_S)


@dataclass(frozen=True)
class Prior:
    """Where factors are expected, and how far from there; both [column]."""

    centre: Floats
    sd: Floats


@dataclass(frozen=True)
class FittedPhysics:
    """Factors of a fleet, or of each car alone.

    Attributes:
        columns: What they are factors of.
        prior: Of a car: the fleet's factors and how far a car lies from them; for local training
            the ordinary car's.
        sums: Of each car's training trips; they stay on the cars.
        alone: Whether cars were trained alone.
        moved_bytes: See `Fitted`.
    """

    columns: Columns
    prior: Prior
    sums: Mapping[str, Sums]
    alone: bool
    moved_bytes: int

    @property
    def parameters(self) -> int:
        """Return the number of factors."""
        return len(self.columns.names)

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return kWh [trip]; see `Fitted.predict`.

        A car's own factors are the posterior of its own trips around the fleet's: a random effect
        of the car. A car without any trip has the fleet's.
        """
        known = [self.sums[car]] if car in self.sums else []
        if own is not None:
            known.append(self.columns.sums(own))
        if not known and self.alone:
            raise no_own_model(car)
        factor = self.prior.centre
        if known:
            factor = calibrate(total(known), self.prior.centre, self.prior.sd).factor
        kwh: Floats = self.columns.energies_kwh(trips) @ factor
        return kwh


@dataclass(frozen=True)
class PhysicsFamily:
    """Calibrated physics, exact in one round of sums; with a rest, in two.

    The rest may go as far as does best on cars (of fewer than three cars: on trips) that are left
    out of the training sums: each car takes its own sums away from all, and answers with an error
    for each spread. How far a car's own factors may lie from the fleet's is chosen in the same way:
    each car leaves out trips of its own, around the factors of the *other* cars.

    Attributes:
        ordinary: The car that factors are relative to.
        rest: Whether a rest is learned beside the physics (`residual`).
    """

    ordinary: Vehicle = field(default_factory=Vehicle)
    rest: bool = False

    @property
    def name(self) -> str:
        """Return the family's name."""
        return "physics_rest" if self.rest else "physics"

    def fit(self, fleet: Fleet, training: Training, seed: int) -> FittedPhysics:
        """Train; see `Family.fit`."""
        columns = Columns(self.ordinary, self.rest)
        sums = {car: columns.sums(trips) for car, trips in fleet.items()}
        if training == "local":
            # How far a rest may go is chosen over cars, which nobody has alone: a middling way.
            return FittedPhysics(columns, prior(columns, SPREADS_KW[2]), sums, True, 0)
        spread = chosen_spread(columns, fleet, sums) if self.rest else 0.0
        before = prior(columns, spread)
        fleet_factor = calibrate(total(sums.values()), before.centre, before.sd).factor
        k = len(columns.names)
        # Up: the sums (half a matrix, a vector, two numbers); down: the factors.
        numbers = k * (k + 1) // 2 + k + 2 + k
        if self.rest:
            numbers += len(SPREADS_KW)
        # Down: the sums of all, for both choices; up: an error for each share.
        numbers += k * (k + 1) // 2 + k + 2 + len(CAR_SHARES)
        moved = numbers * _BYTES * len(fleet) if training == "federated" else 0
        share = chosen_share(columns, fleet, sums, before)
        return FittedPhysics(columns, _car(fleet_factor, before, share), sums, False, moved)


@dataclass(frozen=True)
class OrdinaryCar:
    """Physics with nobody's parameters: what no trip was needed for."""

    ordinary: Vehicle = field(default_factory=Vehicle)
    name: str = "ordinary_car"
    parameters: int = 0
    moved_bytes: int = 0

    def fit(self, fleet: Fleet, training: Training, seed: int) -> OrdinaryCar:
        """Learn nothing; see `Family.fit`."""
        return self

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return kWh [trip]; see `Fitted.predict`."""
        kwh: Floats = Columns(self.ordinary).energies_kwh(trips).sum(axis=1)
        return kwh


def prior(columns: Columns, spread_kw: float) -> Prior:
    """Return where the columns' factors are expected before any trip."""
    rest = len(columns.names) - len(TERMS)
    sd = [PRIOR_SD[name] for name in TERMS]
    return Prior(
        np.concatenate([np.ones(len(TERMS)), np.zeros(rest)]),
        # A spread of a millionth of a watt is none.
        np.concatenate([sd, np.full(rest, max(spread_kw, 1e-9))]),
    )


def chosen_spread(columns: Columns, fleet: Fleet, sums: Mapping[str, Sums]) -> float:
    """Return the spread of the rest that does best on what was left out."""
    whole = total(sums.values())
    parts: Sequence[Trips] = list(fleet.values())
    if len(parts) < 3:
        parts = [some(trips, [i]) for trips in parts for i in range(len(trips.names))]
    if len(parts) < 3:
        return 0.0
    left = [(part, columns.sums(part), columns.energies_kwh(part)) for part in parts]
    errors = []
    for spread in SPREADS_KW:
        before = prior(columns, spread)
        found = []
        for trips, own, energies in left:
            factor = calibrate(_without(whole, own), before.centre, before.sd).factor
            off = np.abs(energies @ factor - trips.terminal_kwh) / trips.distance_km
            found.append(float(off.mean()))
        errors.append(float(np.mean(found)))
    return SPREADS_KW[int(np.argmin(errors))]


def chosen_share(columns: Columns, fleet: Fleet, sums: Mapping[str, Sums], before: Prior) -> float:
    """Return how far a car may lie from its fleet, as does best on its trips left out."""
    if len(fleet) < 2:
        return 1.0
    whole = total(sums.values())
    errors = np.zeros(len(CAR_SHARES))
    for car, trips in fleet.items():
        others = calibrate(_without(whole, sums[car]), before.centre, before.sd).factor
        tried = some(trips, range(min(_TRIED, len(trips.names))))
        energies, distance = columns.energies_kwh(tried), tried.distance_km
        for i in range(len(tried.names)):
            rest = _without(sums[car], columns.sums(some(tried, [i])))
            for k, share in enumerate(CAR_SHARES):
                around = _car(others, before, share)
                factor = others
                if rest.n > 0:
                    factor = calibrate(rest, around.centre, around.sd).factor
                off = abs(energies[i] @ factor - tried.terminal_kwh[i])
                errors[k] += off / distance[i] / len(tried.names)
    return CAR_SHARES[int(np.argmin(errors))]


def _car(fleet_factor: Floats, before: Prior, share: float) -> Prior:
    return Prior(fleet_factor, np.maximum(share * before.sd, 1e-9))


def _without(whole: Sums, part: Sums) -> Sums:
    return Sums(
        whole.terms,
        whole.xx - part.xx,
        whole.xy - part.xy,
        whole.yy - part.yy,
        whole.n - part.n,
    )

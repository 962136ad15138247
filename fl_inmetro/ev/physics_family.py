"""The physics as a family: an ordinary car, one calibrated by sums, and one with a learned rest."""

from __future__ import annotations

from collections.abc import Mapping
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
        """Return kWh [trip]; see `Fitted.predict`."""
        kwh: Floats = self.columns.energies_kwh(trips) @ self.factor(car, own)
        return kwh

    def powers_kw(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return the power of each interval [sample]; the arguments of `predict`."""
        power: Floats = self.columns.powers_kw(trips) @ self.factor(car, own)
        return power

    def factor(self, car: str, own: Trips | None = None) -> Floats:
        """Return the factors of a car [column].

        They are the posterior of its own trips around the fleet's: a random effect of the car. A
        car without any trip has the fleet's.

        Raises:
            FederationError: FL369, a local model of a car that has none.
        """
        known = [self.sums[car]] if car in self.sums else []
        if own is not None:
            known.append(self.columns.sums(own))
        if not known and self.alone:
            raise no_own_model(car)
        if not known:
            return self.prior.centre
        return calibrate(total(known), self.prior.centre, self.prior.sd).factor


@dataclass(frozen=True)
class PhysicsFamily:
    """Calibrated physics, exact by sums, in two rounds.

    In the first, sums go up and those of all come down. With them each car tries, for itself, how
    far the rest may go and how far a car may lie from its fleet (`chosen`), and the errors of these
    choices go up. Nothing else leaves a car.

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
        choice = chosen(columns, fleet, sums)
        before = prior(columns, choice.spread_kw)
        fleet_factor = calibrate(total(sums.values()), before.centre, before.sd).factor
        k = len(columns.names)
        # Up: sums (half a matrix, a vector, two numbers); down: those of all; up: an error for
        # each choice; down: the choice.
        tried = len(CAR_SHARES) * (len(SPREADS_KW) if self.rest else 1)
        numbers = 2 * (k * (k + 1) // 2 + k + 2) + tried + 2
        moved = numbers * _BYTES * len(fleet) if training == "federated" else 0
        return FittedPhysics(columns, _car(fleet_factor, before, choice.share), sums, False, moved)


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


@dataclass(frozen=True)
class Choice:
    """What was chosen on the training cars.

    Attributes:
        spread_kw: How far the rest may go; 0 is physics alone.
        share: How far a car may lie from its fleet, of `CAR_SHARES`.
    """

    spread_kw: float
    share: float


def chosen(columns: Columns, fleet: Fleet, sums: Mapping[str, Sums]) -> Choice:
    """Choose as does best for a car that the others do not know, by some of its own trips.

    Each car in turn: the factors of the *others* are where its own are expected, half of its trips
    (every second one) calibrate it, the other half is predicted; then the halves change places.
    """
    spreads = SPREADS_KW if columns.rest else (0.0,)
    if len(fleet) < 2:
        return Choice(spreads[len(spreads) // 2], 1.0)
    whole = total(sums.values())
    errors = np.zeros((len(spreads), len(CAR_SHARES)))
    for car, trips in fleet.items():
        others = _without(whole, sums[car])
        count = len(trips.names)
        # A car of one trip is predicted by the others alone.
        halves = [some(trips, range(first, count, 2)) for first in range(min(2, count))]
        known = [*(columns.sums(half) for half in halves[::-1])] if count > 1 else [None]
        energies = [columns.energies_kwh(half) for half in halves]
        for a, spread in enumerate(spreads):
            before = prior(columns, spread)
            centre = calibrate(others, before.centre, before.sd).factor
            for b, share in enumerate(CAR_SHARES):
                around = _car(centre, before, share)
                for half, own, energy in zip(halves, known, energies, strict=True):
                    factor = centre
                    if own is not None:
                        factor = calibrate(own, around.centre, around.sd).factor
                    off = np.abs(energy @ factor - half.terminal_kwh) / half.distance_km
                    errors[a, b] += off.sum() / count
    best = int(np.argmin(errors))
    return Choice(spreads[best // len(CAR_SHARES)], CAR_SHARES[best % len(CAR_SHARES)])


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

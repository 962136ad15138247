"""Physics plus a learned rest: what the terms of a car leave over, as a smooth function of a drive.

The rest is a Gaussian process in the state of the drive, written as a sum of random cosines (Rahimi
and Recht, *Random Features for Large-Scale Kernel Machines*, 2007): columns like any other, beside
the physical ones. Both are then one ridge regression, so factors and rest are found together, from
the same sums as `calibration` has, and over cars as exactly. How wiggly the rest may be is chosen
by leaving out each trip of the training trips: their sums are subtracted, nothing is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro import seeds
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.calibration import (
    PRIOR_SD,
    TERMS,
    Calibration,
    Sums,
    calibrate,
    sums_per_trip,
    total,
)
from fl_inmetro.ev.drives import Drives, Floats
from fl_inmetro.units import HOUR_S

#: Of the state of a drive, and what counts as one step of each: fixed, so that no car's data scale
#: another's.
STATE = {
    "speed_m_s": 12.0,
    "acceleration_m_s2": 1.0,
    "climb_m_s": 0.5,
    "ambient_deg_c": 10.0,
    "battery_deg_c": 10.0,
    "minutes": 10.0,
    "hvac_kw": 2.0,
}

#: Cosines of the rest; twice as many changed no figure of the measured car in its second digit.
COSINES = 48

#: Standard deviations of the rest that are tried, in kW; 0 is physics alone.
SPREADS_KW = (0.0, 0.1, 0.2, 0.4, 0.8)

#: Length scales that are tried, in steps of `STATE`.
LENGTHS = (1.5, 3.0)


def states(drives: Drives, battery_deg_c: Floats) -> Floats:
    """Return the state of each interval in steps of `STATE` [sample, state].

    The battery's temperature is that of the trip's first sample: known before the drive.
    """
    first = np.repeat(battery_deg_c[drives.offsets[:-1]], np.diff(drives.offsets))
    begun = np.repeat(drives.offsets[:-1], np.diff(drives.offsets))
    minutes = (np.arange(len(begun)) - begun) * (drives.step_s / 60)
    nothing = np.zeros(len(begun))
    heating = nothing if drives.heating_kw is None else drives.heating_kw
    cooling = nothing if drives.cooling_kw is None else drives.cooling_kw
    columns = {
        "speed_m_s": drives.interval_mean(drives.speed_m_s),
        "acceleration_m_s2": drives.interval_change(drives.speed_m_s) / drives.step_s,
        "climb_m_s": drives.climb_m_s,
        "ambient_deg_c": drives.ambient_deg_c - 20.0,
        "battery_deg_c": first - 20.0,
        "minutes": minutes,
        "hvac_kw": heating + cooling,
    }
    return np.column_stack([columns[name] / step for name, step in STATE.items()])


def cosines(state: Floats, length: float, seed: int, count: int = COSINES) -> Floats:
    """Return √(2/D)·cos(ω·x + φ): their inner products near exp(−|x − x'|² / 2L²).

    Args:
        state: [sample, state].
        length: L, in steps of `STATE`.
        seed: Root seed; every car has to use the same.
        count: D.

    Returns:
        [sample, D].
    """
    rng = seeds.derive(seed, "ev", "residual", "cosines")
    frequency = rng.standard_normal((state.shape[1], count)) / length
    phase = rng.uniform(0, 2 * np.pi, count)
    wave: Floats = np.cos(state @ frequency + phase) * np.sqrt(2 / count)
    return wave


def terms(count: int = COSINES) -> tuple[str, ...]:
    """Return the names of the columns: the physical ones, then the rest's."""
    return (*TERMS, *(f"rest-{i:02d}" for i in range(count)))


def design(
    physical_kw: Floats, drives: Drives, battery_deg_c: Floats, length: float, seed: int
) -> Floats:
    """Return physical terms and cosines side by side [sample, term], the latter in kW."""
    waves = cosines(states(drives, battery_deg_c), length, seed)
    waves[drives.offsets[1:] - 1] = 0.0  # what follows a trip's last sample counts nothing
    return np.hstack([physical_kw, waves])


def fitted(sums: Sums, spread_kw: float) -> Calibration:
    """Find factors and rest together; a spread of 0 leaves physics alone.

    Raises:
        FederationError: FL368, see `calibrate`.
    """
    centre, sd = _prior(sums.terms, spread_kw)
    return calibrate(sums, centre, sd)


@dataclass(frozen=True)
class Trip:
    """One trip, ready for many fits.

    Attributes:
        sums: Of its pieces, for each length scale.
        column_kwh: Energy of each column over the trip, for each length scale [term].
        measured_kwh: What it took.
        distance_km: How far it went.
    """

    sums: tuple[Sums, ...]
    column_kwh: tuple[Floats, ...]
    measured_kwh: float
    distance_km: float


@dataclass(frozen=True)
class Choice:
    """What was chosen on the training trips alone.

    Attributes:
        length: Index into `LENGTHS`.
        spread_kw: Of the rest.
        mae_kwh_per_100km: Error of trips that were left out in turn.
    """

    length: int
    spread_kw: float
    mae_kwh_per_100km: float


def prepared(
    physical_kw: Floats,
    measured_kw: Floats,
    drives: Drives,
    battery_deg_c: Floats,
    seed: int,
    lengths: Sequence[float] = LENGTHS,
) -> list[Trip]:
    """Return every trip's sums and columns; all arrays [sample, …], see `sums_of`."""
    designs = [design(physical_kw, drives, battery_deg_c, length, seed) for length in lengths]
    names = terms()
    sums = [sums_per_trip(one, measured_kw, drives, names) for one in designs]
    to_kwh = drives.step_s / HOUR_S
    columns = [np.add.reduceat(one, drives.offsets[:-1]) * to_kwh for one in designs]
    energy = drives.sums(measured_kw) * to_kwh
    distance = drives.sums(drives.interval_mean(drives.speed_m_s)) * (drives.step_s / 1000)
    return [
        Trip(
            tuple(of_length[i] for of_length in sums),
            tuple(of_length[i] for of_length in columns),
            float(energy[i]),
            float(distance[i]),
        )
        for i in range(len(drives))
    ]


def chosen(trips: Sequence[Trip], spreads_kw: Sequence[float] = SPREADS_KW) -> Choice:
    """Choose length scale and spread by leaving out each of these trips in turn.

    Raises:
        FederationError: FL368, fewer than three trips: nothing to leave out.
    """
    if len(trips) < 3:
        raise FederationError(
            Fault("FL368", f"{len(trips)} trips are too few to leave one out", "", "three at least")
        )
    found = []
    for length in range(len(trips[0].sums)):
        for spread in spreads_kw:
            if spread == 0 and length > 0:
                continue  # physics alone knows no length scale
            errors = left_out_kwh_per_km(trips, length, spread)
            found.append(Choice(length, spread, 100 * float(np.mean(np.abs(errors)))))
    return min(found, key=lambda choice: choice.mae_kwh_per_100km)


def left_out_kwh_per_km(trips: Sequence[Trip], length: int, spread_kw: float) -> Floats:
    """Return each trip's error (predicted − measured) per km when the others are the training.

    The noise is that of all of these trips; one trip more or less does not move it.
    """
    whole = total(trip.sums[length] for trip in trips)
    noise = fitted(whole, spread_kw).noise_kwh
    errors = [
        (
            trip.column_kwh[length] @ _without(whole, trip.sums[length], spread_kw, noise)
            - trip.measured_kwh
        )
        / trip.distance_km
        for trip in trips
    ]
    return np.array(errors)


def _prior(terms: tuple[str, ...], spread_kw: float) -> tuple[Floats, Floats]:
    """Return β⁰ and s of all columns; a spread of a millionth of a watt is none."""
    count = len(terms) - len(TERMS)
    centre = np.concatenate([np.ones(len(TERMS)), np.zeros(count)])
    physical = [PRIOR_SD[name] for name in TERMS]
    return centre, np.concatenate([physical, np.full(count, max(spread_kw, 1e-9))])


def _without(whole: Sums, part: Sums, spread_kw: float, noise_kwh: float) -> Floats:
    """Return the factors without one trip, at the noise of all: one linear system."""
    centre, sd = _prior(whole.terms, spread_kw)
    xx = whole.xx - part.xx
    # The unknowns are deviations in units of their spread: well scaled also where it is none.
    hessian = xx * np.outer(sd, sd) / noise_kwh**2 + np.eye(len(sd))
    right = (whole.xy - part.xy - xx @ centre) * sd / noise_kwh**2
    factor: Floats = centre + sd * np.linalg.solve(hessian, right)
    return factor

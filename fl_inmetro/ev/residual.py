"""Physics plus a learned rest: what the terms of a car leave over, as a force by the drive's state.

    P_rest = v · Σ_k g_k(state_k)

An additive model (Hastie and Tibshirani, *Generalized Additive Models*, 1990): each g is a broken
line over fixed knots. A broken line is a sum of hat functions, so the rest is more columns beside
the physical ones, and both are one ridge regression, found together from the same sums as in
`calibration` and over cars as exactly. How far the rest may go is chosen by leaving out each of the
training trips: its sums are subtracted, nothing is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

#: Where the broken lines bend; beyond the ends they go on level. Fixed, so that no car's data
#: decide over another's columns.
KNOTS: dict[str, tuple[float, ...]] = {
    "speed_m_s": (0.0, 8.0, 16.0, 24.0, 32.0, 40.0),
    "acceleration_m_s2": (-2.0, -0.7, 0.0, 0.7, 2.0),
    "climb_m_s": (-0.5, 0.0, 0.5),
    "ambient_deg_c": (-5.0, 5.0, 15.0, 25.0, 35.0),
    "battery_deg_c": (0.0, 8.0, 16.0, 24.0, 32.0),
    "minutes": (0.0, 5.0, 10.0, 20.0, 35.0),
    "hvac_kw": (0.0, 0.6, 1.4, 3.0, 6.0),
}

#: Names of all columns: the physical ones, then one for each knot.
COLUMNS = (*TERMS, *(f"{name} {at:g}" for name, knots in KNOTS.items() for at in knots))

#: Standard deviations of the rest that are tried, in kW at `REST_SPEED_M_S`; 0 is physics alone.
SPREADS_KW = (0.0, 0.05, 0.1, 0.2, 0.4)
REST_SPEED_M_S = 12.0


def states(drives: Drives, battery_deg_c: Floats) -> dict[str, Floats]:
    """Return the state of each interval, each [sample], in the units of their names.

    The battery's temperature is that of the trip's first sample: known before the drive. Heating
    and cooling that nobody measured count as none.
    """
    lengths = np.diff(drives.offsets)
    begun = np.repeat(drives.offsets[:-1], lengths)
    minutes = (np.arange(len(begun)) - begun).astype(np.float64) * (drives.step_s / 60)
    nothing = np.zeros(len(begun))
    at_start: Floats = np.repeat(battery_deg_c[drives.offsets[:-1]], lengths)
    heating = nothing if drives.heating_kw is None else drives.heating_kw
    cooling = nothing if drives.cooling_kw is None else drives.cooling_kw
    return {
        "speed_m_s": drives.interval_mean(drives.speed_m_s),
        "acceleration_m_s2": drives.interval_change(drives.speed_m_s) / drives.step_s,
        "climb_m_s": drives.climb_m_s,
        "ambient_deg_c": drives.ambient_deg_c,
        "battery_deg_c": at_start,
        "minutes": minutes,
        "hvac_kw": heating + cooling,
    }


def hats(values: Floats, knots: Sequence[float]) -> Floats:
    """Return hat functions [sample, knot]: 1 at their own knot, 0 at the others; rows sum to 1."""
    unit = np.eye(len(knots))
    return np.column_stack([np.interp(values, knots, row) for row in unit])


def design(physical_kw: Floats, drives: Drives, battery_deg_c: Floats) -> Floats:
    """Return physical terms and rest side by side, in kW [sample, column of `COLUMNS`]."""
    state = states(drives, battery_deg_c)
    # A force costs by the way; and a parked car, or what follows a trip's last sample, nothing.
    way = (state["speed_m_s"] / REST_SPEED_M_S)[:, None]
    rest = [hats(state[name], knots) * way for name, knots in KNOTS.items()]
    return np.hstack([physical_kw, *rest])


def fitted(sums: Sums, spread_kw: float) -> Calibration:
    """Find factors and rest together; a spread of 0 leaves physics alone.

    Raises:
        FederationError: FL368, see `calibrate`.
    """
    return calibrate(sums, *_prior(spread_kw))


@dataclass(frozen=True)
class Trip:
    """One trip, ready for many fits.

    Attributes:
        sums: Of its pieces.
        column_kwh: Energy of each column over the trip [column].
        measured_kwh: What it took.
        distance_km: How far it went.
    """

    sums: Sums
    column_kwh: Floats
    measured_kwh: float
    distance_km: float


@dataclass(frozen=True)
class Choice:
    """What was chosen on the training trips alone.

    Attributes:
        spread_kw: Of the rest; 0 is physics alone.
        mae_kwh_per_100km: Error of the training trips, each left out in turn.
    """

    spread_kw: float
    mae_kwh_per_100km: float


def prepared(
    physical_kw: Floats, measured_kw: Floats, drives: Drives, battery_deg_c: Floats
) -> list[Trip]:
    """Return every trip's sums and columns.

    Args:
        physical_kw: See `term_powers` [sample, term].
        measured_kw: Of the interval after each sample [sample].
        drives: The trips.
        battery_deg_c: [sample].
    """
    both = design(physical_kw, drives, battery_deg_c)
    to_kwh = drives.step_s / HOUR_S
    sums = sums_per_trip(both, measured_kw, drives, COLUMNS)
    columns = np.add.reduceat(both, drives.offsets[:-1]) * to_kwh
    energy = drives.sums(measured_kw) * to_kwh
    distance = drives.sums(drives.interval_mean(drives.speed_m_s)) * (drives.step_s / 1000)
    return [
        Trip(sums[i], columns[i], float(energy[i]), float(distance[i])) for i in range(len(drives))
    ]


def chosen(trips: Sequence[Trip], spreads_kw: Sequence[float] = SPREADS_KW) -> Choice:
    """Choose how far the rest may go by leaving out each of these trips in turn.

    Raises:
        FederationError: FL368, fewer than three trips: nothing to leave out.
    """
    if len(trips) < 3:
        raise FederationError(
            Fault("FL368", f"{len(trips)} trips are too few to leave one out", "", "three at least")
        )
    found = [
        Choice(spread, 100 * float(np.mean(np.abs(left_out_kwh_per_km(trips, spread)))))
        for spread in spreads_kw
    ]
    return min(found, key=lambda choice: choice.mae_kwh_per_100km)


def left_out_kwh_per_km(trips: Sequence[Trip], spread_kw: float) -> Floats:
    """Return each trip's error (predicted − measured) per km when the others are the training.

    σ is that of all of these trips; one trip more or less hardly moves it.
    """
    whole = total(trip.sums for trip in trips)
    noise_kwh = fitted(whole, spread_kw).noise_kwh
    centre, sd = _prior(spread_kw)
    errors = []
    for trip in trips:
        xx, xy = whole.xx - trip.sums.xx, whole.xy - trip.sums.xy
        # In units of the prior's spread the equations stay well scaled, also where it is none.
        hessian = xx * np.outer(sd, sd) / noise_kwh**2 + np.eye(len(sd))
        right = (xy - xx @ centre) * sd / noise_kwh**2
        factor = centre + sd * np.linalg.solve(hessian, right)
        errors.append((trip.column_kwh @ factor - trip.measured_kwh) / trip.distance_km)
    return np.array(errors)


def _prior(spread_kw: float) -> tuple[Floats, Floats]:
    """Return β⁰ and s of all columns; a spread of a millionth of a watt is none."""
    rest = len(COLUMNS) - len(TERMS)
    centre = np.concatenate([np.ones(len(TERMS)), np.zeros(rest)])
    physical = [PRIOR_SD[name] for name in TERMS]
    return centre, np.concatenate([physical, np.full(rest, max(spread_kw, 1e-9))])

"""A car's own parameters from its trips, by sums that add up over trips and over cars.

The energy of a piece of driving is linear in factors on the terms of an ordinary car:

    E ≈ Σ_j β_j·E_j,    E_j: mass (inertia and climb in traction), rolling, cold, air,
                        recuperation, base, heating, cooling

where E_j is what that car would need for the term, so that β = 1 is the ordinary car and 1.1 is a
tenth more. β is the least-squares answer with a normal prior around 1 (ridge regression; Hoerl and
Kennard, 1970; as a posterior: Bishop, *Pattern Recognition and Machine Learning*, 3.3):

    β = argmin Σ (E − Σ β_j E_j)² / σ² + Σ ((β_j − β⁰_j) / s_j)²

It needs only X'X, X'y, y'y and n. Sums over cars are the sums of the pooled trips, so a federated
calibration is exact, in one round, and no trip leaves a car. A car of few trips takes the fleet's
β as its prior: a random effect of each car.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.drives import Drives, Floats
from fl_inmetro.ev.dynamics import TYRE_DEG_C, auxiliary_powers, motor_powers, wheel_powers
from fl_inmetro.ev.parameters import BOUNDS, Vehicle
from fl_inmetro.units import HOUR_S

#: The factors of a car, in the order of every array of them.
TERMS = ("mass", "rolling", "cold", "air", "recuperation", "base", "heating", "cooling")

#: How far a car's factor lies from the ordinary one (standard deviation). What the cold does to
#: tyres, oil and cells is known of no car beforehand.
PRIOR_SD = {name: 2.0 if name == "cold" else 0.3 for name in TERMS}

#: Length of a piece. A trip gives many rows, and a second's error of a speed has levelled out.
SEGMENT_S = 120

#: σ² and β depend on each other; from the prior they settle to six digits in a few steps.
_ROUNDS = 20


def term_powers(drives: Drives, vehicle: Vehicle) -> Floats:
    """Return the ordinary car's power of each term, in kW [sample, term]; their sum is its power.

    Measured heating and cooling are taken from `drives` where it has them.
    """
    wheel = wheel_powers(drives, vehicle)
    total = wheel.total_kw
    motor, _ = motor_powers(total, drives.interval_mean(drives.speed_m_s), vehicle)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Electrical for mechanical power while driving; braking is one term for itself.
        gain = np.where(total > 0, motor / total, 0.0)
    cold = vehicle.rolling_per_k * (TYRE_DEG_C - drives.ambient_deg_c)
    warm = wheel.rolling_kw / np.maximum(1.0 + cold, 1e-9)
    base = np.full_like(total, vehicle.base_power_kw)
    base[drives.offsets[1:] - 1] = 0.0
    bare = replace(vehicle, base_power_kw=0.0)
    nothing = np.zeros_like(total)
    heating = auxiliary_powers(replace(drives, cooling_kw=nothing), bare)
    cooling = auxiliary_powers(replace(drives, heating_kw=nothing), bare)
    return np.column_stack(
        [
            (wheel.inertia_kw + wheel.climb_kw) * gain,
            warm * gain,
            (wheel.rolling_kw - warm) * gain,
            wheel.air_kw * gain,
            np.minimum(motor, 0.0),
            base,
            heating,
            cooling,
        ]
    )


def segment_starts(drives: Drives, seconds: float = SEGMENT_S) -> NDArray[np.int64]:
    """Return where each piece begins [piece]; no piece crosses a trip, the last takes the rest."""
    length = max(round(seconds / drives.step_s), 1)
    starts = [
        np.arange(first, max(last - length // 2, first + 1), length)
        for first, last in zip(drives.offsets[:-1], drives.offsets[1:], strict=True)
    ]
    return np.concatenate(starts)


@dataclass(frozen=True)
class Sums:
    """What leaves a car: sums over its pieces of driving.

    Attributes:
        terms: Names of the columns.
        xx: X'X [term, term], kWh².
        xy: X'y [term], kWh².
        yy: y'y, kWh².
        n: Pieces.
    """

    terms: tuple[str, ...]
    xx: Floats
    xy: Floats
    yy: float
    n: int

    def __add__(self, other: Sums) -> Sums:
        """Return the sums of both.

        Raises:
            FederationError: FL368, they are of other terms.
        """
        if self.terms != other.terms:
            raise FederationError(
                Fault(
                    "FL368",
                    f"sums over {', '.join(self.terms)} cannot be added to sums over "
                    f"{', '.join(other.terms)}",
                )
            )
        return Sums(
            self.terms,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
            self.n + other.n,
        )


def sums_of(
    design_kw: Floats,
    measured_kw: Floats,
    drives: Drives,
    terms: tuple[str, ...] = TERMS,
    segment_s: float = SEGMENT_S,
) -> Sums:
    """Return the sums of some trips.

    Args:
        design_kw: Power of each term [sample, term].
        measured_kw: Of the interval after each sample [sample].
        drives: The trips.
        terms: Names of the columns.
        segment_s: Length of a piece.
    """
    starts = segment_starts(drives, segment_s)
    to_kwh = drives.step_s / HOUR_S
    x = np.add.reduceat(design_kw, starts) * to_kwh
    y = np.add.reduceat(measured_kw, starts) * to_kwh
    return Sums(terms, x.T @ x, x.T @ y, float(y @ y), len(starts))


def sums_per_trip(
    design_kw: Floats,
    measured_kw: Floats,
    drives: Drives,
    terms: tuple[str, ...] = TERMS,
    segment_s: float = SEGMENT_S,
) -> list[Sums]:
    """Return the sums of each trip [trip]; leaving one out is then leaving out its sums."""
    found = []
    for trip, (first, last) in enumerate(zip(drives.offsets[:-1], drives.offsets[1:], strict=True)):
        one = drives.only([trip])
        found.append(sums_of(design_kw[first:last], measured_kw[first:last], one, terms, segment_s))
    return found


def total(sums: Iterable[Sums]) -> Sums:
    """Add sums up.

    Raises:
        FederationError: FL368, there are none, or they are of different terms.
    """
    result: Sums | None = None
    for one in sums:
        result = one if result is None else result + one
    if result is None:
        raise FederationError(Fault("FL368", "there are no sums to calibrate a car with"))
    return result


@dataclass(frozen=True)
class Calibration:
    """The factors of a car.

    Attributes:
        terms: Their names.
        factor: β [term].
        covariance: Of β, given σ [term, term].
        noise_kwh: σ, of one piece.
        n: Pieces that it was learned from.
    """

    terms: tuple[str, ...]
    factor: Floats
    covariance: Floats
    noise_kwh: float
    n: int

    @property
    def standard_error(self) -> Floats:
        """Return the standard error of each factor [term]."""
        error: Floats = np.sqrt(np.diag(self.covariance))
        return error

    def interval_kw(self, design_kw: Floats) -> Floats:
        """Return the power of each interval [sample] from the terms' powers [sample, term]."""
        power: Floats = design_kw @ self.factor
        return power

    def vehicle(self, ordinary: Vehicle) -> Vehicle:
        """Return the car whose parameters the factors mean.

        Mass and motor efficiency show only in their ratio: the mass is kept, as it can be weighed,
        and the drive's efficiency takes the factor. What would lie beyond a bound of `BOUNDS` is
        put on it. With an efficiency map the transmission takes the factor.
        """
        by = dict(zip(self.terms, self.factor, strict=True))
        mass = max(by["mass"], 1e-6)
        changed = {
            "rolling_coefficient": ordinary.rolling_coefficient * by["rolling"] / mass,
            "rolling_per_k": ordinary.rolling_per_k * by["cold"] / max(by["rolling"], 1e-6),
            "drag_coefficient": ordinary.drag_coefficient * by["air"] / mass,
            "transmission_efficiency": ordinary.transmission_efficiency / mass,
            "regeneration_share": ordinary.regeneration_share * by["recuperation"] * mass,
            "base_power_kw": ordinary.base_power_kw * by["base"],
            "heating_kw_per_k": ordinary.heating_kw_per_k * by["heating"],
            "cooling_kw_per_k": ordinary.cooling_kw_per_k * by["cooling"],
        }
        bounded: dict[str, Any] = {
            name: float(np.clip(value, *BOUNDS[name])) for name, value in changed.items()
        }
        return replace(ordinary, name=f"{ordinary.name}, calibrated", **bounded)


def calibrate(
    sums: Sums,
    prior: Sequence[float] | Floats | None = None,
    prior_sd: Sequence[float] | Floats | None = None,
) -> Calibration:
    """Find a car's factors from its sums.

    Args:
        sums: Of one car, or of all.
        prior: β⁰ [term]; None for the ordinary car, all 1.
        prior_sd: s [term]; None for `PRIOR_SD`.

    Raises:
        FederationError: FL368, no piece of driving, or a prior that is none.
    """
    k = len(sums.terms)
    centre = np.ones(k) if prior is None else np.asarray(prior, dtype=np.float64)
    sd = np.array([PRIOR_SD[name] for name in sums.terms]) if prior_sd is None else prior_sd
    spread = np.asarray(sd, dtype=np.float64)
    if sums.n < 1 or centre.shape != (k,) or spread.shape != (k,) or not np.all(spread > 0):
        raise FederationError(
            Fault(
                "FL368",
                f"{sums.n} pieces of driving, {len(centre)} priors and {len(spread)} spreads for "
                f"{k} terms, or a spread that is not above 0",
            )
        )
    # The unknowns are deviations in units of their spread: well scaled also where one is tiny.
    xx = sums.xx * np.outer(spread, spread)
    xy = (sums.xy - sums.xx @ centre) * spread
    factor = centre
    variance = _residual_variance(sums, factor)
    for _ in range(_ROUNDS):
        factor = centre + spread * np.linalg.solve(xx / variance + np.eye(k), xy / variance)
        before, variance = variance, _residual_variance(sums, factor)
        if abs(variance - before) <= 1e-9 * before:
            break
    covariance = np.linalg.inv(xx / variance + np.eye(k)) * np.outer(spread, spread)
    return Calibration(sums.terms, factor, covariance, float(np.sqrt(variance)), sums.n)


def _residual_variance(sums: Sums, factor: Floats) -> float:
    squares = float(sums.yy - 2 * factor @ sums.xy + factor @ sums.xx @ factor)
    # A perfect fit has no noise; the floor (1 Wh per piece, what a meter tells apart) keeps it a
    # well-posed problem.
    return max(squares / sums.n, 1e-6)

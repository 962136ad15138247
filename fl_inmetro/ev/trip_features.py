"""Features of whole trips, of two kinds that are kept apart: of the drive, and known before it.

`drive_features` describes a drive that has happened: its speeds, stops, hills, temperatures, what
heater and air conditioning drew, and what an ordinary car would have needed for each physical term.
`features_before` knows where the trip goes, how long it is expected to take, and the weather at the
start. Neither sees a sensor of the battery (voltage, current, state of charge) or of the motor,
because neither is given any: both read `Drives`. The one exception is the battery's temperature
before the trip, which is an option of the second kind and then stands among its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_inmetro.errors import DataError, Fault, FederationError
from fl_inmetro.ev.calibration import TERMS, term_powers
from fl_inmetro.ev.drives import Drives, Floats
from fl_inmetro.ev.dynamics import GRAVITY_M_S2, TYRE_DEG_C, air_density_kg_m3
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.units import HOUR_S

Kind = Literal["drive", "before"]

#: Below this a car stands; sensors say a little more than nothing at rest.
STANDING_M_S = 1 / 3.6

#: What an ordinary car's cabin takes longer than this to become warm; then holding it is cheaper.
WARM_UP_H = 0.25

_J_PER_KWH = 3.6e6

#: Of a drive. The last eight are kWh of an ordinary car by cause, see `calibration.term_powers`.
DRIVE_NAMES = (
    "distance_km",
    "duration_h",
    "moving_h",
    "mean_speed_km_h",
    "mean_moving_speed_km_h",
    "max_speed_km_h",
    "speed_sd_km_h",
    "stops",
    "standing_share",
    "mean_acceleration_m_s2",
    "acceleration_sd_m_s2",
    "relative_positive_acceleration_m_s2",
    "ascent_m",
    "descent_m",
    "ambient_mean_deg_c",
    "ambient_start_deg_c",
    "heater_kwh",
    "air_conditioning_kwh",
    *(f"{term}_kwh" for term in TERMS),
)

#: Known before. Those in kWh are what an ordinary car is expected to need.
BEFORE_NAMES = (
    "distance_km",
    "duration_h",
    "mean_speed_km_h",
    "ambient_start_deg_c",
    "heating_degree_k",
    "cooling_degree_k",
    "net_climb_m",
    "rolling_kwh",
    "cold_kwh",
    "air_kwh",
    "climb_kwh",
    "base_kwh",
    "heating_kwh",
    "warm_up_kwh",
    "cooling_kwh",
)

#: Beside them where the battery's temperature at the start is told.
BATTERY_NAMES = ("battery_start_deg_c", "cold_battery_kwh")


@dataclass(frozen=True)
class Features:
    """Features of some trips.

    Attributes:
        kind: Of the drive, or known before it.
        names: With units.
        values: [trip, feature].
    """

    kind: Kind
    names: tuple[str, ...]
    values: Floats

    def columns(self, names: Sequence[str]) -> Floats:
        """Return some of the features [trip, name].

        Raises:
            FederationError: FL372, trips of this kind have no such feature.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise FederationError(
                Fault(
                    "FL372",
                    f"features of the kind `{self.kind}` have no "
                    f"{', '.join(f'`{name}`' for name in unknown)}",
                    "",
                    f"they have {', '.join(self.names)}",
                )
            )
        return self.values[:, [self.names.index(name) for name in names]]


def drive_features(drives: Drives, ordinary: Vehicle | None = None) -> Features:
    """Return what is known of drives that have happened; `DRIVE_NAMES` [trip, feature].

    `relative_positive_acceleration` is ∫ v·a⁺ dt over the distance (as in the European RDE rules,
    Regulation (EU) 2016/427, appendix 7a). Heater and air conditioning that nobody measured count
    as none there; the terms `heating` and `cooling` then go by the weather.

    Args:
        drives: The trips.
        ordinary: The car of the physical terms; the default one where None.
    """
    lengths = np.diff(drives.offsets)
    hours = (lengths - 1) * (drives.step_s / HOUR_S)
    speed = drives.interval_mean(drives.speed_m_s)
    change = drives.interval_change(drives.speed_m_s) / drives.step_s
    inside = np.ones(len(speed))
    inside[drives.offsets[1:] - 1] = 0.0
    distance_m = drives.sums(speed) * drives.step_s
    if np.any(distance_m <= 0):
        at = int(np.argmin(distance_m))
        raise DataError(Fault("FL224", "a trip that goes nowhere has no features", f"trip {at}"))

    def per_interval(values: Floats) -> Floats:
        mean: Floats = drives.sums(values * inside) / (lengths - 1)
        return mean

    def spread(values: Floats) -> Floats:
        return np.sqrt(np.maximum(per_interval(values**2) - per_interval(values) ** 2, 0.0))

    moves = drives.speed_m_s >= STANDING_M_S
    halts = np.zeros(len(speed))
    halts[1:] = moves[:-1] & ~moves[1:]
    halts[drives.offsets[:-1]] = 0.0
    moving = (speed >= STANDING_M_S) * inside
    moving_h = drives.sums(moving) * (drives.step_s / HOUR_S)
    climb_m = drives.climb_m_s * drives.step_s * inside
    to_kwh = drives.step_s / HOUR_S
    nothing = np.zeros(len(speed))
    heater = nothing if drives.heating_kw is None else drives.heating_kw
    cooler = nothing if drives.cooling_kw is None else drives.cooling_kw
    terms = np.add.reduceat(term_powers(drives, ordinary or Vehicle()), drives.offsets[:-1])
    km = distance_m / 1000
    columns = [
        km,
        hours,
        moving_h,
        km / hours,
        # A crawl that never reaches a walking pace moves all the time.
        np.where(moving_h > 0, drives.sums(speed * moving) * to_kwh * 3.6, km)
        / np.where(moving_h > 0, moving_h, hours),
        np.maximum.reduceat(drives.speed_m_s, drives.offsets[:-1]) * 3.6,
        spread(speed) * 3.6,
        drives.sums(halts),
        1 - moving_h / hours,
        per_interval(np.maximum(change, 0.0)),
        spread(change),
        drives.sums(speed * np.maximum(change, 0.0)) * drives.step_s / distance_m,
        drives.sums(np.maximum(climb_m, 0.0)),
        drives.sums(np.maximum(-climb_m, 0.0)),
        drives.sums(drives.ambient_deg_c) / lengths,
        drives.ambient_deg_c[drives.offsets[:-1]],
        drives.sums(heater * inside) * to_kwh,
        drives.sums(cooler * inside) * to_kwh,
        *(terms * to_kwh).T,
    ]
    return Features("drive", DRIVE_NAMES, np.column_stack(columns))


@dataclass(frozen=True)
class Plan:
    """What is known of trips before they begin [trip].

    Attributes:
        distance_km: Of the way.
        duration_h: Expected.
        ambient_deg_c: At the start.
        net_climb_m: Height of the end over that of the start.
        battery_deg_c: At the start, or None where it may not be known.
    """

    distance_km: Floats
    duration_h: Floats
    ambient_deg_c: Floats
    net_climb_m: Floats
    battery_deg_c: Floats | None = None

    def __post_init__(self) -> None:
        known = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in known.items():
            if value.shape != self.distance_km.shape or not np.all(np.isfinite(value)):
                raise DataError(Fault("FL224", "a trip's value is missing", name))
        for name in ("distance_km", "duration_h"):
            if np.any(known[name] <= 0):
                raise DataError(Fault("FL224", "a trip of no length or no time", name))


def planned(drives: Drives, battery_deg_c: Floats | None = None) -> Plan:
    """Return what one would have known of trips that have happened.

    Way and duration are those that came about: a navigator's estimate is not in the data, and is a
    little worse. The temperature is the car's own at the first sample, not the trip's mean.

    Args:
        drives: The trips.
        battery_deg_c: [sample]; only each trip's first is read.
    """
    first = drives.offsets[:-1]
    return Plan(
        drives.sums(drives.interval_mean(drives.speed_m_s)) * (drives.step_s / 1000),
        (np.diff(drives.offsets) - 1) * (drives.step_s / HOUR_S),
        drives.ambient_deg_c[first],
        # What follows a trip's last sample counts nothing.
        np.add.reduceat(drives.climb_m_s, first) * drives.step_s
        - drives.climb_m_s[drives.offsets[1:] - 1] * drives.step_s,
        None if battery_deg_c is None else battery_deg_c[first],
    )


def features_before(plan: Plan, ordinary: Vehicle | None = None) -> Features:
    """Return what is known before trips, [trip, feature] in the order of `BEFORE_NAMES`.

    With K the degrees below (or above) the comfort band, h the hours and v̄ the mean speed:

        rolling = M·g·f·km / η    cold = rolling·k·(20 °C − T)⁺   air = ½·ρ(T)·C_d·A·v̄²·km / η
        climb = M·g·Δh / η        base = P_base·h                 cooling = P_K·K·h
        heating = P_K·K·h         warm_up = P_K·K·τ·(1 − exp(−h/τ)),   τ = 15 min

    η is that of the transmission and of the motor at a fifth of its load. Heat that holds a cabin
    warm grows with the hours, heat that warms it up does not: the two columns share what is
    measured. v̄² is less than the mean of v², so a car's factor on `air` lies above 1.
    `cold_battery` is the ordinary rolling energy for each 10 K of a battery below 20 °C.

    Args:
        plan: The trips.
        ordinary: The car of the expected energies; the default one where None.
    """
    car = ordinary or Vehicle()
    motor = car.motor_efficiency
    if car.motor_map is not None:
        motor = float(car.motor_map.at(np.array([0.2]))[0])
    efficiency = car.transmission_efficiency * motor
    km, hours, ambient = plan.distance_km, plan.duration_h, plan.ambient_deg_c
    speed_m_s = km / hours / 3.6
    weight_n = car.total_mass_kg * GRAVITY_M_S2
    rolling = weight_n * car.rolling_coefficient * km * 1e3 / _J_PER_KWH / efficiency
    area = car.drag_coefficient * car.frontal_area_m2
    drag_n = 0.5 * air_density_kg_m3(ambient) * area * speed_m_s**2
    below = np.maximum(car.comfort_low_deg_c - ambient, 0.0)
    above = np.maximum(ambient - car.comfort_high_deg_c, 0.0)
    heating_kw = np.minimum(car.heating_kw_per_k * below, car.hvac_power_kw)
    columns = [
        km,
        hours,
        km / hours,
        ambient,
        below,
        above,
        plan.net_climb_m,
        rolling,
        rolling * car.rolling_per_k * np.maximum(TYRE_DEG_C - ambient, 0.0),
        drag_n * km * 1e3 / _J_PER_KWH / efficiency,
        weight_n * plan.net_climb_m / _J_PER_KWH / efficiency,
        car.base_power_kw * hours,
        heating_kw * hours,
        heating_kw * WARM_UP_H * (1 - np.exp(-hours / WARM_UP_H)),
        np.minimum(car.cooling_kw_per_k * above, car.hvac_power_kw) * hours,
    ]
    names: tuple[str, ...] = BEFORE_NAMES
    if plan.battery_deg_c is not None:
        names += BATTERY_NAMES
        cold = np.maximum(TYRE_DEG_C - plan.battery_deg_c, 0.0) / 10
        columns += [plan.battery_deg_c, rolling * cold]
    return Features("before", names, np.column_stack(columns))

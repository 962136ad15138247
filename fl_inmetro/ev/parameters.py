"""The parameters of an electric car, with their units, and the public cars they are known of."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EfficiencyMap:
    """Efficiency of a motor with its inverter by load; straight lines between the points.

    Attributes:
        load_share: |Mechanical power| over the rated one, ascending from 0 to 1.
        efficiency: Mechanical over electrical power when driving (and the other way round when
            braking), each in (0, 1].
    """

    load_share: tuple[float, ...]
    efficiency: tuple[float, ...]

    def at(self, load_share: Floats) -> Floats:
        """Return the efficiency at loads of any shape; a load beyond 1 has that of 1."""
        return np.interp(load_share, self.load_share, self.efficiency)


#: A permanent-magnet motor with inverter of about 2020: the curve of FASTSim's own battery cars
#: (NREL/fastsim, Apache-2.0, `mc_eff_map` of its vehicle table).
MODERN_MOTOR = EfficiencyMap(
    (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
    (0.84, 0.86, 0.88, 0.9, 0.91, 0.92, 0.94, 0.95, 0.95, 0.94, 0.93),
)


@dataclass(frozen=True)
class Vehicle:
    """One electric car: what its energy depends on.

    The defaults are the medians of the FASTSim table's twenty battery cars, where the table has the
    parameter (with a payload of 136 kg inside the median mass of 1755 kg). `rolling_per_k` is K₀ of
    UN GTR 15 (WLTP), annex 4. Recuperation fades as FASTSim's does (half at 5.3 mph). Comfort
    band and power per kelvin are an ordinary cabin's: round numbers, to be calibrated.

    Attributes:
        name: What it is called.
        mass_kg: Without payload.
        payload_kg: Driver, passengers and goods, where a trip does not say its own.
        rotating_mass_factor: δ of δ·M·a, for wheels and rotor; 1 without.
        drag_coefficient: C_d.
        frontal_area_m2: A.
        rolling_coefficient: f at 20 °C.
        rolling_per_k: Relative growth of f for each kelvin below 20 °C (negative above).
        transmission_efficiency: Motor shaft to wheel, and back.
        motor_power_kw: Rated; scales the load of `motor_map` and bounds recuperation.
        motor_efficiency: Used where there is no map.
        motor_map: Efficiency by load, or None.
        regeneration_share: Share of the braking power at the wheels that the motor takes; the
            friction brakes take the rest.
        regeneration_speed_m_s: Below half of this speed nothing is recuperated, above one and a
            half of it all that the share allows; a straight line between.
        regeneration_power_kw: Most that is recuperated, at the motor's terminals.
        base_power_kw: Auxiliaries that are always on.
        comfort_low_deg_c: Ambient temperature below which the cabin is heated.
        comfort_high_deg_c: Above which it is cooled.
        heating_kw_per_k: Electrical power for each kelvin below the band.
        cooling_kw_per_k: For each kelvin above it.
        hvac_power_kw: Most that heating or cooling draws.
        battery_kwh: Gross capacity.
        round_trip_efficiency: Of the battery; each way has its root. Used where `resistance_ohm`
            is 0.
        resistance_ohm: Internal resistance R of the pack; the loss is I²R.
        open_circuit_voltage_v: Of the pack, for I²R.
    """

    name: str = "mid-size"
    mass_kg: float = 1619.0
    payload_kg: float = 136.0
    rotating_mass_factor: float = 1.0165
    drag_coefficient: float = 0.315
    frontal_area_m2: float = 2.526
    rolling_coefficient: float = 0.0079
    rolling_per_k: float = 0.0086
    transmission_efficiency: float = 0.98
    motor_power_kw: float = 150.0
    motor_efficiency: float = 0.92
    motor_map: EfficiencyMap | None = MODERN_MOTOR
    regeneration_share: float = 0.98
    regeneration_speed_m_s: float = 2.4
    regeneration_power_kw: float = 150.0
    base_power_kw: float = 0.25
    comfort_low_deg_c: float = 18.0
    comfort_high_deg_c: float = 24.0
    heating_kw_per_k: float = 0.1
    cooling_kw_per_k: float = 0.1
    hvac_power_kw: float = 6.0
    battery_kwh: float = 60.0
    round_trip_efficiency: float = 0.97
    resistance_ohm: float = 0.0
    open_circuit_voltage_v: float = 360.0

    def __post_init__(self) -> None:
        if faults := _faults(self):
            raise FederationError(faults)

    @property
    def total_mass_kg(self) -> float:
        """Mass with the usual payload."""
        return self.mass_kg + self.payload_kg


#: Smallest and largest value of each number; anything outside is a slip of the pen or of the unit.
BOUNDS: dict[str, tuple[float, float]] = {
    "mass_kg": (50, 60_000),
    "payload_kg": (0, 40_000),
    "rotating_mass_factor": (1, 1.5),
    "drag_coefficient": (0, 2),
    "frontal_area_m2": (0, 15),
    "rolling_coefficient": (0, 0.1),
    "rolling_per_k": (0, 0.05),
    "transmission_efficiency": (0.3, 1),
    "motor_power_kw": (0.5, 2000),
    "motor_efficiency": (0.3, 1),
    "regeneration_share": (0, 1),
    "regeneration_speed_m_s": (0, 20),
    "regeneration_power_kw": (0, 2000),
    "base_power_kw": (0, 50),
    "comfort_low_deg_c": (-20, 40),
    "comfort_high_deg_c": (-20, 60),
    "heating_kw_per_k": (0, 5),
    "cooling_kw_per_k": (0, 5),
    "hvac_power_kw": (0, 100),
    "battery_kwh": (0.1, 2000),
    "round_trip_efficiency": (0.3, 1),
    "resistance_ohm": (0, 10),
    "open_circuit_voltage_v": (12, 1500),
}


def _faults(vehicle: Vehicle) -> list[Fault]:
    found = []
    for name, (low, high) in BOUNDS.items():
        value = getattr(vehicle, name)
        if not (math.isfinite(value) and low <= value <= high):
            found.append(
                Fault(
                    "FL367",
                    f"{name} = {value:g} is no value of a car: {low:g} to {high:g}",
                    f"vehicle `{vehicle.name}`",
                    "the unit stands at the end of the name",
                )
            )
    if not vehicle.comfort_low_deg_c <= vehicle.comfort_high_deg_c:
        found.append(
            Fault(
                "FL367",
                "the comfort band ends before it begins",
                f"vehicle `{vehicle.name}`",
                "comfort_low_deg_c is the lower of the two",
            )
        )
    if vehicle.motor_map is not None and (why := _map_fault(vehicle.motor_map)):
        found.append(
            Fault(
                "FL367",
                f"the efficiency map {why}",
                f"vehicle `{vehicle.name}`",
                "see MODERN_MOTOR",
            )
        )
    return found


def _map_fault(curve: EfficiencyMap) -> str:
    load, efficiency = np.array(curve.load_share), np.array(curve.efficiency)
    if load.shape != efficiency.shape or load.size < 2:
        return "has not one efficiency for each load, of two at least"
    if not (load[0] == 0 and load[-1] == 1 and np.all(np.diff(load) > 0)):
        return "has loads that do not rise from 0 to 1"
    if not np.all((efficiency > 0) & (efficiency <= 1)):
        return "has efficiencies outside (0, 1]"
    return ""


@dataclass(frozen=True)
class PublicCar:
    """A car of the public table.

    Attributes:
        vehicle: Its parameters; `payload_kg` is 0 where the table gives one mass for all.
        rated_kwh_per_mile: City, highway and both, as on the window sticker (from the socket, with
            charging losses and the adjustment to real driving); None where the table has none.
    """

    vehicle: Vehicle
    rated_kwh_per_mile: tuple[float, float, float] | None


@cache
def public_cars() -> dict[str, PublicCar]:
    """Return FASTSim's battery cars by name (NREL/fastsim, Apache-2.0; see `cars.toml`)."""
    text = files("fl_inmetro.ev").joinpath("cars.toml").read_text(encoding="utf-8")
    known = {field.name for field in fields(Vehicle)}
    cars = {}
    for row in tomllib.loads(text)["car"]:
        values = {key: value for key, value in row.items() if key in known}
        # The motor brakes with no more than it drives with.
        vehicle = Vehicle(**values, regeneration_power_kw=row["motor_power_kw"])
        rated = (
            (
                row["rated_city_kwh_per_mile"],
                row["rated_highway_kwh_per_mile"],
                row["rated_kwh_per_mile"],
            )
            if "rated_kwh_per_mile" in row
            else None
        )
        cars[row["name"]] = PublicCar(vehicle, rated)
    return cars


def public_car(name: str) -> Vehicle:
    """Return one car of the public table.

    Raises:
        FederationError: FL367, there is no such car.
    """
    cars = public_cars()
    if name not in cars:
        raise FederationError(
            Fault("FL367", f"there is no car `{name}` in the public table", "", ", ".join(cars))
        )
    return cars[name].vehicle

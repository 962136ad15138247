"""Longitudinal vehicle dynamics: the power that a drive takes from the battery.

    F = δ·M·a + M·g·sin α + M·g·f·cos α + ½·ρ·C_d·A·(v + w)·|v + w|
    P_terminal = F·v / (η_transmission·η_motor)  + auxiliaries   where F·v ≥ 0
               = F·v · η_transmission·η_motor·r  + auxiliaries   where F·v < 0

with w the headwind and r the share that is recuperated. Guzzella and Sciarretta, *Vehicle
Propulsion Systems* (3rd ed., 2013), chapter 2, have the forces; FASTSim (Brooker et al., SAE
2015-01-0973) the chain behind them. All arrays are [sample], see `Drives`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.drives import Drives, Floats
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.units import HOUR_S

GRAVITY_M_S2 = 9.80665

#: Specific gas constant of dry air, and the standard atmosphere at sea level.
AIR_J_PER_KG_K = 287.05
SEA_LEVEL_PA = 101_325.0

ZERO_DEG_C_K = 273.15

#: Where the rolling coefficient is the car's own.
TYRE_DEG_C = 20.0


@dataclass(frozen=True)
class WheelPowers:
    """Where the power at the wheels goes, in kW [sample]; the sum of the four is F·v.

    Attributes:
        inertia_kw: δ·M·a·v: what accelerates (negative when slowing down).
        climb_kw: M·g·v·sin α.
        rolling_kw: M·g·f·v·cos α.
        air_kw: Drag.
    """

    inertia_kw: Floats
    climb_kw: Floats
    rolling_kw: Floats
    air_kw: Floats

    @property
    def total_kw(self) -> Floats:
        """F·v."""
        total: Floats = self.inertia_kw + self.climb_kw + self.rolling_kw + self.air_kw
        return total


@dataclass(frozen=True)
class Powers:
    """The chain from the wheels to the battery's chemistry, in kW [sample].

    Attributes:
        wheel_kw: F·v.
        motor_kw: At the motor's terminals; negative: recuperated.
        friction_kw: What the friction brakes turn into heat, ≥ 0.
        auxiliary_kw: Base, heating and cooling.
        terminal_kw: At the battery's terminals, discharging positive: motor + auxiliaries. This is
            what a car measures as V·I.
        battery_kw: With the battery's own loss: what its chemistry gives.
    """

    wheel_kw: Floats
    motor_kw: Floats
    friction_kw: Floats
    auxiliary_kw: Floats
    terminal_kw: Floats
    battery_kw: Floats


@dataclass(frozen=True)
class TripEnergies:
    """Energies of each trip [trip].

    Attributes:
        distance_km: ∫ v dt.
        terminal_kwh: From the terminals, recuperation subtracted.
        battery_kwh: From the chemistry.
        auxiliary_kwh: Of it, base, heating and cooling.
        recuperated_kwh: What the motor gave back.
        friction_kwh: What the friction brakes took.
    """

    distance_km: Floats
    terminal_kwh: Floats
    battery_kwh: Floats
    auxiliary_kwh: Floats
    recuperated_kwh: Floats
    friction_kwh: Floats

    @property
    def terminal_kwh_per_100km(self) -> Floats:
        """Consumption [trip]; not a number for a trip that goes nowhere."""
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = 100 * self.terminal_kwh / self.distance_km
        return np.where(self.distance_km > 0, rate, np.nan)


def air_density_kg_m3(ambient_deg_c: Floats, pressure_pa: Floats | float = SEA_LEVEL_PA) -> Floats:
    """Return ρ = p / (R·T) of dry air; any shape.

    >>> float(np.round(air_density_kg_m3(np.array([15.0])), 3)[0])
    1.225
    """
    density: Floats = pressure_pa / (AIR_J_PER_KG_K * (ambient_deg_c + ZERO_DEG_C_K))
    return density


def wheel_powers(drives: Drives, vehicle: Vehicle) -> WheelPowers:
    """Return the powers at the wheels over each interval.

    Speed is a straight line between samples, so the kinetic term is exactly the change of
    ½·δ·M·v²; the others take the interval's mean speed.
    """
    speed = drives.interval_mean(drives.speed_m_s)
    payload = (
        vehicle.payload_kg
        if drives.payload_kg is None
        else np.repeat(drives.payload_kg, np.diff(drives.offsets))
    )
    mass = (vehicle.mass_kg + payload) * 1e-3  # t, so that every power comes out in kW
    inertia = drives.interval_change(drives.speed_m_s)
    inertia *= speed
    inertia *= mass * (vehicle.rotating_mass_factor / drives.step_s)
    weight = mass * GRAVITY_M_S2
    # v cos α = √(v² − climb²); noise of a height at walking pace must not make it imaginary.
    level = np.sqrt(np.maximum(speed**2 - drives.climb_m_s**2, 0.0))
    cold = 1.0 + vehicle.rolling_per_k * (TYRE_DEG_C - drives.ambient_deg_c)
    rolling = weight * vehicle.rolling_coefficient * np.maximum(cold, 0.0) * level
    pressure = SEA_LEVEL_PA if drives.pressure_pa is None else drives.pressure_pa
    density = air_density_kg_m3(drives.ambient_deg_c, pressure)
    through_air = speed if drives.wind_m_s is None else speed + drives.wind_m_s
    shape = 0.5e-3 * vehicle.drag_coefficient * vehicle.frontal_area_m2
    air = shape * density * through_air * np.abs(through_air) * speed
    climb = weight * drives.climb_m_s * (speed > 0)  # a parked car does not climb
    climb[drives.offsets[1:] - 1] = 0.0
    return WheelPowers(inertia, climb, rolling, air)


def motor_powers(wheel_kw: Floats, speed_m_s: Floats, vehicle: Vehicle) -> tuple[Floats, Floats]:
    """Return the powers at the motor's terminals and in the friction brakes, in kW.

    Args:
        wheel_kw: F·v [sample].
        speed_m_s: Mean speed of the interval [sample].
        vehicle: The car.
    """
    driving = np.maximum(wheel_kw, 0.0)
    braking = np.maximum(-wheel_kw, 0.0)
    shaft = driving / vehicle.transmission_efficiency
    taken = braking * (vehicle.regeneration_share * vehicle.transmission_efficiency)
    taken *= regeneration_fade(speed_m_s, vehicle)
    if vehicle.motor_map is None:
        efficiency: Floats | float = vehicle.motor_efficiency
    else:
        efficiency = vehicle.motor_map.at((shaft + taken) / vehicle.motor_power_kw)
    given = np.minimum(taken * efficiency, vehicle.regeneration_power_kw)
    motor = shaft / efficiency - given
    # What the motor took at its shaft for what it gave; the rest of the braking is friction.
    friction = braking - given / (efficiency * vehicle.transmission_efficiency)
    return motor, np.maximum(friction, 0.0)


def regeneration_fade(speed_m_s: Floats, vehicle: Vehicle) -> Floats:
    """Return the share of recuperation that is left at low speed, 0 to 1."""
    middle = vehicle.regeneration_speed_m_s
    if middle == 0:
        return np.ones_like(speed_m_s)
    return np.clip(speed_m_s / middle - 0.5, 0.0, 1.0)


def auxiliary_powers(drives: Drives, vehicle: Vehicle) -> Floats:
    """Return what base load, heating and cooling draw, in kW; measured ones where known."""
    heating, cooling = drives.heating_kw, drives.cooling_kw
    if heating is None:
        missing = np.maximum(vehicle.comfort_low_deg_c - drives.ambient_deg_c, 0.0)
        heating = np.minimum(vehicle.heating_kw_per_k * missing, vehicle.hvac_power_kw)
    if cooling is None:
        excess = np.maximum(drives.ambient_deg_c - vehicle.comfort_high_deg_c, 0.0)
        cooling = np.minimum(vehicle.cooling_kw_per_k * excess, vehicle.hvac_power_kw)
    total: Floats = vehicle.base_power_kw + heating + cooling
    total[drives.offsets[1:] - 1] = 0.0
    return total


def battery_powers(terminal_kw: Floats, vehicle: Vehicle) -> Floats:
    """Return what the battery's chemistry gives for a power at its terminals, in kW.

    With a resistance: V·I where V·I − I²·R is the power at the terminals. Without: the root of the
    round-trip efficiency each way.

    Raises:
        FederationError: FL367, more is asked than V²/4R, the most that such a battery can give.
    """
    if vehicle.resistance_ohm == 0:
        one_way = math.sqrt(vehicle.round_trip_efficiency)
        return terminal_kw * np.where(terminal_kw > 0, 1 / one_way, one_way)
    voltage, resistance = vehicle.open_circuit_voltage_v, vehicle.resistance_ohm
    inside = voltage**2 - 4 * resistance * terminal_kw * 1e3
    if len(inside) and inside.min() < 0:
        raise FederationError(
            Fault(
                "FL367",
                f"the drive asks for {terminal_kw.max():.0f} kW, the battery can give "
                f"{voltage**2 / (4 * resistance) * 1e-3:.0f} kW at most",
                f"vehicle `{vehicle.name}`",
                "lower resistance_ohm, or raise open_circuit_voltage_v",
            )
        )
    # The root that vanishes with the power, written without a difference of near equals.
    current = 2e3 * terminal_kw / (voltage + np.sqrt(inside))
    chemistry: Floats = voltage * current * 1e-3
    return chemistry


def powers(drives: Drives, vehicle: Vehicle) -> Powers:
    """Return the powers of every interval, from the wheels to the battery.

    Raises:
        FederationError: FL367, see `battery_powers`.
    """
    wheel = wheel_powers(drives, vehicle).total_kw
    motor, friction = motor_powers(wheel, drives.interval_mean(drives.speed_m_s), vehicle)
    auxiliary = auxiliary_powers(drives, vehicle)
    terminal = motor + auxiliary
    return Powers(wheel, motor, friction, auxiliary, terminal, battery_powers(terminal, vehicle))


def trip_energies(drives: Drives, vehicle: Vehicle) -> TripEnergies:
    """Return the energies of each trip.

    Raises:
        FederationError: FL367, see `battery_powers`.
    """
    power = powers(drives, vehicle)
    to_kwh = drives.step_s / HOUR_S
    return TripEnergies(
        drives.sums(drives.interval_mean(drives.speed_m_s)) * (drives.step_s / 1000),
        drives.sums(power.terminal_kw) * to_kwh,
        drives.sums(power.battery_kw) * to_kwh,
        drives.sums(power.auxiliary_kw) * to_kwh,
        drives.sums(np.maximum(-power.motor_kw, 0.0)) * to_kwh,
        drives.sums(power.friction_kw) * to_kwh,
    )

"""A simulated fleet: trips of cars that nobody built, with exact energy and imperfect sensors.

Each car is a public car with parameters of its own; each trip has speeds, hills, weather, payload
and wind. The truth is the physics of `dynamics` with the car's *own* parameters and with effects
that no term of the calibration has: a drive train and tyres that are cold at first, wet roads, a
heater that works hardest in the first minutes, and cells that take less recuperation when they are
cold or old.
What a model is given has passed sensors with errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.drives import Drives, Floats, climb_from_height
from fl_inmetro.ev.dynamics import auxiliary_powers, motor_powers, wheel_powers
from fl_inmetro.ev.parameters import Vehicle, public_cars
from fl_inmetro.ev.speed_traces import generated_speed
from fl_inmetro.ev.trips import Trips

#: Real drives of a car, at least.
FEWEST_DRIVES = 8

#: What cells take: kW for each kWh of capacity at 20 °C; nothing below the coldest, a share less
#: for each year.
CHARGE_RATE, COLDEST_DEG_C, LESS_A_YEAR = 0.7, -15.0, 0.04

#: Climate, °C: mean of the year, half the span of its months and of a day, and of the weather.
CLIMATE = {"mean": 11.0, "seasons": 10.0, "day": 3.5, "weather": 3.0}


@dataclass(frozen=True)
class Effects:
    """What the truth has and the calibrated physics has not; 0 or None switches each off.

    Attributes:
        cold_start: Growth of rolling resistance of a cold drive train at 0 °C, relative.
        warm_up_s: In which it falls to 1/e.
        wet: Growth of rolling resistance on wet roads, relative.
        cabin: How many times its steady power the heater draws when a drive begins.
        cabin_s: In which that falls to 1/e.
        ageing: Whether cold and old cells take less recuperation.
        sensors: Whether speed, temperature, height and power have errors.
    """

    cold_start: float = 0.35
    warm_up_s: float = 600.0
    wet: float = 0.18
    cabin: float = 1.8
    cabin_s: float = 300.0
    ageing: bool = True
    sensors: bool = True


#: The truth is the physics, and sensors are perfect.
NO_EFFECTS = Effects(0.0, 600.0, 0.0, 1.0, 300.0, ageing=False, sensors=False)


@dataclass(frozen=True)
class SimulatedCar:
    """A car and its trips.

    Attributes:
        vehicle: Its own parameters.
        age_years: Of its battery.
        trips: As its sensors have them.
        exact_kwh: Energy at the terminals, without sensors [trip].
    """

    vehicle: Vehicle
    age_years: float
    trips: Trips
    exact_kwh: Floats


def fleet(
    cars: int,
    trips: int,
    seed: int = 0,
    traces: Mapping[str, Sequence[Floats]] | None = None,
    effects: Effects | None = None,
) -> dict[str, SimulatedCar]:
    """Return cars by name; a car does not depend on how many others there are.

    Args:
        cars: So many.
        trips: Of each; with real drives at most.
        seed: Root of all draws.
        traces: Real drives by driver (`speed_traces.read_traces`), m/s [second], which are dealt to
            the cars (`dealt`): no drive is driven twice. None to make speeds up.
        effects: What the physics does not know; None for all of them.

    Raises:
        DataError: FL224, too few drives for so many cars.
    """
    drives = dealt(traces, cars) if traces else [None] * cars
    return {
        f"car {number + 1:02d}": _car(number, trips, seed, drives[number], effects or Effects())
        for number in range(cars)
    }


def dealt(traces: Mapping[str, Sequence[Floats]], cars: int) -> list[list[Floats]]:
    """Deal drivers' drives to cars, each drive to one car and each car those of one driver.

    Cars go to the drivers who have most drives left for each car; the drives of a driver with two
    cars go to them in turn.

    Raises:
        DataError: FL224, a car would have fewer than `FEWEST_DRIVES`.
    """
    names = sorted(traces, key=lambda name: (-len(traces[name]), name))
    share = dict.fromkeys(names, 0)
    for _ in range(cars):
        most = max(names, key=lambda name: len(traces[name]) / (share[name] + 1))
        share[most] += 1
    result = [
        list(traces[name][first :: share[name]]) for name in names for first in range(share[name])
    ]
    fewest = min((len(drives) for drives in result), default=0)
    if fewest < FEWEST_DRIVES:
        total = sum(len(drives) for drives in traces.values())
        raise DataError(
            Fault(
                "FL224",
                f"{total} drives of {len(names)} drivers are too few for {cars} cars",
                "",
                f"each needs {FEWEST_DRIVES} at least; ask for fewer cars",
            )
        )
    return result


def own_vehicle(rng: np.random.Generator) -> tuple[Vehicle, float]:
    """Draw a car: a public one as it left the factory and as it was used, and its age in years."""
    public = list(public_cars().values())
    ordinary = public[int(rng.integers(len(public)))].vehicle
    age = float(rng.uniform(0, 9))

    def near(value: float, spread: float) -> float:
        return float(value * np.exp(spread * rng.normal()))

    vehicle = replace(
        ordinary,
        mass_kg=near(ordinary.mass_kg, 0.02),
        drag_coefficient=near(ordinary.drag_coefficient, 0.04),
        rolling_coefficient=near(ordinary.rolling_coefficient, 0.10),
        transmission_efficiency=min(near(ordinary.transmission_efficiency, 0.01), 1.0),
        regeneration_share=float(rng.uniform(0.7, 0.98)),
        base_power_kw=near(ordinary.base_power_kw, 0.25),
        heating_kw_per_k=near(ordinary.heating_kw_per_k, 0.25),
        cooling_kw_per_k=near(ordinary.cooling_kw_per_k, 0.25),
    )
    return vehicle, age


def _car(
    number: int, trips: int, seed: int, drives: list[Floats] | None, effects: Effects
) -> SimulatedCar:
    rng = seeds.derive(seed, "ev", "fleet", str(number))
    vehicle, age = own_vehicle(rng)
    roads = rng.dirichlet(np.array([3.0, 2.5, 1.5]))
    usual_m = 9000.0 * np.exp(0.4 * rng.normal())
    hilly = float(rng.uniform(0.0, 0.02))
    order: list[Floats] = []
    if drives is not None:
        order = [drives[i] for i in rng.permutation(len(drives))[:trips]]
        trips = len(order)
    # Trips in the order of a year's days, so that later ones are of another season.
    day = np.sort(rng.uniform(0, 365, trips))
    speeds, heights, ambient, wind, wet = [], [], [], [], []
    for one in range(trips):
        if drives is None:
            length = float(np.clip(usual_m * np.exp(0.7 * rng.normal()), 1200, 90_000))
            speed = generated_speed(rng, length, roads)
        else:
            speed = order[one]
        speeds.append(speed)
        heights.append(_heights(rng, np.cumsum(speed), hilly))
        ambient.append(np.full(len(speed), _temperature(rng, float(day[one]))))
        wind.append(_headwind(rng, np.cumsum(speed)))
        wet.append(bool(rng.random() < 0.22))
    offsets = np.cumsum([0, *(len(speed) for speed in speeds)])
    height = np.concatenate(heights)
    exact = Drives(
        np.concatenate(speeds),
        climb_from_height(height, offsets),
        np.concatenate(ambient),
        offsets,
        wind_m_s=np.concatenate(wind),
        payload_kg=75.0 + 75.0 * rng.poisson(0.7, trips) + 20.0 * rng.random(trips),
    )
    cells = exact.ambient_deg_c + 8 * (1 - np.exp(-_seconds(exact) / 1500)) + rng.uniform(0, 4)
    limit = charge_limit_kw(vehicle, age, cells) if effects.ageing else np.inf
    truth, hvac = _truth_kw(exact, vehicle, limit, np.array(wet), effects)
    return SimulatedCar(
        vehicle,
        age,
        _sensed(rng, number, exact, height, truth, hvac, cells, effects.sensors),
        exact.sums(truth) * (exact.step_s / 3600),
    )


def _temperature(rng: np.random.Generator, day: float) -> float:
    season = -np.cos(2 * np.pi * (day - 15) / 365) * CLIMATE["seasons"]
    hour = rng.choice([7.5, 8.5, 12.0, 17.0, 18.5, 21.0])
    daily = -np.cos(2 * np.pi * (hour - 4) / 24) * CLIMATE["day"]
    return float(CLIMATE["mean"] + season + daily + CLIMATE["weather"] * rng.normal())


def _heights(rng: np.random.Generator, way_m: Floats, hilly: float) -> Floats:
    """Hills of several lengths; `hilly` is about the root mean square grade."""
    height = np.full(len(way_m), 100.0)
    for length in (700.0, 2100.0, 6300.0):
        phase, part = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.0)
        size = hilly * part * length / (2 * np.pi)
        height += size * (np.sin(2 * np.pi * way_m / length + phase) - np.sin(phase))
    return height


def _headwind(rng: np.random.Generator, way_m: Floats) -> Floats:
    """A day's wind, whose share along the road changes with the bends."""
    wind = float(rng.weibull(2.0) * 3.5)
    bend = rng.uniform(1500, 5000)
    along: Floats = wind * np.cos(rng.uniform(0, 2 * np.pi) + 1.5 * np.sin(way_m / bend))
    return along


def _seconds(drives: Drives) -> Floats:
    """Return the time since each trip began [sample]."""
    begun = np.repeat(drives.offsets[:-1], np.diff(drives.offsets))
    seconds: Floats = (np.arange(len(begun)) - begun).astype(np.float64) * drives.step_s
    return seconds


def charge_limit_kw(vehicle: Vehicle, age_years: float, cells_deg_c: Floats) -> Floats:
    """Return the most that a battery takes back at its cells' temperatures [sample]."""
    warm = np.clip((cells_deg_c - COLDEST_DEG_C) / (20.0 - COLDEST_DEG_C), 0.0, 1.0)
    limit: Floats = CHARGE_RATE * vehicle.battery_kwh * (1 - LESS_A_YEAR * age_years) * warm
    return limit


def _truth_kw(
    drives: Drives,
    vehicle: Vehicle,
    limit_kw: Floats | float,
    wet: NDArray[np.bool_],
    effects: Effects,
) -> tuple[Floats, Floats]:
    """Return the exact power at the terminals and that of heating and cooling [sample]."""
    seconds = _seconds(drives)
    cold = np.clip((20.0 - drives.ambient_deg_c) / 20.0, 0.0, 2.0)
    more = effects.cold_start * cold * np.exp(-seconds / effects.warm_up_s)
    more += effects.wet * wet[drives.trip]
    wheel = wheel_powers(drives, vehicle)
    mean_speed = drives.interval_mean(drives.speed_m_s)
    motor, _ = motor_powers(wheel.total_kw + more * wheel.rolling_kw, mean_speed, vehicle)
    # An interval is there after each sample but a trip's last.
    driven = drives.interval_mean(np.ones(len(seconds)))
    base = vehicle.base_power_kw * driven
    # A cabin that is far from comfort draws more at first.
    surge = 1 + (effects.cabin - 1) * np.exp(-seconds / effects.cabin_s)
    steady = np.clip(auxiliary_powers(drives, vehicle) * driven - base, 0.0, None)
    hvac = np.minimum(steady * surge, vehicle.hvac_power_kw)
    return np.maximum(motor, -limit_kw) + base + hvac, hvac


def _sensed(
    rng: np.random.Generator,
    number: int,
    exact: Drives,
    height_m: Floats,
    truth_kw: Floats,
    hvac_kw: Floats,
    cells_deg_c: Floats,
    sensors: bool,
) -> Trips:
    """Return the trips as the car's sensors have them; wind and rain are seen by none."""
    n = len(truth_kw)
    # The mean over the second around a sample, half of the interval before and half of that after:
    # over a trip it is the same energy, to the last bit of the sum.
    before = np.concatenate([[0.0], truth_kw[:-1]])
    before[exact.offsets[:-1]] = 0.0
    terminal = (before + truth_kw) / 2
    speed, ambient, hvac = exact.speed_m_s, exact.ambient_deg_c, hvac_kw
    if sensors:
        speed = np.round(np.clip(speed + 0.05 * rng.normal(size=n), 0, None) * 36) / 36
        speed = np.where(exact.speed_m_s == 0, 0.0, speed)
        ambient = np.round((ambient + rng.normal(0.0, 0.7)) * 2) / 2
        height_m = height_m + np.convolve(rng.normal(size=n + 30), np.ones(31) / 31, "valid")
        terminal = terminal * (1 + 0.004 * rng.normal()) + 0.15 * rng.normal(size=n)
        hvac = np.clip(hvac * (1 + 0.03 * rng.normal()), 0, None)
    heating = np.where(exact.ambient_deg_c < 20, hvac, 0.0)
    drives = Drives(
        speed,
        climb_from_height(height_m, exact.offsets, window=31 if sensors else 1),
        ambient,
        exact.offsets,
        heating_kw=heating,
        cooling_kw=hvac - heating,
        # A driver is known to be there; who else came along is not.
        payload_kg=None if sensors else exact.payload_kg,
        wind_m_s=None if sensors else exact.wind_m_s,
    )
    count = len(exact)
    names = tuple(f"{number + 1:02d}-{trip + 1:03d}" for trip in range(count))
    return Trips(names, drives, terminal, cells_deg_c, np.zeros(count, dtype=bool), ())

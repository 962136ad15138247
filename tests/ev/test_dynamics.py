"""Forces, powers and energies: by hand, by a plain loop, by conservation and by order."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.drives import Drives, climb_from_height, one_drive
from fl_inmetro.ev.dynamics import (
    air_density_kg_m3,
    auxiliary_powers,
    battery_powers,
    powers,
    trip_energies,
    wheel_powers,
)
from fl_inmetro.ev.parameters import Vehicle

#: One tonne and a half, round numbers, no map: what a hand can follow.
PLAIN = Vehicle(
    name="plain",
    mass_kg=1400,
    payload_kg=100,
    rotating_mass_factor=1.05,
    drag_coefficient=0.3,
    frontal_area_m2=2.0,
    rolling_coefficient=0.01,
    rolling_per_k=0.0,
    transmission_efficiency=1.0,
    motor_efficiency=0.9,
    motor_map=None,
    regeneration_share=0.7,
    regeneration_speed_m_s=0.0,
    base_power_kw=0.5,
    round_trip_efficiency=0.81,
)
#: Nothing is lost anywhere.
IDEAL = replace(
    PLAIN,
    drag_coefficient=0.0,
    rolling_coefficient=0.0,
    motor_efficiency=1.0,
    regeneration_share=1.0,
    regeneration_power_kw=2000.0,
    base_power_kw=0.0,
    round_trip_efficiency=1.0,
)


def some_trips(seed: int, lengths: tuple[int, ...]) -> Drives:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    speed = np.abs(np.cumsum(rng.normal(0, 0.8, n))) % 30
    return Drives(
        speed,
        rng.normal(0, 0.3, n),
        rng.uniform(-10, 40, n),
        np.cumsum([0, *lengths]),
        wind_m_s=rng.normal(0, 4, n),
        pressure_pa=rng.uniform(9e4, 1.03e5, n),
        payload_kg=rng.uniform(0, 400, len(lengths)),
    )


def test_powers_by_hand():
    """From 20 to 21 m/s in one second, uphill with sin α = 0.05 at the mean speed, 15 °C.

    v = 20.5 m/s, a = 1 m/s², M = 1500 kg.
    inertia 1.05·1500·1·20.5 = 32 287.5 W; climb 1500·9.80665·0.05·20.5 = 15 077.72 W;
    rolling 1500·9.80665·0.01·20.5·√(1 − 0.0025) = 3 011.77 W;
    ρ = 101325/(287.05·288.15) = 1.22502; drag ½·1.22502·0.3·2·20.5³ = 3 166.14 W.
    """
    drive = Drives(
        np.array([20.0, 21.0]),
        np.array([0.05 * 20.5, 9.9]),  # what stands behind the last sample counts nothing
        np.array([15.0, 15.0]),
        np.array([0, 2]),
    )
    wheel = wheel_powers(drive, PLAIN)
    assert wheel.inertia_kw[0] == pytest.approx(32.2875)
    assert wheel.climb_kw[0] == pytest.approx(15.07772, abs=1e-5)
    assert wheel.rolling_kw[0] == pytest.approx(3.01177, abs=1e-5)
    assert wheel.air_kw[0] == pytest.approx(3.16614, abs=2e-4)
    total = 32.2875 + 15.07772 + 3.01177 + 3.16614
    power = powers(drive, PLAIN)
    # 15 °C: 3 K below the band, 0.1 kW each; base 0.5 kW. Battery: √0.81 = 0.9 each way.
    assert power.auxiliary_kw[0] == pytest.approx(0.8)
    assert power.terminal_kw[0] == pytest.approx(total / 0.9 + 0.8, abs=3e-4)
    assert power.battery_kw[0] == pytest.approx((total / 0.9 + 0.8) / 0.9, abs=4e-4)
    for values in (power.wheel_kw, power.terminal_kw, power.battery_kw, power.friction_kw):
        assert values[1] == 0.0
    energy = trip_energies(drive, PLAIN)
    assert energy.distance_km[0] == pytest.approx(0.0205)
    assert energy.terminal_kwh[0] == pytest.approx((total / 0.9 + 0.8) / 3600, abs=1e-7)


def test_braking_by_hand():
    """From 11 to 9 m/s, level, no drag, no rolling: −1.05·1500·2·10 = −31.5 kW at the wheels.

    Of it 0.7 reaches the motor (22.05 kW), 0.9 of that its terminals: 19.845 kW; 9.45 kW is
    friction. The battery takes 0.9 of what is left above 0.5 kW of base load: 17.4105 kW.
    """
    car = replace(PLAIN, drag_coefficient=0.0, rolling_coefficient=0.0)
    power = powers(one_drive(np.array([11.0, 9.0])), car)
    assert power.wheel_kw[0] == pytest.approx(-31.5)
    assert power.motor_kw[0] == pytest.approx(-19.845)
    assert power.friction_kw[0] == pytest.approx(9.45)
    assert power.battery_kw[0] == pytest.approx(-17.4105)
    limited = powers(one_drive(np.array([11.0, 9.0])), replace(car, regeneration_power_kw=9.0))
    # 9 kW at the terminals are 10 kW at the shaft: 21.5 kW of friction.
    assert limited.motor_kw[0] == pytest.approx(-9.0)
    assert limited.friction_kw[0] == pytest.approx(21.5)


def plain_loop(drives: Drives, car: Vehicle) -> list[float]:
    """The specification: one trip, one interval after the other."""
    energies = []
    for trip in range(len(drives)):
        kwh = 0.0
        for i in range(drives.offsets[trip], drives.offsets[trip + 1] - 1):
            v0, v1 = drives.speed_m_s[i], drives.speed_m_s[i + 1]
            v, a, climb = (v0 + v1) / 2, v1 - v0, drives.climb_m_s[i]
            mass = car.mass_kg + drives.payload_kg[trip]
            rho = drives.pressure_pa[i] / (287.05 * (drives.ambient_deg_c[i] + 273.15))
            air = v + drives.wind_m_s[i]
            force_power = car.rotating_mass_factor * mass * a * v
            if v > 0:
                force_power += mass * 9.80665 * climb
            f = car.rolling_coefficient * (1 + car.rolling_per_k * (20 - drives.ambient_deg_c[i]))
            force_power += mass * 9.80665 * f * math.sqrt(max(v * v - climb * climb, 0))
            area = car.drag_coefficient * car.frontal_area_m2
            force_power += 0.5 * rho * area * air * abs(air) * v
            fade = min(max(v / car.regeneration_speed_m_s - 0.5, 0), 1)
            if force_power >= 0:
                shaft = force_power / 1000 / car.transmission_efficiency
            else:
                shaft = force_power / 1000 * car.transmission_efficiency
                shaft *= car.regeneration_share * fade
            load = min(abs(shaft) / car.motor_power_kw, 1)
            points, values = car.motor_map.load_share, car.motor_map.efficiency
            k = max(j for j in range(len(points) - 1) if points[j] <= load)
            share = (load - points[k]) / (points[k + 1] - points[k])
            eta = values[k] + share * (values[k + 1] - values[k])
            motor = shaft / eta if shaft >= 0 else max(shaft * eta, -car.regeneration_power_kw)
            ambient = drives.ambient_deg_c[i]
            heat = min(max(18 - ambient, 0) * car.heating_kw_per_k, car.hvac_power_kw)
            cool = min(max(ambient - 24, 0) * car.cooling_kw_per_k, car.hvac_power_kw)
            terminal = motor + car.base_power_kw + heat + cool
            root = math.sqrt(car.round_trip_efficiency)
            kwh += (terminal / root if terminal > 0 else terminal * root) / 3600
        energies.append(kwh)
    return energies


@pytest.mark.parametrize("seed", range(4))
def test_vectors_equal_the_plain_loop(seed):
    drives = some_trips(seed, (2, 50, 333, 7))
    car = Vehicle(regeneration_power_kw=12.0, motor_power_kw=40.0)
    assert trip_energies(drives, car).battery_kwh == pytest.approx(
        plain_loop(drives, car), rel=1e-12
    )


@given(st.integers(0, 10_000))
def test_without_losses_a_closed_loop_gives_all_back(seed):
    """A trip that ends where, and as fast as, it began has taken nothing."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.1, 30, 40)
    height = np.cumsum(rng.normal(0, 0.1, 40))
    speed[-1], height[-1] = speed[0], height[0]
    offsets = np.array([0, 40])
    climb = climb_from_height(height, offsets)
    drive = Drives(speed, climb, np.full(40, 20.0), offsets)
    energy = trip_energies(drive, IDEAL)
    assert energy.recuperated_kwh[0] > 0
    assert energy.battery_kwh[0] == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 10_000))
def test_energy_is_conserved_at_the_wheels(seed):
    """Driven = stored + dissipated: the inertia and climb terms are ½δM(v₁²−v₀²) and MgΔh."""
    rng = np.random.default_rng(seed)
    speed, height = rng.uniform(0.1, 30, 60), np.cumsum(rng.normal(0, 0.2, 60))
    offsets = np.array([0, 25, 60])
    drive = Drives(speed, climb_from_height(height, offsets), np.full(60, 5.0), offsets)
    wheel = wheel_powers(drive, PLAIN)
    for trip, (first, last) in enumerate(((0, 24), (25, 59))):
        kinetic = 0.5 * 1.05 * 1.5 * (speed[last] ** 2 - speed[first] ** 2)
        assert drive.sums(wheel.inertia_kw)[trip] == pytest.approx(kinetic, abs=1e-8)
        gained = 1.5 * 9.80665 * (height[last] - height[first])
        assert drive.sums(wheel.climb_kw)[trip] == pytest.approx(gained, abs=1e-8)
    power = powers(drive, PLAIN)
    # What is braked is recuperated (before the motor's 0.9) or friction, nothing else.
    braked = np.maximum(-power.wheel_kw, 0)
    split = np.maximum(-power.motor_kw, 0) / 0.9 + power.friction_kw
    assert split == pytest.approx(braked, abs=1e-9)


@given(
    st.integers(0, 10_000),
    st.sampled_from(
        [
            ("payload_kg", 300.0),
            ("drag_coefficient", 0.6),
            ("rolling_coefficient", 0.02),
            ("base_power_kw", 1.0),
            ("motor_efficiency", 0.8),
            ("transmission_efficiency", 0.9),
            ("regeneration_share", 0.2),
            ("round_trip_efficiency", 0.7),
            ("regeneration_power_kw", 3.0),
        ]
    ),
)
def test_a_worse_car_takes_more(seed, worse):
    name, value = worse
    drives = replace(some_trips(seed, (200, 100)), payload_kg=None, wind_m_s=None)
    good, bad = trip_energies(drives, PLAIN), trip_energies(drives, replace(PLAIN, **{name: value}))
    assert np.all(bad.battery_kwh >= good.battery_kwh - 1e-12)
    assert bad.battery_kwh.sum() > good.battery_kwh.sum()


def test_cold_costs_heat_air_and_tyres():
    speed = np.full(100, 20.0)
    cold, mild = (trip_energies(one_drive(speed, t), Vehicle()).battery_kwh[0] for t in (-10, 20))
    # 99 s of 2.8 kW heat alone are 0.077 kWh before the battery's loss.
    assert cold - mild > 2.8 * 99 / 3600
    measured = Drives(
        speed, np.zeros(100), np.full(100, -10.0), np.array([0, 100]), heating_kw=np.full(100, 0.7)
    )
    assert auxiliary_powers(measured, Vehicle())[:-1] == pytest.approx(0.95)


def test_a_resistance_by_hand():
    """360 V, 0.1 Ω, 34 kW at the terminals: 360·I − 0.1·I² = 34 000.

    I = (360 − √(360² − 4·0.1·34 000)) / 0.2 = (360 − 340.588) / 0.2 = 97.06 A: V·I = 34.942 kW.
    Charging with 34 kW: I = (360 − √143 200) / 0.2 = −92.09 A, V·I = −33.151 kW.
    """
    car = replace(PLAIN, resistance_ohm=0.1)
    got = battery_powers(np.array([34.0, -34.0, 0.0]), car)
    first = 360 * (360 - math.sqrt(116_000)) / 0.2 / 1000
    second = 360 * (360 - math.sqrt(143_200)) / 0.2 / 1000
    assert got == pytest.approx([first, second, 0.0])
    assert first == pytest.approx(34.94, abs=0.01)
    assert second == pytest.approx(-33.15, abs=0.01)
    with pytest.raises(FederationError, match="324 kW at most"):
        battery_powers(np.array([400.0]), car)


def test_air_is_thinner_when_warm_and_high():
    """Standard atmosphere: 1.2250 kg/m³ at 15 °C, 1.1120 at 1000 m (89 875 Pa, 8.5 °C)."""
    assert air_density_kg_m3(np.array([15.0]))[0] == pytest.approx(1.2250, abs=1e-4)
    assert air_density_kg_m3(np.array([8.5]), np.array([89_875.0]))[0] == pytest.approx(
        1.112, abs=5e-4
    )


def test_tailwind_pushes():
    speed = np.full(50, 10.0)
    still = one_drive(speed)
    behind = replace(still, wind_m_s=np.full(50, -15.0))
    assert wheel_powers(behind, PLAIN).air_kw[0] < 0
    # ½·ρ·0.6·(10 − 15)·|10 − 15|·10 against ½·ρ·0.6·10³: −250 to 1000.
    ratio = wheel_powers(behind, PLAIN).air_kw[0] / wheel_powers(still, PLAIN).air_kw[0]
    assert ratio == pytest.approx(-0.25)


def test_heights_are_smoothed_without_losing_the_climb():
    rng = np.random.default_rng(3)
    offsets = np.array([0, 200, 500])
    hill = np.concatenate([np.linspace(500, 540, 200), np.full(300, 480.0)])
    noisy = hill + rng.normal(0, 0.5, 500)
    rough, smooth = (climb_from_height(noisy, offsets, window=w) for w in (1, 31))
    assert np.abs(smooth[200:]).sum() < 0.1 * np.abs(rough[200:]).sum()
    assert smooth[:199].sum() == pytest.approx(noisy[184:200].mean() - noisy[:16].mean())
    assert rough[199] == smooth[199] == rough[499] == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"offsets": np.array([0, 10, 9, 50])}, "end to end"),
        ({"offsets": np.array([0, 49])}, "end to end"),
        ({"offsets": np.array([0, 49, 50])}, "two at least"),
        ({"speed_m_s": np.r_[np.full(49, 3.0), -0.1]}, "negative"),
        ({"ambient_deg_c": np.r_[np.full(49, 3.0), np.nan]}, "missing or infinite"),
        ({"climb_m_s": np.zeros(3)}, "3 values for 50 samples"),
        ({"wind_m_s": np.full(50, np.inf)}, "missing or infinite"),
        ({"payload_kg": np.zeros(2)}, "payload"),
        ({"step_s": 0.0}, "0 s apart"),
    ],
)
def test_bad_drives_are_refused(changed, says):
    good = one_drive(np.full(50, 5.0))
    with pytest.raises(DataError, match=says) as caught:
        replace(good, **changed)
    assert {fault.code for fault in caught.value.faults} == {"FL224"}


def test_some_trips_of_many():
    drives = some_trips(5, (30, 20, 40))
    both = drives.only([2, 0])
    energy = trip_energies(drives, PLAIN).terminal_kwh
    assert trip_energies(both, PLAIN).terminal_kwh == pytest.approx(energy[[2, 0]])
    assert both.trip.tolist() == [0] * 40 + [1] * 30


def test_a_parked_car_does_not_climb():
    """A noisy height while it stands: nothing but the base load, 0.5 kW for 49 s."""
    parked = replace(one_drive(np.zeros(50)), climb_m_s=np.full(50, 0.3))
    assert np.all(wheel_powers(parked, PLAIN).total_kw == 0)
    assert trip_energies(parked, PLAIN).terminal_kwh[0] == pytest.approx(0.5 * 49 / 3600)


def test_no_interval_leads_from_one_trip_to_the_next():
    drives = Drives(np.array([1.0, 3, 10, 14]), np.zeros(4), np.zeros(4), np.array([0, 2, 4]))
    assert drives.interval_change(drives.speed_m_s).tolist() == [2, 0, 4, 0]
    assert drives.interval_mean(drives.speed_m_s).tolist() == [2, 0, 12, 0]

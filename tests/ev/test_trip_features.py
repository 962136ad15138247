"""Features of trips: numbers by hand, plain loops, and what they may not know."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.calibration import TERMS, term_powers
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.dynamics import air_density_kg_m3
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.trip_features import (
    BATTERY_NAMES,
    BEFORE_NAMES,
    DRIVE_NAMES,
    Plan,
    drive_features,
    features_before,
    planned,
)


def drives(seed: int = 0) -> Drives:
    rng = np.random.default_rng(seed)
    lengths = [240, 500, 90]
    n = sum(lengths)
    speed = np.clip(12 + 10 * np.sin(np.arange(n) / 17) + rng.normal(0, 0.5, n), 0, None)
    return Drives(
        speed,
        rng.normal(0, 0.3, n),
        np.repeat([3.0, 17, 29], lengths) + rng.normal(0, 0.3, n),
        np.cumsum([0, *lengths]),
        heating_kw=rng.uniform(0, 2, n),
        cooling_kw=rng.uniform(0, 1, n),
    )


def test_a_drive_by_hand():
    """0, 10, 20, 20, 0, 0, 10 m/s, a sample each second; then a second trip, which
    begins at rest: that is no stop.

    Means of the intervals: 5, 15, 20, 10, 0, 5: 55 m in 6 s, 33 km/h; one of six stands, so it
    moves 5 s, at 39.6 km/h. Changes 10, 10, 0, −20, 0, 10: mean of the gains 30/6 = 5; their square
    700/6 less the square of 10/6 is 113.889, root 10.672. ∫ v·a⁺ dt = 5·10 + 15·10 + 5·10 = 250,
    over 55 m 4.545. One stop: at the fifth sample. Speeds' square 775/6 − (55/6)² = 45.139.
    """
    speed = np.array([0.0, 10, 20, 20, 0, 0, 10, 0, 10])
    climb = np.array([1.0, -0.5, 0, 0, 0, 2, 99, 0, 99])
    heat = np.array([2.0, 2, 2, 2, 2, 2, 99, 1, 99])
    both = Drives(speed, climb, np.arange(9.0), np.array([0, 7, 9]), heating_kw=heat)
    found = drive_features(both)
    assert (found.kind, found.names) == ("drive", DRIVE_NAMES)
    got = dict(zip(found.names, found.values[0], strict=True))
    assert got["distance_km"] == pytest.approx(0.055)
    assert got["duration_h"] == pytest.approx(6 / 3600)
    assert got["moving_h"] == pytest.approx(5 / 3600)
    assert got["mean_speed_km_h"] == pytest.approx(33)
    assert got["mean_moving_speed_km_h"] == pytest.approx(39.6)
    assert got["max_speed_km_h"] == pytest.approx(72)
    assert got["speed_sd_km_h"] == pytest.approx(3.6 * (775 / 6 - (55 / 6) ** 2) ** 0.5)
    assert got["stops"] == 1
    assert got["standing_share"] == pytest.approx(1 / 6)
    assert got["mean_acceleration_m_s2"] == pytest.approx(5)
    assert got["acceleration_sd_m_s2"] == pytest.approx(10.672, abs=1e-3)
    assert got["relative_positive_acceleration_m_s2"] == pytest.approx(250 / 55)
    assert (got["ascent_m"], got["descent_m"]) == pytest.approx((3, 0.5))
    assert got["ambient_mean_deg_c"] == pytest.approx(3)
    assert got["ambient_start_deg_c"] == 0
    # What follows the last sample counts nothing: 6 s of 2 kW.
    assert got["heater_kwh"] == pytest.approx(12 / 3600)
    assert got["air_conditioning_kwh"] == 0
    assert found.columns(["stops", "ambient_start_deg_c"])[1] == pytest.approx([0, 7])


def test_terms_are_the_ordinary_cars_energies():
    some = drives()
    found = drive_features(some).columns([f"{term}_kwh" for term in TERMS])
    power = term_powers(some, Vehicle())
    for i, (first, last) in enumerate(zip(some.offsets[:-1], some.offsets[1:], strict=True)):
        assert found[i] == pytest.approx(power[first:last].sum(axis=0) / 3600)


def test_trips_have_their_features_alone_as_in_company():
    some = drives()
    whole = drive_features(some).values
    before = features_before(planned(some)).values
    for i in range(len(some)):
        alone = some.only([i])
        assert drive_features(alone).values[0] == pytest.approx(whole[i])
        assert features_before(planned(alone)).values[0] == pytest.approx(before[i])


def test_half_the_step_is_the_same_drive():
    """Samples twice as dense, by straight lines: ways, times and heights stay."""
    coarse = replace(drives(), heating_kw=None, cooling_kw=None).only([0])
    at = np.arange(0, 239.1, 0.5)
    fine = Drives(
        np.interp(at, np.arange(240), coarse.speed_m_s),
        coarse.climb_m_s[np.minimum(at, 238.9).astype(int)],
        np.interp(at, np.arange(240), coarse.ambient_deg_c),
        np.array([0, len(at)]),
        step_s=0.5,
    )
    names = ["distance_km", "duration_h", "ascent_m", "mean_acceleration_m_s2", "base_kwh"]
    one, other = (drive_features(d).columns(names) for d in (coarse, fine))
    assert one == pytest.approx(other, rel=1e-9)


def test_before_the_trip_by_hand():
    """36 km in 0.5 h (20 m/s) at 8 °C, 100 m up; 1000 kg, f 0.01, k 0.01, η 0.9·1, 10 K cold.

    Rolling 1000·9.80665·0.01·36000/3.6e6/0.9 = 1.08963 kWh, cold 0.12 of it; climb
    1000·9.80665·100/3.6e6/0.9 = 0.302674; base 0.2·0.5; heating 0.1·10·0.5, warming up
    0.1·10·0.25·(1 − e⁻²) = 0.216166. Battery at −5 °C: 25 K below 20, 2.5 times rolling.
    """
    car = Vehicle(
        mass_kg=900,
        payload_kg=100,
        drag_coefficient=0.3,
        frontal_area_m2=2.0,
        rolling_coefficient=0.01,
        rolling_per_k=0.01,
        transmission_efficiency=0.9,
        motor_efficiency=1.0,
        motor_map=None,
        base_power_kw=0.2,
    )
    one = np.ones(1)
    plan = Plan(36 * one, 0.5 * one, 8 * one, 100 * one, -5 * one)
    found = features_before(plan, car)
    got = dict(zip(found.names, found.values[0], strict=True))
    assert found.names == (*BEFORE_NAMES, *BATTERY_NAMES)
    assert found.kind == "before"
    assert got["rolling_kwh"] == pytest.approx(1.08963, rel=1e-5)
    assert got["cold_kwh"] == pytest.approx(0.12 * got["rolling_kwh"])
    density = float(air_density_kg_m3(8 * one)[0])
    assert got["air_kwh"] == pytest.approx(0.5 * density * 0.6 * 400 * 36000 / 3.6e6 / 0.9)
    assert got["climb_kwh"] == pytest.approx(0.302674, rel=1e-5)
    assert got["base_kwh"] == pytest.approx(0.1)
    assert got["heating_kwh"] == pytest.approx(0.5)
    assert got["warm_up_kwh"] == pytest.approx(0.25 * (1 - np.exp(-2)))
    assert got["cooling_kwh"] == 0
    assert (got["heating_degree_k"], got["cooling_degree_k"]) == (10, 0)
    assert got["cold_battery_kwh"] == pytest.approx(2.5 * got["rolling_kwh"])
    assert features_before(replace(plan, battery_deg_c=None), car).names == BEFORE_NAMES


def test_before_the_trip_knows_no_more():
    """Another way of driving the same distance in the same time, in other weather later on."""
    some = drives()
    other_speed = some.speed_m_s.copy()
    for first, last in zip(some.offsets[:-1], some.offsets[1:], strict=True):
        inner = slice(first + 1, last - 1)
        other_speed[inner] = other_speed[inner][::-1]
    ambient = some.ambient_deg_c + 9
    ambient[some.offsets[:-1]] -= 9
    battery = np.linspace(0, 30, len(ambient))
    other = replace(
        some,
        speed_m_s=other_speed,
        ambient_deg_c=ambient,
        heating_kw=some.heating_kw * 3,
        cooling_kw=None,
    )
    warmer = battery + 5
    warmer[some.offsets[:-1]] -= 5
    one = features_before(planned(some, battery))
    two = features_before(planned(other, warmer))
    assert one.values == pytest.approx(two.values, rel=1e-12)
    assert one.columns(["battery_start_deg_c"])[:, 0] == pytest.approx(battery[some.offsets[:-1]])
    assert drive_features(some).values != pytest.approx(drive_features(other).values)


def test_no_name_is_of_a_sensor_that_may_not_be_known():
    for name in (*DRIVE_NAMES, *BEFORE_NAMES):
        assert not {"battery", "voltage", "current", "soc", "torque"} & set(name.split("_")), name


def test_a_feature_of_the_other_kind_is_not_there():
    with pytest.raises(FederationError, match=r"FL372.*`before` have no `stops`"):
        features_before(planned(drives())).columns(["distance_km", "stops"])


def test_trips_that_go_nowhere():
    still = Drives(np.zeros(4), np.zeros(4), np.full(4, 20.0), np.array([0, 4]))
    with pytest.raises(DataError, match="FL224"):
        drive_features(still)
    with pytest.raises(DataError, match="FL224"):
        planned(still)
    one = np.ones(1)
    with pytest.raises(DataError, match=r"FL224[\s\S]*ambient_deg_c"):
        Plan(one, one, np.array([np.nan]), one)


def test_a_crawl_has_a_speed():
    """Never above 1 km/h: the mean of moving is that of all."""
    slow = Drives(np.full(9, 0.2), np.zeros(9), np.full(9, 20.0), np.array([0, 9]))
    got = drive_features(slow).columns(["mean_moving_speed_km_h", "moving_h"])[0]
    assert got == pytest.approx([0.72, 0])

"""The simulated fleet: exact energy, imperfect sensors, cars that do not depend on each other."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.drives import one_drive
from fl_inmetro.ev.dynamics import trip_energies
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.simulated import (
    CHARGE_RATE,
    NO_EFFECTS,
    Effects,
    charge_limit_kw,
    dealt,
    fleet,
)
from fl_inmetro.ev.speed_traces import MPH, generated_speed, read_traces

CHICAGO = (
    Path(os.environ.get("FL_INMETRO_DATA", "."))
    / "drive_cycles"
    / "real_speed_traces_chicago_1hz.parquet"
)
FLEET = fleet(6, 30)


def test_without_effects_the_truth_is_the_physics_to_the_last_bit_of_its_sums():
    for car in fleet(4, 5, effects=NO_EFFECTS).values():
        physics = trip_energies(car.trips.drives, car.vehicle).terminal_kwh
        assert np.allclose(car.exact_kwh, physics, rtol=1e-12)
        assert np.allclose(car.trips.terminal_kwh, car.exact_kwh, rtol=1e-12)


def test_a_car_does_not_depend_on_the_others():
    alone, many = fleet(2, 5, seed=3), fleet(9, 5, seed=3)
    for name, car in alone.items():
        assert car.vehicle == many[name].vehicle
        assert np.array_equal(car.exact_kwh, many[name].exact_kwh)
        assert np.array_equal(car.trips.terminal_kw, many[name].trips.terminal_kw)
    assert fleet(2, 5, seed=4)["car 01"].vehicle != alone["car 01"].vehicle


@pytest.mark.parametrize(
    ("changed", "sign"),
    [({"cold_start": 0.0}, -1), ({"wet": 0.0}, -1), ({"cabin": 1.0}, -1), ({"ageing": False}, -1)],
)
def test_each_effect_costs_energy(changed, sign):
    """Every effect is a loss: without it no trip takes more, and some take less."""
    whole = np.concatenate([car.exact_kwh for car in FLEET.values()])
    without = fleet(6, 30, effects=Effects(**changed))
    difference = np.concatenate([car.exact_kwh for car in without.values()]) - whole
    assert np.all(sign * difference >= -1e-9)
    assert np.sum(sign * difference > 1e-4) > 5


def test_sensors_are_wrong_by_as_much_as_they_say():
    for car in FLEET.values():
        ratio = car.trips.terminal_kwh.sum() / car.exact_kwh.sum()
        assert 0.98 < ratio < 1.02
        speed = car.trips.drives.speed_m_s
        assert np.allclose(speed * 36, np.round(speed * 36))
        assert car.trips.drives.wind_m_s is None
        assert car.trips.drives.payload_kg is None


def test_consumption_is_that_of_cars_and_grows_in_the_cold():
    km = np.concatenate([car.trips.distance_km for car in FLEET.values()])
    kwh = np.concatenate([car.exact_kwh for car in FLEET.values()])
    ambient = np.concatenate(
        [c.trips.drives.ambient_deg_c[c.trips.drives.offsets[:-1]] for c in FLEET.values()]
    )
    per_100 = 100 * kwh / km
    # The public cars are rated at 16 to 24 kWh/100 km from the socket.
    assert 12 < per_100.mean() < 30
    assert per_100[ambient < 4].mean() > 1.15 * per_100[ambient > 16].mean()


def test_what_cells_take_by_hand():
    """60 kWh at 20 °C: 42 kW; half way to the coldest, 2.5 °C: 21 kW; ten years: 0.6 of it."""
    car = Vehicle(battery_kwh=60.0)
    limit = charge_limit_kw(car, 0.0, np.array([30.0, 20.0, 2.5, -15.0, -30.0]))
    assert np.allclose(limit, [42.0, 42.0, 21.0, 0.0, 0.0])
    assert charge_limit_kw(car, 10.0, np.array([20.0]))[0] == pytest.approx(0.6 * 42)
    assert CHARGE_RATE == 0.7


def test_made_up_drives_are_as_long_as_asked_and_drivable():
    rng = np.random.default_rng(0)
    for metres in (2_000.0, 12_000.0, 50_000.0):
        speed = generated_speed(rng, metres, np.array([0.4, 0.4, 0.2]))
        assert speed[0] == speed[-1] == 0
        assert speed.sum() == pytest.approx(metres, rel=0.1)
        assert speed.max() < 45
        assert np.abs(np.diff(speed)).max() < 4
    slow, fast = (generated_speed(rng, 20_000, np.array(r)) for r in ([1, 0, 0], [0, 0, 1]))
    assert slow.mean() < 0.6 * fast.mean()


def test_real_drives_are_driven_again_by_electric_cars():
    drive = 10 + 5 * np.sin(np.arange(300) / 20)
    traces = {"a": [drive] * 20, "b": [drive / 2] * 9}
    cars = fleet(3, 4, traces=traces, effects=NO_EFFECTS)
    km = {name: car.trips.distance_km for name, car in cars.items()}
    assert {len(trips) for trips in km.values()} == {4}
    assert np.allclose(km["car 01"], drive.sum() / 1000)
    assert np.allclose(km["car 02"], drive.sum() / 1000)
    assert np.allclose(km["car 03"], drive.sum() / 2000)
    level = trip_energies(one_drive(drive), cars["car 01"].vehicle)
    assert level.distance_km[0] == pytest.approx(drive.sum() / 1000, rel=0.01)


def test_no_drive_is_driven_twice():
    """Twenty drives of one driver and nine of another, for three cars: 10, 10 and 9."""
    traces = {"a": [np.full(5, i) for i in range(20)], "b": [np.full(5, 20 + i) for i in range(9)]}
    cars = dealt(traces, 3)
    assert [len(drives) for drives in cars] == [10, 10, 9]
    assert sorted(int(d[0]) for drives in cars for d in drives) == list(range(29))
    with pytest.raises(DataError, match="FL224"):
        dealt(traces, 4)


def table(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def seconds(*pieces: tuple[int, int]) -> np.ndarray:
    """Stamps of pieces (first second, length)."""
    at = np.concatenate([np.arange(first, first + length) for first, length in pieces])
    return np.datetime64("2007-05-01T08:00:00", "s") + at.astype("timedelta64[s]")


def test_traces_are_cut_at_gaps_and_stand_still_at_both_ends(tmp_path):
    mph = np.concatenate([np.zeros(20), np.full(100, 30.0), np.zeros(30), np.full(80, 40.0)])
    stamps = seconds((0, 150), (400, 80))
    path = table(tmp_path / "t.parquet", vehicle=["x"] * 230, timestamp=stamps, speed_mph=mph)
    found = read_traces(path)
    first, second = found.speed_m_s["x"]
    # A hundred seconds on the move with a second of rest at each end; the second was cut short.
    assert len(first) == 102
    assert len(second) == 80
    assert first[0] == first[-1] == 0
    assert second[0] == second[-1] == pytest.approx(40 * MPH)
    assert first[1] == pytest.approx(30 * MPH)
    assert found.excluded == ()


@pytest.mark.parametrize(
    ("mph", "why"),
    [
        (np.full(40, 30.0), "40 samples"),
        (np.full(100, 5.0), "0.22 km"),
        (np.full(100, 200.0), "km/h"),
        (np.where(np.arange(100) == 50, 90.0, 30.0), "jumps"),
    ],
)
def test_bad_drives_are_named(tmp_path, mph, why):
    good = np.full(100, 30.0)
    stamps = seconds((0, len(mph)), (1000, 100))
    path = table(
        tmp_path / "t.parquet",
        vehicle=["x"] * (len(mph) + 100),
        timestamp=stamps,
        speed_mph=np.concatenate([mph, good]),
    )
    found = read_traces(path)
    assert len(found.speed_m_s["x"]) == 1
    assert why in found.excluded[0].what
    assert found.excluded[0].where == "car x, drive 1"


def test_a_table_of_another_kind_is_refused(tmp_path):
    path = table(tmp_path / "t.parquet", vehicle=["x"], speed=[1.0])
    with pytest.raises(DataError, match="FL224"):
        read_traces(path)


@pytest.mark.data
@pytest.mark.skipif(not CHICAGO.is_file(), reason="FL_INMETRO_DATA has no drive_cycles")
def test_chicago_has_sixteen_drivers():
    found = read_traces(CHICAGO)
    assert len(found.speed_m_s) == 16
    assert sum(len(drives) for drives in found.speed_m_s.values()) == 381
    cars = fleet(22, 40, traces=found.speed_m_s)
    assert len(cars) == 22
    assert all(8 <= len(car.trips.names) <= 40 for car in cars.values())
    assert all(10 < 100 * c.exact_kwh.sum() / c.trips.distance_km.sum() < 60 for c in cars.values())

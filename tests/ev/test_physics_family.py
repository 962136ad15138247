"""Calibrated physics over a fleet: sums only, cars that are alike or not, cars that are new."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.calibration import calibrate, sums_of, term_powers
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.dynamics import trip_energies
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.physics_family import Columns, OrdinaryCar, PhysicsFamily, chosen
from fl_inmetro.ev.trip_sets import pooled, some
from fl_inmetro.ev.trips import Trips

NOISE_KW = 0.4


def driven(seed: int, factor: np.ndarray, trips: int = 8, length: int = 400) -> Trips:
    """Trips of a car that needs `factor` times the ordinary car's terms, with noise."""
    rng = np.random.default_rng(seed)
    n = trips * length
    top = np.repeat(rng.uniform(6, 30, trips), length)
    speed = np.clip(top * (0.5 + 0.45 * np.sin(np.arange(n) / 23 + seed)), 0, None)
    ambient = np.repeat(rng.uniform(-5, 32, trips), length)
    drives = Drives(speed, np.zeros(n), ambient, np.arange(0, n + 1, length))
    power = term_powers(drives, Vehicle()) @ factor + NOISE_KW * rng.normal(size=n)
    # A sample's power is that of its interval: what `interval_kw` averages is then nearly it.
    names = tuple(f"{seed}-{i}" for i in range(trips))
    return Trips(names, drives, power, ambient + 3, np.zeros(trips, dtype=bool), ())


ALIKE = {f"car {i}": driven(i, np.full(8, 1.1)) for i in range(4)}
UNLIKE = {f"car {i}": driven(i, np.full(8, 0.8 + 0.2 * i)) for i in range(4)}


def test_federated_is_central_and_is_the_pool():
    for family in (PhysicsFamily(), PhysicsFamily(rest=True)):
        federated, central = (family.fit(ALIKE, t, 0) for t in ("federated", "central"))
        assert np.array_equal(federated.prior.centre, central.prior.centre)
        assert central.moved_bytes == 0 < federated.moved_bytes
    pool = pooled(list(ALIKE.values()))
    whole = calibrate(sums_of(term_powers(pool.drives, Vehicle()), pool.interval_kw, pool.drives))
    found = PhysicsFamily().fit(ALIKE, "federated", 0).prior.centre
    assert np.allclose(found, whole.factor, rtol=1e-9)


def test_bytes_by_hand():
    """Of eight terms: 36 + 8 + 2 up and down, 5 errors up, 2 numbers down; 8 bytes; 4 cars."""
    assert PhysicsFamily().fit(ALIKE, "federated", 0).moved_bytes == (46 + 46 + 5 + 2) * 8 * 4


def test_cars_that_are_alike_share_all_and_others_do_not():
    columns = Columns()
    shares = []
    for fleet in (ALIKE, UNLIKE):
        sums = {car: columns.sums(trips) for car, trips in fleet.items()}
        shares.append(chosen(columns, fleet, sums).share)
    assert shares[0] <= 0.1 < shares[1]


def test_a_car_of_its_own_is_told_from_the_fleet():
    fitted = PhysicsFamily().fit(UNLIKE, "federated", 0)
    new = driven(9, np.full(8, 1.6), trips=12)
    known, later = some(new, range(6)), some(new, range(6, 12))
    fleet_error = np.abs(fitted.predict("new", later) - later.terminal_kwh).mean()
    own_error = np.abs(fitted.predict("new", later, known) - later.terminal_kwh).mean()
    assert own_error < 0.25 * fleet_error
    # Without any trip of its own a new car is the fleet's.
    expected = Columns().energies_kwh(later) @ fitted.prior.centre
    assert np.array_equal(fitted.predict("new", later), expected)


def test_own_trips_beside_those_of_training_are_one_sum():
    first, more = some(UNLIKE["car 1"], range(4)), some(UNLIKE["car 1"], range(4, 8))
    whole = PhysicsFamily().fit({"car 1": UNLIKE["car 1"]}, "local", 0)
    part = PhysicsFamily().fit({"car 1": first}, "local", 0)
    assert np.allclose(part.predict("car 1", more, more), whole.predict("car 1", more), rtol=1e-9)


def test_alone_each_car_is_itself_and_a_stranger_is_refused():
    local = PhysicsFamily().fit(UNLIKE, "local", 0)
    own = calibrate(Columns().sums(UNLIKE["car 3"])).factor
    expected = Columns().energies_kwh(UNLIKE["car 3"]) @ own
    assert np.allclose(local.predict("car 3", UNLIKE["car 3"]), expected)
    with pytest.raises(FederationError, match="FL369"):
        local.predict("new", UNLIKE["car 0"])


def test_what_was_measured_of_the_battery_is_not_looked_at():
    fitted = PhysicsFamily(rest=True).fit(ALIKE, "federated", 0)
    trips = driven(9, np.ones(8))
    changed = replace(trips, terminal_kw=trips.terminal_kw * 3 + 1)
    assert np.array_equal(fitted.predict("new", trips), fitted.predict("new", changed))


def test_the_ordinary_car_is_the_dynamics():
    trips = ALIKE["car 0"]
    told = OrdinaryCar().fit(ALIKE, "federated", 0).predict("car 0", trips)
    assert np.allclose(told, trip_energies(trips.drives, Vehicle()).terminal_kwh, rtol=1e-9)

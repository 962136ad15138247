"""Trips and cars left out: who learns from what, and what the rows say of it."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.trip_sets import pooled, some
from fl_inmetro.ev.trips import Trips
from fl_inmetro.ev_study.compare import compare, conformal, signal_bytes
from fl_inmetro.ev_study.folds import cars_left_out, few_trips, trips_left_out
from fl_inmetro.ev_study.plain import RateFamily


def made(car: str, count: int, kwh_per_km: float = 0.15, length: int = 120) -> Trips:
    """Trips at 10 m/s (1.2 km in 120 samples); the i-th needs i per cent more than the first."""
    n = count * length
    speed = np.full(n, 10.0)
    drives = Drives(speed, np.zeros(n), np.full(n, 20.0), np.arange(0, n + 1, length))
    more = np.repeat(1 + 0.01 * np.arange(count), length)
    return Trips(
        tuple(f"{car}-{i}" for i in range(count)),
        drives,
        kwh_per_km * 10 * 3.6 * more,  # kW = kWh/km · km/h
        np.full(n, 18.0),
        np.zeros(count, dtype=bool),
        (),
    )


class Spy:
    """A family that notes what it is trained on and predicts the kWh of its own choice."""

    name = "spy"

    def __init__(self) -> None:
        self.fits: list[tuple[str, dict[str, tuple[str, ...]]]] = []

    def fit(self, fleet, training, seed):
        self.fits.append((training, {car: trips.names for car, trips in fleet.items()}))
        return self

    parameters, moved_bytes = 3, 24

    def predict(self, car, trips, own=None):
        return trips.terminal_kwh + 0.1 * trips.distance_km


def test_some_and_pooled_are_each_other_s_inverse():
    a, b = made("a", 3), made("b", 2, 0.2)
    both = pooled([a, b])
    assert both.names == ("a-0", "a-1", "a-2", "b-0", "b-1")
    assert np.array_equal(both.terminal_kwh, [*a.terminal_kwh, *b.terminal_kwh])
    back = some(both, [3, 4])
    assert back.names == b.names
    assert np.array_equal(back.terminal_kw, b.terminal_kw)
    turned = some(a, [2, 0])
    assert np.allclose(turned.terminal_kwh, a.terminal_kwh[[2, 0]])


def test_a_signal_that_only_one_car_has_is_none_of_the_pool():
    a, b = made("a", 2), made("b", 2)
    heated = replace(a, drives=replace(a.drives, heating_kw=np.ones(240), wind_m_s=np.ones(240)))
    windy = replace(b, drives=replace(b.drives, wind_m_s=np.full(240, 2.0)))
    both = pooled([heated, windy]).drives
    assert both.heating_kw is None
    assert np.array_equal(both.wind_m_s, np.repeat([1.0, 2.0], 240))


def test_each_trip_is_left_out_once_and_never_learned_from():
    trips = made("a", 23)
    folds = trips_left_out(trips, folds=23, logs=4, seed=1)
    left = [name for fold in folds for task in fold.tasks for name in task.trips.names]
    assert sorted(left) == sorted(trips.names)
    for fold in folds:
        learned = {name for own in fold.train.values() for name in own.names}
        out = {name for task in fold.tasks for name in task.trips.names}
        assert len(out) == 1
        assert learned == set(trips.names) - out
        assert {len(own.names) for own in fold.train.values()} <= {4, 5, 6}
        # A trip is predicted as one of the log that it was dealt to.
        assert all(task.car in fold.train for task in fold.tasks)


def test_folds_are_of_like_size_and_repeatable():
    trips = made("a", 23)
    first, again, other = (trips_left_out(trips, 5, 2, seed) for seed in (1, 1, 2))
    sizes = [sum(len(task.trips.names) for task in fold.tasks) for fold in first]
    assert sum(sizes) == 23
    assert max(sizes) - min(sizes) <= 1
    named = [[task.trips.names for task in fold.tasks] for fold in first]
    assert named == [[task.trips.names for task in fold.tasks] for fold in again]
    assert named != [[task.trips.names for task in fold.tasks] for fold in other]


@pytest.mark.parametrize(("folds", "logs"), [(5, 12), (1, 2)])
def test_a_log_without_a_trip_is_refused(folds, logs):
    with pytest.raises(DataError, match="FL228"):
        trips_left_out(made("a", 22), folds, logs, seed=0)


def fleet() -> dict[str, Trips]:
    return {f"car {i}": made(f"car {i}", 10, 0.1 + 0.02 * i) for i in range(6)}


def test_new_cars_are_not_learned_from():
    fold = cars_left_out(fleet(), new_cars=2, own_trips=3, seed=0)
    new = {task.car for task in fold.tasks if task.group == "new"}
    assert len(new) == 2
    assert not new & set(fold.train)
    for task in fold.tasks:
        if task.group == "new":
            assert task.own.names == tuple(f"{task.car}-{i}" for i in range(3))
            assert task.trips.names == tuple(f"{task.car}-{i}" for i in range(3, 10))
        else:
            assert task.own is None
            assert task.trips.names == tuple(f"{task.car}-{i}" for i in (8, 9))
            assert fold.train[task.car].names == tuple(f"{task.car}-{i}" for i in range(6))
    aside = {name for task in fold.widths for name in task.trips.names}
    assert aside == {f"{car}-{i}" for car in fold.train for i in (6, 7)}


def test_another_car_changes_no_car_s_part():
    few = few_trips(cars_left_out(fleet(), 2, 3, seed=0), 4)
    assert {len(own.names) for own in few.train.values()} == {4}


@pytest.mark.parametrize(("new", "own"), [(6, 3), (-1, 3), (1, 10)])
def test_too_few_cars_or_trips_are_refused(new, own):
    with pytest.raises(DataError, match="FL228"):
        cars_left_out(fleet(), new, own, seed=0)


def test_a_short_car_is_named():
    with pytest.raises(DataError, match="car short"):
        cars_left_out(fleet() | {"short": made("short", 4)}, 0, 3, seed=0)


def test_rates_by_hand():
    """Car a: 0.15 kWh/km and one per cent more for its second trip, car b: 0.30; like distances."""
    two = {"a": made("a", 2, 0.15), "b": made("b", 2, 0.30)}
    km = float(two["a"].distance_km[0])
    rates = {t: RateFamily().fit(two, t, 0) for t in ("local", "federated", "central")}
    pooled_rate = (0.15 + 0.1515 + 0.30 + 0.303) / 4
    assert rates["federated"].predict("a", two["a"])[0] == pytest.approx(pooled_rate * km)
    assert rates["central"].kwh_per_km == rates["federated"].kwh_per_km
    assert rates["local"].predict("b", two["a"])[0] == pytest.approx(0.3015 * km)
    assert (rates["federated"].moved_bytes, rates["local"].moved_bytes) == (48, 0)
    with pytest.raises(FederationError, match="FL369"):
        rates["local"].predict("c", two["a"])


def test_scores_and_bytes_of_a_row_by_hand():
    """The spy is always 0.1 kWh/km off: 10 kWh/100 km."""
    spy = Spy()
    fold = cars_left_out(fleet(), 2, 3, seed=0)
    rows = {(r.training, r.group): r for r in compare([fold], [spy], ("local", "central"))}
    assert set(rows) == {(t, g) for t in ("local", "central") for g in ("seen", "new")}
    row = rows["central", "new"]
    assert (row.cars, row.trips, row.parameters) == (2, 14, 3)
    assert row.scores.mae_kwh_per_100km.value == pytest.approx(10)
    assert row.width_80_kwh == pytest.approx(2 * 0.1 * 1.2)
    # Four cars, six trips of 120 seconds each, five signals of four bytes.
    assert row.moved_bytes == 4 * 6 * 120 * 5 * 4
    assert rows["local", "new"].moved_bytes == 0


def test_alone_a_new_car_learns_from_its_own_trips_only():
    spy = Spy()
    fold = cars_left_out(fleet(), 1, 3, seed=0)
    car = next(task.car for task in fold.tasks if task.group == "new")
    list(compare([fold], [spy], ("local",)))
    assert ("local", {car: tuple(f"{car}-{i}" for i in range(3))}) in spy.fits
    rows = list(compare([cars_left_out(fleet(), 1, 0, seed=0)], [spy], ("local", "federated")))
    assert {(row.training, row.group) for row in rows} == {
        ("local", "seen"),
        ("federated", "seen"),
        ("federated", "new"),
    }


def test_an_interval_does_not_know_its_own_trip():
    """Nine trips with errors 1 … 9: for the largest the 8 others' 8th of rank ceil(.8·9) = 8."""
    assert conformal(np.arange(1.0, 9.0)) == 8.0
    assert conformal(np.arange(1.0, 4.0)) == float("inf")

    class Off(Spy):
        def predict(self, car, trips, own=None):
            at = np.array([int(name.split("-")[1]) for name in trips.names])
            return trips.terminal_kwh + (at + 1) * trips.distance_km

    rows = list(compare(trips_left_out(made("a", 9), 9, 1, 0), [Off()], ("central",)))
    # The ninth's own interval ends at 8 km⁻¹, all others' at 9.
    assert rows[0].scores.coverage_80 == pytest.approx(8 / 9)
    assert rows[0].width_80_kwh == pytest.approx(2 * 1.2 * (8 * 9 + 8) / 9)
    assert signal_bytes(made("a", 1)) == 120 * 5 * 4


def test_seen_cars_play_new_ones_for_the_width_of_intervals():
    fold = cars_left_out(fleet(), 2, 3, seed=0)
    played = {task.car for task in fold.rehearsal.tasks}
    new = {task.car for task in fold.tasks if task.group == "new"}
    assert played
    assert not played & (new | set(fold.rehearsal.train))
    for task in fold.rehearsal.tasks:
        # What they drove before their own test trips, after three of their own.
        assert task.own.names == tuple(f"{task.car}-{i}" for i in range(3))
        assert task.trips.names == tuple(f"{task.car}-{i}" for i in range(3, 8))
    assert cars_left_out(fleet(), 0, 3, seed=0).rehearsal is None

    class Strangers(Spy):
        """Right to 0.1 kWh/km for cars that it has trained on, to 0.3 for others."""

        def fit(self, trained, training, seed):
            model = Strangers()
            model.known = set(trained)
            return model

        def predict(self, car, trips, own=None):
            off = 0.1 if car in self.known else 0.3
            return trips.terminal_kwh + off * trips.distance_km

    rows = {row.group: row for row in compare([fold], [Strangers()], ("federated",))}
    assert rows["seen"].width_80_kwh == pytest.approx(2 * 0.1 * 1.2)
    assert rows["new"].width_80_kwh == pytest.approx(2 * 0.3 * 1.2)

"""The families of linear regression: choice, exactness over cars, own trips, and real trips."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.calibration import total
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.family import Family, Fitted
from fl_inmetro.ev.regression import only, regress
from fl_inmetro.ev.trip_family import TripRegression
from fl_inmetro.ev.trip_features import drive_features, features_before, planned
from fl_inmetro.ev.trip_regression import (
    FORMS,
    SPREAD,
    Form,
    centre,
    chosen,
    columns_of,
    fitted,
    leave_one_trip_out,
    left_out_kwh_per_km,
    rows_of,
)
from fl_inmetro.ev.trips import Trips, read_trips
from fl_inmetro.ev.validation import scores

DATA = os.environ.get("FL_INMETRO_DATA", "")
BMW = Path(DATA or ".") / "ev_bmw_i3" / "signals_1hz.parquet"

#: What a made car needs of each column of `features_before`.
TRUE = {
    "rolling_kwh": 2.0,
    "air_kwh": 0.9,
    "base_kwh": 1.3,
    "heating_kwh": 1.6,
    "cooling_kwh": 0.7,
    "cold_kwh": 3.0,
}
BEFORE, DRIVE = TripRegression("before"), TripRegression("drive")


def trips(
    seed: int, n: int = 14, noise: float = 0.01, scale: float = 1.0, coldest: float = -8
) -> Trips:
    """Trips of a car whose energy is `TRUE`·columns, with errors of so many kWh per √km."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(300, 900, n)
    offsets = np.cumsum([0, *lengths])
    top = np.repeat(rng.uniform(8, 34, n), lengths)
    speed = np.clip(top * (0.6 + 0.4 * np.sin(np.arange(offsets[-1]) / 29)), 0, None)
    ambient = np.repeat(rng.uniform(coldest, 33, n), lengths)
    drives = Drives(speed, rng.normal(0, 0.1, offsets[-1]), ambient, offsets)
    known = features_before(planned(drives))
    energy = scale * known.columns(list(TRUE)) @ list(TRUE.values())
    energy += rng.normal(0, noise, n) * np.sqrt(known.columns(["distance_km"])[:, 0])
    power = np.repeat(energy / lengths * 3600, lengths)
    names = tuple(f"{seed}-{i}" for i in range(n))
    return Trips(names, drives, power, ambient + 4, np.zeros(n, dtype=bool), ())


FLEET = {f"car {i}": trips(i) for i in range(4)}


def test_they_are_families():
    """The protocols of `family`, as mypy and as the interpreter see them."""
    family: Family = BEFORE
    model: Fitted = family.fit({"car 0": FLEET["car 0"]}, "federated", 0)
    assert family.name == "before_trip"
    assert model.parameters <= len(columns_of(BEFORE.forms))
    assert DRIVE.name == "regression"
    assert TripRegression("before", battery=True).name.endswith("_battery")


def test_what_was_put_in_comes_out():
    """Without noise, the forms that hold all of `TRUE` are exact: one of them is chosen."""
    exact = {f"car {i}": trips(i, noise=0.0) for i in range(3)}
    model = BEFORE.fit(exact, "federated")
    assert set(TRUE) <= set(model.form.columns)
    assert model.form.spread == np.inf
    found = dict(zip(model.fleet.names, model.fleet.coefficient, strict=True))
    assert {name: found[name] for name in TRUE} == pytest.approx(TRUE, rel=1e-6)
    new = trips(99, noise=0.0)
    assert model.predict("new car", new) == pytest.approx(new.terminal_kwh, rel=1e-6)


@pytest.mark.parametrize("family", [BEFORE, DRIVE, TripRegression("before", battery=True)])
def test_federated_is_central(family):
    federated, central = (family.fit(FLEET, how) for how in ("federated", "central"))
    assert federated.form == central.form
    assert federated.fleet.coefficient == pytest.approx(central.fleet.coefficient, rel=1e-9)
    new = trips(50)
    for car in ("car 2", "new car"):
        one, other = federated.predict(car, new), central.predict(car, new)
        assert one == pytest.approx(other, rel=1e-9)
    # All trips of all cars in one table, and the prior as rows of its own.
    rows = [row for one in FLEET.values() for row in family.rows(one)]
    columns, noise = federated.form.columns, federated.fleet.noise
    root = np.array([row.distance_km for row in rows]) ** -0.5 / noise
    x = np.vstack([row.columns(columns) for row in rows]) * root[:, None]
    y = np.array([row.measured_kwh for row in rows]) * root
    sd = federated.form.spread * np.array([SPREAD[family.kind][name] for name in columns])
    beforehand = np.array([centre(columns)[name] for name in columns])
    expected = np.linalg.lstsq(
        np.vstack([x, np.diag(1 / sd)]), np.concatenate([y, beforehand / sd]), rcond=None
    )[0]
    assert federated.fleet.coefficient == pytest.approx(expected, rel=1e-6)


def test_what_moved_by_hand():
    """Eight columns: 36 + 8 + 2 sums up, as many down; 19 gains, twice; a number and β down."""
    assert len(columns_of(BEFORE.forms)) == 8
    assert len(set(BEFORE.forms)) == 20
    model = BEFORE.fit(FLEET, "federated")
    assert model.moved_bytes == 4 * 8 * (46 + 46 + 38 + 1 + len(model.form.columns))
    few = BEFORE.fit({"a": trips(1, n=4), "b": trips(2, n=5)}, "federated")
    assert few.moved_bytes == 2 * 8 * (46 + 1 + 6)
    central = BEFORE.fit(FLEET, "central")
    assert central.moved_bytes == 8 * (56 * 10 + 4 * len(central.form.columns))
    assert BEFORE.fit(FLEET, "local").moved_bytes == 0


def test_leaving_out_is_fitting_again():
    rows = BEFORE.rows(FLEET["car 1"])
    form = Form("before", ("rolling_kwh", "air_kwh", "base_kwh", "heating_kwh", "cooling_kwh"))
    short = left_out_kwh_per_km(total(row.sums for row in rows), rows, form)
    x = np.vstack([row.columns(form.columns) for row in rows])
    y, km = (
        np.array([getattr(row, name) for row in rows]) for name in ("measured_kwh", "distance_km")
    )
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        root = km[others] ** -0.5
        beta = np.linalg.lstsq(x[others] * root[:, None], y[others] * root, rcond=None)[0]
        assert short[i] == pytest.approx((x[i] @ beta - y[i]) / km[i], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("family", [BEFORE, DRIVE])
def test_the_trip_left_out_has_no_say(family):
    """Whatever the first trip measured, its prediction, its interval and its form stay."""
    one = FLEET["car 0"]
    power = one.terminal_kw.copy()
    power[: one.drives.offsets[1]] *= 3
    first, second = (
        leave_one_trip_out(family.rows(t), family.forms)
        for t in (one, replace(one, terminal_kw=power))
    )
    assert first.predicted_kwh[0] == second.predicted_kwh[0]
    assert first.half_width_kwh[0] == second.half_width_kwh[0]
    assert first.forms[0] == second.forms[0]
    assert first.predicted_kwh[1] != second.predicted_kwh[1]


@pytest.mark.parametrize("family", [BEFORE, DRIVE, TripRegression("before", battery=True)])
def test_the_battery_of_a_trip_is_not_looked_at(family):
    """Neither its power nor, but at the start and where it is asked for, its temperature."""
    model = family.fit(FLEET, "federated")
    new = trips(60)
    later = new.battery_deg_c + 7
    later[new.drives.offsets[:-1]] -= 7
    if not family.battery:
        later[:] = np.nan
    blind = replace(new, terminal_kw=np.full_like(new.terminal_kw, np.nan), battery_deg_c=later)
    assert model.predict("car 0", blind) == pytest.approx(model.predict("car 0", new), rel=1e-12)


def test_alone_each_car_has_its_own():
    model = BEFORE.fit(FLEET, "local")
    new = trips(70)
    alone = BEFORE.fit({"car 3": FLEET["car 3"]}, "central").fleet
    got = model.predict("car 3", new)
    assert got == pytest.approx(BEFORE.features(new).columns(alone.names) @ alone.coefficient)
    with pytest.raises(FederationError, match=r"FL369.*`new car`"):
        model.predict("new car", new)
    assert model.predict("new car", new, own=FLEET["car 3"]) == pytest.approx(got)
    assert model.parameters == max(len(own.names) for own in model.models.values())


def test_a_car_of_its_own_kind_leaves_the_fleet():
    """A van that takes 1.5 times as much: its own earlier trips tell, the fleet's cannot."""
    model = BEFORE.fit(FLEET, "federated")
    van, new = trips(80, scale=1.5), trips(81, scale=1.5)
    fleets = np.abs(model.predict("van", new) - new.terminal_kwh).mean()
    own = np.abs(model.predict("van", new, own=van) - new.terminal_kwh).mean()
    assert own < 0.25 * fleets
    # Held to the fleet's β, by its own trips.
    around = dict(zip(model.fleet.names, model.fleet.coefficient, strict=True))
    sums = total(row.sums for row in BEFORE.rows(van))
    wanted = [
        fitted(sums, Form("before", model.form.columns, spread), around).coefficient
        for spread in (0.3, 1.0)
    ]
    got = model.model_of("van", van).coefficient
    assert min(np.abs(got - one).max() for one in wanted) < 1e-9
    # As one of the fleet it needs no telling, and an ordinary car stays ordinary.
    among = BEFORE.fit({**FLEET, "van": van}, "federated")
    assert np.abs(among.predict("van", new) - new.terminal_kwh).mean() < 0.25 * fleets
    few = van.drives.offsets[3]
    three = replace(
        van,
        names=van.names[:3],
        drives=van.drives.only(range(3)),
        terminal_kw=van.terminal_kw[:few],
        battery_deg_c=van.battery_deg_c[:few],
    )
    assert model.predict("van", new, own=three) == pytest.approx(model.predict("van", new))


def test_a_summer_car_keeps_the_ordinary_heating():
    """Never below 20 °C: nothing says what heating or the cold cost, so they stay at 1."""
    rows = BEFORE.rows(trips(5, coldest=20))
    sums = total(row.sums for row in rows)
    everything = Form("before", columns_of(BEFORE.forms), 1.0)
    found = fitted(sums, everything)
    by = dict(zip(found.names, found.coefficient, strict=True))
    for name in ("heating_kwh", "cold_kwh", "warm_up_kwh"):
        assert by[name] == pytest.approx(1, abs=1e-12)
    assert abs(by["cooling_kwh"] - 1) > 0.01
    with pytest.raises(FederationError, match=r"FL371.*heating_kwh"):
        fitted(sums, replace(everything, spread=np.inf))
    # What these trips cannot decide is no candidate, and no reason to give up.
    form = chosen([rows], BEFORE.forms, clearly=0)
    assert np.isfinite(form.spread) or "heating_kwh" not in form.columns


def test_a_ridge_is_a_form_too():
    rows = BEFORE.rows(FLEET["car 0"])
    sums = total(row.sums for row in rows)
    form = Form("before", ("rolling_kwh", "base_kwh"), penalty=0.2)
    expected = regress(only(sums, form.columns), 0.2, centre(form.columns))
    assert fitted(sums, form).coefficient == pytest.approx(expected.coefficient)


def test_the_usual_form_is_left_for_a_clear_gain_only():
    """The gain of the best other form, by plain loops: it is one, but not of two errors."""
    cars = [BEFORE.rows(trips(seed, noise=0.06)) for seed in (21, 22)]
    usual, least = BEFORE.forms[0], chosen(cars, BEFORE.forms, clearly=0)
    assert least != usual
    assert chosen(cars, BEFORE.forms) == usual
    rows = [row for car in cars for row in car]

    def errors(form: Form) -> np.ndarray:
        found = []
        for i, row in enumerate(rows):
            others = total(other.sums for j, other in enumerate(rows) if j != i)
            told = fitted(others, form).predict(row.columns(form.columns))[0]
            found.append(abs(told - row.measured_kwh) / row.distance_km)
        return np.array(found)

    gain = errors(usual) - errors(least)
    error = gain.std(ddof=1) / len(rows) ** 0.5
    assert 0 < gain.mean() < 2 * error
    between = gain.mean() / error
    assert chosen(cars, (usual, least), clearly=0.99 * between) == least
    assert chosen(cars, (usual, least), clearly=1.01 * between) == usual


def test_few_trips_choose_nothing():
    nine, ten = (BEFORE.rows(trips(13, n=n, noise=0.0)) for n in (9, 10))
    assert chosen([nine], BEFORE.forms) == BEFORE.forms[0]
    assert chosen([ten], BEFORE.forms) != BEFORE.forms[0]


def test_one_trip_is_a_beginning():
    """For one column, with σ found: (x·y·w/σ² + 1/s²) / (x²·w/σ² + 1/s²), s = 1."""
    one = trips(3, n=1)
    model = BEFORE.fit({"car": one}, "local")
    assert model.models["car"].names == FORMS["before"][0].columns
    assert np.all(np.isfinite(model.predict("car", trips(4))))
    row = BEFORE.rows(one)[0]
    found = fitted(row.sums, Form("before", ("rolling_kwh",), 1.0))
    x, y = row.columns(("rolling_kwh",))[0, 0], row.measured_kwh
    precision = 1 / row.distance_km / found.noise**2
    expected = (x * y * precision + 1) / (x * x * precision + 1)
    assert found.coefficient[0] == pytest.approx(expected, rel=1e-6)


def test_kinds_do_not_mix():
    one = FLEET["car 0"]
    before = features_before(planned(one.drives))
    with pytest.raises(FederationError, match="FL372"):
        rows_of(before, one.terminal_kwh, one.distance_km, FORMS["drive"])
    with pytest.raises(FederationError, match="FL372"):
        rows_of(drive_features(one.drives), one.terminal_kwh, one.distance_km, FORMS["before"])
    shared = Form("before", ("distance_km", "duration_h"))
    with pytest.raises(FederationError, match=r"FL372.*`drive` for forms of another"):
        rows_of(drive_features(one.drives), one.terminal_kwh, one.distance_km, (shared,))
    with pytest.raises(FederationError, match="FL372"):
        TripRegression("drive", battery=True)
    with pytest.raises(FederationError, match="FL371"):
        BEFORE.fit({}, "federated")


def test_intervals_are_the_regressions():
    rows = BEFORE.rows(FLEET["car 2"])
    form = Form("before", ("rolling_kwh", "base_kwh"), penalty=0.01)
    found = leave_one_trip_out(rows, (form,))
    model = regress(
        total(only(row.sums, form.columns) for row in rows[1:]), 0.01, centre(form.columns)
    )
    x = rows[0].columns(form.columns)
    low, high = model.prediction_interval(x, 0.8, np.array([1 / rows[0].distance_km]))
    assert found.half_width_kwh[0] == pytest.approx((high - low)[0] / 2)
    assert found.predicted_kwh[0] == pytest.approx((high + low)[0] / 2)


@pytest.mark.data
@pytest.mark.skipif(not BMW.is_file(), reason="FL_INMETRO_DATA has no ev_bmw_i3")
@pytest.mark.parametrize(
    ("family", "per_100km", "per_trip"),
    [
        (BEFORE, 1.75, 0.27),
        (TripRegression("before", battery=True), 1.6, 0.25),
        (DRIVE, 1.0, 0.13),
    ],
)
def test_real_trips_that_were_left_out(family, per_100km, per_trip):
    """The set's own references: mean 2.95 kWh/100 km, eight features 1.83, fleet rate 0.475 kWh."""
    real = read_trips(BMW)
    # As many forms as one has time for; the benchmark takes all.
    found = leave_one_trip_out(family.rows(real), family.forms[:12])
    got = scores(found.predicted_kwh, real.terminal_kwh, real.distance_km, found.half_width_kwh)
    assert got.mae_kwh_per_100km.value <= per_100km
    assert got.mae_kwh.value <= per_trip
    assert 0.7 <= got.coverage_80 <= 0.9

"""Calibration: recovers what it must, by hand, as least squares does, and over cars as pooled."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.calibration import (
    PRIOR_SD,
    TERMS,
    Sums,
    calibrate,
    segment_starts,
    sums_of,
    sums_per_trip,
    term_powers,
    total,
)
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.dynamics import powers, trip_energies
from fl_inmetro.ev.parameters import Vehicle

ORDINARY = Vehicle()


def town_and_motorway(seed: int, trips: int = 12) -> Drives:
    """Trips of stops, hills, motorway and every season."""
    rng = np.random.default_rng(seed)
    speeds, climbs, ambients, lengths = [], [], [], []
    for _ in range(trips):
        n = int(rng.integers(400, 900))
        t = np.arange(n)
        top = rng.uniform(8, 36)
        wave = np.sin(t / rng.uniform(8, 30)) + 0.6 * np.sin(t / rng.uniform(40, 90))
        speeds.append(np.clip(top * (0.5 + 0.4 * wave), 0, None))
        climbs.append(0.4 * np.sin(t / 60 + rng.uniform(0, 6)))
        ambients.append(np.full(n, rng.uniform(-8, 35)))
        lengths.append(n)
    return Drives(
        np.concatenate(speeds),
        np.concatenate(climbs),
        np.concatenate(ambients),
        np.cumsum([0, *lengths]),
    )


DRIVES = town_and_motorway(1)
DESIGN = term_powers(DRIVES, ORDINARY)


def test_the_terms_are_the_ordinary_car():
    assert DESIGN.shape == (len(DRIVES.speed_m_s), len(TERMS))
    assert DESIGN.sum(axis=1) == pytest.approx(powers(DRIVES, ORDINARY).terminal_kw, abs=1e-9)
    by = dict(zip(TERMS, DESIGN.T, strict=True))
    assert by["recuperation"].max() == 0
    assert by["recuperation"].min() < -5
    for name in ("rolling", "air", "base", "heating", "cooling"):
        assert by[name].min() >= 0, name
        assert by[name].max() > 0.2, name


def test_measured_heating_takes_the_place_of_the_weather():
    measured = replace(DRIVES, heating_kw=np.full(len(DRIVES.speed_m_s), 1.5))
    by = dict(zip(TERMS, term_powers(measured, ORDINARY).T, strict=True))
    inside = np.ones(len(DRIVES.speed_m_s), dtype=bool)
    inside[DRIVES.offsets[1:] - 1] = False
    assert by["heating"][inside] == pytest.approx(1.5)
    cooling = DESIGN[:, TERMS.index("cooling")]
    assert by["cooling"] == pytest.approx(cooling)


def test_pieces_by_hand():
    """Trips of 10 and 3 samples in pieces of 4: 0, 4 (the last 2 go with it); the short one whole.

    A rest of less than half a piece joins the piece before it; half or more stands alone.
    """
    drives = Drives(np.zeros(13), np.zeros(13), np.zeros(13), np.array([0, 10, 13]))
    assert segment_starts(drives, 4).tolist() == [0, 4, 10]
    longer = Drives(np.zeros(14), np.zeros(14), np.zeros(14), np.array([0, 11, 14]))
    assert segment_starts(longer, 4).tolist() == [0, 4, 8, 11]


def test_one_factor_by_hand():
    """x = (1, 2), y = (2, 4.5), prior 1 ± 1, σ² held by its own fit.

    X'X = 5, X'y = 11, y'y = 24.25, n = 2. β = (11/σ² + 1)/(5/σ² + 1) = (11 + σ²)/(5 + σ²) and
    σ² = (24.25 − 22 β + 5 β²)/2. Least squares alone: β = 2.2, σ² = 0.025. One step on:
    β = 11.025/5.025 = 2.1940, σ² = 0.025088; then 11.025088/5.025088 = 2.19401.
    """
    sums = Sums(("a",), np.array([[5.0]]), np.array([11.0]), 24.25, 2)
    found = calibrate(sums, [1.0], [1.0])
    assert found.factor[0] == pytest.approx(2.19401, abs=2e-5)
    assert found.noise_kwh**2 == pytest.approx(0.02509, abs=2e-5)
    assert found.standard_error[0] == pytest.approx((5 / 0.02509 + 1) ** -0.5, rel=1e-3)


def test_a_wide_prior_is_least_squares():
    rng = np.random.default_rng(0)
    measured = DESIGN @ rng.uniform(0.7, 1.4, len(TERMS)) + rng.normal(0, 2, len(DESIGN))
    starts = segment_starts(DRIVES)
    x = np.add.reduceat(DESIGN, starts) / 3600
    y = np.add.reduceat(measured, starts) / 3600
    independent = np.linalg.lstsq(x, y, rcond=None)[0]
    found = calibrate(sums_of(DESIGN, measured, DRIVES), prior_sd=np.full(len(TERMS), 1e4))
    assert found.factor == pytest.approx(independent, rel=1e-5)
    assert found.noise_kwh**2 == pytest.approx(np.mean((y - x @ independent) ** 2), rel=1e-5)


def test_the_prior_is_as_if_seen_before():
    """The same answer from least squares on rows that say β = β⁰ with the weight of s."""
    rng = np.random.default_rng(2)
    measured = DESIGN @ rng.uniform(0.7, 1.4, len(TERMS)) + rng.normal(0, 3, len(DESIGN))
    sums = sums_of(DESIGN, measured, DRIVES)
    found = calibrate(sums)
    starts = segment_starts(DRIVES)
    x = np.add.reduceat(DESIGN, starts) / 3600
    y = np.add.reduceat(measured, starts) / 3600
    weight = found.noise_kwh / np.array([PRIOR_SD[name] for name in TERMS])
    stacked = np.vstack([x, np.diag(weight)])
    independent = np.linalg.lstsq(stacked, np.concatenate([y, weight]), rcond=None)[0]
    assert found.factor == pytest.approx(independent, rel=1e-6)


def test_a_known_car_is_found_again():
    """Energies made with factors: without noise and with a weak prior they come back."""
    factors = np.array([1.1, 0.8, 1.6, 1.3, 0.7, 2.0, 1.2, 0.9])
    found = calibrate(
        sums_of(DESIGN, DESIGN @ factors, DRIVES), prior_sd=np.full(len(TERMS), 100.0)
    )
    assert found.factor == pytest.approx(factors, abs=1e-3)
    assert found.interval_kw(DESIGN) == pytest.approx(DESIGN @ factors, abs=0.02)


def test_a_real_car_s_parameters_are_found_on_new_trips():
    """Another car drives; the ordinary one, calibrated on its trips, tells new trips' energy."""
    other = replace(
        ORDINARY,
        rolling_coefficient=0.011,
        drag_coefficient=0.25,
        transmission_efficiency=0.9,
        regeneration_share=0.7,
        base_power_kw=0.4,
        heating_kw_per_k=0.16,
        cooling_kw_per_k=0.06,
    )
    measured = powers(DRIVES, other).terminal_kw
    first = calibrate(sums_of(DESIGN, measured, DRIVES)).vehicle(ORDINARY)
    # What is traction and what is braking depends on the car: a second round, around the first's.
    again = sums_of(term_powers(DRIVES, first), measured, DRIVES)
    car = calibrate(again).vehicle(first)
    new = town_and_motorway(7)
    truth = trip_energies(new, other).terminal_kwh
    before = np.abs(trip_energies(new, ORDINARY).terminal_kwh / truth - 1)
    once, twice = (
        np.abs(trip_energies(new, found).terminal_kwh / truth - 1) for found in (first, car)
    )
    assert before.mean() > 0.1
    assert once.mean() < 0.02
    assert twice.mean() < 0.005
    for name in ("rolling_coefficient", "drag_coefficient", "transmission_efficiency"):
        assert getattr(car, name) == pytest.approx(getattr(other, name), rel=0.06), name
    assert car.heating_kw_per_k == pytest.approx(0.16, rel=0.05)
    assert car.cooling_kw_per_k == pytest.approx(0.06, rel=0.05)


@given(st.integers(1, 11), st.integers(0, 1000))
def test_sums_over_cars_are_the_sums_of_all(cut, seed):
    """Federated = pooled: the first trips are one car's, the rest another's."""
    rng = np.random.default_rng(seed)
    measured = DESIGN @ rng.uniform(0.5, 1.5, len(TERMS)) + rng.normal(0, 2, len(DESIGN))
    trips = sums_per_trip(DESIGN, measured, DRIVES)
    pooled = calibrate(sums_of(DESIGN, measured, DRIVES))
    federated = calibrate(total([total(trips[:cut]), total(trips[cut:])]))
    assert federated.factor == pytest.approx(pooled.factor, rel=1e-9)
    assert federated.covariance == pytest.approx(pooled.covariance, rel=1e-7)
    assert federated.n == pooled.n == len(segment_starts(DRIVES))


def test_a_car_of_few_trips_leans_on_the_fleet():
    """Ten cars near each other, the eleventh with one trip: the fleet's prior is the better one."""
    rng = np.random.default_rng(4)
    fleet_factor = np.array([1.2, 1.3, 1.5, 0.7, 0.8, 1.5, 1.3, 0.8])
    cars = []
    for _ in range(10):
        own = fleet_factor * rng.normal(1, 0.03, len(TERMS))
        drives = town_and_motorway(int(rng.integers(1e6)), 6)
        design = term_powers(drives, ORDINARY)
        cars.append(sums_of(design, design @ own + rng.normal(0, 4, len(design)), drives))
    fleet = calibrate(total(cars))
    own = fleet_factor * rng.normal(1, 0.03, len(TERMS))
    few, new = town_and_motorway(50, 1), town_and_motorway(51)
    one, other = term_powers(few, ORDINARY), term_powers(new, ORDINARY)
    sums = sums_of(one, one @ own + rng.normal(0, 4, len(one)), few)
    truth = new.sums(other @ own)
    alone = new.sums(other @ calibrate(sums).factor)
    leaning = new.sums(other @ calibrate(sums, fleet.factor, np.full(len(TERMS), 0.05)).factor)
    assert np.abs(leaning - truth).mean() < 0.5 * np.abs(alone - truth).mean()


def test_bad_sums_are_refused():
    good = sums_of(DESIGN, DESIGN.sum(axis=1), DRIVES)
    k = len(TERMS)
    cases = [
        lambda: good + replace(good, terms=("other", *TERMS[1:])),
        lambda: total([]),
        lambda: calibrate(replace(good, n=0)),
        lambda: calibrate(good, prior=np.ones(k - 1)),
        lambda: calibrate(good, prior_sd=np.zeros(k)),
    ]
    for case in cases:
        with pytest.raises(FederationError, match="FL368"):
            case()

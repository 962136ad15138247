"""The parameters of a car: bounds, public cars, and the peer and the ratings on the cycles."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.parameters import BOUNDS, EfficiencyMap, Vehicle, public_car, public_cars

DATA = os.environ.get("FL_INMETRO_DATA", "")
needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (Path(DATA) / "drive_cycles").is_dir() or not DATA,
        reason="FL_INMETRO_DATA does not lead to drive_cycles",
    ),
]
PEER = json.loads((Path(__file__).parent / "fastsim_3_1_0.json").read_text(encoding="utf-8"))


def test_the_public_cars():
    cars = public_cars()
    assert len(cars) == 20
    assert sum(car.rated_kwh_per_mile is not None for car in cars.values()) == 6
    # Bolt: 136 + 648 + 1.4·(114 + 60·6 + 75 + 150·0.833 + 21.6) = 1757.8 kg with its payload;
    # 1 + 4·0.815 / (0.336²·1757.8) = 1.0164.
    bolt = public_car("2017 CHEVROLET Bolt")
    assert bolt.total_mass_kg == pytest.approx(1757.8, abs=0.1)
    assert bolt.rotating_mass_factor == pytest.approx(1.0164, abs=1e-4)
    assert cars["2017 CHEVROLET Bolt"].rated_kwh_per_mile == (0.263, 0.306, 0.283)


def test_the_default_car_is_the_median_car():
    cars = [car.vehicle for car in public_cars().values()]
    for name in ("drag_coefficient", "frontal_area_m2", "rolling_coefficient", "total_mass_kg"):
        median = np.median([getattr(car, name) for car in cars])
        assert getattr(Vehicle(), name) == pytest.approx(median, rel=0.005), name


def test_an_unknown_car_is_no_car():
    with pytest.raises(FederationError, match="FL367") as caught:
        public_car("Trabant")
    assert "2017 CHEVROLET Bolt" in str(caught.value)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("beyond", [float("nan"), float("inf"), -21.0, 1e6])
def test_impossible_numbers_are_refused(name, beyond):
    with pytest.raises(FederationError, match="FL367"):
        Vehicle(**{name: beyond})


def test_all_faults_are_said_at_once():
    with pytest.raises(FederationError) as caught:
        Vehicle(mass_kg=1.6, drag_coefficient=-1, comfort_low_deg_c=30)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("load", "efficiency", "says"),
    [
        ((0.0, 1.0), (0.9,), "one efficiency for each load"),
        ((0.0,), (0.9,), "one efficiency for each load"),
        ((0.0, 0.5, 0.4, 1.0), (0.9,) * 4, "rise from 0 to 1"),
        ((0.1, 1.0), (0.9, 0.9), "rise from 0 to 1"),
        ((0.0, 1.0), (0.0, 0.9), "outside"),
        ((0.0, 1.0), (0.9, 1.1), "outside"),
    ],
)
def test_bad_maps_are_refused(load, efficiency, says):
    with pytest.raises(FederationError, match=says):
        Vehicle(motor_map=EfficiencyMap(load, efficiency))


@pytest.fixture(scope="module")
def rated():
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import ev_rated
    finally:
        sys.path.pop(0)
    return {row.car: row for row in ev_rated.rows(Path(DATA))}


class TestOnTheCycles:
    pytestmark = needs_data

    @pytest.mark.parametrize("car", PEER["kwh_per_mile"])
    def test_the_peer_says_the_same(self, rated, car):
        """All twenty cars, city and highway: 2.5 % (the fade of recuperation is no logistic)."""
        city, highway = PEER["kwh_per_mile"][car]
        assert rated[car].laboratory[0] == pytest.approx(city, rel=0.025)
        assert rated[car].laboratory[1] == pytest.approx(highway, rel=0.01)

    def test_the_window_sticker_says_nearly_the_same(self, rated):
        """Both cycles together within 10 % of the rating of each car that has one."""
        deviations = {car: row.deviation_percent for car, row in rated.items() if row.rated}
        assert len(deviations) == 6
        for car, (_, _, both) in deviations.items():
            assert abs(both) < 10, car

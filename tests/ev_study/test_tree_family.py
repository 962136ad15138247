"""Trees on trips: federated = central, over physics, and what a car needs more."""

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.simulated import fleet
from fl_inmetro.ev.trip_sets import some
from fl_inmetro.ev_study.car_effect import car_effects
from fl_inmetro.ev_study.families import FAMILIES, families
from fl_inmetro.ev_study.tree_family import TreeFamily
from fl_inmetro.trees.boost import Settings
from fl_inmetro.trees.grow import Growth

CARS = {name: car.trips for name, car in fleet(4, 10, seed=2).items()}
FEW = Settings(trees=10, rate=0.2, bins=16, growth=Growth(depth=3, least_rows=3))


@pytest.mark.parametrize("way", ["boosted", "forest"])
@pytest.mark.parametrize("physics", [False, True])
def test_federated_is_central(way, physics):
    family = TreeFamily(way, physics, FEW)
    federated, central = (family.fit(CARS, t, 0) for t in ("federated", "central"))
    for car, trips in CARS.items():
        told = [model.predict(car, trips) for model in (federated, central)]
        # A forest draws rows by the name of who holds them: alike, not equal.
        assert np.allclose(*told, rtol=1e-9 if way == "boosted" else 0.3)
    assert federated.moved_bytes > 0 == central.moved_bytes


def test_bagging_has_a_tree_of_each_car():
    fitted = TreeFamily("bagged", False, FEW).fit(CARS, "federated", 0)
    assert len(fitted.trees[""].ensemble.trees) == 40
    assert sum(fitted.trees[""].ensemble.weights) == pytest.approx(10 * 0.2)


def test_alone_each_car_has_its_trees_and_a_stranger_has_none():
    local = TreeFamily("boosted", True, FEW).fit(CARS, "local", 0)
    assert set(local.trees) == set(CARS)
    with pytest.raises(FederationError, match="FL369"):
        local.predict("new", CARS["car 01"])


def test_own_trips_are_used():
    fitted = TreeFamily("boosted", False, FEW).fit(CARS, "federated", 0)
    new = fleet(6, 10, seed=5)["car 06"].trips
    own, later = some(new, range(5)), some(new, range(5, 10))
    plain, informed = (fitted.predict("new", later, known) for known in (None, own))
    per_km = (informed - plain) / later.distance_km
    error = ((own.terminal_kwh - fitted.predict("new", own)) / own.distance_km).sum()
    expected = error / (5 + fitted.effects.trips_to_trust)
    assert np.allclose(per_km, expected)


def test_effects_by_hand():
    """Cars at ±3, two trips each: within 2, between 17, so 2/17 of a trip is trusted."""
    errors = {"a": np.array([2.0, 4.0]), "b": np.array([-4.0, -2.0])}
    effects = car_effects(errors)
    assert effects.trips_to_trust == pytest.approx(2 / 17)
    assert effects.of("a") == pytest.approx(6 / (2 + 2 / 17))
    assert effects.of("new") == 0
    assert effects.of("new", np.array([3.0])) == pytest.approx(3 / (1 + 2 / 17))
    # Cars that do not differ are all the fleet.
    same = car_effects({"a": np.array([1.0, -1.0]), "b": np.array([1.0, -1.0])})
    assert same.of("a") == same.of("new", np.array([5.0])) == 0


def test_every_family_has_its_name():
    for name, family in zip(FAMILIES, families(), strict=True):
        assert family.name == name

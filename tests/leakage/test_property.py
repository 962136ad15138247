"""Properties: the fast tournament beside one that fits every pair anew; planted and unplanted."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from fl_inmetro.leakage.property import (
    NUMBERS,
    decided,
    features,
    low_share,
    median_split,
    property_told,
    ridge_inverse,
    tellable,
    tournament,
)


def made(clients=12, size=5, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    has = np.arange(clients) % 2 == 0
    numbers = rng.normal(size=(clients, size))
    numbers[:, 0] += shift * has
    return numbers, has


def fitted(numbers, sign, left_out):
    """Values of those left out, by scikit-learn on the others, with the penalty of all."""
    wide = np.column_stack([numbers, np.ones(len(numbers))])
    penalty = np.trace(wide @ wide.T) / len(wide)
    rest = [k for k in range(len(sign)) if k not in left_out]
    model = Ridge(alpha=penalty, fit_intercept=False).fit(wide[rest], sign[rest])
    return model.predict(wide[list(left_out)])


def test_the_tournament_is_that_of_refits():
    numbers, has = made(shift=1.0)
    sign = np.where(has, 1.0, -1.0)
    wins = np.zeros(len(sign))
    for i in range(len(sign)):
        for j in range(i):
            a, b = fitted(numbers, sign, (i, j))
            wins[i] += (a > b) + 0.5 * (a == b)
            wins[j] += (b > a) + 0.5 * (a == b)
    np.testing.assert_allclose(tournament(ridge_inverse(numbers), sign), wins / (len(sign) - 1))


def test_decisions_are_those_of_refits():
    numbers, has = made(shift=1.0)
    sign = np.where(has, 1.0, -1.0)
    by_refits = [fitted(numbers, sign, (k,))[0] > 0 for k in range(len(sign))]
    np.testing.assert_array_equal(decided(ridge_inverse(numbers), sign), by_refits)


def test_a_planted_property_is_told():
    numbers, has = made(clients=40, shift=4.0)
    found = property_told(numbers, has, "vehicle", 1)
    assert found.auc > 0.95
    assert found.accuracy > found.prior
    assert found.p == pytest.approx(0.001)  # none of 999 permutations does as well
    assert found.works


def test_where_there_is_none_the_area_is_one_half_on_average():
    """A rule learned from a few clients is far off one half, but not to one side."""
    areas, told = [], 0
    for seed in range(120):
        numbers, has = made(clients=14, size=30, seed=seed)
        sign = np.where(has, 1.0, -1.0)
        scores = tournament(ridge_inverse(numbers), sign)
        areas.append(np.mean([a > b for a in scores[has] for b in scores[~has]]))
    # Standard deviation 0.25 at most: that of the mean of 120 is 0.023.
    assert np.mean(areas) == pytest.approx(0.5, abs=0.09)
    for seed in range(30):
        numbers, has = made(clients=14, size=30, seed=1000 + seed)
        told += property_told(numbers, has, "vehicle", seed).works
    assert told <= 3  # chance 0.01 each: more than 3 of 30 has a chance of 2e-4


def test_features_are_few_scaled_and_without_what_tells_nothing():
    rng = np.random.default_rng(0)
    updates = [
        {"a": rng.normal(size=(20, 10)), "b": 1e6 * rng.normal(size=3), "c": np.ones(2)}
        for _ in range(9)
    ]
    found = features(updates, 5)
    assert found.shape == (9, NUMBERS + 1)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1)
    np.testing.assert_array_equal(found, features(updates, 5))
    small = [{"a": one["b"], "c": one["c"]} for one in updates]
    # Three numbers and the length; the two that are the same for all are gone.
    assert features(small, 5).shape == (9, 4)
    with pytest.raises(ValueError, match="same parameters"):
        features([{"a": np.ones(2)}, {"b": np.ones(2)}], 0)


def test_a_large_tensor_does_not_drown_a_small_one():
    """Projected, a difference in a tensor of 1e-6 is still seen beside one of 1e3."""
    rng = np.random.default_rng(3)
    has = np.arange(40) % 2 == 0
    updates = [
        {
            "large": 1e3 * rng.normal(size=10),
            "small": 1e-6 * (rng.normal(size=60) + 3.0 * own),
        }
        for own in has
    ]
    assert property_told(features(updates, 0), has, "vehicle", 0).auc > 0.95


def test_the_length_alone_tells_too():
    rng = np.random.default_rng(4)
    has = np.arange(40) % 2 == 0
    updates = []
    for own in has:
        direction = rng.normal(size=10)
        updates.append({"a": (3.0 if own else 1.0) * direction / np.linalg.norm(direction)})
    assert property_told(features(updates, 0), has, "vehicle", 0).auc > 0.9


def test_few_clients_on_one_side():
    numbers, _ = made()
    with pytest.raises(ValueError, match="3 of 12 clients"):
        property_told(numbers, np.arange(12) < 3, "vehicle", 0)


def test_shares_and_splits_by_hand():
    load = np.array([1.0, 2.0, 3.0, np.nan])
    hour = np.array([0, 1, 12, 2])
    assert low_share(load, hour, 0, 6) == pytest.approx(1.5 / 2.0)
    assert np.isnan(low_share(load, hour, 20, 22))
    assert np.isnan(low_share(np.full(4, np.nan), hour, 0, 6))
    values = np.array([1.0, 2.0, 3.0, np.nan])
    np.testing.assert_array_equal(median_split(values, above=True), [False, False, True, False])
    np.testing.assert_array_equal(median_split(values, above=False), [True, False, False, False])


@pytest.mark.parametrize(
    ("some", "of", "told"),
    # 2/70 and 2/126 are more than 0.01; 2/210 is less; three are too few whatever stands beside.
    [(4, 8, False), (4, 9, False), (4, 10, True), (5, 10, True), (3, 100, False), (96, 100, True)],
)
def test_a_property_is_tried_where_a_perfect_rule_could_be_told(some, of, told):
    assert tellable(np.arange(of) < some) is told

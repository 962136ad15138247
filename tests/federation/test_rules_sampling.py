"""Merging and sampling as pure functions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.federation.rules import (
    DeltaMerge,
    StatisticsMerge,
    sum_arrays,
    total,
    weighted_mean,
    weights_of,
)
from fl_inmetro.federation.sampling import sample_clients
from fl_inmetro.learning.update import Update


def update(name: str, weight: float, *values: float) -> Update:
    return Update(name, {"w": np.array(values, dtype=np.float32)}, weight, 0.0)


def test_weighted_mean_by_hand():
    # n = 1 and 3: (1·4 + 3·8)/4 = 7 and (1·0 + 3·(−4))/4 = −3.
    mean = weighted_mean([update("a", 1, 4, 0), update("b", 3, 8, -4)])
    assert mean["w"].tolist() == [7, -3]
    assert mean["w"].dtype == np.float64


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=30))
def test_weights_sum_to_one(points):
    weights = weights_of([update(f"c{k}", n, 0) for k, n in enumerate(points)])
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights == pytest.approx([n / sum(points) for n in points])


@given(
    st.lists(
        st.tuples(st.integers(1, 999), st.floats(-1e3, 1e3, width=32)), min_size=2, max_size=12
    ),
    st.randoms(use_true_random=False),
)
def test_merging_does_not_depend_on_the_order_of_replies(replies, random):
    updates = [update(f"c{k:02d}", n, value) for k, (n, value) in enumerate(replies)]
    state = {"w": np.array([0.5], dtype=np.float32)}
    before = DeltaMerge(0.7)(state, updates)["w"]
    added = total(updates)["w"]
    random.shuffle(updates)
    np.testing.assert_array_equal(DeltaMerge(0.7)(state, updates)["w"], before)
    np.testing.assert_array_equal(total(updates)["w"], added)


def test_where_the_order_of_adding_matters_it_is_that_of_the_names():
    # (10¹⁶ + 1) − 10¹⁶ = 0 in float64, and 10¹⁶ − 10¹⁶ + 1 = 1: by names it is a, b, c.
    values = {"a": 1e16, "b": 1.0, "c": -1e16}
    updates = [Update(name, {"w": np.array([v])}, 1.0, 0.0) for name, v in values.items()]
    mean = weighted_mean(updates)["w"]
    for order in ([0, 2, 1], [2, 1, 0], [1, 0, 2]):
        turned = [updates[k] for k in order]
        assert total(turned)["w"].tolist() == [0.0]
        assert weighted_mean(turned)["w"].tobytes() == mean.tobytes()
    backwards = sum(v / 3 for v in (1e16, -1e16, 1.0))
    assert mean[0] != backwards  # the example can tell orders apart


def test_delta_merge_by_hand_with_eta_and_buffers():
    state = {"w": np.array([1.0], dtype=np.float32), "x_mean": np.array([9.0], dtype=np.float32)}
    merged = DeltaMerge(0.5)(state, [update("a", 1, 4), update("b", 3, 8)])
    assert merged["w"].tolist() == [1 + 0.5 * 7]
    assert merged["w"].dtype == np.float32
    assert merged["x_mean"] is state["x_mean"]  # buffers have no delta
    assert list(DeltaMerge().reply_like(state)) == ["w"]


def test_eta_one_is_the_weighted_mean_of_the_clients_weights():
    state = {"w": np.array([1.0, 2.0], dtype=np.float32)}
    updates = [update("a", 2, 0.5, 1), update("b", 6, -1.5, 3)]
    mean = sum(u.weight * (state["w"] + u.arrays["w"]) for u in updates) / 8
    np.testing.assert_allclose(DeltaMerge()(state, updates)["w"], mean, rtol=1e-6)


def test_statistics_merge_adds_and_lets_the_learner_solve():
    class Adder:
        def finish(self, state, merged):
            return {"sum": state["offset"] + merged["w"]}

    merge = StatisticsMerge(Adder())  # type: ignore[arg-type]  # only `finish` is asked for
    merged = merge({"offset": 10}, [update("b", 1, 1, 2), update("a", 9, 3, 4)])
    assert merged["sum"].tolist() == [14, 16]


def test_sum_arrays_adds_in_float64():
    # 2²⁴ + 1 does not exist in float32.
    parts = [{"w": np.array([value], dtype=np.float32)} for value in (2.0**24, 1.0)]
    assert sum_arrays(parts)["w"].tolist() == [2.0**24 + 1]


# ------------------------------------------------------------------------------ sampling
@given(st.integers(1, 60), st.floats(0.001, 1), st.integers(0, 99), st.integers(1, 9))
def test_a_sample_is_sorted_seeded_and_of_the_right_size(count, fraction, seed, round_):
    names = [f"c{k}" for k in range(count)]
    drawn = sample_clients(names, fraction, seed, round_)
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(names)
    # ⌈f·K⌉, where f·K may be a rounding error above a whole number.
    exact = fraction * count
    near = round(exact) if abs(exact - round(exact)) < 1e-9 else math.ceil(exact)
    assert len(drawn) == max(1, near)
    assert sample_clients(list(reversed(names)), fraction, seed, round_) == drawn


def test_sizes_by_hand():
    names = [f"c{k:02d}" for k in range(30)]
    sizes = {f: len(sample_clients(names, f, 0, 1)) for f in (0.001, 0.1, 0.11, 0.5, 0.99, 1.0)}
    assert sizes == {0.001: 1, 0.1: 3, 0.11: 4, 0.5: 15, 0.99: 30, 1.0: 30}
    # 0.07·100 is 7.000000000000001 in floating point.
    assert len(sample_clients([f"c{k}" for k in range(100)], 0.07, 0, 1)) == 7


def test_rounds_and_seeds_draw_differently_and_everyone_gets_a_turn():
    names = [f"c{k}" for k in range(10)]
    draws = [tuple(sample_clients(names, 0.3, 1, round_)) for round_ in range(1, 41)]
    assert len(set(draws)) > 20
    assert {name for draw in draws for name in draw} == set(names)
    assert sample_clients(names, 0.3, 2, 1) != list(draws[0])

"""Finders of bad values, repeats, registers, gaps, levels: small cases by hand, pandas beside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fl_inmetro.data.cleaning.gaps import fill_short, gaps, trim
from fl_inmetro.data.cleaning.levels import change_of_level, odd_clients
from fl_inmetro.data.cleaning.register import differences
from fl_inmetro.data.cleaning.repeats import one_per_step
from fl_inmetro.data.cleaning.values import below, flat_lines, negatives, outliers, zeros

NAN = np.nan


def test_zeros_negatives_and_lows() -> None:
    energy = np.array([0.0, -0.0, -1.0, 2.0, NAN])
    assert zeros(energy).tolist() == [True, True, False, False, False]
    assert negatives(energy).tolist() == [False, False, True, False, False]
    assert below(energy, 0.5).tolist() == [True, True, True, False, False]


def test_flat_lines_need_their_length_and_are_not_zero() -> None:
    energy = np.array([1.0, 2, 2, 2, 3, 0, 0, 0, 0, 5, 5, NAN, 5, 7, 7, 7])
    assert np.flatnonzero(flat_lines(energy, 3)).tolist() == [1, 2, 3, 13, 14, 15]
    assert not flat_lines(energy, 4).any()
    assert not flat_lines(np.full(5, NAN), 2).any()


def test_outliers_by_hand_and_against_pandas() -> None:
    # 99 ones, one 2, one spike: of 101 sorted values the 99th percentile is the one at 0.99·100,
    # that is number 99 counted from 0: the 2. Factor 10 finds what is above 20.
    energy = np.concatenate((np.ones(99), [2.0, 20.5]))
    assert np.flatnonzero(outliers(energy, 10)).tolist() == [100]
    assert not outliers(energy, 10.25).any()
    rng = np.random.default_rng(0)
    many = rng.lognormal(0, 1.5, 3000)
    many[::7] = 0
    expected = many > 3 * pd.Series(many)[many > 0].quantile(0.99)
    assert outliers(many, 3).tolist() == expected.tolist()
    assert expected.any()


def test_repeats_by_hand() -> None:
    utc = np.array([0, 0, 1, 2, 2, 3, 3, 3])
    value = np.array([5.0, 5.0, 6.0, 7.0, 8.0, NAN, 9.0, 9.0])
    single = one_per_step(utc, value)
    np.testing.assert_array_equal(single.value, [5.0, 6.0, NAN, 9.0])
    assert single.rows.tolist() == [0, 2, 3, 5]
    assert single.equal.tolist() == [1, 6, 7]
    assert single.conflicting.tolist() == [3, 4]
    np.testing.assert_array_equal(one_per_step(utc, value, "mean").value, [5.0, 6.0, 7.5, 9.0])


def test_register_by_hand() -> None:
    # +1, +2, reset, +3, gap of two steps, +4.
    utc = np.array([0, 1, 2, 3, 4, 6, 7]) * 3600
    total = np.array([100.0, 101.0, 103.0, 2.0, 5.0, 9.0, 13.0])
    change = differences(utc, total, np.full(7, 3600))
    np.testing.assert_array_equal(change.energy, [1.0, 2.0, NAN, 3.0, NAN, 4.0, NAN])
    assert change.reset.tolist() == [2]
    assert change.rollover.size == 0


def test_register_rolls_over_at_a_power_of_ten() -> None:
    # 99 998 → 99 999.5 → 1.0: the last step used 0.5 + 1.0 = 1.5.
    total = np.array([99_996.0, 99_998.0, 99_999.5, 1.0, 3.0])
    change = differences(np.arange(5) * 900, total, np.full(5, 900))
    np.testing.assert_allclose(change.energy, [2.0, 1.5, 1.5, 2.0, NAN])
    assert change.rollover.tolist() == [2]
    # Far from full it is a reset, and so is a fall to a value that would be a huge step.
    fallen = np.array([50_000.0, 50_002.0, 1.0, 3.0])
    assert differences(np.arange(4) * 900, fallen, np.full(4, 900)).reset.tolist() == [1]
    huge = np.array([99_000.0, 99_001.0, 9_000.0, 9_001.0])
    assert differences(np.arange(4) * 900, huge, np.full(4, 900)).reset.tolist() == [1]


def test_gaps_trim_and_fill() -> None:
    energy = np.array([NAN, 1.0, NAN, 3.0, NAN, NAN, 6.0, NAN])
    first, length = gaps(energy)
    assert (first.tolist(), length.tolist()) == ([0, 2, 4, 7], [1, 1, 2, 1])
    start, cut = trim(7200, energy, 900)
    assert start == 8100
    np.testing.assert_array_equal(cut, energy[1:7])
    filled, steps = fill_short(energy, 2)
    assert steps == 3
    np.testing.assert_allclose(filled, [NAN, 1, 2, 3, 4, 5, 6, NAN])
    expected = pd.Series(energy).interpolate(limit_area="inside")
    np.testing.assert_allclose(filled, expected.to_numpy())
    assert fill_short(energy, 1)[1] == 1


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1000.0, 1000.0), (0.001, 0.001), (4.0, 4.0), (0.25, 0.25), (1.5, None)],
)
def test_client_on_another_unit_stands_out(factor: float, expected: float | None) -> None:
    levels = {f"c{k}": 1.0 + 0.02 * k for k in range(9)} | {"odd": 1.08 * factor}
    found = odd_clients(levels)
    assert {name: f for name, (f, _) in found.items()} == ({"odd": expected} if expected else {})


def test_unlike_clients_hide_a_factor_of_four() -> None:
    levels = {f"c{k}": 2.0**k for k in range(8)} | {"odd": 4 * 2.0**3.5}
    assert odd_clients(levels) == {}
    assert odd_clients({"a": 1.0, "b": 1.0, "c": 1000.0}) == {}


def test_change_of_level_is_dated() -> None:
    rng = np.random.default_rng(0)
    week = 168
    energy = 1 + 0.3 * rng.random(20 * week)
    assert change_of_level(energy, 3600) is None
    energy[12 * week :] *= 1000
    found = change_of_level(energy, 3600)
    assert found is not None
    assert found[:2] == (12 * week, 1000.0)
    # One week at a quarter of the load does not last …
    calm = 1 + 0.3 * rng.random(20 * week)
    calm[10 * week : 11 * week] /= 4
    assert change_of_level(calm, 3600) is None
    # … and sides that swing by a factor of 3 themselves say nothing about a factor of 4.
    swinging = np.repeat([1.0, 3.0, 1.0, 3.0, 4.0, 12.0, 4.0, 12.0], week)
    assert change_of_level(swinging, 3600) is None

"""Finders of bad values, repeats, registers, gaps, levels: small cases by hand, pandas beside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fl_inmetro.data.cleaning.gaps import fill_from_past, gaps, trim
from fl_inmetro.data.cleaning.levels import change_of_level, odd_clients
from fl_inmetro.data.cleaning.register import differences
from fl_inmetro.data.cleaning.repeats import one_per_step
from fl_inmetro.data.cleaning.values import (
    below,
    flat_lines,
    negatives,
    outliers,
    outliers_in_hindsight,
    stuck,
    zeros,
)
from fl_inmetro.units import DAY_S

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


def plain_outliers(utc_s: np.ndarray, energy: np.ndarray, factor: float) -> list[bool]:
    """The rule of the docstring, one reading after the other."""
    origin = next((int(t) for t, e in zip(utc_s, energy, strict=True) if e > 0), None)
    found = []
    for second, value in zip(utc_s.tolist(), energy.tolist(), strict=True):
        if origin is None or not value > 0:
            found.append(False)
            continue
        day = (second - origin) // DAY_S
        first_day = day if day < 28 else 28 + (day - 28) // 7 * 7
        before = energy[(utc_s < origin + first_day * DAY_S) & (energy > 0)]
        strict = first_day >= 14 and before.size >= 100
        limit = factor * (1 if strict else factor)
        found.append(before.size >= 12 and value > limit * pd.Series(before).quantile(0.99))
    return found


def test_outliers_by_hand() -> None:
    # Hours. Of the 336 readings of two weeks 331 are 1 and the last five are 2; the 99th percentile
    # is at rank 0.99·335 = 331.65 from 0, between the first 2 (rank 331) and the next: 2.
    energy = np.ones(24 * 15)
    energy[331:336] = 2.0
    energy[340], energy[341] = 20.5, 19.5
    hour = np.arange(energy.size) * 3600
    assert np.flatnonzero(outliers(hour, energy, 10)).tolist() == [340]
    assert not outliers(hour, energy, 10.25).any()
    # On the day before it is judged by 10·10 times the percentile of 312 readings, also 2.
    early = np.roll(energy, -24)
    assert not outliers(hour, early, 10).any()
    early[316] = 200.5
    assert np.flatnonzero(outliers(hour, early, 10)).tolist() == [316]
    # Nobody can judge the first day.
    energy[3] = 1e6
    assert not outliers(hour, energy, 10)[3]


@pytest.mark.parametrize("step_s", [900, 3600, 86_400])
def test_outliers_against_a_plain_loop(step_s: int) -> None:
    rng = np.random.default_rng(step_s)
    energy = rng.lognormal(0, 1.5, min(60 * 86_400 // step_s, 1000))
    energy[: energy.size // 10] = np.nan
    energy[::7] = 0
    energy[3::11] = np.nan
    utc_s = 1_500_000_000 // step_s * step_s + np.arange(energy.size) * step_s
    expected = plain_outliers(utc_s, energy, 1.5)
    assert outliers(utc_s, energy, 1.5).tolist() == expected
    assert any(expected) == (step_s < 86_400)


def test_a_lasting_change_of_level_is_accepted() -> None:
    # 100 days of 1, then of 20: masked until a hundredth of the readings are 20.
    energy = np.repeat([1.0, 20.0], 2400)
    masked = outliers(np.arange(energy.size) * 3600, energy, 10)
    first, last = np.flatnonzero(masked)[[0, -1]]
    assert first == 2400
    assert masked[first : last + 1].all()
    # The limit is renewed on days 28 + 7k, so on day 105, with 120 readings of 20 among 2520.
    assert last == 105 * 24 - 1


def test_hindsight_against_pandas() -> None:
    rng = np.random.default_rng(0)
    many = rng.lognormal(0, 1.5, 3000)
    many[::7] = 0
    expected = many > 3 * pd.Series(many)[many > 0].quantile(0.99)
    assert outliers_in_hindsight(many, 3).tolist() == expected.tolist()
    assert expected.any()


def test_stuck_begins_where_the_line_is_long_enough() -> None:
    energy = np.array([1.0, 2, 2, 2, 2, 3, 0, 0, 0, 0, 5, 5, NAN, 5, 7, 7, 7])
    assert np.flatnonzero(stuck(energy, 3)).tolist() == [3, 4, 16]
    assert not stuck(energy, 5).any()
    assert not stuck(np.full(5, NAN), 2).any()
    assert not stuck(np.ones(2), 3).any()


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


def test_gaps_and_trim() -> None:
    energy = np.array([NAN, 1.0, NAN, 3.0, NAN, NAN, 6.0, NAN])
    first, length = gaps(energy)
    assert (first.tolist(), length.tolist()) == ([0, 2, 4, 7], [1, 1, 2, 1])
    start, cut = trim(7200, energy, 900)
    assert start == 8100
    np.testing.assert_array_equal(cut, energy[1:7])


def test_gaps_are_filled_from_the_past_only() -> None:
    # Two steps a day: the day before is 2 steps back, the week before 14.
    energy = np.arange(40.0)
    energy[[1, 20, 21, 22, 23]] = NAN
    filled, steps = fill_from_past(energy, 3, 2)
    # 1 has no past; 20 and 21 take the day before; for 22 that is missing too, so 22 − 14 = 8; 23
    # is the fourth step of its gap.
    assert np.flatnonzero(np.isnan(filled)).tolist() == [1, 23]
    assert (filled[20:23].tolist(), steps) == ([18.0, 19.0, 8.0], 3)
    known = np.isfinite(energy)
    np.testing.assert_array_equal(filled[known], energy[known])
    assert fill_from_past(np.arange(3.0), 3, 2)[1] == 0


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

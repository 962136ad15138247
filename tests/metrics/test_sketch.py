"""Sketches against sorted values, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.metrics.sketch import Bins, QuantileSketch, conformal_values

WIDE = Bins(0.02, 1e-4, 1e4)

values = st.lists(
    st.floats(-1e4, 1e4, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
)
levels = st.floats(0.01, 0.99)


def order_statistic(sample: list[float], level: float) -> float:
    """The rank of the definition, on the values themselves."""
    n = len(sample)
    if level >= 0.5:
        rank = math.ceil((n + 1) * level - 1e-9)
    else:
        rank = math.floor((n + 1) * level + 1e-9)
    return sorted(sample)[min(max(rank, 1), n) - 1]


@given(values, levels)
def test_quantiles_are_those_of_the_values_within_the_promised_error(
    sample: list[float], level: float
) -> None:
    found = QuantileSketch.of(np.array(sample), WIDE).quantile(level)
    true = order_statistic(sample, level)
    # A value right at an edge may be counted on either side of it: 1e-9 for rounding.
    assert abs(found - true) <= 0.02 * abs(true) * (1 + 1e-9) + 1e-4


def test_many_values_have_the_quantiles_of_numpy() -> None:
    sample = np.random.default_rng(5).standard_t(4, size=20_001)
    sketch = QuantileSketch.of(sample)
    for level in (0.05, 0.3, 0.9, 0.99):
        expected = np.quantile(sample, level)
        # Neighbouring order statistics of 20,001 values lie within 0.001 of each other here.
        assert sketch.quantile(level) == pytest.approx(expected, rel=0.01, abs=0.002)


@given(values, values, values)
def test_a_sum_is_the_sketch_of_all_whatever_the_order(
    a: list[float], b: list[float], c: list[float]
) -> None:
    one, two, three = (QuantileSketch.of(np.array(part), WIDE) for part in (a, b, c))
    whole = QuantileSketch.of(np.array(a + b + c), WIDE).counts
    assert ((one + two + three).counts == whole).all()
    assert ((three + (two + one)).counts == whole).all()


def test_bins_by_hand() -> None:
    # α = 1/3: γ = (4/3)/(2/3) = 2, so the positive bins end at 2, 4, 8 and 16 and answer with
    # 2γ^k/(γ+1) = 2/3 of it. log2(16/1) = 4 bins of each sign.
    bins = Bins(1 / 3, 1.0, 16.0)
    assert bins.size == 9
    assert bins.centres.tolist() == pytest.approx(
        [-32 / 3, -16 / 3, -8 / 3, -4 / 3, 0, 4 / 3, 8 / 3, 16 / 3, 32 / 3]
    )
    asked = np.array([0.0, -1.0, 1.5, 3.0, -3.0, 7.0, 1e6, -np.inf, np.nan])
    assert bins.index(asked).tolist() == [4, 4, 5, 6, 2, 7, 8, 0, -1]
    # Nine values 0.1 … 0.9 of one bin each cannot be told apart.
    assert QuantileSketch.of(np.arange(1, 10) / 10, bins).quantile(0.9) == 0.0


def test_ranks_by_hand() -> None:
    # Nine values, 1 … 9: ⌈10 · 0.9⌉ = 9, ⌈10 · 0.5⌉ = 5, ⌊10 · 0.1⌋ = 1, ⌊10 · 0.25⌋ = 2,
    # ⌈10 · 0.75⌉ = 8; ⌈10 · 0.95⌉ = 10 and ⌊10 · 0.05⌋ = 0 are not there: 9 and 1.
    sketch = QuantileSketch.of(np.arange(1.0, 10.0), Bins(1e-4, 0.01, 100.0))
    for level, expected in ((0.9, 9), (0.5, 5), (0.1, 1), (0.25, 2), (0.75, 8), (0.95, 9)):
        assert sketch.quantile(level) == pytest.approx(expected, rel=1e-4)
    assert sketch.quantile(0.05) == pytest.approx(1, rel=1e-4)


def test_weights_by_hand() -> None:
    # Weights 2, 0.5, 1.5 on −4/3, 0, 4/3 (bins of the first test): n = 4. τ = 0.5: 2.5 of the
    # mass, reached at the second. τ = 0.3: 1 − τ of 5 is 3.5 from above, beyond 1.5 + 0.5, so the
    # first. τ = 0.6: 3 from below, the third.
    bins = Bins(1 / 3, 1.0, 2.0)
    mass = np.array([2.0, 0.5, 1.5])
    assert conformal_values(mass, bins, np.array([0.3, 0.5, 0.6])).tolist() == pytest.approx(
        [-4 / 3, 0.0, 4 / 3]
    )


def test_one_more_value_is_covered_as_promised() -> None:
    # 19 exchangeable values: rank ⌈20 · 0.9⌉ = 18 covers the 20th with probability 18/20 exactly;
    # over 4,000 draws its standard error is √(0.9 · 0.1 / 4000) = 0.0047, five of them 0.024.
    rng = np.random.default_rng(11)
    draws = rng.normal(size=(4000, 20))
    upper = [QuantileSketch.of(row[:19]).quantile(0.9) for row in draws]
    lower = [QuantileSketch.of(row[:19]).quantile(0.1) for row in draws]
    assert abs(np.mean(draws[:, 19] <= upper) - 0.9) < 0.024
    assert abs(np.mean(draws[:, 19] >= lower) - 0.9) < 0.024


def test_arrays_hold_the_whole_sketch() -> None:
    sketch = QuantileSketch.of(np.array([0.3, -2.0, 5.0]))
    back = QuantileSketch.from_arrays(sketch.to_arrays())
    assert back.bins == sketch.bins
    assert (back.counts == sketch.counts).all()
    assert back.n == 3


def test_an_empty_sketch_has_no_quantile() -> None:
    assert math.isnan(QuantileSketch.of(np.array([np.nan])).quantile(0.5))


def test_what_does_not_fit_is_refused() -> None:
    sketch = QuantileSketch.of(np.array([1.0]))
    with pytest.raises(ValueError, match="different bins"):
        sketch + QuantileSketch.of(np.array([1.0]), WIDE)
    with pytest.raises(ValueError, match="none negative"):
        QuantileSketch.from_arrays({**sketch.to_arrays(), "counts": -sketch.counts})
    with pytest.raises(ValueError, match="relative_error"):
        Bins(1.5)

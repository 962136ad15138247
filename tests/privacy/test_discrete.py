"""Exact discrete noise: chances by their formula, and a grid that keeps the clipping norm."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.discrete import POWER, Bits, Grid, discrete_gaussian, exp_minus
from fl_inmetro.privacy.secret import Secret

KEY = Secret(bytes(range(32)))


def chances(sigma: float, most: int) -> np.ndarray:
    """P[n] of −most … most by the formula, the tails in the last ones."""
    numbers = np.arange(-60 * most, 60 * most + 1)
    weights = np.exp(-(numbers**2) / (2 * sigma**2))
    weights /= weights.sum()
    middle = len(numbers) // 2
    inner = weights[middle - most : middle + most + 1].copy()
    inner[0] += weights[: middle - most].sum()
    inner[-1] += weights[middle + most + 1 :].sum()
    return inner


def p_value(drawn: np.ndarray, sigma: float, most: int) -> float:
    counts = np.bincount(np.clip(drawn, -most, most) + most, minlength=2 * most + 1)
    return float(stats.chisquare(counts, chances(sigma, most) * len(drawn)).pvalue)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_each_number_has_its_chance(power):
    drawn = discrete_gaussian(KEY.child(power), 200_000, power)
    sigma = 2.0**power
    assert p_value(drawn, sigma, int(3.5 * sigma)) > 1e-3
    # The test is not blind: noise that is rounded to whole numbers, and noise of 0.98 σ, fail it.
    generator = np.random.default_rng(1)
    if power == 0:  # the narrower, the further apart
        rounded = np.rint(generator.normal(0, sigma, 200_000)).astype(int)
        assert p_value(rounded, sigma, int(3.5 * sigma)) < 1e-6
    less = np.rint(0.98 * generator.choice(drawn, 200_000) + generator.uniform(-0.5, 0.5, 200_000))
    assert p_value(less.astype(int), sigma, int(3.5 * sigma)) < 1e-6


def test_the_wide_one_is_a_gaussian():
    drawn = discrete_gaussian(KEY, 100_000) / 2.0**POWER
    # Of 100,000: mean 0 ± .0032, variance 1 ± .0045, third and fourth moments 0 ± .012, 3 ± .03.
    assert abs(drawn.mean()) < 0.012
    assert drawn.var() == pytest.approx(1, abs=0.016)
    assert abs((drawn**3).mean()) < 0.05
    assert (drawn**4).mean() == pytest.approx(3, abs=0.13)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    # No bit of it is fixed: what is even and what is odd come alike.
    assert abs((discrete_gaussian(KEY, 100_000) % 2).mean() - 0.5) < 0.007


def test_a_secret_gives_its_own_numbers_and_the_same_again():
    one = discrete_gaussian(KEY, 50)
    assert np.array_equal(one, discrete_gaussian(KEY, 50))
    assert not np.array_equal(one, discrete_gaussian(KEY.child(1), 50))
    assert len(discrete_gaussian(KEY, 0)) == 0
    with pytest.raises(ValueError, match="power"):
        discrete_gaussian(KEY, 1, 21)


@pytest.mark.parametrize("numerator", [0, 1, 5, 8])
def test_a_draw_is_true_with_the_chance_of_an_exponential(numerator):
    # exp(−n/8) of 100,000 draws: three deviations of at most .0016 each, and a bit.
    drawn = exp_minus(Bits(KEY.child(numerator)), np.full(100_000, numerator), 3)
    assert drawn.mean() == pytest.approx(math.exp(-numerator / 8), abs=0.006)


def test_the_bits_are_those_of_the_cipher():
    # RFC 8439, 2.3.2 of ChaCha20 has another key; here: the library's own stream over zeros.
    words = Bits(KEY).words(10_000)
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert ones == pytest.approx(0.5, abs=0.003)
    counts = [int(Bits(KEY.child(k)).one_in(3, 30_000).sum()) for k in range(3)]
    assert counts == pytest.approx([10_000] * 3, abs=330)  # four deviations of 82


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=4
    ),
    clip=st.floats(1e-3, 1e3),
    z=st.floats(0.01, 20.0),
)
def test_no_update_is_longer_on_the_grid_than_the_clipping_norm(rows, clip, z):
    grid = Grid(clip, z)
    points = grid.points(np.array(rows, np.float32))
    for row in points.tolist():
        # In fractions: |row| · step ≤ C, where step = zC / 2^20.
        assert sum(n * n for n in row) * Fraction(z) ** 2 <= Fraction(4) ** POWER
    whole, rest = grid.total(np.array(rows)), grid.total(np.array(rows[1:]).reshape(-1, 4))
    assert sum(int(n) ** 2 for n in whole - rest) * Fraction(z) ** 2 <= Fraction(4) ** POWER


def test_what_the_grid_loses_by_hand():
    # z = 1, C = 2: a step is 2^-19. (3, 4) is clipped to (1.2, 1.6), which is 629145.6 and 838860.8
    # steps, cut to 629145 and 838860.
    grid = Grid(2.0, 1.0)
    assert grid.step == 2.0**-19
    assert grid.points(np.array([[3.0, -4.0]], np.float32)).tolist() == [[629145, -838860]]
    # A norm of exactly C is on the edge, and inside.
    assert grid.points(np.array([[2.0, 0.0]])).tolist() == [[1 << 20, 0]]
    rows = np.random.default_rng(2).normal(size=(1, 17_000))
    lost = rows / np.linalg.norm(rows) - Grid(1.0, 1.0).points(rows) * Grid(1.0, 1.0).step
    assert np.linalg.norm(lost) < 1.25e-4


def test_a_norm_that_was_a_hair_too_small_is_cut_back():
    class Believing(Grid):
        @property
        def most(self):
            return super().most - 100_000_000  # as if the doubles had been wrong by so much

    row = np.array([[0.6, 0.8]])
    points = Believing(1.0, 1.0).points(row)
    assert (points**2).sum() <= 2**40 - 100_000_000
    assert points == pytest.approx(Grid(1.0, 1.0).points(row), rel=1e-3)


def test_noise_on_the_grid_is_of_the_deviation_that_is_claimed():
    grid = Grid(0.5, 3.0)
    noise = grid.noised(np.zeros(20_000, np.int64), KEY)
    # Chi-square of 20,000: variance (1.5)² within 5 deviations of 1 %.
    assert noise.var() == pytest.approx(2.25, rel=0.05)
    assert np.array_equal(noise / grid.step, np.rint(noise / grid.step))


def test_what_no_grid_holds():
    with pytest.raises(PrivacyError, match="FL409"):
        Grid(1.0, 1e-4)
    with pytest.raises(ValueError, match="finite"):
        Grid(1.0, 1.0).points(np.array([[np.nan, 0.0]]))

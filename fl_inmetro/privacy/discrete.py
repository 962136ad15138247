"""Noise without floating point: whole numbers of a grid, and an exact discrete Gaussian on them.

The usual noise is made of doubles. Which doubles a sum with such noise can take depends on the
sum itself, and from the last bits of one release it may be told which of two sums it was (Mironov
2012, "On significance of the least significant bits for differential privacy"). Here each update
becomes whole numbers before it is added, the noise is a whole number, and their sum has no
rounding: every result is possible from every sum.

**Sensitivity.** A clipped update is divided by the step zC / 2²⁰ and cut towards zero, which makes
no number larger: its norm stays at most C. That is looked at in whole numbers (`Grid.most`), not
believed of a norm in doubles. An update loses less than a step in each of its P numbers, in norm
less than √P z / 2²⁰ of C: for 17,000 numbers and z = 1, 0.012 %.

**Account.** The noise is N_Z(0, σ²) with σ = 2²⁰ steps = zC: P[n] ∝ exp(−n² / 2σ²). A continuous
N(0, σ²) that is rounded to whole numbers is what all accounts of the Gaussian hold for, draws and
PLD included, as sums are whole numbers and rounding comes after the noise. The two differ by
nothing to speak of: with φ(x) = exp(−x² / 2σ²), the rounded one has ∫ φ(n + u) du over |u| ≤ 1/2,
which is φ(n) times a mean of exp(−u² / 2σ²) cosh(nu / σ²), between exp(−1 / 8σ²) and
exp(n² / 8σ⁴); both have the same sum over n to e^(−2π²σ²). A vector of P numbers has Σn² ≤ 4Pσ²
except with chance e^(−0.8 P), so the logarithms of the two chances are at most P / 2σ² apart, and
ε of T releases at most TP / σ²: 1.6·10⁻⁶ for 17,000 numbers in 100 rounds.

Source: Canonne, Kamath & Steinke (2020), "The discrete Gaussian for differential privacy",
algorithms 1 to 3, for σ a power of two: then uniform draws are bits, and no chance is a fraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.secret import Secret

Whole = NDArray[np.int64]

#: σ in steps of the grid is 2 to this.
POWER = 20

#: Below it a norm in steps has squares that int64 does not hold; so little noise protects nobody.
_LEAST = 2.0**-10

#: Rows are put on the grid so many numbers at a time.
_AT_ONCE = 1 << 20

_WORD = np.dtype("<u8")


class Bits:
    """Random bits from the stream cipher ChaCha20, keyed by a name under a secret.

    Args:
        secret: Of this use alone: two streams of one secret are the same.
    """

    def __init__(self, secret: Secret) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        key = secret.child("chacha20").key
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return uniform words of 64 bits, shape (count,)."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), _WORD).astype(np.uint64)

    def below(self, power: int, count: int) -> Whole:
        """Return uniform whole numbers from 0 to 2^power − 1, power ≤ 62, shape (count,)."""
        if not power:
            return np.zeros(count, np.int64)
        return (self.words(count) >> np.uint64(64 - power)).astype(np.int64)

    def one_in(self, k: int, count: int) -> NDArray[np.bool_]:
        """Return draws that are true with chance 1/k, shape (count,)."""
        if k == 1:
            return np.ones(count, np.bool_)
        words = self.words(count)
        # The last, partial run of k numbers would favour its members: draw again.
        most = np.uint64((1 << 64) // k * k - 1)
        while (over := np.flatnonzero(words > most)).size:
            words[over] = self.words(over.size)
        drawn: NDArray[np.bool_] = words % np.uint64(k) == 0
        return drawn


def exp_minus(bits: Bits, numerators: Whole, power: int) -> NDArray[np.bool_]:
    """Return draws that are true with chance exp(−n / 2^power), 0 ≤ n ≤ 2^power (algorithm 1).

    In the k-th step a draw goes on with chance (n / 2^power) / k; it is true when the number of
    steps is odd.
    """
    result = np.zeros(len(numerators), np.bool_)
    going, k = np.arange(len(numerators)), 1
    while going.size:
        on = (bits.below(power, going.size) < numerators[going]) & bits.one_in(k, going.size)
        result[going[~on]] = k % 2 == 1
        going, k = going[on], k + 1
    return result


def discrete_gaussian(secret: Secret, count: int, power: int = POWER) -> Whole:
    """Return draws of N_Z(0, σ²) with σ = 2^power, shape (count,).

    Algorithm 3: a discrete Laplace number y of scale t = σ is taken with chance
    exp(−(|y| − σ)² / 2σ²). (The paper has t = ⌊σ⌋ + 1; any t is right, as its proof shows.)

    Args:
        secret: Of this draw alone; the same one gives the same numbers.
        count: How many.
        power: At most 20, so that nothing leaves int64.
    """
    if not 0 <= power <= POWER:
        raise ValueError(f"power is from 0 to {POWER}")
    bits = Bits(secret)
    found = np.zeros(0, np.int64)
    while len(found) < count:
        # About half of the tries are taken. All that are count, in their order.
        laplace = _discrete_laplace(bits, 2 * (count - len(found)) + 64, power)
        off = (np.abs(laplace) - (1 << power)) ** 2
        # exp(−off / 2σ²): once for each whole part, and once for what is left.
        whole, left = off >> (2 * power + 1), off & ((1 << (2 * power + 1)) - 1)
        taken = exp_minus(bits, left, 2 * power + 1) & _exp_minus_whole(bits, whole)
        found = np.concatenate([found, laplace[taken]])
    drawn: Whole = found[:count]
    return drawn


def _discrete_laplace(bits: Bits, tries: int, power: int) -> Whole:
    """Return draws of P[y] ∝ exp(−|y| / 2^power), from so many tries (algorithm 2)."""
    rest = bits.below(power, tries)
    rest = rest[exp_minus(bits, rest, power)]
    size = rest + (_geometric(bits, len(rest)) << power)
    negative = bits.below(1, len(size)) == 1
    # Zero has one sign, or it would come twice as often.
    kept = ~(negative & (size == 0))
    drawn: Whole = np.where(negative, -size, size)[kept]
    return drawn


def _geometric(bits: Bits, count: int) -> Whole:
    """Return numbers n with P[n] ∝ e^(−n)."""
    numbers = np.zeros(count, np.int64)
    going = np.arange(count)
    while going.size:
        going = going[exp_minus(bits, np.ones(going.size, np.int64), 0)]
        numbers[going] += 1
    return numbers


def _exp_minus_whole(bits: Bits, times: Whole) -> NDArray[np.bool_]:
    """Return draws that are true with chance exp(−times)."""
    result = np.ones(len(times), np.bool_)
    going, left = np.flatnonzero(times > 0), times.copy()
    while going.size:
        on = exp_minus(bits, np.ones(going.size, np.int64), 0)
        result[going[~on]] = False
        left[going] -= 1
        going = going[on & (left[going] > 0)]
    return result


@dataclass(frozen=True)
class Grid:
    """Whole numbers that stand for updates of norm C at most, under noise of zC = 2²⁰ steps.

    Attributes:
        clip: C.
        noise_multiplier: z.

    Raises:
        PrivacyError: FL409, z is so small that the grid would not hold an update.
    """

    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.noise_multiplier < _LEAST:
            raise PrivacyError(
                Fault(
                    "FL409",
                    f"a noise multiplier of {self.noise_multiplier:.3g} has no grid",
                    "[privacy] noise-multiplier, epsilon",
                    f"noise on a grid takes {_LEAST:.3g} or more; less protects nobody",
                )
            )

    @property
    def step(self) -> float:
        """Width of the grid, in the unit of C."""
        return self.noise_multiplier * self.clip / 2.0**POWER

    @property
    def most(self) -> int:
        """Largest sum of the squares of an update's whole numbers: ⌊(2²⁰ / z)²⌋."""
        norm = Fraction(1 << POWER) / Fraction(self.noise_multiplier)
        return math.floor(norm * norm)

    def points(self, rows: NDArray[np.floating[Any]]) -> Whole:
        """Return clipped updates in steps, cut towards zero; shape (K, P) both.

        Raises:
            ValueError: A number is not finite.
        """
        if not np.isfinite(rows).all():
            raise ValueError("a number is not finite")
        exact: NDArray[np.float64] = rows.astype(np.float64)
        norms = np.sqrt(np.einsum("kp,kp->k", exact, exact))
        exact *= (np.minimum(1.0, self.clip / np.maximum(norms, 1e-150)) / self.step)[:, None]
        whole: Whole = exact.astype(np.int64)
        # The norms were doubles: where one was a hair too small, all numbers go in by a step.
        while (over := np.einsum("kp,kp->k", whole, whole) > self.most).any():
            whole[over] -= np.sign(whole[over])
        return whole

    def total(self, rows: NDArray[np.floating[Any]]) -> Whole:
        """Return the sum of the rows' `points`, shape (P,)."""
        width = rows.shape[1]
        total = np.zeros(width, np.int64)
        height = max(1, _AT_ONCE // max(1, width))
        for start in range(0, len(rows), height):
            total += self.points(rows[start : start + height]).sum(0)
        return total

    def noised(self, total: Whole, secret: Secret) -> NDArray[np.float64]:
        """Return a sum with noise, in the unit of C; shape (P,) both."""
        noisy = total + discrete_gaussian(secret, len(total))
        return noisy.astype(np.float64) * self.step

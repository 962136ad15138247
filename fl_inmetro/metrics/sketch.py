"""Quantile sketches that add up: counts in bins of constant relative width, with signs.

A sketch is a plain array of counts, so the sketch of a fleet is the sum of its clients' sketches,
whatever their order or grouping, and what can be done to a sum of numbers (masks of a secure
aggregation, noise of differential privacy) can be done to it.

The bins are those of DDSketch (Masson, Rim & Lee 2019, "DDSketch: a fast and fully-mergeable
quantile sketch with relative-error guarantees", VLDB 12(12), section 2), fixed beforehand: with
γ = (1 + α)/(1 − α), bin k holds least · γ^(k−1) < |v| <= least · γ^k and answers with the value
whose relative distance to both of its edges is α.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Mass that rounding may lack: ranks are compared with sums of weights.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bins:
    """Where the bins of a sketch lie.

    Attributes:
        relative_error: α; a quantile beyond `least` is within this share of the true one.
        least: Values of at most this size are one bin, which answers 0.
        most: Values beyond this size are counted in the outermost bins.
    """

    relative_error: float = 0.01
    least: float = 1e-3
    most: float = 1e3

    def __post_init__(self) -> None:
        if not 0 < self.relative_error < 1 or not 0 < self.least < self.most:
            raise ValueError("bins need 0 < relative_error < 1 and 0 < least < most")

    @cached_property
    def half(self) -> int:
        """Number of bins of each sign, M."""
        return math.ceil(math.log(self.most / self.least) / self._log_gamma)

    @property
    def size(self) -> int:
        """Number of bins, 2 M + 1: negative ones outermost first, zero, positive ones."""
        return 2 * self.half + 1

    @cached_property
    def centres(self) -> Floats:
        """Shape (2 M + 1,), the value each bin answers with, ascending."""
        k = np.arange(1, self.half + 1)
        edge = self.least * np.exp(k * self._log_gamma)
        positive = (1 - self.relative_error) * edge
        return np.concatenate([-positive[::-1], [0.0], positive])

    def index(self, values: Floats) -> NDArray[np.int64]:
        """Return the bin of each value, of the values' shape; a NaN has none and gets −1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(values)
            k = np.ceil(np.log(size / self.least) / self._log_gamma)
            k = np.where(size <= self.least, 0, np.clip(k, 1, self.half))
            signed = self.half + np.sign(values) * k
        missing = np.isnan(values)
        result: NDArray[np.int64] = np.where(missing, -1, np.where(missing, 0, signed)).astype(
            np.int64
        )
        return result

    def counts(self, values: Floats, group: NDArray[np.int64], groups: int) -> Counts:
        """Count values in bins, group by group; NaN is not counted.

        Shapes: values and group alike, with 0 <= group < groups; the result is
        (groups, 2 M + 1).
        """
        index = self.index(values)
        seen = index >= 0
        flat = group[seen] * self.size + index[seen]
        counted = np.bincount(flat, minlength=groups * self.size)
        return counted.astype(np.int64, copy=False).reshape(groups, self.size)

    @property
    def _log_gamma(self) -> float:
        return math.log1p(self.relative_error) - math.log1p(-self.relative_error)


#: Bins for errors in units of a client's mean load: 1,383 of them, to 0.1 % of it.
ERROR_BINS = Bins()


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Counts of values, from which quantiles can be asked.

    Attributes:
        bins: Where the bins lie.
        counts: Shape (2 M + 1,).
    """

    bins: Bins
    counts: Counts

    @classmethod
    def of(cls, values: Floats, bins: Bins = ERROR_BINS) -> QuantileSketch:
        """Count values of any shape; NaN is not counted.

        >>> QuantileSketch.of(np.array([1.0, np.nan, -2.0])).n
        2
        """
        flat = np.ravel(values)
        return cls(bins, bins.counts(flat, np.zeros(flat.size, dtype=np.int64), 1)[0])

    @property
    def n(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def __add__(self, other: QuantileSketch) -> QuantileSketch:
        if self.bins != other.bins:
            raise ValueError("sketches of different bins cannot be added")
        return QuantileSketch(self.bins, self.counts + other.counts)

    def quantile(self, level: float) -> float:
        """Return the conformal quantile: the value of rank ⌈(n+1)·level⌉, see `conformal_values`.

        NaN for an empty sketch. Within `relative_error` of that order statistic of the values, or
        within `least` of it, where it lies between −most and most.
        """
        return float(conformal_values(self.counts, self.bins, np.array([level]))[0])

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the sketch as arrays that can be kept or sent."""
        return {"counts": self.counts, "bins": np.array(astuple(self.bins))}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> QuantileSketch:
        """Return the sketch of `to_arrays`.

        Raises:
            ValueError: The counts are not those of the bins, or one is negative.
        """
        bins = Bins(*(float(value) for value in arrays["bins"]))
        counts = np.asarray(arrays["counts"], dtype=np.int64)
        if counts.shape != (bins.size,) or (counts < 0).any():
            raise ValueError(f"expected {bins.size} counts, none negative")
        return cls(bins, counts)


def conformal_values(
    mass: NDArray[np.generic], bins: Bins, levels: Floats, to_come: float = 1.0
) -> Floats:
    """Return conformal quantiles of weighted counts, farther out than the empirical ones.

    With n values and one more to come, all exchangeable, the value to come is at or below the one
    of rank ⌈(n+1)τ⌉ with probability at least τ (Vovk, Gammerman & Shafer 2005; Lei et al. 2018,
    section 2). A level below one half is mirrored, ⌊(n+1)τ⌋, so that the value to come is at or
    above it with probability at least 1 − τ: an interval between two levels is never too narrow on
    account of n. A rank outside 1 … n takes the smallest or largest value, which promises only
    1/(n+1) and n/(n+1). Of weights in place of counts, n is their sum: the value to come weighs 1
    (Barber et al. 2023, "Conformal prediction beyond exchangeability", section 3).

    Shapes: mass (…, 2 M + 1), levels (Q,) or (…, Q) → (…, Q); NaN where the mass is 0.

    Args:
        mass: Counts, or weights.
        bins: Where the bins lie.
        levels: What is asked for.
        to_come: Weight of the value to come; 0 = the empirical quantiles.
    """
    weights = np.asarray(mass)
    rows = weights.reshape(-1, bins.size)
    width = np.shape(levels)[-1]
    asked = np.broadcast_to(levels, (*weights.shape[:-1], width)).reshape(len(rows), width)
    # Sums of stretches of bins first, then of the bins of one stretch: a cumulative sum over all
    # bins is most of the time that it takes.
    stretches = np.add.reduceat(rows, _stretches(bins.size), axis=1, dtype=np.float64)
    below = np.cumsum(stretches, axis=1)
    n = below[:, -1:]
    upper = asked >= 0.5
    # The rank from the end that the level is near to; at least some value must lie there.
    rank = np.where(upper, asked, 1 - asked) * (n + to_come)
    rank = np.minimum(rank, n) - _ROUNDING * (n + 1)
    # From below: the first bin with a mass of at least `rank` up to it. From above: the last bin
    # with that mass from it on, that is the first whose mass up to it exceeds n − rank.
    wanted = np.where(upper, rank, n - rank)
    stretch = np.minimum(_first(below[:, None], wanted, upper), stretches.shape[1] - 1)
    row = np.arange(len(rows))[:, None]
    before = below[row, stretch] - stretches[row, stretch]
    place = stretch[..., None] * _STRETCH + np.arange(_STRETCH)
    inside = rows[row[..., None], np.minimum(place, bins.size - 1)]
    fine = before[..., None] + np.cumsum(inside, axis=-1, dtype=np.float64)
    found = stretch * _STRETCH + np.minimum(_first(fine, wanted, upper), _STRETCH - 1)
    values = np.where(n > 0, bins.centres[np.minimum(found, bins.size - 1)], np.nan)
    return values.reshape(*weights.shape[:-1], width)


#: Bins of a stretch, about the root of their number.
_STRETCH = 37


def _stretches(size: int) -> NDArray[np.int64]:
    """Return the first bin of each stretch."""
    return np.arange(0, size, _STRETCH, dtype=np.int64)


def _first(below: Floats, wanted: Floats, upper: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first place whose cumulative mass reaches (from above: exceeds) what is wanted.

    Shapes: below (R, Q or 1, P), wanted and upper (R, Q) → (R, Q); P where there is none.
    """
    short = (below < wanted[..., None]) | (~upper[..., None] & (below == wanted[..., None]))
    first: NDArray[np.int64] = short.sum(axis=-1)
    return first

"""Means and quantiles of what is known: NaN is left out, and stays where nothing is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def first_known(*choices: Floats) -> Floats:
    """Take the first choice that is a number, element by element."""
    result = choices[0]
    for choice in choices[1:]:
        result = np.where(np.isnan(result), choice, result)
    return result


def mean(values: Floats, weights: Floats | None = None) -> Floats:
    """(Weighted) mean over the last axis with NaN left out; NaN where nothing is known."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    w = np.ones(values.shape[-1]) if weights is None else weights
    # A product with the weight vector is several times faster than nanmean over a short axis.
    result: Floats = (filled @ w) / (known @ w)
    return result


def deviation(values: Floats) -> Floats:
    """Return the standard deviation over the last axis with NaN left out; NaN where all are."""
    known = np.isfinite(values)
    away = np.where(known, values - mean(values)[..., None], 0.0)
    result: Floats = np.sqrt(np.square(away).sum(axis=-1) / known.sum(axis=-1))
    return result


def quantile(in_order: Floats, level: float) -> Floats:
    """Quantile over the last axis of values sorted with NaN last, linear between ranks."""
    count = np.isfinite(in_order).sum(axis=-1)
    rank = np.maximum(count - 1, 0) * level
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below = np.take_along_axis(in_order, low[..., None], axis=-1)[..., 0]
    above = np.take_along_axis(in_order, high[..., None], axis=-1)[..., 0]
    result: Floats = below + (above - below) * (rank - low)
    return result

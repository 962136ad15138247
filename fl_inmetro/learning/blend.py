"""Several forecasts of the same windows made one, with weights of each client's own choice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics import Forecast

Floats = NDArray[np.float64]


def blended(forecasts: Sequence[Forecast], weights: Sequence[float] | Floats) -> Forecast:
    """Return the weighted mean of forecasts: of their means, and of their quantiles level by level.

    A window that a forecaster cannot serve is the mean of the others, with their weights. Levels
    are those that all forecasters have; where one has none, the blend has none. The mean of
    quantiles of a level is the quantile of a distribution between them (Lichtendahl,
    Grushka-Cockayne & Winkler 2013, "Is it better to average probabilities or quantiles?"), so
    they do not cross.

    Raises:
        ValueError: No forecast, other shapes, or weights that are negative or add up to nothing.
    """
    own = np.asarray(weights, dtype=np.float64)
    if not forecasts or len(own) != len(forecasts) or (own < 0).any() or not own.sum() > 0:
        raise ValueError("a blend needs one weight for each forecast, and some above zero")
    used = [(f, w) for f, w in zip(forecasts, own, strict=True) if w > 0]
    mean = _weighted([f.mean_kwh for f, _ in used], [w for _, w in used])
    levels = [x for x in used[0][0].levels if all(f.at(x) is not None for f, _ in used)]
    if not levels:
        return Forecast(mean)
    columns = [_weighted([_level(f, x) for f, _ in used], [w for _, w in used]) for x in levels]
    quantiles = np.stack(columns, axis=-1)
    return Forecast(mean, tuple(levels), quantiles)


def best_weights(forecasts: Sequence[Forecast], target_kwh: Floats, parts: int = 10) -> Floats:
    """Return the convex weights, in steps of 1 / `parts`, with the smallest error on some windows.

    The error is the mean pinball loss over the common levels, or the absolute error of the points
    where a forecaster has no quantiles: what each client's own row is judged by. Among equals the
    most even weights win. All that is asked is convex, so a blend is at most as bad as the best of
    its parts on these windows, by construction.

    Args:
        forecasts: M forecasts of the same N windows.
        target_kwh: Shape (N, H); NaN is not scored.
        parts: Fineness of the weights.

    Returns:
        Shape (M,), adding up to 1; even where nothing can be scored by all.
    """
    count = len(forecasts)
    levels = [x for x in forecasts[0].levels if all(f.at(x) is not None for f in forecasts)]
    scored = np.isfinite(target_kwh)
    for forecast in forecasts:
        scored &= np.isfinite(forecast.point_kwh)
    even = np.full(count, 1 / count)
    if not scored.any() or count == 1:
        return even
    y = target_kwh[scored]
    # (M, levels, P)
    columns = np.stack(
        [[_level(f, x)[scored] for x in levels] or [f.point_kwh[scored]] for f in forecasts]
    )
    level = np.array(levels or [0.5])[:, None]
    grid = simplex(count, parts)
    losses = np.empty(len(grid))
    for k, weights in enumerate(grid):
        under = y - np.tensordot(weights, columns, axes=1)
        losses[k] = np.maximum(level * under, (level - 1) * under).mean()
    close = losses <= losses.min() * (1 + 1e-9)
    evenness = np.square(grid - even).sum(axis=1)
    chosen: Floats = grid[np.flatnonzero(close)[np.argmin(evenness[close])]]
    return chosen


def simplex(count: int, parts: int) -> Floats:
    """Return all weights of `count` parts in steps of 1 / `parts`, shape (G, count).

    >>> simplex(2, 2).tolist()
    [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    """
    rows = [w for w in product(range(parts + 1), repeat=count) if sum(w) == parts]
    assert len(rows) == comb(parts + count - 1, count - 1)
    grid: Floats = np.array(rows, dtype=np.float64) / parts
    return grid


def _level(forecast: Forecast, level: float) -> Floats:
    column = forecast.at(level)
    if column is None:
        raise ValueError(f"a forecast has no quantile at {level:g}")
    return column


def _weighted(values: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return the weighted mean of what is known; NaN where nothing is."""
    total, share = np.zeros_like(values[0]), np.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        known = np.isfinite(value)
        total += np.where(known, weight * value, 0.0)
        share += np.where(known, weight, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(share > 0, total / share, np.nan)
    return result

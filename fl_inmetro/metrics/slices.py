"""Errors by month, weekday, lead time or age of the model, on one scale for all slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.points import Points

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def nmae_by(points: Points, group: Ints, size: int) -> tuple[Floats, Ints]:
    """Return the nMAE of each slice of the points, and how many scored points it has.

    A client's error in a slice is its mean absolute error there over its mean load on *all* its
    scored points, so that a slice of little load is no worse for it, and the slices of a client,
    weighted by their points, have its nMAE as their mean. Clients count once in each slice that
    they have points in; those whose mean load is not above zero have no share in any.

    Args:
        points: R forecasts.
        group: Shape (R,), the slice of each, 0 … G − 1.
        size: G.

    Returns:
        Shapes (G,): nMAE, NaN where nothing is scored; points.
    """
    scored = points.scored
    own = points.take(scored)
    clients = len(points.names)
    count = np.bincount(own.client, minlength=clients)
    load = np.bincount(own.client, weights=own.observed_kwh, minlength=clients)
    mean_kwh = np.where(load > 0, load / np.maximum(count, 1), np.nan)
    cell = own.client * size + group[scored]
    error = np.abs(own.forecast.point_kwh - own.observed_kwh)
    total = np.bincount(cell, weights=error, minlength=clients * size).reshape(clients, size)
    known = np.bincount(cell, minlength=clients * size).reshape(clients, size)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = total / known / mean_kwh[:, None]
        there = np.isfinite(share)
        nmae: Floats = np.where(there, share, 0.0).sum(axis=0) / there.sum(axis=0)
    return nmae, known.sum(axis=0)

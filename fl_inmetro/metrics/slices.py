"""Errors by month, weekday, lead time or age of the model, on one scale for all slices."""

from __future__ import annotations

from dataclasses import dataclass

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
    return slice_sums(points, group, size).nmae()


@dataclass(frozen=True, eq=False)
class SliceSums:
    """What the nMAE of slices is made of; sums of other points of the clients may be added.

    Attributes:
        count: Shape (K, G), scored points.
        error_kwh: Shape (K, G), sum of the absolute errors.
        load_kwh: Shape (K,), sum of what was measured at the scored points of all slices.
    """

    count: Ints
    error_kwh: Floats
    load_kwh: Floats

    def nmae(self) -> tuple[Floats, Ints]:
        """Return what `nmae_by` gives."""
        own = self.count.sum(axis=1)
        mean_kwh = np.where(self.load_kwh > 0, self.load_kwh / np.maximum(own, 1), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = self.error_kwh / self.count / mean_kwh[:, None]
            there = np.isfinite(share)
            nmae: Floats = np.where(there, share, 0.0).sum(axis=0) / there.sum(axis=0)
        return nmae, self.count.sum(axis=0)


def slice_sums(points: Points, group: Ints, size: int) -> SliceSums:
    """Return the sums of the points' slices; arguments as of `nmae_by`."""
    scored = points.scored
    own = points.take(scored)
    clients = len(points.names)
    load = np.bincount(own.client, weights=own.observed_kwh, minlength=clients)
    cell = own.client * size + group[scored]
    error = np.abs(own.forecast.point_kwh - own.observed_kwh)
    total = np.bincount(cell, weights=error, minlength=clients * size).reshape(clients, size)
    known = np.bincount(cell, minlength=clients * size).reshape(clients, size)
    # Of nothing, `bincount` gives whole numbers.
    return SliceSums(known, total.astype(np.float64), load.astype(np.float64))

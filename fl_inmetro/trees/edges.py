"""Bin edges that all clients agree on, from two rounds of counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Cells of the first grid, over asinh(x) from −`REACH` to `REACH` (|x| up to 1e12), and into how
#: many each cell with an edge in it is cut in the second round.
CELLS, REACH, FINER = 2048, 28.4, 256

#: Most bins of a feature: with the missing one they fit a byte.
MOST = 254


def first_edges() -> Floats:
    """Return the borders of the first grid's cells, ascending (CELLS + 1,)."""
    return np.sinh(np.linspace(-REACH, REACH, CELLS + 1))


def counts(x: Floats, borders: Floats) -> Ints:
    """Return how many values of each feature lie in each cell; this is what leaves a client.

    Args:
        x: Rows [row, feature]; NaN is in no cell.
        borders: Ascending, of all features [cell + 1] or each its own [feature, cell + 1]. A cell
            has its lower border and not its upper one; what lies beyond is in the outermost cell.
    """
    own = np.broadcast_to(borders, (x.shape[1], borders.shape[-1]))
    found = np.zeros((x.shape[1], borders.shape[-1] - 1), dtype=np.int64)
    for feature, limits in enumerate(own):
        known = x[:, feature][~np.isnan(x[:, feature])]
        cell = np.searchsorted(limits[1:-1], known, side="right")
        found[feature] = np.bincount(cell, minlength=len(limits) - 1)
    return found


def second_borders(total: Ints, bins: int) -> list[Floats]:
    """Return the borders of the second grid, of each feature: cells with a quantile are cut finer.

    Args:
        total: Summed `counts` over `first_edges` [feature, cell].
        bins: Wanted.
    """
    borders = first_edges()
    result = []
    for row in total:
        wanted = sorted(set(_cells_of_quantiles(row, bins)))
        finer = [np.linspace(borders[cell], borders[cell + 1], FINER + 1) for cell in wanted]
        result.append(np.unique(np.concatenate([borders, *finer])))
    return result


def agreed_edges(total: Sequence[Ints], borders: Sequence[Floats], bins: int) -> list[Floats]:
    """Return the edges between bins, of each feature, ascending; one less than there are bins.

    An edge is a border between cells, so that it says of no client where a reading lies more
    exactly than the grid. Values that many rows share (an hour, a flag) have bins of their own.
    Edges are single-precision numbers, which the libraries' own formats hold without rounding.

    Args:
        total: Summed `counts` over the second borders, of each feature [cell].
        borders: Of each feature.
        bins: At most so many.
    """
    result = []
    for row, limits in zip(total, borders, strict=True):
        known = np.flatnonzero(row)
        if len(known) <= 1:
            result.append(np.zeros(0))
            continue
        if len(known) <= bins:
            # Few values: an edge behind each but the last.
            at = known[:-1]
        else:
            # The last filled cell has nothing behind it.
            at = np.unique(_cells_of_quantiles(row, bins))
            at = at[at < known[-1]]
        # Between this filled cell and the next: in the middle of what is empty between them.
        following = known[np.searchsorted(known, at, side="right")]
        middle = (limits[at + 1] + limits[following]) / 2
        result.append(np.unique(middle.astype(np.float32)).astype(np.float64))
    return result


def _cells_of_quantiles(row: Ints, bins: int) -> list[int]:
    """Return the cells in which the 1/bins, 2/bins … quantiles lie."""
    points = int(row.sum())
    if points == 0:
        return []
    ranks = np.arange(1, bins) * points / bins
    cells: list[int] = np.searchsorted(np.cumsum(row), ranks, side="left").tolist()
    return cells


def edges_of(clients: Sequence[Floats], bins: int) -> tuple[list[Floats], int]:
    """Return the agreed edges of clients' rows, what two rounds of counts come to, and their bytes.

    Args:
        clients: Rows of each [row, feature].
        bins: At most so many a feature, up to `MOST`.
    """
    rough = np.sum([counts(x, first_edges()) for x in clients], axis=0)
    borders = second_borders(rough, bins)
    fine = []
    for feature, limits in enumerate(borders):
        column = [counts(x[:, feature : feature + 1], limits)[0] for x in clients]
        fine.append(np.sum(column, axis=0))
    return agreed_edges(fine, borders, bins), count_bytes(borders)


def count_bytes(borders: Sequence[Floats]) -> int:
    """Return what both rounds move for one client.

    Four bytes for each count: of all cells, then of what the cut ones were cut into (the others are
    known); two for the number of each cell that is to be cut.
    """
    cut = sum((len(limits) - 1 - CELLS) // (FINER - 1) for limits in borders)
    return 4 * CELLS * len(borders) + cut * (4 * FINER + 2)


def binned(x: Floats, edges: Sequence[Floats]) -> NDArray[np.uint8]:
    """Return the bin of each value [row, feature]: the number of edges at or below it.

    A value below an edge is left of it (as XGBoost has it: x < edge). Missing ones have the bin
    behind the last one of all features' widest, `missing_bin`.
    """
    missing = missing_bin(edges)
    result = np.empty(x.shape, dtype=np.uint8)
    single = x.astype(np.float32)
    for feature, limits in enumerate(edges):
        column = np.searchsorted(limits.astype(np.float32), single[:, feature], side="right")
        result[:, feature] = np.where(np.isnan(single[:, feature]), missing, column)
    return result


def missing_bin(edges: Sequence[Floats]) -> int:
    """Return the bin of missing values: one for all features."""
    return max((len(limits) for limits in edges), default=0) + 1

"""Errors of a row by client and issue: what tests of chance need to know of its forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.points import Points

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Marks = NDArray[np.uint64]

#: Reads the forecasts of a fold again, by its number; None where it has none.
Read = Callable[[int], Points | None]


@dataclass(frozen=True, eq=False)
class FoldCells:
    """One fold's scored points, summed by client and issue; a step counts once in its cell.

    Attributes:
        names: The K clients.
        client: Shape (N,), places in `names`.
        issue_utc_s: Shape (N,).
        count: Shape (N,), scored steps; never 0.
        error_kwh: Shape (N,), sum of the absolute errors.
        load_kwh: Shape (N,), sum of what was measured.
        ahead_s: Shape (N,), from the issue to the begin of the last scored step.
        mark: Shape (N,). Two cells of one client and issue with the same mark and count are of the
            same steps, but for one chance in 2^64.
    """

    names: tuple[str, ...]
    client: Ints
    issue_utc_s: Ints
    count: Ints
    error_kwh: Floats
    load_kwh: Floats
    ahead_s: Ints
    mark: Marks

    @classmethod
    def of(cls, points: Points) -> FoldCells:
        """Return the sums of the points that are scored."""
        points = once(points.take(points.scored))
        keys = np.stack([points.client, points.issue_utc_s], axis=1)
        cells, place = np.unique(keys, axis=0, return_inverse=True)
        place, size = place.reshape(-1), len(cells)
        error = np.abs(points.forecast.point_kwh - points.observed_kwh)
        ahead = points.target_utc_s - points.issue_utc_s
        reach = np.full(size, np.iinfo(np.int64).min)
        np.maximum.at(reach, place, ahead)
        mark = np.zeros(size, dtype=np.uint64)
        np.add.at(mark, place, _scattered(ahead))
        return cls(
            points.names,
            cells[:, 0].astype(np.int64),
            cells[:, 1].astype(np.int64),
            np.bincount(place, minlength=size),
            np.bincount(place, error, size).astype(np.float64),
            np.bincount(place, points.observed_kwh, size).astype(np.float64),
            reach,
            mark,
        )

    def take(self, rows: Ints) -> FoldCells:
        """Return some of the cells; `names` stay."""
        arrays = {one.name: getattr(self, one.name) for one in fields(FoldCells)}
        names = arrays.pop("names")
        return FoldCells(names, **{name: values[rows] for name, values in arrays.items()})


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one row with one seed, fold by fold.

    Attributes:
        folds: Number of a fold to its cells.
        read: Gives a fold's forecasts again: where two rows were not scored on the same steps of a
            cell, its sums say nothing of the steps that both have.
    """

    folds: dict[int, FoldCells]
    read: Read


def once(points: Points) -> Points:
    """Return the points in the order of client, issue and target, the first of equal ones only."""
    order = np.lexsort((points.target_utc_s, points.issue_utc_s, points.client))
    keys = np.stack([points.client, points.issue_utc_s, points.target_utc_s])[:, order]
    new = np.ones(order.size, dtype=bool)
    new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return points.take(order[new])


def common_cells(every: Sequence[Cells]) -> list[FoldCells]:
    """Return the cells of the steps that all have and that are scored in all.

    Sums of cells of other steps are made anew from the forecasts, a fold at a time.

    Returns:
        As many as `every`, of the same clients, issues and steps in the same order.
    """
    numbers = sorted(set.intersection(*(set(one.folds) for one in every)))
    names = tuple(sorted({n for one in every for k in numbers for n in one.folds[k].names}))
    found: list[list[FoldCells]] = [[] for _ in every]
    for number in numbers:
        parts = _aligned([_with_names(one.folds[number], names) for one in every])
        first = parts[0]
        alike = np.ones(first.client.size, dtype=bool)
        for other in parts[1:]:
            alike &= (first.mark == other.mark) & (first.count == other.count)
        same = np.flatnonzero(alike)
        for own, part in zip(found, parts, strict=True):
            own.append(part.take(same))
        if same.size < first.client.size:
            again = _summed_again(every, number, first.take(np.flatnonzero(~alike)))
            for own, part in zip(found, again, strict=True):
                own.append(part)
    return [_joined(own, names) for own in found]


# ------------------------------------------------------------------------------ internals
def _scattered(values: Ints) -> Marks:
    """Return numbers that look random, the same for the same value (splitmix64, Steele 2014)."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _aligned(parts: Sequence[FoldCells]) -> list[FoldCells]:
    """Return the cells that all parts have, in one order; all have the same `names`."""
    first = min((int(one.issue_utc_s.min()) for one in parts if one.client.size), default=0)
    keys = [_cell_keys(one.client, one.issue_utc_s, first) for one in parts]
    common = reduce(np.intersect1d, keys)
    order = [np.argsort(key) for key in keys]
    return [
        part.take(rows[np.searchsorted(key[rows], common)])
        for part, key, rows in zip(parts, keys, order, strict=True)
    ]


def _with_names(part: FoldCells, names: tuple[str, ...]) -> FoldCells:
    return replace(part, names=names, client=_renamed(part.client, part.names, names))


def _summed_again(every: Sequence[Cells], number: int, wanted: FoldCells) -> list[FoldCells]:
    """Return the cells `wanted` of a fold, of the steps alone that all have."""
    first = int(wanted.issue_utc_s.min())
    cells = _cell_keys(wanted.client, wanted.issue_utc_s, first)
    kept: dict[int, tuple[Points, Ints]] = {}
    for one in every:
        if id(one) in kept:  # a baseline is the same with every seed
            continue
        points = one.read(number)
        if points is None:  # taken away since
            return [wanted.take(np.zeros(0, dtype=np.int64)) for _ in every]
        own = points.take(points.scored)
        own = replace(own, names=wanted.names, client=_renamed(own.client, own.names, wanted.names))
        own = own.take(np.isin(_cell_keys(own.client, own.issue_utc_s, first), cells))
        own = once(own)
        ahead = (own.target_utc_s - own.issue_utc_s) // 60
        # In minutes 2^17 are 91 days ahead.
        kept[id(one)] = own, (_cell_keys(own.client, own.issue_utc_s, first) << 17) + ahead
    common = reduce(np.intersect1d, [steps for _, steps in kept.values()])
    small = {
        key: FoldCells.of(points.take(np.isin(steps, common)))
        for key, (points, steps) in kept.items()
    }
    return [small[id(one)] for one in every]


def _cell_keys(client: Ints, issue_utc_s: Ints, first_utc_s: int) -> Ints:
    """Return a number for each client and issue; in minutes 2^25 are 63 years of issues."""
    return (client << 25) + (issue_utc_s - first_utc_s) // 60


def _renamed(client: Ints, own: tuple[str, ...], names: tuple[str, ...]) -> Ints:
    """Return the places in `names` of places in `own`."""
    place = {name: k for k, name in enumerate(names)}
    return np.array([place[name] for name in own], dtype=np.int64)[client]


def _joined(parts: Sequence[FoldCells], names: tuple[str, ...]) -> FoldCells:
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        empty = np.zeros(0)
        return FoldCells(names, none, none, none, empty, empty, none, none.astype(np.uint64))
    arrays = [one.name for one in fields(FoldCells) if one.name != "names"]
    return FoldCells(
        names, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    )

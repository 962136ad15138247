"""Reconcile a run's test forecasts and score them on every level, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.hierarchy.methods import Calibration, reconciled
from fl_inmetro.hierarchy.tree import LEAF_LEVEL, Hierarchy
from fl_inmetro.metrics import ErrorSums, Forecast, score_fleet
from fl_inmetro.metrics.points import Points
from fl_inmetro.units import iso_utc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The forecasts as they were made, which do not add up.
BASE = "base"

#: Instants of the calibration days at which everything must be measured, at least.
LEAST_INSTANTS = 24


@dataclass(frozen=True, eq=False)
class Grid:
    """The forecasts of all series at the instants at which all have one, in order.

    Attributes:
        tree: The tree.
        issue_utc_s: Shape (I,).
        target_utc_s: Shape (I,).
        leaf_kwh: Shape (I, m), means.
        node_kwh: Shape (I, a).
        observed_kwh: Shape (I, m), NaN where not measured.
        points: The leaves' forecasts, one row each, with their quantiles.
        instant: Shape (R,), the place of each row's instant; −1 where the instant is left out.
        leaf: Shape (R,), the place of each row's client.
        instants: Instants at which anybody has a forecast.
        holes: Client to the instants at which it alone has no forecast or others lack one too.
    """

    tree: Hierarchy
    issue_utc_s: Ints
    target_utc_s: Ints
    leaf_kwh: Floats
    node_kwh: Floats
    observed_kwh: Floats
    points: Points
    instant: Ints
    leaf: Ints
    instants: int
    holes: Mapping[str, int]


@dataclass(frozen=True)
class LevelScore:
    """A method on a level.

    Attributes:
        method: `base`, or a name of `methods.METHODS`.
        level: A level of the tree.
        nmae: Mean over its series of MAE over mean load.
        nrmse: Mean over its series of RMSE over mean load.
        bias: Σ error over Σ load.
        gap: Mean over its series of Σ|forecast − sum of the clients' forecasts| over Σ load.
    """

    method: str
    level: str
    nmae: float
    nrmse: float
    bias: float
    gap: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the methods made of the forecasts.

    Attributes:
        scores: A row per method and level.
        leaf_kwh: Method to the leaves' reconciled means, (I, m), of all instants of the grid.
        shrinkage: λ of `mint`; None where it was not asked for.
        negative: Method to the share of the clients' scored forecasts that are below zero.
        calibration: Shape (I,): the instants that the errors were taken from.
        scored: Shape (I,): the instants that are scored, issued after the last of them.
        calibration_days: Days of issue of the calibration.
        whole: Instants of them at which everything was measured.
    """

    scores: tuple[LevelScore, ...]
    leaf_kwh: Mapping[str, Floats]
    shrinkage: float | None
    negative: Mapping[str, float]
    calibration: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    calibration_days: int
    whole: int


def grid_of(tree: Hierarchy, points: Points, nodes: Mapping[tuple[int, int], Floats]) -> Grid:
    """Bring the forecasts of clients and nodes to common instants.

    Args:
        tree: The tree.
        points: The clients' forecasts; of clients that are not in the tree none count.
        nodes: (Issue, target) to the nodes' forecasts, shape (a,), NaN where there is none.

    Raises:
        RunError: FL716, at no instant do all have a forecast.
    """
    place = {name: k for k, name in enumerate(tree.leaves)}
    leaf_of_name = np.array([place.get(name, -1) for name in points.names], dtype=np.int64)
    points = points.take(leaf_of_name[points.client] >= 0)
    points = points.take(np.isfinite(points.forecast.mean_kwh))
    leaf = leaf_of_name[points.client]
    keys = np.stack([points.issue_utc_s, points.target_utc_s], axis=1)
    instants, row_instant = np.unique(keys, axis=0, return_inverse=True)
    row_instant = row_instant.reshape(-1)
    m, size = len(tree.leaves), len(instants)
    mean, observed = np.full((size, m), np.nan), np.full((size, m), np.nan)
    mean[row_instant, leaf] = points.forecast.mean_kwh
    observed[row_instant, leaf] = points.observed_kwh
    none = np.full(len(tree.nodes), np.nan)
    own = np.array([nodes.get((int(i), int(t)), none) for i, t in instants]).reshape(size, -1)
    there = np.isfinite(mean)
    keep = there.all(axis=1) & np.isfinite(own).all(axis=1)
    holes = {name: int(n) for name, n in zip(tree.leaves, (~there).sum(axis=0), strict=True) if n}
    if not keep.any():
        worst = sorted(holes.items(), key=lambda item: -item[1])[:5]
        unknown = [
            name for v, name in enumerate(tree.nodes) if size and not np.isfinite(own[:, v]).any()
        ]
        where = [f"client {name}: none at {n} of {size} instants" for name, n in worst]
        where += [f"node {name}: none at all" for name in unknown[:5]]
        raise _fault(
            "at no instant do all clients and nodes have a forecast",
            "\n".join(where),
            "leave such clients out of the groups",
        )
    number = np.where(keep, np.cumsum(keep) - 1, -1)
    return Grid(
        tree,
        instants[keep, 0].astype(np.int64),
        instants[keep, 1].astype(np.int64),
        mean[keep],
        own[keep],
        observed[keep],
        points,
        number[row_instant].astype(np.int64),
        leaf,
        size,
        holes,
    )


def study(grid: Grid, methods: tuple[str, ...], calibration_days: int) -> Outcome:
    """Take the errors of the first days, reconcile, and score what comes after.

    Only forecasts that are issued when the last calibration target has been measured are scored.

    Raises:
        RunError: FL716, the calibration days say too little, or nothing is left to score.
    """
    tree = grid.tree
    issues = np.unique(grid.issue_utc_s)
    calibration = np.isin(grid.issue_utc_s, issues[:calibration_days])
    last = int(grid.target_utc_s[calibration].max())
    scored = ~calibration & (grid.issue_utc_s > last)
    past = _past(grid, calibration)
    if not scored.any() or len(issues) <= calibration_days:
        raise _fault(
            f"nothing is left to score after {calibration_days} days of calibration",
            f"{len(issues)} days of issue with forecasts of all clients and nodes",
            "take fewer days: --calibration-days",
        )
    base_gap = np.abs(grid.node_kwh - tree.sums(grid.leaf_kwh))[scored]
    rows: list[LevelScore] = _scores(grid, BASE, grid.leaf_kwh, grid.node_kwh, scored, base_gap)
    made: dict[str, Floats] = {}
    negative: dict[str, float] = {}
    weight: float | None = None
    for method in methods:
        leaf_kwh, shrunk = reconciled(method, tree, grid.leaf_kwh, grid.node_kwh, past)
        weight = shrunk if shrunk is not None else weight
        made[method] = leaf_kwh
        negative[method] = float((leaf_kwh[scored] < 0).mean())
        rows += _scores(
            grid, method, leaf_kwh, tree.sums(leaf_kwh), scored, np.zeros_like(base_gap)
        )
    return Outcome(
        tuple(rows),
        made,
        weight,
        negative,
        calibration,
        scored,
        len(issues[:calibration_days]),
        int(past.whole.sum()),
    )


def describe(grid: Grid, outcome: Outcome) -> dict[str, Any]:
    """Return plain JSON types of what was counted and scored."""
    tree = grid.tree
    kept = grid.issue_utc_s[outcome.calibration]
    after = grid.issue_utc_s[outcome.scored]
    sizes = {level: tree.levels.count(level) for level in tree.level_names}
    return {
        "levels": {**sizes, LEAF_LEVEL: len(tree.leaves)},
        "instants": grid.instants,
        "common_instants": len(grid.issue_utc_s),
        "calibration": {
            "days": outcome.calibration_days,
            "first_issue_utc": iso_utc(int(kept.min())),
            "last_issue_utc": iso_utc(int(kept.max())),
            "instants": int(outcome.calibration.sum()),
            "whole_instants": outcome.whole,
        },
        "scored": {
            "first_issue_utc": iso_utc(int(after.min())),
            "last_issue_utc": iso_utc(int(after.max())),
            "instants": len(after),
        },
        "holes": dict(grid.holes),
        "shrinkage": outcome.shrinkage,
        "negative": dict(outcome.negative),
        "rows": [
            {
                k: v if not isinstance(v, float) or np.isfinite(v) else None
                for k, v in vars(r).items()
            }
            for r in outcome.scores
        ],
    }


# ------------------------------------------------------------------------------ internals
def _past(grid: Grid, calibration: NDArray[np.bool_]) -> Calibration:
    tree = grid.tree
    observed = grid.observed_kwh[calibration]
    leaf = grid.leaf_kwh[calibration] - observed
    node = grid.node_kwh[calibration] - tree.sums(observed)
    names = [*tree.leaves, *tree.nodes]
    known = np.concatenate([np.isfinite(leaf).sum(axis=0), np.isfinite(node).sum(axis=0)])
    silent = [name for name, n in zip(names, known, strict=True) if not n]
    whole = int(np.isfinite(leaf).all(axis=1).sum())
    if silent or whole < LEAST_INSTANTS:
        worst = np.argsort(known[: len(tree.leaves)])[:5]
        raise _fault(
            f"at {whole} instants of the calibration days everything was measured, "
            f"{LEAST_INSTANTS} are needed",
            "\n".join(f"client {names[i]}: measured at {known[i]} of {len(leaf)}" for i in worst),
            "take more days, --calibration-days, or leave such clients out of the groups",
        )
    return Calibration(leaf, node, np.nanmean(observed, axis=0))


def _scores(
    grid: Grid,
    method: str,
    leaf_kwh: Floats,
    node_kwh: Floats,
    scored: NDArray[np.bool_],
    gap_kwh: Floats,
) -> list[LevelScore]:
    tree = grid.tree
    load = tree.sums(grid.observed_kwh)[scored]
    sums = {
        name: ErrorSums.of(Forecast(node_kwh[scored, v]), load[:, v])
        for v, name in enumerate(tree.nodes)
    }
    rows = []
    for level in tree.level_names:
        own = [v for v, name in enumerate(tree.levels) if name == level]
        known = np.isfinite(load[:, own])
        total = np.where(known, load[:, own], 0.0).sum(axis=0)
        gap = np.where(known, gap_kwh[:, own], 0.0).sum(axis=0) / np.where(total > 0, total, np.nan)
        rows.append(_row(method, level, {tree.nodes[v]: sums[tree.nodes[v]] for v in own}, gap))
    rows.append(
        _row(method, LEAF_LEVEL, shifted(grid, leaf_kwh, scored).sums(), np.zeros(len(tree.leaves)))
    )
    return rows


def shifted(grid: Grid, leaf_kwh: Floats, instants: NDArray[np.bool_]) -> Points:
    """Return the clients' forecasts at some instants, their quantiles moved as far as the mean."""
    rows = (grid.instant >= 0) & instants[grid.instant]
    points, place, leaf = grid.points.take(rows), grid.instant[rows], grid.leaf[rows]
    by_kwh = (leaf_kwh - grid.leaf_kwh)[place, leaf]
    forecast = points.forecast
    quantiles = forecast.quantiles_kwh
    moved = replace(
        forecast,
        mean_kwh=forecast.mean_kwh + by_kwh,
        quantiles_kwh=None if quantiles is None else quantiles + by_kwh[:, None],
    )
    return replace(points, forecast=moved)


def _row(method: str, level: str, sums: Mapping[str, ErrorSums], gap: Floats) -> LevelScore:
    scores = score_fleet(sums)
    mean_gap = float(np.nanmean(gap)) if np.isfinite(gap).any() else float("nan")
    return LevelScore(method, level, scores["nmae"], scores["nrmse"], scores["bias"], mean_gap)


def _fault(what: str, where: str, hint: str) -> RunError:
    return RunError(Fault("FL716", what, where, hint))

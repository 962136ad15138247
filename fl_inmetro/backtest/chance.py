"""Which differences between the rows of a backtest are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.backtest.scores import plain
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.significance import Losses, bootstrap_bounds, paired_losses, panel_test
from fl_inmetro.runs.versus import SIGNIFICANT
from fl_inmetro.seeds import derive

Ints = NDArray[np.int64]

#: Two rows whose nMAE differs by less than this share of it are one model, twice computed.
ROUNDING = 1e-6
Row = tuple[str, str]


def pairs_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Row, Row]]:
    """Return which rows are held against which: each against the best, and federated training
    against the other trainings of its model."""
    scored = [row for row in rows if row["nmae"] is not None]
    if not scored:
        return []
    names = [(row["model"], row["training"]) for row in scored]
    best = min(scored, key=lambda row: float(row["nmae"]))
    top = (best["model"], best["training"])
    pairs = [(name, top) for name in names if name != top]
    for model, training in names:
        for other in ("local", "clustered", "centralised", "personalised"):
            pair = ((model, "federated"), (model, other))
            if training == "federated" and (model, other) in names and top not in pair:
                pairs.append(pair)
    return pairs


def tested(ours: Row, theirs: Row, points: Mapping[Row, Mapping[int, Points]]) -> dict[str, Any]:
    """Hold one row against another on the points that both have with every seed.

    The losses are means over the seeds; a baseline has the same with each. The variance is that of
    days of issue, with as many lags as forecasts overlap, at least; the interval is that of a
    bootstrap over clients and weeks.
    """
    losses = paired_over_seeds(points[ours], points[theirs])
    found: dict[str, Any] = {
        "model": ours[0],
        "training": ours[1],
        "against_model": theirs[0],
        "against_training": theirs[1],
    }
    if losses is None:
        empty = dict.fromkeys(("difference", "low", "high", "p_value", "lag"))
        return found | empty | {"clear": False, "clients": 0, "days": 0, "points": 0}
    test = panel_test(losses)
    bounds = bootstrap_bounds(losses, derive(0, "backtest", *ours, *theirs))
    clear = test.p_value < SIGNIFICANT and not bounds.low <= 0 <= bounds.high
    clear &= abs(losses.difference) > ROUNDING * losses.theirs
    return found | {
        "difference": plain(losses.difference),
        "low": plain(bounds.low),
        "high": plain(bounds.high),
        "p_value": plain(test.p_value),
        "lag": test.lag,
        "clear": bool(clear),
        "clients": len(losses.clients),
        "days": len(losses.days),
        "points": losses.points,
    }


def paired_over_seeds(ours: Mapping[int, Points], theirs: Mapping[int, Points]) -> Losses | None:
    """Return the mean over the seeds of two rows' paired losses; None without a common point."""
    seeds = sorted({*ours} & {*theirs})
    if not seeds:
        return None
    every = _on_common_points([rows[seed] for rows in (ours, theirs) for seed in seeds])
    if not len(every[0]):
        return None
    halves = zip(every[: len(seeds)], every[len(seeds) :], strict=True)
    losses = [paired_losses(one, two) for one, two in halves]
    if not losses[0].clients:
        return None
    return replace(
        losses[0],
        excess=np.mean([one.excess for one in losses], axis=0),
        ours=float(np.mean([one.ours for one in losses])),
        theirs=float(np.mean([one.theirs for one in losses])),
    )


# ------------------------------------------------------------------------------ internals
def _on_common_points(every: Sequence[Points]) -> list[Points]:
    """Return the points that all have and that are scored in all, in one order, with one roster."""
    names = tuple(sorted({name for points in every for name in points.names}))
    place = {name: k for k, name in enumerate(names)}
    own, keys = [], []
    first = min((int(one.issue_utc_s.min()) for one in every if len(one)), default=0)
    for points in every:
        scored = points.take(points.scored)
        client = np.array([place[name] for name in points.names], dtype=np.int64)[scored.client]
        ahead = (scored.target_utc_s - scored.issue_utc_s) // 60
        issue = (scored.issue_utc_s - first) // 60
        # In minutes 2^25 are 63 years of issues, 2^17 are 91 days ahead: no two keys are the same.
        keys.append((client << 42) + (issue << 17) + ahead)
        own.append(replace(scored, names=names, client=client))
    common = keys[0]
    for key in keys[1:]:
        common = np.intersect1d(common, key)
    order = [np.argsort(key, kind="stable") for key in keys]
    return [
        points.take(rows[np.searchsorted(key[rows], common)])
        for points, key, rows in zip(own, keys, order, strict=True)
    ]

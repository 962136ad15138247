"""Which differences between the rows of a backtest are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl_inmetro.backtest.cells import Cells, common_cells
from fl_inmetro.backtest.scores import plain
from fl_inmetro.metrics.significance import (
    Losses,
    bootstrap_bounds,
    losses_of,
    mean_losses,
    seeds_test,
)
from fl_inmetro.runs.versus import SIGNIFICANT
from fl_inmetro.seeds import derive

#: Two rows whose nMAE differs by less than this share of it are one model, twice computed.
ROUNDING = 1e-6

#: So few seeds have to agree on which of two rows is the better one.
FEW_SEEDS = 5
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


def tested(ours: Row, theirs: Row, cells: Mapping[Row, Mapping[int, Cells]]) -> dict[str, Any]:
    """Hold one row against another on the points that both have with every seed.

    The losses are means over the seeds; a baseline has the same with each. The variance is that of
    days of issue, with as many lags as forecasts overlap, at least, and that from seed to seed
    (`seeds_test`); the interval is that of a bootstrap over clients, weeks and seeds. With one seed
    both are of these very models, and say nothing of a training with another: `seeds` is 1.
    """
    each = paired_by_seed(cells[ours], cells[theirs])
    found: dict[str, Any] = {
        "model": ours[0],
        "training": ours[1],
        "against_model": theirs[0],
        "against_training": theirs[1],
    }
    if not each:
        empty = dict.fromkeys(("difference", "low", "high", "p_value", "lag"))
        counts = dict.fromkeys(("clients", "days", "points", "seeds"), 0)
        return found | empty | counts | {"clear": False, "by_seed": []}
    losses, test = mean_losses(each), seeds_test(each)
    bounds = bootstrap_bounds(each, derive(0, "backtest", *ours, *theirs))
    by_seed = [one.difference for one in each]
    clear = test.p_value < SIGNIFICANT and not bounds.low <= 0 <= bounds.high
    if len(each) <= FEW_SEEDS:
        clear &= len({np.sign(one) for one in by_seed}) == 1
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
        "seeds": len(each),
        "by_seed": [plain(one) for one in by_seed],
    }


def paired_by_seed(ours: Mapping[int, Cells], theirs: Mapping[int, Cells]) -> list[Losses]:
    """Return two rows' paired losses with each seed that both have, in the order of the seeds, on
    the points that all have; empty without a common point."""
    seeds = sorted({*ours} & {*theirs})
    if not seeds:
        return []
    every = common_cells([rows[seed] for rows in (ours, theirs) for seed in seeds])
    if not every[0].client.size:
        return []
    losses = [
        losses_of(
            one.names,
            one.client,
            one.issue_utc_s,
            one.count,
            one.load_kwh,
            one.error_kwh,
            two.error_kwh,
            int(one.ahead_s.max(initial=0)),
        )
        for one, two in zip(every[: len(seeds)], every[len(seeds) :], strict=True)
    ]
    return losses if losses[0].clients else []

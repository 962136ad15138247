"""What a backtest has found: rows over all folds, slices of them, and what is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fl_inmetro.backtest.cells import Cells, Read
from fl_inmetro.backtest.folds import Fold
from fl_inmetro.backtest.sums import Clock, RowSums
from fl_inmetro.metrics import ErrorSums, score_fleet, share_harmed
from fl_inmetro.metrics.points import Points
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import BASELINE, RunRecord

#: Scores of a row, in the order of the table.
SCORES = (
    "nmae",
    "nrmse",
    "pinball",
    "coverage_80",
    "worst_decile_nmae",
    "harmed",
    "fleet_nmae",
    "peak_hit",
    "peak_size",
    "fleet_peak_hit",
    "fleet_peak_size",
)
SLICES = ("month", "lead", "weekday", "age")

#: A client whose error is larger than its own model's by more than this share is harmed.
HARM = 0.01


def scores_of(row: RowSums, alone: Mapping[str, ErrorSums] | None = None) -> dict[str, float]:
    """Return a row's scores with one seed; see `SCORES`, and `points`, `clients`.

    `harmed` is the share of the clients whose error is more than 1 % above that of their own model,
    whose sums are `alone`; NaN without them.

    A client's errors are added up over all folds before they are divided by its load. The fleet's
    sum is made fold by fold, of the clients that the fold has.
    """
    fleet = score_fleet(row.sums)
    own, whole = row.peaks.score(), row.fleet_peaks
    return {
        **{name: fleet[name] for name in (*SCORES[:5], "clients", "points")},
        "harmed": share_harmed(row.sums, alone, HARM) if alone else math.nan,
        "fleet_nmae": row.fleet.nmae,
        "peak_hit": own.hit_share,
        "peak_size": own.size_error,
        "fleet_peak_hit": whole.hit_share,
        "fleet_peak_size": whole.size_error,
    }


def age_days_of(refit_days: int) -> int:
    """Return the days of a block of ages: a week, or four where models are used for long."""
    return 7 if refit_days <= 56 else 28


def slices_of(row: RowSums) -> dict[str, dict[str, tuple[float, int]]]:
    """Return nMAE and points by month, lead time, weekday and age of the model; see `sums.py`."""
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for by, (labels, sums) in row.slices.items():
        nmae, count = sums.nmae()
        found[by] = {name: (float(nmae[k]), int(count[k])) for k, name in enumerate(labels)}
    return found


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over the seeds and their sample standard deviation; NaN with one seed.

    >>> mean_and_spread([1.0, 2.0, 6.0])
    (3.0, 2.6457513110645907)
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return math.nan, math.nan
    mean = sum(known) / len(known)
    if len(known) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1))


def summarised(
    runs: Mapping[int, Sequence[tuple[Fold, RunRecord]]], age_days: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[str, str], dict[int, Cells]]]:
    """Score every row of the runs.

    Args:
        runs: Seed to its folds that are done, in order.
        age_days: Days of a block of ages.

    Returns:
        The rows, their slices, and for each row and seed the cells that tests are made of. A
        baseline is scored with the first seed only, and is the same with each.
    """
    order: dict[tuple[str, str], None] = {}
    for folds in runs.values():
        for _, record in folds:
            order |= {(row["model"], row["training"]): None for row in record.scores()}
    rows, slices, kept = [], [], {}
    alone: dict[tuple[str, int], dict[str, ErrorSums]] = {}
    for model, training in order:
        by_seed: dict[int, tuple[dict[str, float], dict[str, dict[str, tuple[float, int]]]]] = {}
        cells: dict[int, Cells] = {}
        for seed, folds in list(runs.items())[: 1 if training == BASELINE else None]:
            records = [record for _, record in folds]
            own = {fold.number: record for fold, record in folds}
            clock = Clock.of(records[0])
            found = RowSums.of(own, _reader(own, model, training), clock, age_days)
            if found is None:
                continue
            cost = _cost(records, model, training)
            # Local-only training comes before all that is held against it.
            scores = scores_of(found, alone.get((model, seed)))
            by_seed[seed] = (scores | cost, slices_of(found))
            if training == "local":
                alone[model, seed] = found.sums
            cells[seed] = found.cells
        if not by_seed:
            continue
        if training == BASELINE:
            cells = dict.fromkeys(runs, next(iter(cells.values())))
        rows.append(_row(model, training, [scores for scores, _ in by_seed.values()]))
        slices += _slices(model, training, [own for _, own in by_seed.values()])
        kept[model, training] = cells
    return rows, _with_ratios(slices, rows), kept


# ------------------------------------------------------------------------------ internals
def _reader(records: Mapping[int, RunRecord], model: str, training: str) -> Read:
    """Return what reads a row's forecasts of a fold."""

    def read(number: int) -> Points | None:
        table = records[number].forecasts(model, training)
        return points_of(table) if table is not None and table.num_rows else None

    return read


def _cost(records: Sequence[RunRecord], model: str, training: str) -> dict[str, float]:
    """Return bytes and seconds of all folds."""
    own = [
        row
        for record in records
        for row in record.scores()
        if (row["model"], row["training"]) == (model, training)
    ]
    return {key: float(sum(row.get(key) or 0.0 for row in own)) for key in ("bytes", "seconds")}


def _row(model: str, training: str, seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "training": training, "seeds": len(seeds)}
    for name in SCORES:
        mean, spread = mean_and_spread([scores[name] for scores in seeds])
        row |= {name: plain(mean), f"{name}_sd": plain(spread)}
    for name in ("bytes", "seconds"):
        row[name] = mean_and_spread([scores[name] for scores in seeds])[0]
    return row | {name: int(max(s[name] for s in seeds)) for name in ("clients", "points")}


def _slices(
    model: str, training: str, seeds: Sequence[Mapping[str, Mapping[str, tuple[float, int]]]]
) -> list[dict[str, Any]]:
    found = []
    for by in SLICES:
        for key in seeds[0][by]:
            own = [one[by][key] for one in seeds if key in one[by]]
            mean, spread = mean_and_spread([nmae for nmae, _ in own])
            found.append(
                {
                    "by": by,
                    "slice": key,
                    "model": model,
                    "training": training,
                    "nmae": plain(mean),
                    "nmae_sd": plain(spread),
                    "points": max(points for _, points in own),
                }
            )
    return found


def _with_ratios(slices: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the nMAE in units of the best baseline's in the same slice: hard weeks are hard for all.

    Without a baseline there is nothing to compare with: None.
    """
    plainly = [row for row in rows if row["training"] == BASELINE and row["nmae"] is not None]
    best = min(plainly, key=lambda row: row["nmae"])["model"] if plainly else None
    base = {
        (one["by"], one["slice"]): one["nmae"]
        for one in slices
        if one["training"] == BASELINE and one["model"] == best
    }
    for one in slices:
        usual = base.get((one["by"], one["slice"]))
        known = one["nmae"] is not None and usual
        one["ratio"] = one["nmae"] / usual if known else None
    return slices


def plain(value: float) -> float | None:
    """Return a number that JSON knows; what is not finite is None."""
    return float(value) if math.isfinite(value) else None

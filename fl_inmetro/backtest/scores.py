"""What a backtest has found: rows over all folds, slices of them, and what is more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.backtest.folds import Fold
from fl_inmetro.data.calendar import local_clock
from fl_inmetro.metrics import ErrorSums, Forecast, joined_forecasts, score_fleet, share_harmed
from fl_inmetro.metrics.fleet import fleet_errors, peaks, summed
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.slices import nmae_by
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import BASELINE, RunRecord
from fl_inmetro.units import DAY_S, HOUR_S

Ints = NDArray[np.int64]

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

#: Hours of a block of lead times.
LEAD_H = 6

#: A client whose error is larger than its own model's by more than this share is harmed.
HARM = 0.01


@dataclass(frozen=True)
class Clock:
    """What is needed to place a forecast in time.

    Attributes:
        resolution_s: Step.
        lead_s: From the issue to the first step of a forecast.
        timezone: Clock of months and weekdays.
    """

    resolution_s: int
    lead_s: int
    timezone: str

    @classmethod
    def of(cls, record: RunRecord) -> Clock:
        """Return that of a run."""
        window, step_s = record.manifest["window"], int(record.manifest["data"]["resolution_s"])
        return cls(step_s, int(window.get("lead_steps", 0)) * step_s, str(window["timezone"]))


@dataclass(frozen=True, eq=False)
class RowPoints:
    """The forecasts of one row with one seed, over all folds.

    Attributes:
        points: All of them.
        folds: Where each fold's begin in `points`, and the end; shape (F + 1,).
        first_issue_utc_s: Shape (R,), the first issue of each point's fold.
    """

    points: Points
    folds: tuple[int, ...]
    first_issue_utc_s: Ints

    def by_fold(self) -> list[Points]:
        """Return the points fold by fold."""
        return [
            self.points.take(np.arange(start, end))
            for start, end in zip(self.folds, self.folds[1:], strict=False)
        ]


def row_points(runs: Iterable[RunRecord], model: str, training: str) -> RowPoints | None:
    """Return a row's forecasts over the runs of one seed; None where no run has any."""
    parts = []
    for record in runs:
        table = record.forecasts(model, training)
        if table is not None and table.num_rows:
            parts.append(points_of(table))
    if not parts:
        return None
    sizes = [len(part) for part in parts]
    first = [int(part.issue_utc_s.min()) for part in parts]
    return RowPoints(joined(parts), tuple(np.cumsum([0, *sizes]).tolist()), np.repeat(first, sizes))


def joined(parts: Sequence[Points]) -> Points:
    """Return points of several tables as one; clients are those of all.

    Quantiles are kept where every part has those of the same levels.
    """
    names = tuple(sorted({name for part in parts for name in part.names}))
    place = {name: k for k, name in enumerate(names)}
    client = [np.array([place[n] for n in p.names], dtype=np.int64)[p.client] for p in parts]
    if len({part.forecast.levels for part in parts}) == 1:
        forecast = joined_forecasts([part.forecast for part in parts])
    else:
        forecast = Forecast(np.concatenate([part.forecast.mean_kwh for part in parts]))
    return Points(
        names,
        np.concatenate(client),
        np.concatenate([part.issue_utc_s for part in parts]),
        np.concatenate([part.target_utc_s for part in parts]),
        forecast,
        np.concatenate([part.observed_kwh for part in parts]),
    )


def scores_of(
    row: RowPoints, clock: Clock, alone: Mapping[str, ErrorSums] | None = None
) -> dict[str, float]:
    """Return a row's scores with one seed; see `SCORES`, and `points`, `clients`.

    `harmed` is the share of the clients whose error is more than 1 % above that of their own model,
    whose sums are `alone`; NaN without them.

    A client's errors are added up over all folds before they are divided by its load. The fleet's
    sum is made fold by fold, of the clients that the fold has.
    """
    sums = row.points.sums()
    fleet = score_fleet(sums)
    total = joined([summed(part) for part in row.by_fold()])
    own = peaks(row.points, clock.resolution_s, clock.lead_s)
    whole = peaks(total, clock.resolution_s, clock.lead_s)
    return {
        **{name: fleet[name] for name in (*SCORES[:5], "clients", "points")},
        "harmed": share_harmed(sums, alone, HARM) if alone else math.nan,
        "fleet_nmae": fleet_errors(total).nmae,
        "peak_hit": own.hit_share,
        "peak_size": own.size_error,
        "fleet_peak_hit": whole.hit_share,
        "fleet_peak_size": whole.size_error,
    }


def age_days_of(refit_days: int) -> int:
    """Return the days of a block of ages: a week, or four where models are used for long."""
    return 7 if refit_days <= 56 else 28


def slices_of(
    row: RowPoints, clock: Clock, age_days: int = 7
) -> dict[str, dict[str, tuple[float, int]]]:
    """Return nMAE and points by month, lead time, weekday and age of the model.

    Months and weekdays are those of the target, on the backtest's clock; lead times are counted
    from the issue, in blocks of `LEAD_H` hours; ages are days since the first issue after a
    training, in blocks of `age_days`.
    """
    points = row.points
    there = local_clock(points.target_utc_s, clock.timezone)
    month = there.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    lead = (points.target_utc_s - points.issue_utc_s - clock.lead_s) // (LEAD_H * HOUR_S)
    # A day of 23 or 25 hours lies between two issues at times: rounded, not cut.
    day = np.rint((points.issue_utc_s - row.first_issue_utc_s) / DAY_S).astype(np.int64)
    first_h = clock.lead_s / HOUR_S
    labels: dict[str, tuple[Ints, Callable[[int], str]]] = {
        "month": (month, lambda k: str(np.datetime64(k, "M"))),
        "lead": (lead, lambda k: f"{first_h + k * LEAD_H + 1:g}-{first_h + (k + 1) * LEAD_H:g}"),
        "weekday": (there.weekday, str),
        "age": (day // age_days, lambda k: f"{k * age_days}-{(k + 1) * age_days - 1}"),
    }
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for name, (group, label) in labels.items():
        keys, place = np.unique(group, return_inverse=True)
        nmae, count = nmae_by(points, place.reshape(-1).astype(np.int64), len(keys))
        found[name] = {
            label(int(key)): (float(nmae[k]), int(count[k])) for k, key in enumerate(keys)
        }
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
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[str, str], dict[int, Points]]]:
    """Score every row of the runs.

    Args:
        runs: Seed to its folds that are done, in order.
        age_days: Days of a block of ages.

    Returns:
        The rows, their slices, and for each row and seed the points (without quantiles) that tests
        are made of. A baseline is scored with the first seed only, and is the same with each.
    """
    order: dict[tuple[str, str], None] = {}
    for folds in runs.values():
        for _, record in folds:
            order |= {(row["model"], row["training"]): None for row in record.scores()}
    rows, slices, kept = [], [], {}
    alone: dict[tuple[str, int], dict[str, ErrorSums]] = {}
    for model, training in order:
        by_seed: dict[int, tuple[dict[str, float], dict[str, dict[str, tuple[float, int]]]]] = {}
        light: dict[int, Points] = {}
        for seed, folds in list(runs.items())[: 1 if training == BASELINE else None]:
            records = [record for _, record in folds]
            found = row_points(records, model, training)
            if found is None:
                continue
            clock = Clock.of(records[0])
            cost = _cost(records, model, training)
            # Local-only training comes before all that is held against it.
            scores = scores_of(found, clock, alone.get((model, seed)))
            by_seed[seed] = (scores | cost, slices_of(found, clock, age_days))
            if training == "local":
                alone[model, seed] = found.points.sums()
            light[seed] = _light(found.points)
        if not by_seed:
            continue
        if training == BASELINE:
            light = dict.fromkeys(runs, next(iter(light.values())))
        rows.append(_row(model, training, [scores for scores, _ in by_seed.values()]))
        slices += _slices(model, training, [own for _, own in by_seed.values()])
        kept[model, training] = light
    return rows, _with_ratios(slices, rows), kept


# ------------------------------------------------------------------------------ internals
def _light(points: Points) -> Points:
    """Return the points with what absolute errors are made of, and no more."""
    return Points(
        points.names,
        points.client,
        points.issue_utc_s,
        points.target_utc_s,
        Forecast(np.where(points.scored, points.forecast.point_kwh, np.nan)),
        points.observed_kwh,
    )


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

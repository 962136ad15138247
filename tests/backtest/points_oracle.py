"""The scores of a backtest on all its points at once: what its sums by fold have to equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.backtest.scores import HARM, SCORES
from fl_inmetro.backtest.sums import LEAD_H, Clock
from fl_inmetro.data.calendar import local_clock
from fl_inmetro.metrics import ErrorSums, Forecast, joined_forecasts, score_fleet, share_harmed
from fl_inmetro.metrics.fleet import fleet_errors, peaks, summed
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.slices import nmae_by
from fl_inmetro.units import DAY_S, HOUR_S

Ints = NDArray[np.int64]


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


def row(parts: Sequence[Points]) -> RowPoints:
    """Return the folds' points as one row's."""
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


def daily_losses(
    ours: Mapping[int, Points], theirs: Mapping[int, Points], seed: int
) -> dict[tuple[str, int], tuple[float, float, float, int]]:
    """Loop over the points that all seeds of both rows have; by client and issue, the absolute
    error of either with one seed, the load and the points."""
    seeds = sorted({*ours} & {*theirs})
    tables = [_by_instant(rows[one]) for rows in (ours, theirs) for one in seeds]
    mine, other = _by_instant(ours[seed]), _by_instant(theirs[seed])
    found: dict[tuple[str, int], tuple[float, float, float, int]] = {}
    for key, (forecast, load) in mine.items():
        if any(key not in table for table in tables):
            continue
        a, b, total, count = found.get(key[:2], (0.0, 0.0, 0.0, 0))
        second, its_load = other[key]
        a, b = a + abs(forecast - load), b + abs(second - its_load)
        found[key[:2]] = (a, b, total + load, count + 1)
    return found


def _by_instant(points: Points) -> dict[tuple[str, int, int], tuple[float, float]]:
    found: dict[tuple[str, int, int], tuple[float, float]] = {}
    for k in range(len(points)):
        pair = float(points.forecast.point_kwh[k]), float(points.observed_kwh[k])
        if all(math.isfinite(v) for v in (*pair, float(points.forecast.mean_kwh[k]))):
            key = (points.names[points.client[k]], int(points.issue_utc_s[k]))
            found.setdefault((*key, int(points.target_utc_s[k])), pair)
    return found

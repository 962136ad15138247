"""What a grid operator asks of a fleet's forecasts: the sum of all clients, and the daily peaks.

A forecast of the sum is the sum of the means: medians do not add up, means do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.sums import ErrorSums
from fl_inmetro.units import DAY_S, HOUR_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Name of the one client of a sum.
FLEET = "fleet"


def summed(points: Points) -> Points:
    """Return the sum over the clients as one client: means and loads add up, quantiles do not.

    Of each issue and target time, those count at which every client with a scored point has one:
    a sum that lacks a client is no sum of the fleet. Without such instants the result is empty.
    """
    return summed_parts([points])


def summed_parts(parts: Iterable[Points]) -> Points:
    """Return `summed` of points that come in parts; no part is kept."""
    names: set[str] = set()
    instants, count = np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    mean, load = np.zeros(0), np.zeros(0)
    for points in parts:
        scored = points.take(points.scored)
        names |= {points.names[k] for k in np.unique(scored.client)}
        keys = np.stack([scored.issue_utc_s, scored.target_utc_s], axis=1)
        own, place = np.unique(keys, axis=0, return_inverse=True)
        place, size = place.reshape(-1), len(own)
        values = (scored.forecast.mean_kwh, scored.observed_kwh, np.ones(len(scored)))
        added = [np.bincount(place, one, size) for one in values]
        instants, where = np.unique(np.concatenate([instants, own]), axis=0, return_inverse=True)
        mean, load, count = (
            # Of nothing, `bincount` gives whole numbers.
            np.bincount(where.reshape(-1), np.concatenate(both), len(instants)).astype(np.float64)
            for both in zip((mean, load, count), added, strict=True)
        )
    whole = count == len(names)
    return Points(
        (FLEET,),
        np.zeros(int(whole.sum()), dtype=np.int64),
        instants[whole, 0].astype(np.int64),
        instants[whole, 1].astype(np.int64),
        Forecast(mean[whole]),
        load[whole],
    )


def fleet_errors(points: Points) -> ErrorSums:
    """Return the error sums of the fleet's total; its `nmae`, `nrmse` and `bias` are the scores."""
    total = summed(points)
    return ErrorSums.of(total.forecast, total.observed_kwh)


@dataclass(frozen=True)
class Peaks:
    """How well the highest step of a day is foreseen.

    Attributes:
        hit_share: Share of the days whose forecast peak is at most an hour off the measured one.
        size_error: Mean of |forecast peak − measured peak| over the mean measured peak.
        size_bias: The same with the sign kept; negative = peaks are forecast too low.
        days: Days that count.
        clients: Clients that have such a day.
    """

    hit_share: float
    size_error: float
    size_bias: float
    days: int
    clients: int


@dataclass(frozen=True, eq=False)
class DailyPeaks:
    """The peaks of D days that count.

    Attributes:
        client: Shape (D,), places in the points' names.
        hit: Shape (D,), whether the forecast peak is at most an hour off the measured one.
        error_kwh: Shape (D,), forecast peak − measured peak.
        load_kwh: Shape (D,), measured peak.
    """

    client: Ints
    hit: NDArray[np.bool_]
    error_kwh: Floats
    load_kwh: Floats

    def score(self) -> Peaks:
        """Return the scores; each client counts once."""
        hits, sizes, biases = [], [], []
        for own in np.unique(self.client):
            mine = self.client == own
            hits.append(float(self.hit[mine].mean()))
            scale_kwh = float(self.load_kwh[mine].mean())
            if scale_kwh > 0:
                sizes.append(float(np.abs(self.error_kwh[mine]).mean()) / scale_kwh)
                biases.append(float(self.error_kwh[mine].mean()) / scale_kwh)
        return Peaks(_mean(hits), _mean(sizes), _mean(biases), len(self.client), len(hits))


def peaks(points: Points, resolution_s: int, lead_s: int = 0) -> Peaks:
    """Score the daily peaks of the mean, each client on its own; each client counts once.

    A client whose peaks are not above zero on average has no size to compare them with. See
    `daily_peaks` for the arguments, and for the days that count.
    """
    return daily_peaks(points, resolution_s, lead_s).score()


def daily_peaks(points: Points, resolution_s: int, lead_s: int = 0) -> DailyPeaks:
    """Return the daily peaks of the mean.

    A day is 24 h of one forecast, counted from where it begins. It counts when every one of its
    steps is scored and the measured load is not the same all day long; of equal highest steps the
    first is the peak. A forecast that is the same all day names no hour: a miss.

    Args:
        points: The forecasts.
        resolution_s: Length of a step.
        lead_s: From the issue to the first step of a forecast.
    """
    steps = DAY_S // resolution_s
    forecast, load, when, client = _days(points.take(points.scored), steps, lead_s)
    uneven = load.max(axis=1, initial=-np.inf) > load.min(axis=1, initial=np.inf)
    forecast, load, when, client = (v[uneven] for v in (forecast, load, when, client))
    rows = np.arange(len(client))
    ours, real = forecast.argmax(axis=1), load.argmax(axis=1)
    distance_s = np.abs(when[rows, ours] - when[rows, real])
    flat = forecast.max(axis=1, initial=-np.inf) == forecast.min(axis=1, initial=np.inf)
    hit = (distance_s <= HOUR_S) & ~flat
    error_kwh = forecast[rows, ours] - load[rows, real]
    return DailyPeaks(client, hit, error_kwh, load[rows, real])


# ------------------------------------------------------------------------------ internals
def _days(points: Points, steps: int, lead_s: int) -> tuple[Floats, Floats, Ints, Ints]:
    """Return the whole days: forecast, load and instants of shape (D, steps), and clients (D,)."""
    day = (points.target_utc_s - points.issue_utc_s - lead_s) // DAY_S
    order = np.lexsort((points.target_utc_s, day, points.issue_utc_s, points.client))
    keys = np.stack([points.client, points.issue_utc_s, day], axis=1)[order]
    _, starts, counts = np.unique(keys, axis=0, return_index=True, return_counts=True)
    rows = order[starts[counts == steps][:, None] + np.arange(steps)]
    return (
        points.forecast.mean_kwh[rows],
        points.observed_kwh[rows],
        points.target_utc_s[rows],
        points.client[rows[:, 0]],
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

"""What a row's scores are made of, added up fold by fold: no fold's forecasts are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.backtest.cells import Cells, FoldCells, Read
from fl_inmetro.data.calendar import local_clock
from fl_inmetro.metrics import ErrorSums, Forecast
from fl_inmetro.metrics.fleet import DailyPeaks, Peaks, daily_peaks, fleet_errors, peaks, summed
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.slices import SliceSums, slice_sums
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.units import DAY_S, HOUR_S

Ints = NDArray[np.int64]

#: Hours of a block of lead times.
LEAD_H = 6


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
class RowSums:
    """One row with one seed, over all folds.

    Attributes:
        sums: Each client's error sums.
        fleet: Error sums of the fleet's total.
        peaks: Daily peaks of the clients, the places of which are those of the sorted `sums`.
        fleet_peaks: Scores of the total's daily peaks.
        slices: Way of slicing to the names of its G slices and their sums.
        cells: Sums by client and issue.
    """

    sums: dict[str, ErrorSums]
    fleet: ErrorSums
    peaks: DailyPeaks
    fleet_peaks: Peaks
    slices: dict[str, tuple[tuple[str, ...], SliceSums]]
    cells: Cells

    @classmethod
    def of(
        cls, folds: Iterable[int], read: Read, clock: Clock, age_days: int = 7
    ) -> RowSums | None:
        """Read the folds one after another and add them up; None where none has a forecast.

        Quantiles count where every fold has those of the same levels; else only the means do.

        Slices: months and weekdays are those of the target, on the backtest's clock; lead times are
        counted from the issue, in blocks of `LEAD_H` hours; ages are days since the first issue
        after a training, in blocks of `age_days`.
        """
        numbers = tuple(folds)
        parts: dict[int, _Fold] = {}
        for number in numbers:
            points = read(number)
            if points is None or not len(points):
                continue
            one = _Fold.of(points, clock, age_days)
            if any(one.levels != other.levels for other in parts.values()):
                return cls.of(numbers, _means(read), clock, age_days)
            parts[number] = one
        if not parts:
            return None
        every = list(parts.values())
        names = tuple(sorted({name for one in every for name in one.sums}))
        total = _one_after_another([one.total for one in every])
        return cls(
            {name: _added(one.sums.get(name) for one in every) for name in names},
            fleet_errors(total),
            _peaks(every, names),
            peaks(total, clock.resolution_s, clock.lead_s),
            {by: _slices(by, every, names, clock, age_days) for by in every[0].slices},
            Cells({number: one.cells for number, one in parts.items()}, read),
        )


# ------------------------------------------------------------------------------ internals
@dataclass(frozen=True, eq=False)
class _Fold:
    levels: tuple[float, ...]
    sums: dict[str, ErrorSums]
    total: Points
    peaks: DailyPeaks
    slices: dict[str, tuple[Ints, SliceSums]]
    cells: FoldCells

    @classmethod
    def of(cls, points: Points, clock: Clock, age_days: int) -> _Fold:
        return cls(
            points.forecast.levels,
            points.sums(),
            summed(points),
            daily_peaks(points, clock.resolution_s, clock.lead_s),
            dict(_sliced(points, clock, age_days)),
            FoldCells.of(points),
        )


def _sliced(
    points: Points, clock: Clock, age_days: int
) -> Iterable[tuple[str, tuple[Ints, SliceSums]]]:
    """Give the ways of slicing, with the numbers of the slices and their sums."""
    there = local_clock(points.target_utc_s, clock.timezone)
    ahead_s = points.target_utc_s - points.issue_utc_s
    # A day of 23 or 25 hours lies between two issues at times: rounded, not cut.
    day = np.rint((points.issue_utc_s - points.issue_utc_s.min()) / DAY_S).astype(np.int64)
    month = there.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    groups = {
        "month": month,
        "lead": (ahead_s - clock.lead_s) // (LEAD_H * HOUR_S),
        "weekday": there.weekday,
        "age": day // age_days,
    }
    for by, group in groups.items():
        keys, place = np.unique(group, return_inverse=True)
        yield by, (keys, slice_sums(points, place.reshape(-1).astype(np.int64), len(keys)))


def _labels(clock: Clock, age_days: int) -> Mapping[str, Callable[[int], str]]:
    first_h = clock.lead_s / HOUR_S
    return {
        "month": lambda k: str(np.datetime64(k, "M")),
        "lead": lambda k: f"{first_h + k * LEAD_H + 1:g}-{first_h + (k + 1) * LEAD_H:g}",
        "weekday": str,
        "age": lambda k: f"{k * age_days}-{(k + 1) * age_days - 1}",
    }


def _slices(
    by: str, every: Sequence[_Fold], names: tuple[str, ...], clock: Clock, age_days: int
) -> tuple[tuple[str, ...], SliceSums]:
    keys = np.unique(np.concatenate([one.slices[by][0] for one in every]))
    shape = (len(names), len(keys))
    count, error, load = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(len(names))
    for one in every:
        own, sums = one.slices[by]
        rows, columns = _places(one, names), np.searchsorted(keys, own)
        count[np.ix_(rows, columns)] += sums.count
        error[np.ix_(rows, columns)] += sums.error_kwh
        load[rows] += sums.load_kwh
    label = _labels(clock, age_days)[by]
    return tuple(label(int(key)) for key in keys), SliceSums(count, error, load)


def _peaks(every: Sequence[_Fold], names: tuple[str, ...]) -> DailyPeaks:
    return DailyPeaks(
        np.concatenate([_places(one, names)[one.peaks.client] for one in every]),
        np.concatenate([one.peaks.hit for one in every]),
        np.concatenate([one.peaks.error_kwh for one in every]),
        np.concatenate([one.peaks.load_kwh for one in every]),
    )


def _places(one: _Fold, names: tuple[str, ...]) -> Ints:
    """Return where a fold's clients stand in `names`, which are sorted."""
    place = {name: k for k, name in enumerate(names)}
    return np.array([place[name] for name in one.cells.names], dtype=np.int64)


def _added(sums: Iterable[ErrorSums | None]) -> ErrorSums:
    return sum((one for one in sums if one is not None), ErrorSums())


def _one_after_another(totals: Sequence[Points]) -> Points:
    return replace(
        totals[0],
        client=np.concatenate([one.client for one in totals]),
        issue_utc_s=np.concatenate([one.issue_utc_s for one in totals]),
        target_utc_s=np.concatenate([one.target_utc_s for one in totals]),
        forecast=Forecast(np.concatenate([one.forecast.mean_kwh for one in totals])),
        observed_kwh=np.concatenate([one.observed_kwh for one in totals]),
    )


def _means(read: Read) -> Read:
    """Read the forecasts without their quantiles."""

    def bare(number: int) -> Points | None:
        points = read(number)
        return replace(points, forecast=Forecast(points.forecast.mean_kwh)) if points else None

    return bare

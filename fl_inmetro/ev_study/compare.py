"""Every family by every training on the same trips: errors with intervals, widths, bytes, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Family, Fitted, Fleet, Training
from fl_inmetro.ev.trips import Trips
from fl_inmetro.ev.validation import COVERAGE, Scores, scores
from fl_inmetro.ev_study.folds import Fold, Group, Task

#: Bytes of one number of a signal, where trips themselves are sent to one place.
_SIGNAL_BYTES = 4


@dataclass(frozen=True)
class Row:
    """One family, trained in one way, on the trips of one group.

    Attributes:
        model: The family's name.
        training: How it was trained.
        group: Which cars' trips.
        cars: So many of them.
        trips: That were predicted.
        scores: With bootstrap intervals over trips.
        width_80_kwh: Mean width of the 80 % intervals; None without.
        parameters: Learned numbers of one model.
        moved_bytes: Over the network, for one training (the mean of the folds').
        seconds: To train once (the mean of the folds').
    """

    model: str
    training: Training
    group: Group
    cars: int
    trips: int
    scores: Scores
    width_80_kwh: float | None
    parameters: int
    moved_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Told:
    """Predictions of some trips beside the truth; all [trip]."""

    task: Task
    predicted_kwh: Floats

    @property
    def error_kwh_per_km(self) -> Floats:
        """Return how far off each is."""
        trips = self.task.trips
        error: Floats = np.abs(self.predicted_kwh - trips.terminal_kwh) / trips.distance_km
        return error


def compare(
    folds: Sequence[Fold],
    families: Sequence[Family],
    trainings: Sequence[Training],
    seed: int = 0,
    progress: Callable[[str, Training, int, int], None] = lambda *_: None,
) -> Iterator[Row]:
    """Yield a row for each family, training and group of cars.

    An 80 % interval is the prediction ± q·km, with q the conformal rank of errors per km (Vovk et
    al., 2005). For cars that took part: errors of trips that they kept aside. For new cars: those
    of seen cars that play new ones in a training of their own (`Fold.rehearsal`). Where a fold has
    neither, for each trip those of all *other* left-out trips (the models of those folds have seen
    the trip: a cross-conformal interval, without a guarantee of its own; Vovk, 2015).

    Args:
        folds: See `folds`.
        families: To train.
        trainings: Ways to do so.
        seed: Root of all draws.
        progress: Told family, training, folds done and folds in all.
    """
    for family in families:
        for training in trainings:
            told, widths, fitted, seconds = [], [], [], []
            for done, fold in enumerate(folds):
                progress(family.name, training, done, len(folds))
                began = time.perf_counter()
                model = family.fit(fold.train, training, seed)
                seconds.append(time.perf_counter() - began)
                fitted.append(model)
                told += _all_told(family, model, training, fold.tasks, seed)
                widths += _all_told(family, model, training, fold.widths, seed)
                if fold.rehearsal is not None:
                    played = family.fit(fold.rehearsal.train, training, seed)
                    widths += _all_told(family, played, training, fold.rehearsal.tasks, seed)
            progress(family.name, training, len(folds), len(folds))
            moved = round(
                np.mean([_moved(m, f.train, training) for m, f in zip(fitted, folds, strict=True)])
            )
            for group in dict.fromkeys(one.task.group for one in told):
                of_group = [one for one in told if one.task.group == group]
                kept = [one for one in widths if one.task.group == group]
                row = _row(family.name, training, of_group, kept)
                yield replace(
                    row,
                    parameters=fitted[0].parameters,
                    moved_bytes=moved,
                    seconds=float(np.mean(seconds)),
                )


def _all_told(
    family: Family, model: Fitted, training: Training, tasks: Sequence[Task], seed: int
) -> list[_Told]:
    return [
        _told(family, model, training, task, seed)
        for task in tasks
        # Alone, a car that never drove has nothing to be predicted by.
        if training != "local" or task.group == "seen" or task.own is not None
    ]


def _told(family: Family, model: Fitted, training: Training, task: Task, seed: int) -> _Told:
    if training == "local" and task.group == "new" and task.own is not None:
        # Alone, a new car has what it measured itself, and nothing else.
        model = family.fit({task.car: task.own}, "local", seed)
    return _Told(task, model.predict(task.car, task.trips, task.own))


def _moved(model: Fitted, fleet: Fleet, training: Training) -> int:
    if training == "central":
        return sum(signal_bytes(trips) for trips in fleet.values())
    return 0 if training == "local" else model.moved_bytes


def signal_bytes(trips: Trips) -> int:
    """Return the size of trips that are sent to one place: their signals and the measured power."""
    drives = trips.drives
    optional = (drives.wind_m_s, drives.pressure_pa, drives.heating_kw, drives.cooling_kw)
    # Speed, climb, ambient temperature, battery temperature and power are always there.
    signals = 5 + sum(signal is not None for signal in optional)
    return signals * len(drives.speed_m_s) * _SIGNAL_BYTES


def _row(name: str, training: Training, told: Sequence[_Told], widths: Sequence[_Told]) -> Row:
    predicted = np.concatenate([one.predicted_kwh for one in told])
    measured = np.concatenate([one.task.trips.terminal_kwh for one in told])
    distance = np.concatenate([one.task.trips.distance_km for one in told])
    half = _half_widths(told, widths) * distance
    known = bool(np.all(np.isfinite(half)))
    return Row(
        model=name,
        training=training,
        group=told[0].task.group,
        cars=len({one.task.car for one in told}),
        trips=len(predicted),
        scores=scores(predicted, measured, distance, half if known else None),
        width_80_kwh=float(2 * half.mean()) if known else None,
        parameters=0,
        moved_bytes=0,
        seconds=0.0,
    )


def _half_widths(told: Sequence[_Told], widths: Sequence[_Told]) -> Floats:
    """Return the half width per km of each trip's interval [trip]; infinite where none is known."""
    count = sum(len(one.predicted_kwh) for one in told)
    if widths:
        errors = np.concatenate([one.error_kwh_per_km for one in widths])
        return np.full(count, conformal(errors))
    errors = np.concatenate([one.error_kwh_per_km for one in told])
    others = [conformal(np.delete(errors, i)) for i in range(count)]
    return np.array(others)


def conformal(errors: Floats) -> float:
    """Return the value that the next error stays below with `COVERAGE`; infinite for too few.

    >>> conformal(np.arange(1.0, 10.0))
    8.0
    """
    rank = int(np.ceil(COVERAGE * (len(errors) + 1)))
    return float(np.sort(errors)[rank - 1]) if rank <= len(errors) else float("inf")

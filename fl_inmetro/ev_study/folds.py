"""What is learned from and what is predicted: trips of one car, or cars of a fleet, left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_inmetro import seeds
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.family import Fleet
from fl_inmetro.ev.trip_sets import some
from fl_inmetro.ev.trips import Trips

#: `seen`: later trips of a car that took part. `new`: a car that took no part.
Group = Literal["seen", "new"]

#: A seen car's trips in their order: to learn from, to learn the intervals' width from, to predict.
SHARES = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class Task:
    """Trips to predict.

    Attributes:
        car: Whose.
        group: Whether the car took part in training.
        trips: To predict.
        own: Trips of a new car that it has measured before; None for a seen one.
    """

    car: str
    group: Group
    trips: Trips
    own: Trips | None = None


@dataclass(frozen=True)
class Fold:
    """One training, and what is predicted after it.

    Attributes:
        train: Trips to learn from, by car.
        widths: Trips whose errors tell how wide an interval must be; none where those of the other
            folds tell.
        tasks: To predict.
        rehearsal: Seen cars of which some play new ones: a training of its own, whose errors tell
            how wide an interval must be for cars that are new indeed. None without new cars.
    """

    train: Fleet
    widths: tuple[Task, ...]
    tasks: tuple[Task, ...]
    rehearsal: Fold | None = None


def trips_left_out(trips: Trips, folds: int, logs: int, seed: int) -> list[Fold]:
    """Return folds over the trips of one car, each trip left out once.

    One car is no federation. So that the trainings can be told apart all the same, its trips are
    dealt to a number of logs, each of which stands for a car of the kind: `local` learns from the
    one log, `federated` from all of them without their trips leaving them.

    Args:
        trips: Of the car.
        folds: At most one for each trip; then each trip is predicted by all others.
        logs: At least one.
        seed: Of the dealing.

    Raises:
        DataError: FL228, too few trips for so many logs or folds.
    """
    n = len(trips.names)
    # A log that loses one trip to the test still has one to learn from.
    if n < 2 * logs or not folds >= 2:
        raise DataError(
            Fault(
                "FL228",
                f"{n} trips in {logs} logs and {folds} folds leave a log without a trip",
                "",
                f"at most {n // 2} logs, and two folds or more",
            )
        )
    folds = min(folds, n)
    order = seeds.derive(seed, "ev", "folds").permutation(n)
    log_of = np.empty(n, dtype=np.int64)
    log_of[order] = np.arange(n) % logs
    fold_of = np.empty(n, dtype=np.int64)
    # Within a log the trips go to folds in turn: a fold takes little from each log.
    by_log = np.concatenate([order[np.arange(n) % logs == log] for log in range(logs)])
    fold_of[by_log] = np.arange(n) % folds
    result = []
    for fold in range(folds):
        left = fold_of == fold
        train = {}
        tasks = []
        for log in range(logs):
            mine = log_of == log
            if not np.any(mine & ~left):
                raise DataError(
                    Fault("FL228", f"fold {fold + 1} leaves log {log + 1} without a trip")
                )
            name = f"log {log + 1}"
            train[name] = some(trips, np.flatnonzero(mine & ~left))
            if np.any(mine & left):
                tasks.append(Task(name, "seen", some(trips, np.flatnonzero(mine & left))))
        result.append(Fold(train, (), tuple(tasks)))
    return result


def cars_left_out(fleet: Fleet, new_cars: int, own_trips: int, seed: int) -> Fold:
    """Return one fold over a fleet: later trips of most cars, and cars that take no part.

    The trips of a seen car are cut in their order (`SHARES`). A new car has measured `own_trips`
    before those that are predicted.

    Args:
        fleet: By car; trips in the order in which they were driven.
        new_cars: So many are left out.
        own_trips: 0 is a car's first trip.
        seed: Of the draw of new cars.

    Raises:
        DataError: FL228, too few cars or trips.
    """
    faults = []
    if not 0 <= new_cars < len(fleet):
        faults.append(
            Fault(
                "FL228",
                f"{new_cars} of {len(fleet)} cars cannot be left out",
                "",
                f"at most {len(fleet) - 1}",
            )
        )
    names = sorted(fleet)
    drawn = seeds.derive(seed, "ev", "new-cars").permutation(len(names))[: max(new_cars, 0)]
    new = {names[i] for i in drawn}
    for name in names:
        least = own_trips + 1 if name in new else 5
        if len(fleet[name].names) < least:
            faults.append(
                Fault("FL228", f"{len(fleet[name].names)} trips, {least} are needed", f"car {name}")
            )
    if faults:
        raise DataError(faults)
    train, widths, tasks = {}, [], []
    seen = [name for name in names if name not in new]
    # The newest cars' part is played by a third of the others, with what they drove before their
    # own test trips.
    play = set(seen[:: max(len(seen) // max(round(len(seen) / 3), 1), 1)]) if new else set()
    rehearsal = []
    for name in names:
        trips = fleet[name]
        n = len(trips.names)
        if name in new:
            own = some(trips, range(own_trips)) if own_trips else None
            tasks.append(Task(name, "new", some(trips, range(own_trips, n)), own))
            continue
        first, second = _cuts(n)
        train[name] = some(trips, range(first))
        widths.append(Task(name, "seen", some(trips, range(first, second))))
        tasks.append(Task(name, "seen", some(trips, range(second, n))))
        if name in play and second > own_trips:
            own = some(trips, range(own_trips)) if own_trips else None
            rehearsal.append(Task(name, "new", some(trips, range(own_trips, second)), own))
    others = {name: trips for name, trips in train.items() if name not in play}
    played = Fold(others, (), tuple(rehearsal)) if others and rehearsal else None
    return Fold(train, tuple(widths), tuple(tasks), played)


def few_trips(fold: Fold, trips: int) -> Fold:
    """Return the same fold with so many training trips a car at most: its first ones."""
    train = {car: some(own, range(min(trips, len(own.names)))) for car, own in fold.train.items()}
    played = fold.rehearsal and few_trips(fold.rehearsal, trips)
    return Fold(train, fold.widths, fold.tasks, played)


def cars(folds: Sequence[Fold]) -> int:
    """Return how many cars (or logs) learn or are predicted."""
    return len({task.car for fold in folds for task in fold.tasks} | {*folds[0].train})


def _cuts(n: int) -> tuple[int, int]:
    """Return where a car's trips are cut; each part has one at least."""
    first = min(max(round(SHARES[0] * n), 1), n - 2)
    second = min(max(round((SHARES[0] + SHARES[1]) * n), first + 1), n - 1)
    return first, second

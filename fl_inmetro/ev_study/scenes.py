"""The data that trip models are compared on: a measured car, a simulated fleet, a folder of VED."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_inmetro.data.sources.archive import set_file
from fl_inmetro.errors import Fault
from fl_inmetro.ev.family import Fleet
from fl_inmetro.ev.simulated import fleet
from fl_inmetro.ev.speed_traces import read_traces
from fl_inmetro.ev.trips import Trips, read_trips
from fl_inmetro.ev.ved import read_ved
from fl_inmetro.ev_study.folds import Fold, cars_left_out, few_trips, trips_left_out

#: What no car drove.
SIMULATED = "simulated"

#: The set of measured speeds, and its file.
TRACES = ("drive_cycles", "real_speed_traces_chicago_1hz.parquet")

#: The measured car's set, and its file.
MEASURED, SIGNALS = "ev_bmw_i3", "signals_1hz.parquet"


@dataclass(frozen=True)
class Wishes:
    """How a comparison is cut.

    Attributes:
        new_cars: Of a fleet, that take no part in training; None for a quarter of them.
        own_trips: Of a new car, measured before those that are predicted.
        train_trips: At most, of each car that learns; None for all.
        folds: Of one car's trips; None for as many as trips.
        logs: That one car's trips are dealt to.
        seed: Of all draws.
    """

    new_cars: int | None = None
    own_trips: int = 5
    train_trips: int | None = None
    folds: int | None = None
    logs: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """Trips, cut into what is learned from and what is predicted.

    Attributes:
        data: Where they are from.
        simulated: Whether anybody drove them.
        logs: Parts of one car's trips that stand for cars; 0 for a fleet.
        folds: See `folds`.
        excluded: A fault for each trip that was left out.
        speeds: Of simulated cars: `generated` or `chicago`.
    """

    data: str
    simulated: bool
    logs: int
    folds: tuple[Fold, ...]
    excluded: tuple[Fault, ...]
    speeds: str | None = None


def scene(data: str, wishes: Wishes, cars: int, trips: int, traces: str) -> Scene:
    """Return the scene that a user names.

    Args:
        data: `simulated`, `ev_bmw_i3`, a Parquet file in its layout, or a folder of VED's files.
        wishes: How it is cut.
        cars: Simulated ones.
        trips: Of each of them.
        traces: Their speeds: `generated` or `chicago`.

    Raises:
        DataError: FL201, a set that is not here; FL224, no usable trip; FL228, too few for the
            wishes.
    """
    if data == SIMULATED:
        return simulated(wishes, cars, trips, traces)
    if data == MEASURED:
        return one_car(set_file(MEASURED, SIGNALS, MEASURED), wishes, MEASURED)
    if Path(data).is_dir():
        return ved(Path(data), wishes)
    return one_car(Path(data), wishes)


def simulated(wishes: Wishes, cars: int, trips: int, traces: str) -> Scene:
    """Return the scene of a simulated fleet.

    Args:
        wishes: See `Wishes`.
        cars: So many.
        trips: Of each.
        traces: Speeds: `generated`, or `chicago` for the measured ones.

    Raises:
        DataError: FL201, the traces are not here; FL224, none can be used; FL228, too few cars or
            trips for the wishes.
    """
    read = None
    if traces == "chicago":
        read = read_traces(set_file(*TRACES, "--traces chicago"))
    made = fleet(cars, trips, wishes.seed, read.speed_m_s if read else None)
    fold = _fold({name: car.trips for name, car in made.items()}, wishes)
    # What was left out of the traces is no trip of these cars.
    return Scene(SIMULATED, True, 0, (fold,), (), traces)


def ved(folder: Path, wishes: Wishes) -> Scene:
    """Return the scene of weekly files of VED: of a fleet, or of one car where there is one.

    Raises:
        DataError: FL224, no usable trip; FL228, too few cars or trips for the wishes.
    """
    read = read_ved(folder)
    if len(read.trips) == 1:
        (trips,) = read.trips.values()
        return _one(trips, wishes, str(folder), read.excluded)
    return Scene(str(folder), False, 0, (_fold(read.trips, wishes),), read.excluded)


def one_car(path: Path, wishes: Wishes, name: str = "") -> Scene:
    """Return the scene of one car's table of 1 Hz signals.

    Raises:
        DataError: FL224, no usable trip; FL228, too few for the wishes.
    """
    trips = read_trips(path)
    return _one(trips, wishes, name or str(path), trips.excluded)


def _one(trips: Trips, wishes: Wishes, name: str, excluded: tuple[Fault, ...]) -> Scene:
    folds = trips_left_out(trips, wishes.folds or len(trips.names), wishes.logs, wishes.seed)
    if wishes.train_trips is not None:
        folds = [few_trips(fold, wishes.train_trips) for fold in folds]
    return Scene(name, False, wishes.logs, tuple(folds), excluded)


def _fold(trips: Fleet, wishes: Wishes) -> Fold:
    new = len(trips) // 4 if wishes.new_cars is None else wishes.new_cars
    fold = cars_left_out(trips, new, wishes.own_trips, wishes.seed)
    return fold if wishes.train_trips is None else few_trips(fold, wishes.train_trips)

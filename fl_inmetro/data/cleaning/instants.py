"""First half of cleaning: from stamps as written to one reading per instant of a regular grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.cleaning.clock import to_utc
from fl_inmetro.data.cleaning.findings import Ledger
from fl_inmetro.data.cleaning.repeats import one_per_step
from fl_inmetro.data.cleaning.steps import MINUTE_S, Steps, find_steps, snap
from fl_inmetro.data.readings import Opened, Readings
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Aligned:
    """One client's readings on a UTC grid, before their values are looked at.

    Attributes:
        utc_s: Shape (M,), ascending, without repeats: start of the step of each reading (for a
            register: the instant of the reading).
        value: Shape (M,), in the source's unit, NaN = none.
        own_s: Shape (M,), step of each reading, seconds.
        row: Shape (M,), index into the `Readings`, for places.
        fine_s: Shortest step, seconds.
        coarse_s: Longest step, seconds.
    """

    utc_s: Ints
    value: Floats
    own_s: Ints
    row: Ints
    fine_s: int
    coarse_s: int


def align(readings: Readings, source: Opened, ledger: Ledger) -> Aligned:
    """Bring stamps to UTC and onto the grid, and repeats down to one reading.

    Raises:
        DataError: FL206 when the stamps show no step; FL207 when the step is shorter than a minute,
            when one step does not divide the other, or when stamps lie off the grid.
    """
    name = readings.client_id
    clock_s, value = readings.clock_s, readings.value
    row = np.arange(clock_s.size, dtype=np.int64)
    if clock_s.size > 1 and np.median(np.diff(clock_s)) < 0:
        # Newest first. Turned round, because order tells the two autumn hours apart.
        clock_s, value, row = clock_s[::-1], value[::-1], row[::-1]

    shifts = source.clock.marks == "end" and source.quantity == "interval"
    steps = _steps(readings, clock_s, source.resolution_s, shifts)
    own_s = steps.own_s
    start_s = clock_s - own_s if shifts else clock_s

    zone = source.clock.zone
    instants = to_utc(start_s, zone, own_s if shifts else None)
    lone = np.flatnonzero(instants.lone)
    _note_clock(readings, source, ledger, row, instants.nonexistent, instants.repeated, lone)
    if source.clock.repeated_hour == "both" and lone.size and source.quantity == "interval":
        value = value.copy()
        value[lone] /= 2
        start_s, value, row, own_s = (
            np.concatenate((column, column[lone])) for column in (start_s, value, row, own_s)
        )
        # Now each of them has its second reading, and order tells them apart as usual.
        instants = to_utc(start_s, zone, own_s if shifts else None)

    kept = np.flatnonzero(~instants.nonexistent)
    utc_s = instants.utc_s[kept]
    backwards = np.flatnonzero(np.diff(utc_s) < 0)
    if backwards.size:
        places = (readings.where(row[kept[i + 1]]) for i in backwards[:3])
        ledger.note(name, "out_of_order", backwards.size, "repaired", places)
        order = np.argsort(utc_s, kind="stable")
        kept, utc_s = kept[order], utc_s[order]
    value, row, own_s = value[kept], row[kept], own_s[kept]

    utc_s, moved, off = snap(utc_s, steps.fine_s)
    if moved.any():
        where = np.flatnonzero(moved)
        places = (readings.where(row[i]) for i in where[:3])
        ledger.note(name, "jitter", where.size, "repaired", places, said("nearest_step"))
    if off.any():
        raise _off_grid(readings, row, np.flatnonzero(off), steps.fine_s, ledger)

    single = one_per_step(utc_s, value, source.conflicts)
    if single.equal.size:
        places = (readings.where(row[i]) for i in single.equal[:3])
        ledger.note(name, "duplicate", single.equal.size, "repaired", places)
    if single.conflicting.size:
        places = (readings.where(row[i]) for i in single.conflicting[:3])
        mean = source.conflicts == "mean"
        ledger.note(
            name,
            "conflicting_duplicate",
            single.conflicting.size,
            "repaired" if mean else "marked missing",
            places,
            said("mean_used") if mean else "",
        )
    rows = single.rows
    return Aligned(utc_s[rows], single.value, own_s[rows], row[rows], steps.fine_s, steps.coarse_s)


def _steps(readings: Readings, clock_s: Ints, stated_s: int | None, marks_end: bool) -> Steps:
    if stated_s is not None:
        return Steps(stated_s, stated_s, np.full(clock_s.shape, stated_s, dtype=np.int64))
    steps = find_steps(clock_s, marks_end)
    where = f"client {readings.client_id}, {readings.where(0)}" if clock_s.size else ""
    apart_s = np.diff(np.sort(clock_s))
    apart_s = apart_s[apart_s > 0]
    if apart_s.size and np.median(apart_s) < MINUTE_S // 2:
        raise DataError(
            Fault(
                "FL207",
                f"client {readings.client_id} has a step shorter than a minute",
                where,
                "sum the readings to steps of one minute or longer before importing them",
            )
        )
    if steps.fine_s == 0:
        raise DataError(
            Fault(
                "FL206",
                f"client {readings.client_id} has {clock_s.size} reading(s), too few to see a step",
                where,
                "set `format.resolution-min`, or leave it out with `cleaning.drop-short = true`",
            )
        )
    if steps.coarse_s % steps.fine_s or DAY_S % steps.coarse_s:
        change = (
            int(np.flatnonzero(steps.own_s != steps.own_s[0])[0])
            if (steps.coarse_s != steps.fine_s)
            else 0
        )
        raise DataError(
            Fault(
                "FL207",
                f"client {readings.client_id} has steps of {steps.fine_s // MINUTE_S} and "
                f"{steps.coarse_s // MINUTE_S} min, which fit neither each other nor a day"
                if change
                else f"client {readings.client_id} has a step of {steps.fine_s // MINUTE_S} min, "
                "which does not divide a day",
                f"client {readings.client_id}, {readings.where(min(change, clock_s.size - 1))}",
                "bring the series to one step, for example 60 min, before importing it",
            )
        )
    return steps


def _off_grid(readings: Readings, row: Ints, off: Ints, step_s: int, ledger: Ledger) -> DataError:
    name = readings.client_id
    places = [readings.where(row[i]) for i in off[:3]]
    ledger.note(name, "off_grid", off.size, "refused", places)
    minutes = step_s // MINUTE_S
    return DataError(
        Fault(
            "FL207",
            f"client {name}: {off.size} of {row.size} stamps lie off the {minutes} min grid of UTC",
            "\n".join(places),
            "check `format.timezone` and `format.resolution-min`; stamps may be up to "
            f"{min(60, step_s // 10)} s away from the grid",
        )
    )


def _note_clock(
    readings: Readings,
    source: Opened,
    ledger: Ledger,
    row: Ints,
    nonexistent: NDArray[np.bool_],
    repeated: NDArray[np.bool_],
    lone: Ints,
) -> None:
    name, zone = readings.client_id, source.clock.zone
    gone = np.flatnonzero(nonexistent)
    places = (readings.where(row[i]) for i in gone[:3])
    ledger.note(
        name,
        "nonexistent_hour",
        gone.size,
        "marked missing",
        places,
        said("never_shown", zone=zone),
    )
    both = source.clock.repeated_hour == "both"
    places = (readings.where(row[i]) for i in lone[:3])
    ledger.note(
        name,
        "repeated_hour",
        lone.size,
        "repaired" if both else "reported",
        places,
        said("halved" if both else "taken_first"),
    )
    paired = repeated.copy()
    paired[lone] = False
    rows = np.flatnonzero(paired)
    places = (readings.where(row[i]) for i in rows[:3])
    detail = said("file_order")
    ledger.note(name, "repeated_hour", rows.size, "repaired", places, detail)

"""Readings as a source hands them over: one client, in file order, before any cleaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.units import Unit, iso_utc

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Readings:
    """One client's readings in the order of the file.

    Attributes:
        client_id: Name of the client in the source.
        clock_s: Shape (N,), int64: the stamp as written, as seconds since 1970-01-01 00:00 of the
            clock it was written in (a naive local clock, or UTC).
        value: Shape (N,), float64: the reading in the source's unit, NaN where the file has none.
        line: Shape (N,), int64: line of the file (text) or row (Parquet), counted from 1.
        place: What `line` counts in, for example `meters.csv`.
    """

    client_id: str
    clock_s: Ints
    value: Floats
    line: Ints
    place: str

    def __post_init__(self) -> None:
        if not self.clock_s.shape == self.value.shape == self.line.shape:
            raise ValueError(f"client {self.client_id}: stamps, values and lines differ in length")

    def where(self, index: int) -> str:
        """Return the place of one reading as it is printed: file, line and the stamp as written."""
        stamp = iso_utc(int(self.clock_s[index])).rstrip("Z").replace("T", " ")
        stamp = stamp.removesuffix(":00")
        return f"{self.place}:{int(self.line[index])} ({stamp})"


@dataclass(frozen=True)
class Clock:
    """How the stamps of a source are to be understood.

    Attributes:
        zone: `UTC`, an IANA name, or a fixed offset such as `Etc/GMT-10`.
        marks: Whether a stamp marks the start or the end of its step.
        repeated_hour: A lone reading in the local hour that occurs twice in autumn belongs to the
            `first` passing, or holds `both` (then each passing gets half of it).
    """

    zone: str
    marks: Literal["start", "end"] = "start"
    repeated_hour: Literal["first", "both"] = "first"


@dataclass(frozen=True)
class About:
    """Where a source comes from, in words for people."""

    name: str
    title: str
    licence: str
    citation: str


@dataclass(frozen=True, eq=False)
class Opened:
    """A source that has been opened: who made it, and how to get each client's readings.

    Attributes:
        about: Name, title, licence, citation.
        clients: Client to a function that gives its readings, so that not all are in memory at
            once; it raises `DataError` where they cannot be read.
        clock: The clock of the stamps.
        unit: Unit of the values.
        quantity: `interval` = energy or mean power of a step; `register` = running total.
        zeros_mean_missing: An exact 0 is a reading that the source does not have.
        impossible_below: Values under this (source's unit) cannot be; None = no such rule.
        conflicts: What two different readings of one step become: `missing`, or their `mean`.
        resolution_s: Step in seconds where the source states it; None finds it in the stamps.
        files: Path to SHA-256 of everything that is read.
        assumed: What the reader decided by itself, one sentence each.
        reference_window: Evaluation window of published scores, if any.
    """

    about: About
    clients: Mapping[str, Callable[[], Readings]]
    clock: Clock
    unit: Unit = "kWh"
    quantity: Literal["interval", "register"] = "interval"
    zeros_mean_missing: bool = False
    impossible_below: float | None = None
    conflicts: Literal["missing", "mean"] = "missing"
    resolution_s: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    reference_window: ReferenceWindow | None = None


def by_client(
    codes: NDArray[np.int32],
    names: list[str],
    clock_s: Ints,
    value: Floats,
    place: str,
    first_line: int,
) -> dict[str, Callable[[], Readings]]:
    """Split a long table into one deferred `Readings` per client, each in file order.

    Shapes: `codes`, `clock_s`, `value` (N,); `codes` index `names`. A table that already lies
    client by client is sliced without being copied.
    """
    edges = np.concatenate(([0], np.flatnonzero(np.diff(codes)) + 1, [codes.size]))
    runs = codes[edges[:-1]] if codes.size else codes
    order: NDArray[np.int64] | None = None
    if np.unique(runs).size == runs.size:
        bounds = {
            names[c]: (int(a), int(b)) for c, a, b in zip(runs, edges, edges[1:], strict=False)
        }
    else:
        # A stable sort keeps the file order inside each client: the order decides which of two
        # readings of a repeated autumn hour is the first.
        order = np.argsort(codes, kind="stable")
        cuts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        bounds = {n: (int(a), int(b)) for n, a, b in zip(names, cuts, cuts[1:], strict=False)}

    def take(name: str, low: int, high: int) -> Readings:
        if order is None:
            line = np.arange(low + first_line, high + first_line, dtype=np.int64)
            return Readings(name, clock_s[low:high], value[low:high], line, place)
        rows = order[low:high]
        return Readings(name, clock_s[rows], value[rows], rows + first_line, place)

    return {name: partial(take, name, low, high) for name, (low, high) in bounds.items()}

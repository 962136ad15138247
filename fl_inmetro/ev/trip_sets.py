"""Some of a car's trips, and the trips of several cars as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

import numpy as np

from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.trips import Trips


def some(trips: Trips, which: Iterable[int]) -> Trips:
    """Return some of the trips, in the order asked for; at least one."""
    wanted = list(which)
    bounds = trips.drives.offsets
    take = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in wanted])
    return replace(
        trips,
        names=tuple(trips.names[i] for i in wanted),
        drives=trips.drives.only(wanted),
        terminal_kw=trips.terminal_kw[take],
        battery_deg_c=trips.battery_deg_c[take],
        level=trips.level[wanted],
    )


def pooled(several: Sequence[Trips]) -> Trips:
    """Return the trips of several cars one after the other.

    What one of them lacks (wind, pressure, measured heating, payloads) none has in the end: a
    signal that is half there is no signal. All have the same step.
    """
    drives = [trips.drives for trips in several]
    lengths = np.concatenate([np.diff(drive.offsets) for drive in drives])
    whole = {
        field.name: np.concatenate([getattr(drive, field.name) for drive in drives])
        for field in fields(Drives)
        if field.name not in ("offsets", "step_s")
        and all(getattr(drive, field.name) is not None for drive in drives)
    }
    return Trips(
        tuple(name for trips in several for name in trips.names),
        Drives(offsets=np.cumsum([0, *lengths]), step_s=drives[0].step_s, **whole),
        np.concatenate([trips.terminal_kw for trips in several]),
        np.concatenate([trips.battery_deg_c for trips in several]),
        np.concatenate([trips.level for trips in several]),
        tuple(fault for trips in several for fault in trips.excluded),
    )

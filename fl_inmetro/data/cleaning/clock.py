"""Local clocks to UTC for whole columns, with the days of 23 and 25 hours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import changes

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Instants:
    """Local stamps as instants.

    Attributes:
        utc_s: Shape (N,), epoch seconds; meaningless where `nonexistent`.
        nonexistent: Shape (N,), the local clock never showed this stamp (it jumped over it).
        repeated: Shape (N,), the local clock showed this stamp twice.
        lone: Shape (N,), `repeated`, and the client has one reading there, not two.
    """

    utc_s: Ints
    nonexistent: Bools
    repeated: Bools
    lone: Bools


def to_utc(clock_s: Ints, zone: str, end_step_s: Ints | None = None) -> Instants:
    """Turn local stamps into instants; equal stamps of a repeated hour are told apart by order.

    Of two readings with the same stamp in the hour that autumn repeats, the first in file order is
    taken as daylight-saving time, the second as standard time. A lone one is taken as the first.

    `end_step_s` (N,) is given when the stamps marked the END of their step and have already been
    moved back by it. Then a reading whose own label is the first stamp after a spring jump has been
    moved into the jump; it belongs to the last step before the jump, if nothing else is there.

    Shapes: `clock_s` (N,) in file order; every field of the result (N,).
    """
    none = np.zeros(clock_s.shape, dtype=bool)
    if not clock_s.size:
        return Instants(clock_s, none, none, none)
    table = changes(zone, int(clock_s.min()), int(clock_s.max()))
    if not table.at_utc_s.size:
        return Instants(clock_s - table.offset_s[0], none, none, none)
    before, after = table.offset_s[:-1], table.offset_s[1:]
    opens = table.at_utc_s + np.minimum(before, after)
    closes = table.at_utc_s + np.maximum(before, after)
    # `closes` is where the local clock has left the jump or the repeated stretch behind.
    passed = np.searchsorted(closes, clock_s, side="right")
    utc_s = clock_s - table.offset_s[passed]
    ahead = np.minimum(passed, before.size - 1)
    inside = (passed < before.size) & (clock_s >= opens[ahead])
    spring = after[ahead] > before[ahead]
    nonexistent, repeated = inside & spring, inside & ~spring

    lone = none.copy()
    rows = np.flatnonzero(repeated)
    if rows.size:
        order = rows[np.argsort(clock_s[rows], kind="stable")]
        stamps = clock_s[order]
        starts = np.concatenate(([True], stamps[1:] != stamps[:-1]))
        group = np.cumsum(starts) - 1
        size = np.bincount(group)[group]
        rank = np.arange(order.size) - np.flatnonzero(starts)[group]
        second = order[rank > 0]
        utc_s[second] += (before - after)[ahead[second]]
        lone[order[size == 1]] = True

    if end_step_s is not None and nonexistent.any():
        rows = np.flatnonzero(nonexistent)
        target = table.at_utc_s[ahead[rows]] - end_step_s[rows]
        is_last = clock_s[rows] + end_step_s[rows] == closes[ahead[rows]]
        vacant = ~np.isin(target, utc_s[~nonexistent])
        moved = rows[is_last & vacant]
        utc_s[moved] = target[is_last & vacant]
        nonexistent = nonexistent.copy()
        nonexistent[moved] = False
    return Instants(utc_s, nonexistent, repeated, lone)

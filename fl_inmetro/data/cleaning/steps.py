"""The step of a series, found in its stamps: jitter, stamps off the grid, a step that changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.units import DAY_S

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MINUTE_S = 60
#: Stamps this far from the grid are clock jitter of the meter; further away they are off the grid.
JITTER_S = 60
#: A second step counts as a change of step when it holds for this many readings in a row ...
RUN = 24
#: ... and for this share of the whole time; below that it is a row of gaps.
RUN_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Steps:
    """The step or steps of one client.

    Attributes:
        fine_s: The shortest step, seconds; 0 when the stamps have none.
        coarse_s: The longest step; equal to `fine_s` unless the step changes within the series.
        own_s: Shape (N,), the step of each reading, in the order given.
    """

    fine_s: int
    coarse_s: int
    own_s: Ints


def find_steps(clock_s: Ints, marks_end: bool) -> Steps:
    """Find the step of stamps in any order, with repeats, jitter and gaps.

    The step is the most frequent distance (to the minute) between neighbouring stamps. A longer
    one is a step too where it holds for `RUN` readings in a row and `RUN_SHARE` of the time.

    Shapes: `clock_s` (N,).
    """
    order = np.argsort(clock_s, kind="stable")
    ordered = clock_s[order]
    distance = np.diff(ordered)
    minutes = (distance + MINUTE_S // 2) // MINUTE_S
    usable = minutes[(minutes > 0) & (minutes <= DAY_S // MINUTE_S)]
    if not usable.size:
        return Steps(0, 0, np.zeros_like(clock_s))
    count = np.bincount(usable)
    mode = int(count.argmax())

    # Runs of one and the same distance; repeats (distance 0) neither make nor break one.
    kept = np.flatnonzero(minutes > 0)
    value = minutes[kept]
    edge = np.concatenate(([0], np.flatnonzero(np.diff(value)) + 1, [value.size]))
    length, of = np.diff(edge), value[edge[:-1]]
    total = int(value.sum())
    candidates = {mode}
    for minute in np.unique(of[length >= RUN]):
        covered = int(minute) * int(length[(of == minute) & (length >= RUN)].sum())
        if covered >= RUN_SHARE * total and minute <= DAY_S // MINUTE_S:
            candidates.add(int(minute))
    fine, coarse = min(candidates), max(candidates)

    own = np.full(clock_s.shape, fine, dtype=np.int64)
    if coarse != fine:
        # Inside a long run a reading has the run's step; elsewhere it goes on with the step before
        # (with stamps at the start) or takes the one after (with stamps at the end).
        known = np.zeros(clock_s.shape, dtype=np.int64)
        for low, high, minute in zip(edge[:-1], edge[1:], of, strict=True):
            if int(minute) in candidates and (minute == fine or high - low >= RUN):
                shift = 1 if marks_end else 0
                known[kept[low] + shift : kept[high - 1] + 1 + shift] = minute
        index = np.arange(known.size)
        seen = np.where(known > 0, index, -1)
        if marks_end:
            back = np.where(known > 0, index, known.size)
            source = np.minimum.accumulate(back[::-1])[::-1]
            source = np.where(source < known.size, source, np.maximum.accumulate(seen))
        else:
            source = np.maximum.accumulate(seen)
            first = int(np.argmax(known > 0))
            source = np.where(source >= 0, source, first)
        own[order] = known[source]
    return Steps(fine * MINUTE_S, coarse * MINUTE_S, own * MINUTE_S)


def snap(utc_s: Ints, step_s: int) -> tuple[Ints, Bools, Bools]:
    """Move stamps onto the grid of `step_s`.

    Returns:
        The stamps on the grid (N,); those that were moved by jitter (N,); those that are further
        than the jitter allows from any grid point (N,), which are left where they are.
    """
    tolerance = min(JITTER_S, step_s // 10)
    onto = (utc_s + step_s // 2) // step_s * step_s
    distance = np.abs(utc_s - onto)
    off = distance > tolerance
    return np.where(off, utc_s, onto), (distance > 0) & ~off, off


def place_on_grid(
    utc_s: Ints, own_s: Ints, energy_kwh: NDArray[np.float64], step_s: int
) -> tuple[int, NDArray[np.float64]]:
    """Sum readings into the steps of a regular grid; a step needs all of its time covered.

    Shapes: `utc_s` (ascending, without repeats), `own_s`, `energy_kwh` (N,), NaN = no reading.

    Returns:
        Start of the first step (epoch seconds) and the energies (T,), NaN where not covered.
    """
    first = int(utc_s[0]) // step_s
    slot = utc_s // step_s - first
    size = int(slot[-1]) + 1
    grid = np.full(size, np.nan)
    if bool((own_s == step_s).all()):
        grid[slot] = energy_kwh
        return first * step_s, grid
    valid = np.isfinite(energy_kwh)
    covered = np.bincount(slot[valid], weights=own_s[valid], minlength=size)
    total = np.bincount(slot[valid], weights=energy_kwh[valid], minlength=size)
    whole = covered == step_s
    grid[whole] = total[whole]
    return first * step_s, grid


def resample(
    start_utc_s: int, energy_kwh: NDArray[np.float64], from_s: int, to_s: int
) -> tuple[int, NDArray[np.float64]]:
    """Sum steps of `from_s` into steps of `to_s` (a multiple); valid only when all parts are.

    Shapes: `energy_kwh` (T,) in, (T',) out, on the UTC grid of `to_s`.
    """
    if to_s == from_s:
        return start_utc_s, energy_kwh
    parts = to_s // from_s
    first = start_utc_s // to_s * to_s
    lead = (start_utc_s - first) // from_s
    tail = -(lead + energy_kwh.size) % parts
    padded = np.pad(energy_kwh, (lead, tail), constant_values=np.nan)
    return first, padded.reshape(-1, parts).sum(axis=1)

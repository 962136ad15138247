"""Dates whose day and month were exchanged, found from the order of the days.

Seen in real sets: a file with days first is read by a program that tries months first and falls
back where that is impossible. Then days 1 to 12 are exchanged and days 13 to 31 are right, and the
written dates jump from month to month at the start of every month.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.units import DAY_S

Ints = NDArray[np.int64]

#: So few jumps are ordinary gaps.
FEW_JUMPS = 3
#: The exchanged reading must leave at most this share of the jumps.
MUCH_BETTER = 0.25


def civil(days: Ints) -> tuple[Ints, Ints, Ints]:
    """Return year, month and day of days since 1970-01-01 (proleptic Gregorian)."""
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    years = months.astype("datetime64[Y]").astype(np.int64) + 1970
    month = months.astype(np.int64) % 12 + 1
    day = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    return years, month, day


def days_of(year: Ints, month: Ints, day: Ints) -> Ints:
    """Return days since 1970-01-01 of valid dates (the inverse of `civil`)."""
    months = (year - 1970) * 12 + month - 1
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1


def exchange(clock_s: Ints) -> Ints:
    """Exchange day and month of every stamp whose day is at most 12; the others stay.

    An involution: twice gives the stamps back. Shapes: (N,) in, (N,) out.
    """
    days, second = np.divmod(clock_s, DAY_S)
    year, month, day = civil(days)
    small = day <= 12
    result = days.copy()
    result[small] = days_of(year[small], day[small], month[small])
    return result * DAY_S + second


def jumps(clock_s: Ints) -> int:
    """Count the changes of day, in file order, that do not lead to the next day.

    A file that runs backwards is turned round. In a file without order the days are sorted first,
    so that the count is the number of holes.
    """
    days = clock_s // DAY_S
    step = np.diff(days)
    step = step[step != 0]
    if not step.size:
        return 0
    if np.median(step) < 0:
        step = -step
    odd = int(np.count_nonzero(step != 1))
    if odd > 0.6 * step.size:
        return int(np.count_nonzero(np.diff(np.unique(days)) != 1))
    return odd


def first_jump(clock_s: Ints) -> int:
    """Return the index of the first stamp that does not lie on the same or the next day; else 0."""
    step = np.diff(clock_s // DAY_S)
    if step.size and np.median(step[step != 0] if step.any() else step) < 0:
        step = -step
    odd = np.flatnonzero((step != 0) & (step != 1))
    return int(odd[0]) + 1 if odd.size else 0


def better_exchanged(columns: Iterable[Ints] | Iterator[Ints]) -> tuple[int, int, bool]:
    """Compare the dates as written with the dates exchanged, over the stamps of several clients.

    Returns:
        Jumps as written, jumps when exchanged, and whether the exchanged reading is so much better
        that the file must have been exchanged.
    """
    written = exchanged = 0
    for clock_s in columns:
        written += jumps(clock_s)
        exchanged += jumps(exchange(clock_s))
    wrong = written >= FEW_JUMPS and exchanged <= MUCH_BETTER * written
    return written, exchanged, wrong

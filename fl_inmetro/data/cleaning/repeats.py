"""Several readings for one step: equal ones are one reading, different ones are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Single:
    """One reading per step.

    Attributes:
        rows: Shape (M,), for each step the index of the reading that stands for it.
        value: Shape (M,), its value; NaN where readings disagree (or their mean, if so wished).
        equal: Indices of dropped readings that repeat what is there (or say nothing).
        conflicting: Indices of the readings that disagree, all of them.
    """

    rows: NDArray[np.int64]
    value: NDArray[np.float64]
    equal: NDArray[np.int64]
    conflicting: NDArray[np.int64]


def one_per_step(
    utc_s: NDArray[np.int64],
    value: NDArray[np.float64],
    conflicts: Literal["missing", "mean"] = "missing",
) -> Single:
    """Keep one reading per instant. Shapes: `utc_s` ascending (N,), `value` (N,).

    A missing value beside a reading of the same instant gives way to it.
    """
    first = np.concatenate(([True], utc_s[1:] != utc_s[:-1]))
    starts = np.flatnonzero(first)
    none = np.zeros(0, dtype=np.int64)
    if starts.size == utc_s.size:
        return Single(starts, value, none, none)
    group = np.cumsum(first) - 1
    lowest = np.fmin.reduceat(value, starts)
    highest = np.fmax.reduceat(value, starts)
    differ = lowest < highest  # False where there is no value at all
    result = lowest.copy()
    if conflicts == "mean":
        known = np.isfinite(value)
        total = np.bincount(group[known], weights=value[known], minlength=starts.size)
        number = np.bincount(group[known], minlength=starts.size)
        result[differ] = total[differ] / number[differ]
    else:
        result[differ] = np.nan
    return Single(
        starts, result, np.flatnonzero(~first & ~differ[group]), np.flatnonzero(differ[group])
    )

"""How many training windows one day of a client's readings is in.

Windows overlap: a window reads what its features look back to, what scales it, and what it is to
forecast. So whoever protects one window does not protect a day. The number is found by trial, on
made readings and not on the client's: a day of them is replaced, by others, by none, by zeros and
by readings a million times as large, in a load that goes on, has gaps, or stood empty for months;
the windows that are then not what they were are counted. It depends on the learner and on the issue
times alone, so to say it tells nothing of anybody's readings. A trial is no proof: features that
look back further than their names say are found by days at the very beginning, which are tried too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.update import Learner
from fl_inmetro.models.design import Design
from fl_inmetro.units import DAY_S

#: Days of a client that are replaced in turn, spread over its training windows.
_TRIED = 6


def windows_of_a_day(learner: Learner, windows: Sequence[Windows]) -> int:
    """Return how many of a client's training windows a day of readings is in, at most.

    Args:
        learner: What the windows are trained on by.
        windows: The client's training windows, by meter; only their times count.
    """
    return max((_of_one(learner, one) for one in windows if len(one)), default=1)


def _of_one(learner: Learner, windows: Windows) -> int:
    per_day = DAY_S // windows.series.resolution_s
    rng = seeds.derive(0, "exposure")
    steps = len(windows.series)
    # Any 24 hours are a day: those that begin between two issues are in one window more.
    days = _days(windows, per_day)
    most = 1
    for readings in _loads(steps, per_day, rng):
        before = _design(learner, windows, readings)
        for place, day in enumerate(days):
            inside = slice(int(day), int(day) + per_day)
            size = len(readings[inside])
            # Means, extremes, ranks, and whether there is a reading: each forgets other things.
            others = (rng.gamma(4.0, 0.25, size), 1e6, 0.0, np.nan)
            for other in others if place % 2 == 0 else others[:2]:
                changed = readings.copy()
                changed[inside] = other
                most = max(most, int(_changed(before, _design(learner, windows, changed)).sum()))
    return most


def _days(windows: Windows, per_day: int) -> NDArray[np.int64]:
    """Return the first steps of days to replace: the first of all, and some among the windows."""
    first, last = int(windows.issue_index.min()), int(windows.issue_index.max())
    days = np.linspace(max(first - per_day, 0), last, _TRIED).astype(np.int64)
    days += np.arange(_TRIED) * per_day // _TRIED
    return np.concatenate([[0], days])


def _loads(steps: int, per_day: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Yield made loads: one that goes on, one with gaps, one of a meter that stood still."""
    made = rng.gamma(4.0, 0.25, steps)
    yield made
    # Gaps lead features to look further back.
    gone = np.repeat(rng.random(steps // per_day + 1) < 0.3, per_day)[:steps]
    yield np.where(gone, np.nan, made)
    # Long after a load nothing but its memory is left, if there is any.
    yield np.where(np.arange(steps) < steps // 3, made, 0.0)


def _design(learner: Learner, windows: Windows, readings: NDArray[np.float64]) -> Design:
    return learner.design(replace(windows, series=replace(windows.series, energy_kwh=readings)))


def _changed(before: Design, after: Design) -> NDArray[np.bool_]:
    """Tell which windows differ in what is trained on, or are in one of both alone."""
    n = max(len(before.x), len(after.x))
    changed = np.ones(n, dtype=np.bool_)
    both = min(len(before.x), len(after.x))
    changed[:both] = False
    for one, other in (
        (before.x, after.x),
        (before.residual, after.residual),
        (before.known, after.known),
        (np.isfinite(before.scale_kwh), np.isfinite(after.scale_kwh)),
    ):
        same = one[:both] == other[:both]
        if same.dtype == np.bool_ and np.issubdtype(one.dtype, np.floating):
            same |= np.isnan(one[:both]) & np.isnan(other[:both])
        changed[:both] |= ~same.reshape(both, -1).all(axis=1)
    return changed

"""What a daily number of one client usually is, and how unusual a new one is: normal scores.

Each client learns its yardstick from its own reference days, and scores its own new days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.drift.chart import normal_scores

Floats = NDArray[np.float64]

#: Known days that a yardstick needs.
LEAST_DAYS = 28
#: Yesterday's and earlier deviations that a day is foretold from: a week, where so many can be
#: learnt (one for each 30 days).
_LAGS, _DAYS_PER_LAG = 7, 30
#: Deviations beyond so many (robust) standard deviations foretell no more than these.
_FARTHEST = 4.0
#: Median absolute deviation to standard deviation of a normal distribution.
_MAD = 1.4826
#: Days by which the present liveliness of a client is judged, and the latest ones left out of it.
_LIVELY_DAYS, _LEFT_OUT_DAYS = 56, 7


@dataclass(frozen=True, eq=False)
class Yardstick:
    """One daily number's usual value, memory and spread.

    Attributes:
        centre: Its median over the reference days.
        farthest: Deviation at which its memory cuts; inf = nowhere.
        memory: Shape (P,), weights of the P deviations before.
        usual: Shape (n,), what the memory left unexplained on the reference days, ascending.
    """

    centre: float
    farthest: float
    memory: Floats
    usual: Floats

    @classmethod
    def of(cls, reference: Floats) -> Yardstick | None:
        """Learn from reference days in order, shape (R,), NaN where unknown; None from too few.

        The memory solves the Yule-Walker equations of the reference days.
        """
        known = np.isfinite(reference)
        n = int(known.sum())
        if n < LEAST_DAYS:
            return None
        centre = float(np.median(reference[known]))
        spread = _MAD * float(np.median(np.abs(reference[known] - centre)))
        farthest = _FARTHEST * spread if spread > 0 else np.inf
        memory = _yule_walker(_cut(reference - centre, farthest), min(_LAGS, n // _DAYS_PER_LAG))
        made = cls(centre, farthest, memory, np.zeros(0))
        left = made.unexplained(reference)
        return cls(centre, farthest, memory, np.sort(left[np.isfinite(left)]))

    def unexplained(self, values: Floats) -> Floats:
        """Return each day's deviation less what the days before foretell; (T,) → (T,)."""
        deviation = values - self.centre
        cut = _cut(deviation, self.farthest)
        left = deviation.copy()
        for lag, weight in enumerate(self.memory, start=1):
            left[lag:] -= weight * cut[:-lag]
        return left

    def scores(self, values: Floats) -> Floats:
        """Return the normal scores of days in order; (T,) → (T,), NaN where a day is unknown.

        A score is that of the day's rank among the reference days. Where the last weeks have been
        livelier than the reference (their scores' root mean square over 56 days, the last 7 left
        out, is above 1), scores are divided by that: unsettled weather is no change of its own.
        """
        left = self.unexplained(values)
        known = np.isfinite(left)
        n = self.usual.size
        ranks = np.searchsorted(self.usual, left[known], "left") + np.searchsorted(
            self.usual, left[known], "right"
        )
        table = normal_scores(n)
        halves = np.empty(2 * n + 1)
        halves[::2], halves[1::2] = table, (table[1:] + table[:-1]) / 2
        scores = np.full(values.shape, np.nan)
        scores[known] = halves[ranks]
        return scores / np.maximum(1.0, _liveliness(scores))


def _cut(deviation: Floats, farthest: float) -> Floats:
    """Return deviations as a memory uses them: a day that is unknown was a usual one."""
    return np.clip(np.where(np.isfinite(deviation), deviation, 0.0), -farthest, farthest)


def _yule_walker(deviation: Floats, lags: int) -> Floats:
    size = deviation.size
    product = np.array([deviation[: size - j] @ deviation[j:] for j in range(lags + 1)]) / size
    if lags == 0 or product[0] <= 0:
        return np.zeros(0)
    place = np.abs(np.arange(lags)[:, None] - np.arange(lags)[None, :])
    solved: Floats = np.linalg.lstsq(product[place], product[1:], rcond=None)[0]
    return solved


def _liveliness(scores: Floats) -> Floats:
    """Return the root mean square of the scores some days back; 1 where too few are known."""
    known = np.isfinite(scores)
    square = np.concatenate([[0.0], np.cumsum(np.where(known, scores, 0.0) ** 2)])
    count = np.concatenate([[0], np.cumsum(known)])
    day = np.arange(scores.size)
    # Behind the day itself lie the days left out, and those behind them are judged by.
    last = np.maximum(day + 1 - _LEFT_OUT_DAYS, 0)
    first = np.maximum(last - _LIVELY_DAYS, 0)
    days = count[last] - count[first]
    enough = days >= _LIVELY_DAYS // 2
    mean = (square[last] - square[first]) / np.maximum(days, 1)
    return np.where(enough, np.sqrt(np.maximum(mean, 0.0)), 1.0)

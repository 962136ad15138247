"""The two-sided CUSUM chart, its average run length, and the limit that gives a chosen one.

Page (1954): with scores z that are standard normal while nothing changes, C⁺ = max(0, C⁺ + z − k)
and C⁻ = max(0, C⁻ − z − k) grow after a shift of more than k deviations; an alarm is raised beyond
the limit h, and the sum begins again. k is half of the shift that is to be found fastest (Lorden
1971). The onset is the day after the sum was last zero (Nishina 1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.seeds import derive

Floats = NDArray[np.float64]

#: States of the Markov chain that stands for a sum between 0 and its limit.
_STATES = 50
#: References that are drawn to average over what one does not know; short ones differ more.
_DRAWS, _DRAWS_OF_SHORT, _SHORT_DAYS = 256, 1024, 120
#: A limit beyond this would wait for months.
_HIGHEST = 60.0


class ShortReferenceError(FederationError):
    """FL357: no limit gives so few false alarms after so short a reference.

    Attributes:
        days: Reference days.
    """

    def __init__(self, days: int, k: float, every_days: float) -> None:
        self.days = days
        super().__init__(
            Fault(
                "FL357",
                f"{days} reference days cannot tell a shift of {2 * k:g} deviations "
                f"with one false alarm in {every_days:.0f} days",
                f"--shift {2 * k:g}",
                "ask for a larger shift, allow more false alarms with --alarm-every, or train "
                "with more `validation-days`",
            )
        )


@dataclass(frozen=True)
class Signal:
    """One alarm of a chart.

    Attributes:
        day: Place of the score at which the limit was passed.
        onset: Place of the first score after the sum was last zero.
        up: Whether the scores rose.
    """

    day: int
    onset: int
    up: bool


@dataclass(frozen=True, eq=False)
class Path:
    """What a chart did.

    Attributes:
        up: Shape (T,), the sum of a rise.
        down: Shape (T,), the sum of a fall.
        signals: In the order of their days.
    """

    up: Floats
    down: Floats
    signals: tuple[Signal, ...]


def cusum(scores: Floats, k: float, limit: float) -> Path:
    """Run both sums over scores of shape (T,); a day without a score leaves them as they are."""
    sums: dict[bool, Floats] = {}
    signals: list[Signal] = []
    for up in (True, False):
        total, onset = 0.0, 0
        path = np.zeros(scores.size)
        for day, score in enumerate(scores if up else -scores):
            if np.isfinite(score):
                if total == 0.0:
                    onset = day
                total = max(0.0, total + float(score) - k)
            path[day] = total
            if total > limit:
                signals.append(Signal(day, onset, up))
                total = 0.0
        sums[up] = path
    signals.sort(key=lambda one: one.day)
    return Path(sums[True], sums[False], tuple(signals))


def normal_scores(n: int) -> Floats:
    """Return the score of each rank r = 0 … n among n reference values; shape (n + 1,).

    Φ⁻¹((r + ½) / (n + 1)): van der Waerden's normal scores.
    """
    normal = NormalDist()
    return np.array([normal.inv_cdf((r + 0.5) / (n + 1)) for r in range(n + 1)])


def run_length(points: Floats, weights: Floats, k: float, limit: float) -> Floats:
    """Return the mean days to the first alarm of one sum that starts at zero.

    A Markov chain of the sum's values, after Brook & Evans (1972).

    Shapes: points (P,) ascending, weights (D, P) that add up to 1 in each row → (D,).
    """
    width = 2 * limit / (2 * _STATES - 1)
    # P(score ≤ x) on the edges that differences of states need.
    edges = (np.arange(-_STATES, _STATES) + 0.5) * width + k
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
    cdf = below[:, np.searchsorted(points, edges + 1e-12, side="right")]  # (D, 2S)
    step = np.diff(cdf, axis=1)  # differences −S+1 … S−1
    state = np.arange(_STATES)
    move = step[:, state[None, :] - state[:, None] + _STATES - 1]  # (D, S, S)
    move[:, :, 0] = cdf[:, _STATES - state]
    system = np.eye(_STATES) - move
    solved = np.linalg.solve(system, np.ones((len(weights), _STATES, 1)))
    return np.asarray(solved[:, 0, 0], dtype=np.float64)


@lru_cache(maxsize=256)
def limit_for(reference_days: int, k: float, every_days: float) -> float:
    """Return the limit of one sum that raises one false alarm in `every_days` on average.

    The scores are ranks among `reference_days` days, whose own law is not known: how often a new
    day falls between two of them is drawn (uniform spacings), and the rate of false alarms is
    averaged over the draws, so that a short reference gets a higher limit, whatever the
    distribution of the readings. Days are taken as independent.

    Raises:
        ShortReferenceError: FL357, no limit up to 60 gives so few.
    """
    points = normal_scores(reference_days)
    rng = derive(0, "drift", reference_days)
    draws = _DRAWS_OF_SHORT if reference_days < _SHORT_DAYS else _DRAWS
    weights = rng.dirichlet(np.ones(reference_days + 1), draws)

    def rate(limit: float) -> float:
        return float(np.mean(1 / run_length(points, weights, k, limit)))

    low, high = 0.1, 1.0
    while rate(high) > 1 / every_days:
        if high >= _HIGHEST:
            raise ShortReferenceError(reference_days, k, every_days)
        low, high = high, min(2 * high, _HIGHEST)
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle) > 1 / every_days else (low, middle)
    return high


def usable_days(reference_days: int) -> int:
    """Round down to a step of about 5 %, so that clients share limits and none gets a lower one.

    >>> usable_days(28), usable_days(365)
    (28, 353)
    """
    step = int(np.floor(np.log(reference_days / 28) / np.log(1.05) + 1e-9))
    return max(28, int(np.floor(28 * 1.05**step + 1e-9)))

"""Calibration that follows a client from day to day: adaptive conformal inference.

Errors change after the validation days: seasons, new appliances, tenants who move. A served client
sees each day how many readings lay at or below each quantile that it was given, and asks its
errors for a slightly higher or lower level the next day (Gibbs & Candès 2021, "Adaptive conformal
inference under distribution shift", equation 2, here for each level and block of hours by itself):

    a(t+1) = a(t) + γ · (τ − share of day t at or below the quantile of level a(t))

The errors themselves may be kept up to date, too: those of the day are added, and older ones lose
a share of their weight every day (exponential forgetting, as in Barber et al. 2023, section 5).

Whatever the errors do, the mean share over T days is within (1 + γ) / (γ T) of τ (Gibbs & Candès,
proposition 4.1), as long as a level at 0 answers below every reading and one at 1 above, and
quantiles do not cross. Levels that leave 0 … 1 answer with twice the largest error that is counted:
an infinite interval would be no forecast, so the bound holds as long as no error leaps beyond that.
Where errors leap, levels may also overtake each other; the quantiles are then sorted, and the bound
is one for their mean. Where quantiles are cut at the floor the share cannot fall
below that of the readings there; the level then stops at −γ, so that it has not far to come back
from when the load returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.features import trailing_level
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.conformal import Calibration, Scores, errors_of, hour_blocks, mixed
from fl_inmetro.metrics import Forecast, joined_forecasts
from fl_inmetro.metrics.sketch import Bins, conformal_values

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Weight of the error to come in the rank. Coverage is held by what is followed; the room for one
#: more error, which a fixed calibration needs, would make every interval too wide.
_TO_COME = 0.0

#: A level at 1 answers with so many times the largest error that is counted.
_BEYOND = 2.0


@dataclass(frozen=True, eq=False)
class Adaptive:
    """A client's errors, and the levels that it asks them for today; a value, each day a new one.

    Attributes:
        levels: The Q levels that are promised, τ.
        of_mean: Whether quantiles are made of a mean; else they are moved.
        mass: Shape (blocks, S, bins), the client's and the fleet's errors (`conformal.mixed`).
        bins: Where the bins lie.
        gamma: γ, the client's own rate; 0 = levels stay.
        forget: Share of their weight that errors lose in a day.
        asked: Shape (blocks, Q), a(t).
    """

    levels: tuple[float, ...]
    of_mean: bool
    mass: Floats
    bins: Bins
    gamma: float
    forget: float
    asked: Floats

    @classmethod
    def start(
        cls,
        own: Scores | None,
        fleet: Scores,
        settings: Conformal,
        gamma: float,
        forget: float = 0.0,
    ) -> Adaptive:
        """Begin at the promised levels; arguments as in `conformal.fit`.

        Raises:
            DataError: FL218, nobody has an error that could be counted.
            ValueError: γ is negative, or `forget` no share below 1.
        """
        if not (gamma >= 0 and 0 <= forget < 1):
            raise ValueError(f"a rate of {gamma} or a share of {forget} is out of range")
        levels = fleet.levels or settings.levels
        mass = mixed(own, fleet, settings.fleet_days)
        if own is None or not own.n:
            # As if few, so that the client's own errors soon outweigh them.
            n = mass.sum(axis=-1, keepdims=True)
            mass *= np.minimum(max(settings.fleet_days, 1.0) * fleet.per_day / n, 1.0)
        asked = np.tile(np.array(levels), (len(mass), 1))
        return cls(levels, not fleet.levels, mass, fleet.bins, gamma, forget, asked)

    def calibration(self) -> Calibration:
        """Return what today's quantiles are moved by."""
        wanted = self.asked[:, None] if self.of_mean else self.asked[..., None]
        offsets = conformal_values(self.mass, self.bins, wanted, _TO_COME)
        offsets = offsets.reshape(self.asked.shape)
        if ((self.asked >= 1) | (self.asked <= 0)).any():
            reach = _BEYOND * self._largest()
            offsets = np.where(self.asked >= 1, reach, offsets)
            offsets = np.where(self.asked <= 0, -reach, offsets)
        return Calibration(self.levels, self.of_mean, offsets)

    def _largest(self) -> Floats:
        """Return the size of the largest error that is counted; shape (blocks, S)."""
        size = np.abs(self.bins.centres)
        largest: Floats = np.where(self.mass > 0, size, 0.0).max(axis=-1)
        return largest

    def observed(self, made: Forecast, day: Scores, target_kwh: Floats, block: Ints) -> Adaptive:
        """Return what follows when the readings of a day have come in.

        Unknown readings say nothing; a block without any stays as it is.

        Args:
            made: The day's forecast as it was given, N windows of H steps.
            day: The errors of the forecast before it was calibrated (`conformal.scores_of`).
            target_kwh: Shape (N, H), the readings.
            block: Shape (N, H), see `conformal.hour_blocks`.

        Raises:
            ValueError: The forecast has no quantiles of these levels, or the errors are of others.
        """
        if made.levels != self.levels or made.quantiles_kwh is None:
            raise ValueError(f"expected quantiles of levels {self.levels}, found {made.levels}")
        if day.counts.shape != self.mass.shape or day.bins != self.bins:
            raise ValueError("the day's errors are of other levels, blocks or bins")
        heard, asked = self._asked_after(made, target_kwh, block)
        aged = (1 - self.forget) * self.mass + day.counts
        mass = np.where(heard[:, None, None], aged, self.mass)
        return replace(self, asked=asked, mass=mass)

    def _asked_after(
        self, made: Forecast, target_kwh: Floats, block: Ints
    ) -> tuple[NDArray[np.bool_], Floats]:
        """Return the blocks that readings came in for, (blocks,), and a(t + 1), (blocks, Q)."""
        assert made.quantiles_kwh is not None
        known = np.isfinite(target_kwh) & np.isfinite(made.mean_kwh)
        below = target_kwh[known][:, None] <= made.quantiles_kwh[known]
        count = np.bincount(block[known], minlength=len(self.asked))[:, None]
        total = np.zeros(self.asked.shape)
        np.add.at(total, block[known], below)
        step = np.where(count > 0, np.array(self.levels) - total / np.maximum(count, 1), 0.0)
        asked = np.clip(self.asked + self.gamma * step, -self.gamma, 1 + self.gamma)
        return count[:, 0] > 0, asked


@dataclass(frozen=True, eq=False)
class Followed:
    """How far a client has come.

    Attributes:
        forecast: The calibrated forecasts.
        adaptive: What the client knows at the last issue.
        heard: Shape (blocks,), days that it has heard of.
        came: Shape (blocks, S, bins), the errors of these days with the weight they have left.
        given: By what the last forecasts were calibrated of which it has not heard yet, the last
            issue's among them; by time of issue.
    """

    forecast: Forecast
    adaptive: Adaptive
    heard: Ints
    came: Floats
    given: tuple[Calibration, ...]


def follow(adaptive: Adaptive, windows: Windows, forecast: Forecast) -> tuple[Forecast, Adaptive]:
    """Calibrate a client's forecasts in the order of issue; see `follow_on`.

    Returns:
        The calibrated forecasts, and what the client knows at the last issue.
    """
    done = follow_on(adaptive, windows, forecast)
    return done.forecast, done.adaptive


def follow_on(
    adaptive: Adaptive, windows: Windows, forecast: Forecast, given: Sequence[Calibration] = ()
) -> Followed:
    """Calibrate a client's forecasts in the order of issue, as a device would have.

    Before each issue it has seen the readings of the earlier windows that were over by then, and
    of no other: `Adaptive.observed` window by window, without a copy of the counts for each.

    Args:
        adaptive: What the client knows before the first issue.
        windows: N windows of one meter, by time of issue.
        forecast: Their forecasts, not calibrated.
        given: By what the first of them were calibrated when they were made, where `adaptive` is
            what the client knew later, before it heard of any of the windows.

    Raises:
        ValueError: The forecast has other levels than those that are calibrated.
    """
    heard_days = np.zeros(len(adaptive.asked), dtype=np.int64)
    if not len(windows):
        nothing = adaptive.calibration().of(windows, forecast)
        return Followed(nothing, adaptive, heard_days, np.zeros(adaptive.mass.shape), ())
    level, target_kwh = trailing_level(windows), windows.target_kwh()
    block = hour_blocks(windows, len(adaptive.asked))
    place = adaptive.bins.index(errors_of(forecast, target_kwh, level.scale_kwh))
    column = np.arange(place.shape[-1])
    adaptive = replace(adaptive, mass=adaptive.mass.copy())
    made: list[Forecast] = []
    used: list[Calibration] = []
    came: list[tuple[Ints, Ints, Ints, Ints]] = []
    seen = 0
    for k, issue in enumerate(windows.issue_index):
        while seen < k and windows.issue_index[seen] + windows.reach <= issue:
            day = slice(seen, seen + 1)
            heard, asked = adaptive._asked_after(made[seen], target_kwh[day], block[day])
            adaptive.mass[heard] *= 1 - adaptive.forget
            heard_days += heard
            where = np.broadcast_arrays(block[seen][:, None], column, place[seen])
            known = place[seen] >= 0
            new = tuple(one[known] for one in where)
            np.add.at(adaptive.mass, new, 1.0)
            came.append((*new, heard_days[new[0]]))
            adaptive = replace(adaptive, asked=asked)
            seen += 1
        day = slice(k, k + 1)
        used.append(given[k] if k < len(given) else adaptive.calibration())
        made.append(
            used[k].apply(
                forecast.take(day), level.scale_kwh[day], block[day], level.floor_kwh[day]
            )
        )
    weight = _still_weighing(adaptive, came, heard_days)
    return Followed(joined_forecasts(made), adaptive, heard_days, weight, tuple(used[seen:]))


def _still_weighing(
    adaptive: Adaptive, came: list[tuple[Ints, Ints, Ints, Ints]], heard_days: Ints
) -> Floats:
    """Return the errors of the days heard of with the weight that they have left.

    Args:
        adaptive: What forgets.
        came: For each day block, column and bin of its errors, and which day of the block it was.
        heard_days: Shape (blocks,), days in all.
    """
    weight = np.zeros(adaptive.mass.shape)
    for block, column, place, day in came:
        left = (1 - adaptive.forget) ** (heard_days[block] - day)
        np.add.at(weight, (block, column, place), left)
    return weight

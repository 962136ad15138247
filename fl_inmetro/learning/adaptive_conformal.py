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
quantiles do not cross. So levels that leave 0 … 1 answer with the outermost bin. Where errors leap
beyond all that were ever counted, levels may overtake each other; the quantiles are then sorted,
and the bound is one for their mean. Where quantiles are cut at the floor the share cannot fall
below that of the readings there; the level then stops at −γ, so that it has not far to come back
from when the load returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.conformal import Calibration, Scores, hour_blocks, mixed, scores_of
from fl_inmetro.metrics import Forecast, joined_forecasts
from fl_inmetro.metrics.sketch import Bins, conformal_values

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Adaptive:
    """A client's errors, and the levels that it asks them for today; a value, each day a new one.

    Attributes:
        levels: The Q levels that are promised, τ.
        of_mean: Whether quantiles are made of a mean; else they are moved.
        mass: Shape (blocks, S, bins), the client's and the fleet's errors (`conformal.mixed`).
        bins: Where the bins lie.
        gamma: γ, the client's own rate; 0 = levels stay.
        forget: Share of their weight that errors lose in a day; 0 = errors stay as they are, and
            those of new days are not added.
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
        asked = np.tile(np.array(levels), (len(mass), 1))
        return cls(levels, not fleet.levels, mass, fleet.bins, gamma, forget, asked)

    def calibration(self) -> Calibration:
        """Return what today's quantiles are moved by."""
        wanted = self.asked[:, None] if self.of_mean else self.asked[..., None]
        offsets = conformal_values(self.mass, self.bins, wanted).reshape(self.asked.shape)
        outermost = float(self.bins.centres[-1])
        offsets = np.where(self.asked >= 1, outermost, offsets)
        offsets = np.where(self.asked <= 0, -outermost, offsets)
        return Calibration(self.levels, self.of_mean, offsets)

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
        known = np.isfinite(target_kwh) & np.isfinite(made.mean_kwh)
        below = target_kwh[known][:, None] <= made.quantiles_kwh[known]
        group = block[known]
        count = np.bincount(group, minlength=len(self.asked))[:, None]
        total = np.stack(
            [np.bincount(group, weights=column, minlength=len(self.asked)) for column in below.T],
            axis=1,
        )
        step = np.where(count > 0, np.array(self.levels) - total / np.maximum(count, 1), 0.0)
        asked = np.clip(self.asked + self.gamma * step, -self.gamma, 1 + self.gamma)
        mass = self.mass
        if self.forget:
            mass = np.where(count[..., None] > 0, (1 - self.forget) * mass + day.counts, mass)
        return replace(self, asked=asked, mass=mass)


def follow(adaptive: Adaptive, windows: Windows, forecast: Forecast) -> tuple[Forecast, Adaptive]:
    """Calibrate a client's forecasts in the order of issue, as a device would have.

    Before each issue it has seen the readings of the earlier windows that were over by then, and
    of no other.

    Args:
        adaptive: What the client knows before the first issue.
        windows: N windows of one meter, by time of issue.
        forecast: Their forecasts, not calibrated.

    Returns:
        The calibrated forecasts, and what the client knows at the last issue.
    """
    blocks = len(adaptive.asked)
    made: list[Forecast] = []
    seen = 0
    for k, issue in enumerate(windows.issue_index):
        while seen < k and windows.issue_index[seen] + windows.horizon <= issue:
            old = windows.take(np.array([seen]))
            errors = scores_of(old, forecast.take(np.array([seen])), blocks)
            block = hour_blocks(old, blocks)
            adaptive = adaptive.observed(made[seen], errors, old.target_kwh(), block)
            seen += 1
        rows = np.array([k])
        made.append(adaptive.calibration().of(windows.take(rows), forecast.take(rows)))
    return joined_forecasts(made), adaptive

"""A car's own scale and bias over its fleet's model, private, moved on by each trip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fl_inmetro.ev.drives import Floats

#: How far a car's scale lies from 1, where nothing is known of it.
SCALE_SD = 0.1

#: Least standard deviation, in kWh per km, of a bias and of a trip: what a meter tells apart.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Correction:
    """energy/km = scale · told/km + bias + noise, after some trips.

    Recursive least squares with a prior and forgetting (Ljung, *System Identification*, 2nd ed.
    1999, 11.2): with forgetting 1 it is Bayes' answer to all trips at once, in whatever order.

    Attributes:
        mean: Scale and bias in kWh/km (2,).
        covariance: Of both (2, 2).
        noise_sd: Of a trip's energy per km.
        forgetting: Weight of the past at each trip, in (0, 1]; below 1 a car that changes is
            followed.
    """

    mean: Floats
    covariance: Floats
    noise_sd: float
    forgetting: float = 1.0

    @classmethod
    def before(cls, bias_sd: float, noise_sd: float, forgetting: float = 1.0) -> Correction:
        """Return the correction of a car that nobody knows: none, with a doubt."""
        sd = np.array([SCALE_SD, max(bias_sd, _LEAST)])
        return cls(np.array([1.0, 0.0]), np.diag(sd**2), max(noise_sd, _LEAST), forgetting)

    def after(self, told_kwh_per_km: float, measured_kwh_per_km: float) -> Correction:
        """Return what one more trip says."""
        x = np.array([told_kwh_per_km, 1.0])
        covariance = self.covariance / self.forgetting
        gain = covariance @ x / (self.noise_sd**2 + x @ covariance @ x)
        return replace(
            self,
            mean=self.mean + gain * (measured_kwh_per_km - x @ self.mean),
            covariance=covariance - np.outer(gain, x @ covariance),
        )

    def after_all(self, told: Sequence[float], measured: Sequence[float]) -> Correction:
        """Return what some trips say, one after the other; both in kWh per km."""
        result = self
        for one, true in zip(told, measured, strict=True):
            result = result.after(float(one), float(true))
        return result

    def applied(self, told_kwh_per_km: Floats) -> Floats:
        """Return the corrected energy per km [trip]."""
        corrected: Floats = self.mean[0] * told_kwh_per_km + self.mean[1]
        return corrected


def spreads(errors_kwh_per_km: Iterable[Floats]) -> tuple[float, float]:
    """Return the standard deviations between and within cars, of errors per km of each car [trip].

    From each car's number, sum and sum of squares (one-way layout; Searle, Casella and McCulloch,
    *Variance Components*, 1992, 3.6). Within one car, or without more trips than cars, nothing
    speaks of a car: 0 between.
    """
    cars = [errors for errors in errors_kwh_per_km if len(errors)]
    counts = np.array([len(errors) for errors in cars], dtype=np.float64)
    sums = np.array([errors.sum() for errors in cars])
    squares = np.array([float(errors @ errors) for errors in cars])
    trips = counts.sum()
    if len(cars) < 2 or trips <= len(cars):
        return 0.0, float(np.sqrt(squares.sum() / max(trips, 1)))
    within = float((squares - sums**2 / counts).sum() / (trips - len(cars)))
    mean = sums.sum() / trips
    spread = float((counts * (sums / counts - mean) ** 2).sum())
    usual = (trips - (counts**2).sum() / trips) / (len(cars) - 1)
    between = max((spread / (len(cars) - 1) - within) / usual, 0.0)
    return float(np.sqrt(between)), float(np.sqrt(within))

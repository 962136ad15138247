"""How well a car's energy is told for trips that were left out, with honest intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro import seeds
from fl_inmetro.ev.calibration import total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.residual import Choice, Trip, chosen, fitted, left_out_kwh_per_km

#: Share of trips that an interval is to hold.
COVERAGE = 0.8

#: Resamples of the trips for the interval of a score.
RESAMPLES = 4000


@dataclass(frozen=True)
class LeftOut:
    """Each trip predicted by a model that never saw it [trip].

    Attributes:
        predicted_kwh: Energy.
        half_width_kwh: Of the 80 % interval around it.
        choices: What was chosen on the others; physics alone has a spread of 0.
    """

    predicted_kwh: Floats
    half_width_kwh: Floats
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Score:
    """A mean over trips and its 95 % bootstrap interval (percentiles; trips are resampled).

    Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """What the field reports of trip energies.

    Attributes:
        mae_kwh: Mean absolute error.
        rmse_kwh: Root of the mean square.
        mape_percent: Mean absolute error over the trip's energy.
        mae_kwh_per_100km: Mean absolute error of the consumption.
        coverage_80: Share of trips inside their 80 % interval; None without intervals.
    """

    mae_kwh: Score
    rmse_kwh: Score
    mape_percent: Score
    mae_kwh_per_100km: Score
    coverage_80: float | None


def leave_one_trip_out(trips: Sequence[Trip], learned: bool) -> LeftOut:
    """Predict each trip from the others.

    How far the rest may go is chosen again for each trip left out, on the others only.
    The interval is a jackknife's: the errors per km of the training trips, each left out in turn,
    give the half width (conformal rank: Vovk et al., 2005; Barber et al., 2021).

    Args:
        trips: See `residual.prepared`.
        learned: Whether there may be a rest, or physics alone.

    Raises:
        FederationError: FL368, fewer than four trips.
    """
    predicted, width, choices = [], [], []
    for i, trip in enumerate(trips):
        others = [*trips[:i], *trips[i + 1 :]]
        choice = chosen(others) if learned else chosen(others, (0.0,))
        sums = total(other.sums for other in others)
        model = fitted(sums, choice.spread_kw)
        predicted.append(float(trip.column_kwh @ model.factor))
        errors = np.abs(left_out_kwh_per_km(others, choice.spread_kw))
        rank = min(int(np.ceil(COVERAGE * (len(errors) + 1))), len(errors))
        width.append(float(np.sort(errors)[rank - 1]) * trip.distance_km)
        choices.append(choice)
    return LeftOut(np.array(predicted), np.array(width), tuple(choices))


def scores(
    predicted_kwh: Floats,
    measured_kwh: Floats,
    distance_km: Floats,
    half_width_kwh: Floats | None = None,
    seed: int = 0,
) -> Scores:
    """Score predictions of trips; all arrays [trip].

    Args:
        predicted_kwh: Energy.
        measured_kwh: Energy.
        distance_km: Length.
        half_width_kwh: Of the 80 % interval, or None.
        seed: Root seed of the bootstrap.
    """
    error = np.abs(predicted_kwh - measured_kwh)
    rng = seeds.derive(seed, "ev", "bootstrap")
    draws = rng.integers(0, len(error), (RESAMPLES, len(error)))

    def score(values: Floats, after: Callable[[Floats], Floats] = np.asarray) -> Score:
        means = after(values[draws].mean(axis=1))
        low, high = np.quantile(means, (0.025, 0.975))
        return Score(float(after(values.mean())), float(low), float(high))

    return Scores(
        score(error),
        score(error**2, np.sqrt),
        score(100 * error / measured_kwh),
        score(100 * error / distance_km),
        None if half_width_kwh is None else float(np.mean(error <= half_width_kwh)),
    )

"""Whether a hub is used in an hour, and how much then: a hurdle model by sums over hubs.

    P(use) = 1 / (1 + exp(−x·β)),    log(kWh | use) = z·γ + r

(Cragg, "Some statistical models for limited dependent variables", Econometrica 39, 1971.) The
distribution of r is not assumed normal: its quantiles are those of a sketch that adds up, and the
mean of exp r is a sum ("smearing"; Duan, JASA 78, 1983). The quantile τ of the mixture is 0 up to
τ = 1 − P, and above it the amount's quantile at (τ − 1 + P) / P, as in `models.heads.HurdleHead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.charging.hubs import (
    LEAST_KWH,
    Habits,
    HubColumns,
    HubSeries,
    habit_sums,
    habits,
    hub_columns,
)
from fl_inmetro.ev.charging.regression import Floats, Rows, chance, logistic_fit, mean_fit
from fl_inmetro.metrics.sketch import Bins, QuantileSketch

#: Levels at which a distribution is kept and scored.
GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))

#: Bins of residuals, of logarithms and of kWh.
BINS = Bins(0.01, 1e-4, 1e4)

#: Levels at which the quantiles of r are kept; between them is a straight line.
RESIDUAL_LEVELS = np.linspace(0.005, 0.995, 199)


@dataclass(frozen=True, eq=False)
class HubForecast:
    """What is told of hours; rows are days × 24 of one hub.

    Attributes:
        chance: P(use) [row]; NaN where a model tells none.
        mean_kwh: [row].
        quantiles_kwh: At `GRID` [row, level].
    """

    chance: Floats
    mean_kwh: Floats
    quantiles_kwh: Floats


@dataclass(frozen=True, eq=False)
class Hurdle:
    """A trained hurdle model.

    Attributes:
        fleet: The ordinary hub.
        use: β [column].
        amount: γ [column].
        smearing: Mean of exp r.
        residuals: Quantiles of r at `RESIDUAL_LEVELS`.
        most_kwh: Largest hour of the training; nothing is told beyond it.
    """

    fleet: Habits
    use: Floats
    amount: Floats
    smearing: float
    residuals: Floats
    most_kwh: float

    def predict(self, series: HubSeries) -> HubForecast:
        """Tell every hour of a hub from the days before it."""
        known = hub_columns(series, self.fleet)
        p = chance(known.use @ self.use)
        # Beyond the largest hour it is cut off anyway; so it does not overflow on its way.
        log_amount = np.minimum(known.amount @ self.amount, np.log(self.most_kwh) + 20.0)
        mean = p * np.minimum(np.exp(log_amount) * self.smearing, self.most_kwh)
        level = (np.array(GRID)[None, :] - 1 + p[:, None]) / p[:, None]
        r = np.interp(level, RESIDUAL_LEVELS, self.residuals)
        amount = np.minimum(np.exp(log_amount[:, None] + r), self.most_kwh)
        return HubForecast(p, mean, np.where(level > 0, amount, 0.0))


@dataclass(frozen=True, eq=False)
class PlainLinear:
    """The same columns without a hurdle: energy as a linear function, errors of one spread.

    Attributes:
        fleet: The ordinary hub.
        beta: [column] of use's and amount's columns side by side.
        residuals: Quantiles of the errors at `GRID`.
    """

    fleet: Habits
    beta: Floats
    residuals: Floats

    def predict(self, series: HubSeries) -> HubForecast:
        """Tell every hour of a hub from the days before it."""
        mean = _side_by_side(hub_columns(series, self.fleet)) @ self.beta
        quantiles = np.maximum(mean[:, None] + self.residuals[None, :], 0.0)
        return HubForecast(np.full(len(mean), np.nan), np.maximum(mean, 0.0), quantiles)


def ordinary_hub(hubs: Sequence[HubSeries]) -> Habits:
    """Return the ordinary hub: one round of sums."""
    return habits(np.sum([habit_sums(series) for series in hubs], axis=0))


def fit_hurdle(
    hubs: Sequence[HubSeries], ridge: float = 1e-4, fleet: Habits | None = None
) -> Hurdle:
    """Train over hubs, each a client.

    Rounds: one for the ordinary hub, Newton's for the use (about eight), one for the amount, one
    for its errors.

    Args:
        hubs: Up to the end of the training.
        ridge: See `regression.mean_fit`.
        fleet: The ordinary hub, where it is known.

    Raises:
        FederationError: FL373, no hour with use, or none without.
    """
    fleet = fleet or ordinary_hub(hubs)
    use, amount = [], []
    for series in hubs:
        known = hub_columns(series, fleet)
        there = np.isfinite(known.energy_kwh)
        used = there & (np.nan_to_num(known.energy_kwh) > LEAST_KWH)
        use.append(Rows(known.use[there], used[there].astype(np.float64)))
        amount.append(Rows(known.amount[used], np.log(known.energy_kwh[used])))
    n, hours = sum(len(rows) for rows in amount), sum(len(rows) for rows in use)
    if not 0 < n < hours:
        raise FederationError(
            Fault("FL373", f"{n} of {hours} hours with use say nothing of when there is use")
        )
    gamma = mean_fit(amount, ridge)
    left = [rows.y - rows.x @ gamma for rows in amount]
    sketch = _sketch(left)
    return Hurdle(
        fleet,
        logistic_fit(use, ridge),
        gamma,
        sum(float(np.exp(r).sum()) for r in left) / n,
        np.array([sketch.quantile(level) for level in RESIDUAL_LEVELS]),
        # Written in bins like everything that is a maximum: no hub's own largest hour is told.
        float(np.exp(BINS.centres[np.flatnonzero(_sketch([r.y for r in amount]).counts)[-1]])),
    )


def fit_plain(
    hubs: Sequence[HubSeries], ridge: float = 1e-4, fleet: Habits | None = None
) -> PlainLinear:
    """Train the linear model over hubs: three rounds of sums.

    Args:
        hubs: Up to the end of the training.
        ridge: See `regression.mean_fit`.
        fleet: The ordinary hub, where it is known.

    Raises:
        FederationError: FL373, no hours.
    """
    fleet = fleet or ordinary_hub(hubs)
    rows = []
    for series in hubs:
        known = hub_columns(series, fleet)
        there = np.isfinite(known.energy_kwh)
        rows.append(Rows(_side_by_side(known)[there], known.energy_kwh[there]))
    beta = mean_fit(rows, ridge)
    sketch = _sketch([own.y - own.x @ beta for own in rows])
    return PlainLinear(fleet, beta, np.array([sketch.quantile(level) for level in GRID]))


def _side_by_side(known: HubColumns) -> Floats:
    """Return all columns once: those of use, then the amount's own."""
    # Three of the amount's first four are among those of use, as is the calendar at the end.
    return np.hstack([known.use, known.amount[:, 4:8]])


def _sketch(parts: Sequence[Floats]) -> QuantileSketch:
    total = QuantileSketch.of(np.zeros(0), BINS)
    for values in parts:
        total = total + QuantileSketch.of(values, BINS)
    return total

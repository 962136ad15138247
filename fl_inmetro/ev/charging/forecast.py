"""A session's energy or duration, told at plug-in: mean, median and an interval, federated.

Columns are made on the client from its own past and three figures of the fleet; then the mean takes
one round of sums, each quantile some rounds (see `regression`). What the rows of a user have in
common is in its shrunken mean, so a new user begins at the fleet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.charging.effects import Effects, effects
from fl_inmetro.ev.charging.past import Past, hours, past, weekdays, year_share
from fl_inmetro.ev.charging.regression import Floats, Rows, mean_fit, quantile_fit
from fl_inmetro.ev.charging.sessions import Sessions
from fl_inmetro.metrics.sketch import Bins, QuantileSketch

Target = Literal["energy_kwh", "duration_h"]

#: `local`: each user alone. `federated`: sessions stay with their users. `central`: in one place.
Training = Literal["local", "federated", "central"]

#: Levels of the interval and its middle.
LEVELS = (0.1, 0.5, 0.9)

#: Bins of 1 % for energies, durations and what an interval lacks.
BINS = Bins(0.01, 1e-3, 1e4)

#: Hours at which the broken line over the day bends; it closes at midnight.
HOUR_KNOTS = (0.0, 6.0, 9.0, 12.0, 15.0, 17.0, 19.0, 21.0)

#: A user's gap and rate are not believed beyond these.
LONGEST_GAP_DAYS, FEWEST_DAYS = 14.0, 7.0


@dataclass(frozen=True)
class Settings:
    """What is chosen on earlier months.

    Attributes:
        ridge: See `mean_fit`.
        conformal: Whether the interval is widened or narrowed by the last part of the training.
        held_back: Share of the training sessions that it takes.
    """

    ridge: float = 1e-3
    conformal: bool = True
    held_back: float = 0.2


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is told of sessions; all [session], in the unit of the target.

    Attributes:
        mean: Expected value.
        low, middle, high: Quantiles at 0.1, 0.5 and 0.9; in order.
    """

    mean: Floats
    low: Floats
    middle: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Fleet:
    """What the server sends so that columns can be made.

    Attributes:
        effects: Variance components.
        quantiles: Of all values, at `LEVELS` [level].
        rate: Mean target per day of a user, shrunken to where days are few.
        cap: Largest value seen, in whole bins: nothing is told beyond it.
    """

    effects: Effects
    quantiles: Floats
    rate: float
    cap: float


def fleet_of(users: Mapping[str, Floats], days: Mapping[str, float]) -> Fleet:
    """Return the fleet's figures from users' values [session] and how long each was there.

    Effects come from sums in two rounds, quantiles from sketches that add up (counts in bins of
    1 %, so within 1 % of the pooled ones), the rate from two sums.

    Raises:
        FederationError: FL373, see `components`.
    """
    sketch = QuantileSketch.of(np.zeros(0), BINS)
    for values in users.values():
        sketch = sketch + QuantileSketch.of(values, BINS)
    total = sum(float(values.sum()) for values in users.values())
    spent = sum(max(days[user], FEWEST_DAYS) for user in users)
    return Fleet(
        effects(list(users.values())),
        np.array([sketch.quantile(level) for level in LEVELS]),
        total / spent,
        float(BINS.centres[np.flatnonzero(sketch.counts)[-1]]),
    )


def columns(sessions: Sessions, known: Past, fleet: Fleet) -> Floats:
    """Return the columns of sessions [session, column], the intercept first."""
    own = fleet.effects
    k = own.strength
    mean = own.shrunk(known.total, known.n)
    recent = own.shrunk(known.recent_total, known.recent_n)
    same = own.shrunk(known.same_total, known.same_n)
    low, middle, high = (
        (known.n * values + k * level) / (known.n + k)
        for values, level in zip(
            (known.low, known.middle, known.high), fleet.quantiles, strict=True
        )
    )
    rate = (known.total + FEWEST_DAYS * fleet.rate) / (known.days + FEWEST_DAYS)
    began = known.n > 0
    gap = np.where(began, np.minimum(np.nan_to_num(known.gap_days), LONGEST_GAP_DAYS), 0.0)
    used = rate * gap
    weekend = (weekdays(sessions) >= 5).astype(np.float64)
    hour = _day_hats(hours(sessions))[:, 1:]
    winter = np.cos(2 * np.pi * year_share(sessions))
    own_size = mean[:, None]
    return np.column_stack(
        [
            np.ones(len(sessions)),
            mean,
            recent,
            same,
            low,
            middle,
            high,
            np.where(began, known.last, mean),
            ~began,
            used,
            np.minimum(used, high),
            np.minimum(used, middle),
            mean * np.minimum(gap, 1.0),
            mean * (gap < 0.08) * began,
            np.log1p(gap),
            weekend,
            weekend * mean,
            winter,
            winter * mean,
            hour,
            hour * own_size,
        ]
    )


def _day_hats(hour: Floats) -> Floats:
    """Return hat functions over the day [session, knot], closed at midnight."""
    knots = np.array([*HOUR_KNOTS, 24.0])
    unit = np.eye(len(knots))
    hats = np.column_stack([np.interp(hour, knots, row) for row in unit])
    hats[:, 0] += hats[:, -1]
    return hats[:, :-1]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model.

    Attributes:
        target: What it tells.
        fleet: The fleet's figures.
        mean: β of the mean [column].
        quantiles: β at `LEVELS` [level, column].
        widening: What the interval is widened by at each end, in units of its width; may be
            negative.
    """

    target: Target
    fleet: Fleet
    mean: Floats
    quantiles: Floats
    widening: float

    def predict(self, sessions: Sessions, rows: np.ndarray) -> Forecast:
        """Tell sessions from what is known at each plug-in.

        Args:
            sessions: All of these users' so far, those to be told among them; ordered by plug-in.
            rows: Which to tell.
        """
        known = past(sessions, getattr(sessions, self.target))
        return self.of_columns(columns(sessions, known, self.fleet)[rows])

    def of_columns(self, x: Floats) -> Forecast:
        """Tell sessions from their columns [session, column]."""
        low, middle, high = np.sort(x @ self.quantiles.T, axis=1).T
        wider = self.widening * (high - low)
        cap = self.fleet.cap
        return Forecast(
            np.clip(x @ self.mean, 0.0, cap),
            np.clip(np.minimum(low - wider, middle), 0.0, cap),
            np.clip(middle, 0.0, cap),
            np.clip(np.maximum(high + wider, middle), 0.0, cap),
        )


def fit(
    sessions: Sessions,
    train: np.ndarray,
    target: Target,
    settings: Settings | None = None,
    training: Training = "federated",
) -> Model:
    """Train on sessions; each user is a client.

    Args:
        sessions: Ordered by plug-in; what is not in `train` is not looked at.
        train: Which to learn from.
        target: Energy or duration.
        settings: What was chosen.
        training: `central` pools the rows first; the answers are those of `federated`. A local
            model is `fit` on the sessions of one user, and needs the figures of no fleet: see
            `own_quantiles`.

    Raises:
        FederationError: FL373, fewer than two users, or too few sessions.
    """
    settings = settings or Settings()
    learn = sessions.take(train)
    if not settings.conformal:
        return _fit(learn, target, settings, training, 0.0)
    at = int(len(learn) * (1 - settings.held_back))
    earlier = np.arange(len(learn)) < at
    # Whoever plugged in before the cut but out after it had not ended when the model is made.
    first = _fit(learn.take(earlier), target, settings, training, 0.0)
    told = first.predict(learn, np.flatnonzero(~earlier))
    truth = getattr(learn, target)[~earlier]
    width = np.maximum(told.high - told.low, 1e-6)
    # Conformalised quantile regression (Romano, Patterson and Candès, 2019), relative to the
    # width; each user's sketch of scores adds up.
    scores = np.maximum(told.low - truth, truth - told.high) / width
    sketch = QuantileSketch.of(np.zeros(0), BINS)
    users = learn.user[~earlier]
    for user in np.unique(users):
        sketch = sketch + QuantileSketch.of(scores[users == user], BINS)
    # Half of the width would leave nothing of it.
    widening = max(sketch.quantile(LEVELS[-1] - LEVELS[0]), -0.45)
    return _fit(learn, target, settings, training, widening)


def _fit(
    learn: Sessions, target: Target, settings: Settings, training: Training, widening: float
) -> Model:
    truth = getattr(learn, target)
    owners: Sequence[str] = np.unique(learn.user).tolist()
    mine = {user: learn.user == user for user in owners}
    days = {
        user: float(np.ptp(learn.start_utc_s[rows]) / 86_400.0) for user, rows in mine.items()
    }
    fleet = fleet_of({user: truth[rows] for user, rows in mine.items()}, days)
    x = columns(learn, past(learn, truth), fleet)
    if training == "local":
        raise FederationError(
            Fault("FL373", "a local model has no fleet", "", "see `own_quantiles`")
        )
    clients = (
        [Rows(x, truth)]
        if training == "central"
        else [Rows(x[rows], truth[rows]) for rows in mine.values()]
    )
    quantiles = [quantile_fit(clients, level, settings.ridge) for level in LEVELS]
    return Model(target, fleet, mean_fit(clients, settings.ridge), np.array(quantiles), widening)

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
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.charging.effects import Effects, effects
from fl_inmetro.ev.charging.past import Past, hours, past, weekdays, year_share
from fl_inmetro.ev.charging.regression import Floats, Rows, mean_fit, quantile_fit
from fl_inmetro.ev.charging.sessions import Sessions
from fl_inmetro.ev.family import no_own_model
from fl_inmetro.metrics.sketch import Bins, QuantileSketch
from fl_inmetro.units import DAY_S

Target = Literal["energy_kwh", "duration_h"]

#: `federated`: sessions stay with their users. `central`: all rows are in one place.
Training = Literal["federated", "central"]

Which = NDArray[np.bool_] | NDArray[np.int64]

#: Levels of the interval and its middle.
LEVELS = (0.1, 0.5, 0.9)

#: Bins of 1 % for energies, durations and what an interval lacks.
BINS = Bins(0.01, 1e-3, 1e4)

#: Hours at which the broken line over the day bends; it closes at midnight.
HOUR_KNOTS = (0.0, 6.0, 9.0, 12.0, 15.0, 17.0, 19.0, 21.0)

#: A user's gap and rate are not believed beyond these.
LONGEST_GAP_DAYS, FEWEST_DAYS = 14.0, 7.0

#: A gap below this many days (two hours) goes on with the session before it.
GOES_ON_DAYS = 2 / 24

#: Sessions that a user needs for a model of its own.
FEWEST_SESSIONS = 10


@dataclass(frozen=True)
class Settings:
    """What is chosen on earlier months.

    Attributes:
        ridge: See `mean_fit`.
        conformal: Whether the interval is widened or narrowed by the last part of the training;
            on both public sets it came nearer to 80 % without.
        held_back: Share of the training sessions that it takes.
    """

    ridge: float = 1e-3
    conformal: bool = False
    held_back: float = 0.2


#: A user alone has so few sessions that far more is taken from its plain past.
LOCAL = Settings(ridge=1.0)


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
            mean * (gap < GOES_ON_DAYS) * began,
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

    def predict(self, sessions: Sessions, rows: Which) -> Forecast:
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
    train: Which,
    target: Target,
    settings: Settings | None = None,
    training: Training = "federated",
) -> Model:
    """Train on sessions; each user is a client.

    Args:
        sessions: Ordered by plug-in; what is not in `train` is not looked at.
        train: Which to learn from: those that had ended when the model is made.
        target: Energy or duration.
        settings: What was chosen.
        training: `central` pools the rows first; the answers are those of `federated`.

    Raises:
        FederationError: FL373, fewer than two users, or too few sessions.
    """
    settings = settings or Settings()
    learn = sessions.take(train)
    if not settings.conformal:
        return _fit(learn, target, settings, training, 0.0)
    if len(learn) < FEWEST_SESSIONS:
        raise FederationError(
            Fault("FL373", f"{len(learn)} sessions, {FEWEST_SESSIONS} are the least", "sessions")
        )
    cut = learn.start_utc_s[int(len(learn) * (1 - settings.held_back))]
    held = learn.start_utc_s >= cut
    first = _fit(learn.take(learn.end_utc_s <= cut), target, settings, training, 0.0)
    told = first.predict(learn, held)
    widening = _widening(told, getattr(learn, target)[held], learn.user[held])
    return _fit(learn, target, settings, training, widening)


@dataclass(frozen=True, eq=False)
class LocalModels:
    """Models of users who learned from nobody else.

    Attributes:
        models: By user.
    """

    models: Mapping[str, Model]

    def predict(self, sessions: Sessions, rows: Which) -> Forecast:
        """Tell sessions as `Model.predict` does, each by its user's own model.

        Raises:
            FederationError: FL369, a user has none.
        """
        if strangers := set(sessions.user[rows]) - set(self.models):
            raise no_own_model(min(strangers))
        wanted = np.arange(len(sessions))[rows]
        found = np.zeros((4, len(wanted)))
        for user in np.unique(sessions.user[wanted]):
            own = sessions.take(sessions.user == user)
            mine = np.flatnonzero(sessions.user == user)
            told = self.models[str(user)].predict(own, np.isin(mine, wanted))
            at = np.isin(wanted, mine)
            found[:, at] = (told.mean, told.low, told.middle, told.high)
        return Forecast(*found)


def fit_local(
    sessions: Sessions, train: Which, target: Target, settings: Settings | None = None
) -> LocalModels:
    """Train a model for each user with `FEWEST_SESSIONS` on nothing but its own sessions.

    The columns are the same; where the federated model has the fleet's figures, this has the
    user's own, each worth one session. Intervals are not calibrated: there are too few sessions to
    hold some back.

    Args:
        sessions: Ordered by plug-in.
        train: Which to learn from.
        target: Energy or duration.
        settings: What was chosen, `ridge` only; `LOCAL` where None.
    """
    settings = settings or LOCAL
    learn = sessions.take(train)
    models = {}
    for user in np.unique(learn.user):
        own = learn.take(learn.user == user)
        if len(own) < FEWEST_SESSIONS:
            continue
        values = getattr(own, target)
        spread = max(float(values.var(ddof=1)), 1e-6)
        alone = Fleet(
            Effects(float(values.mean()), spread, spread),
            np.quantile(values, LEVELS),
            float(values.sum()) / max(_days(own), FEWEST_DAYS),
            float(values.max()),
        )
        rows = Rows(columns(own, past(own, values), alone), values)
        models[str(user)] = _solved([rows], alone, target, settings, 0.0)
    return LocalModels(models)


def _fit(
    learn: Sessions, target: Target, settings: Settings, training: Training, widening: float
) -> Model:
    truth = getattr(learn, target)
    owned = {str(user): learn.user == user for user in np.unique(learn.user)}
    fleet = fleet_of(
        {user: truth[rows] for user, rows in owned.items()},
        {user: _days(learn.take(rows)) for user, rows in owned.items()},
    )
    x = columns(learn, past(learn, truth), fleet)
    clients = (
        [Rows(x, truth)]
        if training == "central"
        else [Rows(x[rows], truth[rows]) for rows in owned.values()]
    )
    return _solved(clients, fleet, target, settings, widening)


def _solved(
    clients: Sequence[Rows], fleet: Fleet, target: Target, settings: Settings, widening: float
) -> Model:
    quantiles = [quantile_fit(clients, level, settings.ridge) for level in LEVELS]
    return Model(target, fleet, mean_fit(clients, settings.ridge), np.array(quantiles), widening)


def _days(own: Sessions) -> float:
    """Return the days from a user's first plug-in to its last."""
    return float(np.ptp(own.start_utc_s)) / DAY_S


def _widening(told: Forecast, truth: Floats, user: NDArray[np.str_]) -> float:
    """Return what interval ends must move by, in widths (conformalised quantile regression).

    Romano, Patterson and Candès (2019), eq. 6 to 8, relative to the width; each user's sketch of
    scores adds up. The rank is that of all sessions, so the coverage is of sessions, not of users.
    """
    width = np.maximum(told.high - told.low, 1e-6)
    scores = np.maximum(told.low - truth, truth - told.high) / width
    sketch = QuantileSketch.of(np.zeros(0), BINS)
    for one in np.unique(user):
        sketch = sketch + QuantileSketch.of(scores[user == one], BINS)
    # Half of the width would leave nothing of it.
    return max(sketch.quantile(LEVELS[-1] - LEVELS[0]), -0.45)

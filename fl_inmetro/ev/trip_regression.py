"""Linear regression of a trip's energy, on features of the drive or on what is known before it.

    E = Σ_j β_j·X_j + e,    e ~ N(0, σ²·km)

without an intercept: no trip, no energy. Rows weigh 1/km, as errors of independent kilometres add
up. Most columns are kWh that an ordinary car would need, so β is pulled towards 1 there and towards
0 elsewhere (`regression.regress`). Which columns, and how strong a pull, is chosen by leaving out
each of the training trips, in closed form from their sums.

Over cars: each sends the sums of all columns, gets the total back, leaves out its own trips from
it for every form, and sends the summed errors; the best form is the fleet's. Two rounds, and the
result is that of the pooled trips. A car then moves from the fleet's β to one of its own trips, as
far as leaving them out says that this helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.calibration import Sums, total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.regression import Regression, only, regress, sums_of_rows, without
from fl_inmetro.ev.trip_features import (
    Features,
    Kind,
    drive_features,
    features_before,
    planned,
)
from fl_inmetro.ev.trips import Trips


@dataclass(frozen=True)
class Form:
    """A choice of columns, and of the pull λ towards an ordinary car."""

    columns: tuple[str, ...]
    penalty: float


_PENALTIES = (0.1, 0.01, 0.001, 0.0)

_WAY = ("rolling_kwh", "air_kwh", "base_kwh")
_WEATHER = (*_WAY, "heating_kwh", "cooling_kwh")
_COLD = (*_WEATHER, "cold_kwh")
_BEFORE = (_WAY, _WEATHER, _COLD, (*_COLD, "climb_kwh"), (*_COLD, "warm_up_kwh"))

_TERMS = (
    "mass_kwh",
    "rolling_kwh",
    "cold_kwh",
    "air_kwh",
    "recuperation_kwh",
    "base_kwh",
    "heating_kwh",
    "cooling_kwh",
)
_DRIVE = (
    ("distance_km", "duration_h", "heater_kwh", "air_conditioning_kwh"),
    _TERMS,
    (*_TERMS, "distance_km"),
    (*_TERMS, "stops"),
)

#: What is tried, by kind; the first is for fewer trips than can be left out.
FORMS: dict[Kind, tuple[Form, ...]] = {
    "before": tuple(Form(c, p) for c in (_BEFORE[2], *_BEFORE) for p in _PENALTIES),
    "drive": tuple(Form(c, p) for c in (_TERMS, *_DRIVE) for p in _PENALTIES),
}

#: The same where the battery's temperature at the start is known.
FORMS_WITH_BATTERY = tuple(
    Form((*c, "cold_battery_kwh"), p) for c in (_COLD, _WEATHER) for p in _PENALTIES
)

#: How strongly a car may be held to the fleet's β, beside having just that.
_OWN_PULLS = (10.0, 1.0, 0.1, 0.01)

#: Fewest trips of which one can be left out to choose by.
_FEWEST = 4


@dataclass(frozen=True)
class Row:
    """One trip, ready for many fits.

    Attributes:
        sums: Over its one row, of all columns of all forms.
        x: Its columns [column of `sums`].
        measured_kwh: What it took.
        distance_km: How far it went.
    """

    sums: Sums
    x: Floats
    measured_kwh: float
    distance_km: float

    def columns(self, names: Sequence[str]) -> Floats:
        """Return some of its columns, as one row [1, name]."""
        return self.x[None, [self.sums.terms.index(name) for name in names]]


def rows_of(
    features: Features, measured_kwh: Floats, distance_km: Floats, forms: Sequence[Form]
) -> list[Row]:
    """Return every trip's row, with the columns that any of the forms wants.

    Raises:
        FederationError: FL372, the features lack one: they are of the other kind, for example.
    """
    names = columns_of(forms)
    x = features.columns(names)
    return [
        Row(
            sums_of_rows(names, x[i : i + 1], measured_kwh[i : i + 1], 1 / distance_km[i : i + 1]),
            x[i],
            float(measured_kwh[i]),
            float(distance_km[i]),
        )
        for i in range(len(x))
    ]


def columns_of(forms: Sequence[Form]) -> tuple[str, ...]:
    """Return all columns of some forms, each once."""
    return tuple(dict.fromkeys(name for form in forms for name in form.columns))


def toward(columns: Sequence[str]) -> dict[str, float]:
    """Return what a form is pulled to: 1 for kWh of an ordinary car, 0 for anything else."""
    return {name: float(name.endswith("_kwh")) for name in columns}


def fitted(sums: Sums, form: Form, centre: Mapping[str, float] | None = None) -> Regression:
    """Fit one form.

    A column that is 0 in all of the trips (heating in a car that was only driven in summer) is left
    as it is in the centre; nothing says how far it may lie from that.

    Args:
        sums: Of at least the form's columns.
        form: What to fit.
        centre: What to pull to; `toward` where None.

    Raises:
        FederationError: FL371, the trips do not decide an unpulled form.
    """
    known = dict(toward(form.columns) if centre is None else centre)
    wanted = only(sums, form.columns)
    if form.penalty == 0:
        return regress(wanted)
    seen = [n for n, square in zip(form.columns, np.diag(wanted.xx), strict=True) if square > 0]
    found = regress(only(sums, seen), form.penalty, {name: known[name] for name in seen})
    if len(seen) == len(form.columns):
        return found
    at = [form.columns.index(name) for name in seen]
    coefficient = np.array([known[name] for name in form.columns])
    coefficient[at] = found.coefficient
    covariance = np.zeros((len(coefficient), len(coefficient)))
    covariance[np.ix_(at, at)] = found.covariance
    return replace(found, names=form.columns, coefficient=coefficient, covariance=covariance)


def left_out_kwh_per_km(whole: Sums, rows: Sequence[Row], form: Form) -> Floats:
    """Return the errors per km of some rows, each predicted by all the others in `whole`.

    Args:
        whole: Sums of all cars, these rows among them.
        rows: One car's.
        form: What to fit.

    Raises:
        FederationError: FL371, the other trips do not decide an unpulled form.
    """
    return np.array([_error(fitted(without(whole, row.sums), form), row) for row in rows])


def chosen(cars: Sequence[Sequence[Row]], forms: Sequence[Form]) -> Form:
    """Choose a form by leaving out each trip of each car; what leaves a car are sums of errors.

    A form that some of these trips cannot decide is no candidate. With fewer than four trips the
    first form is taken.
    """
    whole = total(row.sums for rows in cars for row in rows)
    if whole.n < _FEWEST:
        return forms[0]
    best, least = forms[0], np.inf
    for form in dict.fromkeys(forms):
        try:
            error = sum(
                float(np.abs(left_out_kwh_per_km(whole, rows, form)).sum()) for rows in cars
            )
        except FederationError:
            continue
        if error < least:
            best, least = form, error
    return best


@dataclass(frozen=True)
class LeftOut:
    """Each trip predicted by a regression that never saw it [trip].

    Attributes:
        predicted_kwh: Energy.
        half_width_kwh: Of the 80 % prediction interval (Student's t).
        forms: What was chosen on the others.
    """

    predicted_kwh: Floats
    half_width_kwh: Floats
    forms: tuple[Form, ...]


def leave_one_trip_out(rows: Sequence[Row], forms: Sequence[Form], level: float = 0.8) -> LeftOut:
    """Predict each trip from the others; the form is chosen again without it."""
    predicted, width, picked = [], [], []
    for i, row in enumerate(rows):
        others = [*rows[:i], *rows[i + 1 :]]
        form = chosen([others], forms)
        model = fitted(total(other.sums for other in others), form)
        x = row.columns(form.columns)
        low, high = model.prediction_interval(x, level, np.array([1 / row.distance_km]))
        predicted.append(float(model.predict(x)[0]))
        width.append(float(high[0] - low[0]) / 2)
        picked.append(form)
    return LeftOut(np.array(predicted), np.array(width), tuple(picked))


@dataclass(frozen=True)
class FittedTrips:
    """A trained regression; see `family.Fitted`.

    Attributes:
        family: What it is.
        training: How.
        form: The fleet's; None where each car has its own.
        models: β of each car that took part.
        fleet: β of any other car; None where each is alone.
        moved_bytes: Over the network, both ways, all cars.
    """

    family: TripRegression
    training: Training
    models: Mapping[str, Regression]
    form: Form | None
    fleet: Regression | None
    moved_bytes: int

    @property
    def parameters(self) -> int:
        """Return the coefficients of the largest model."""
        every = [*self.models.values(), *([self.fleet] if self.fleet else [])]
        return max(len(model.names) for model in every)

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return energies in kWh [trip]; see `family.Fitted.predict`."""
        model = self.model_of(car, own)
        return model.predict(self.family.features(trips).columns(model.names))

    def model_of(self, car: str, own: Trips | None = None) -> Regression:
        """Return the regression that serves a car.

        Raises:
            FederationError: FL369, it was trained alone, and there is nothing of this car.
        """
        if own is not None:
            rows = self.family.rows(own)
            if self.fleet is None or self.form is None:
                return _alone(rows, self.family.forms)
            return _personal(rows, self.form, self.fleet)
        if car in self.models:
            return self.models[car]
        if self.fleet is None:
            raise no_own_model(car)
        return self.fleet


@dataclass(frozen=True)
class TripRegression:
    """The family; see `family.Family`.

    Attributes:
        kind: On features of the drive, or on what is known before it.
        battery: Whether the battery's temperature before the trip may be known.
    """

    kind: Kind
    battery: bool = False

    def __post_init__(self) -> None:
        if self.battery and self.kind == "drive":
            raise FederationError(
                Fault(
                    "FL372",
                    "features of the drive have no battery",
                    'TripRegression("drive", battery=True)',
                    'the battery at the start is an option of "before"',
                )
            )

    @property
    def name(self) -> str:
        """Return its name in tables."""
        told = {"drive": "linear regression, drive features", "before": "linear, before the trip"}
        return told[self.kind] + (" with battery temperature" if self.battery else "")

    @property
    def forms(self) -> tuple[Form, ...]:
        """Return what is tried."""
        forms = FORMS[self.kind]
        return (*forms, *FORMS_WITH_BATTERY) if self.battery else forms

    def features(self, trips: Trips) -> Features:
        """Return the trips' features; of the battery at most its temperature at the start."""
        if self.kind == "drive":
            return drive_features(trips.drives)
        return features_before(planned(trips.drives, trips.battery_deg_c if self.battery else None))

    def rows(self, trips: Trips) -> list[Row]:
        """Return the trips with their measurements, to learn from."""
        features = self.features(trips)
        km = features.columns(["distance_km"])[:, 0]
        return rows_of(features, trips.terminal_kwh, km, self.forms)

    def fit(self, fleet: Fleet, training: Training, seed: int = 0) -> FittedTrips:
        """Train; nothing is drawn, so the seed has no say. See `family.Family.fit`.

        Raises:
            FederationError: FL371, there are no cars.
        """
        if not fleet:
            raise FederationError(Fault("FL371", "there are no cars to learn from", "fleet"))
        rows = {car: self.rows(trips) for car, trips in fleet.items()}
        if training == "local":
            models = {car: _alone(own, self.forms) for car, own in rows.items()}
            return FittedTrips(self, training, models, None, None, 0)
        form = chosen(list(rows.values()), self.forms)
        model = fitted(total(row.sums for own in rows.values() for row in own), form)
        models = {car: _personal(own, form, model) for car, own in rows.items()}
        moved = self._moved_bytes(rows, form, training)
        return FittedTrips(self, training, models, form, model, moved)

    def _moved_bytes(
        self, rows: Mapping[str, Sequence[Row]], form: Form, training: Training
    ) -> int:
        """Return what went over the network, 8 bytes a number."""
        k = len(columns_of(self.forms))
        model = len(form.columns)
        if training == "central":
            # Each trip's columns, energy and length to the centre, the model back.
            return 8 * (sum(len(own) for own in rows.values()) * (k + 2) + len(rows) * model)
        sums = k * (k + 1) // 2 + k + 2
        # Up: sums, then an error for each form. Down: the total, then the form's number and β.
        return 8 * len(rows) * (sums + len(set(self.forms)) + sums + 1 + model)


def _error(model: Regression, row: Row) -> float:
    """Return predicted − measured, in kWh/km."""
    told = float(model.predict(row.columns(model.names))[0])
    return (told - row.measured_kwh) / row.distance_km


def _alone(rows: Sequence[Row], forms: Sequence[Form]) -> Regression:
    return fitted(total(row.sums for row in rows), chosen([rows], forms))


def _personal(rows: Sequence[Row], form: Form, fleet: Regression) -> Regression:
    """Return a car's own β, held to the fleet's as strongly as its trips, left out, say.

    The fleet's β has seen the trips of a car that took part; that favours the fleet a little.
    """
    if len(rows) < _FEWEST:
        return fleet
    centre = dict(zip(fleet.names, fleet.coefficient.tolist(), strict=True))
    whole = total(row.sums for row in rows)
    best, least = fleet, float(np.mean([abs(_error(fleet, row)) for row in rows]))
    for pull in _OWN_PULLS:
        held = Form(form.columns, pull)
        errors = [_error(fitted(without(whole, r.sums), held, centre), r) for r in rows]
        if np.mean(np.abs(errors)) < least:
            best, least = fitted(whole, held, centre), float(np.mean(np.abs(errors)))
    return best

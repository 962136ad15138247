"""Linear regression of a trip's energy, on features of the drive or on what is known before it.

    E = Σ_j β_j·E_j + e,    e ~ N(0, σ²·km)

without an intercept: no trip, no energy. Rows weigh 1/km, as errors of independent kilometres add
up. E_j is what an ordinary car would need for cause j, so β_j is 1 or thereabouts beforehand
(`regression.held`), and one trip is enough to begin. Which causes, and how closely β is held to 1,
is chosen by leaving out each of the training trips, in closed form from their sums; the usual form
is left only for a gain of two standard errors (after the rule of Breiman et al., *Classification
and Regression Trees*, 1984, 3.4.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.calibration import PRIOR_SD, TERMS, Sums, total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.regression import (
    Noise,
    Regression,
    held,
    only,
    regress,
    sums_of_rows,
    without,
)
from fl_inmetro.ev.trip_features import (
    BATTERY_NAMES,
    BEFORE_NAMES,
    Features,
    Kind,
)


@dataclass(frozen=True)
class Form:
    """A choice of columns, and of how they are held.

    Attributes:
        kind: Of the features; a form of one kind takes none of the other.
        columns: Of the features.
        spread: How far a car's β may lie from what is known beforehand, in units of `SPREAD`;
            infinite for least squares, or a ridge.
        penalty: λ of `regression.regress` towards `centre`, where the spread is infinite.
    """

    kind: Kind
    columns: tuple[str, ...]
    spread: float = np.inf
    penalty: float = 0.0


_SPREADS = (1.0, 3.0, 0.3, np.inf)

_WAY = ("rolling_kwh", "air_kwh", "base_kwh")
_WEATHER = (*_WAY, "heating_kwh", "cooling_kwh")
_COLD = (*_WEATHER, "cold_kwh")
_BEFORE = (_COLD, _WAY, _WEATHER, (*_COLD, "climb_kwh"), (*_COLD, "warm_up_kwh"))

_TERMS = tuple(f"{term}_kwh" for term in TERMS)
_DRIVE = (_TERMS, ("rolling_kwh", "base_kwh", "heating_kwh", "cooling_kwh"))

#: What is tried, by kind; the first is for trips too few to choose by.
FORMS: dict[Kind, tuple[Form, ...]] = {
    "before": tuple(Form("before", c, spread) for c in _BEFORE for spread in _SPREADS),
    "drive": tuple(Form("drive", c, spread) for c in _DRIVE for spread in _SPREADS),
}

#: The same where the battery's temperature at the start is known.
FORMS_WITH_BATTERY = tuple(
    Form("before", (*c, "cold_battery_kwh"), spread)
    for c in (_COLD, _WEATHER)
    for spread in _SPREADS
)

#: How far β may lie from 1, by kind. Of a drive as in `calibration`; before the trip a column
#: stands for more than its name (stopping and starting for one), so it is known less.
SPREAD: dict[Kind, dict[str, float]] = {
    "drive": {f"{term}_kwh": sd for term, sd in PRIOR_SD.items()},
    "before": {
        name: 4.0 if name == "cold_kwh" else 1.0 for name in (*BEFORE_NAMES, *BATTERY_NAMES)
    },
}

#: Scatter of an ordinary trip, kWh/√km: a tenth of the energy of one of 10 km. Worth three trips.
NOISE = Noise(0.05, 3.0)

#: Fewest trips to choose a form by: with fewer, the best of twenty is the luckiest.
FEWEST = 10

#: A clear gain, in its standard errors.
CLEARLY = 2.0


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
        FederationError: FL372, the features are of another kind than a form, or lack a column.
    """
    if any(form.kind != features.kind for form in forms):
        raise FederationError(
            Fault("FL372", f"features of the kind `{features.kind}` for forms of another", "forms")
        )
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


def centre(columns: Sequence[str]) -> dict[str, float]:
    """Return what a form is held to: 1 for kWh of an ordinary car, 0 for anything else."""
    return {name: float(name.endswith("_kwh")) for name in columns}


def fitted(sums: Sums, form: Form, around: Mapping[str, float] | None = None) -> Regression:
    """Fit one form.

    A column that is 0 in all of the trips (heating in a car that was only driven in summer) stays
    as it was beforehand.

    Args:
        sums: Of at least the form's columns.
        form: What to fit.
        around: β⁰ of the columns; `centre` where None.

    Raises:
        FederationError: FL371, the trips do not decide a form that is not held.
    """
    known = centre(form.columns) if around is None else around
    wanted = only(sums, form.columns)
    if np.isinf(form.spread):
        return regress(wanted, form.penalty, known if form.penalty > 0 else None)
    spread = {name: form.spread * SPREAD[form.kind].get(name, 1.0) for name in form.columns}
    return held(wanted, known, spread, NOISE)


def left_out_kwh_per_km(whole: Sums, rows: Sequence[Row], form: Form) -> Floats:
    """Return the errors per km of some rows, each predicted by all the others in `whole`.

    Args:
        whole: Sums of all cars, these rows among them.
        rows: One car's.
        form: What to fit.

    Raises:
        FederationError: FL371, the other trips do not decide a form that is not held.
    """
    return np.array([error_kwh_per_km(fitted(without(whole, row.sums), form), row) for row in rows])


def chosen(cars: Sequence[Sequence[Row]], forms: Sequence[Form], clearly: float = CLEARLY) -> Form:
    """Choose a form by leaving out each trip of each car.

    The gain of a form is by how much |error| per km is less than with the first one. What leaves a
    car are, for each form, the sums of its trips' gains and of their squares. A form that some of
    these trips cannot decide is no candidate. With fewer than ten trips the first form is taken.

    Args:
        cars: Their rows.
        forms: To choose from; the first is the usual one.
        clearly: Standard errors by which another one must gain; 0 for the least error.

    Raises:
        FederationError: FL371, the trips do not decide the usual form.
    """
    whole = total(row.sums for rows in cars for row in rows)
    if whole.n < FEWEST:
        return forms[0]
    usual = [np.abs(left_out_kwh_per_km(whole, rows, forms[0])) for rows in cars]
    best, most = forms[0], 0.0
    for form in forms[1:]:
        gains = squares = 0.0
        try:
            for rows, before in zip(cars, usual, strict=True):
                gain = before - np.abs(left_out_kwh_per_km(whole, rows, form))
                gains, squares = gains + float(gain.sum()), squares + float(gain @ gain)
        except FederationError:
            continue
        mean = gains / whole.n
        if mean > most and mean > clearly * standard_error(gains, squares, whole.n):
            best, most = form, mean
    return best


def trained(rows: Sequence[Row], forms: Sequence[Form], clearly: float = CLEARLY) -> Regression:
    """Return the chosen form, fitted to trips of one place."""
    form = chosen([rows], forms, clearly)
    return fitted(total(row.sums for row in rows), form)


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


def leave_one_trip_out(
    rows: Sequence[Row],
    forms: Sequence[Form],
    level: float = 0.8,
    clearly: float = CLEARLY,
) -> LeftOut:
    """Predict each trip from the others; the form is chosen again without it (see `chosen`)."""
    predicted, width, picked = [], [], []
    for i, row in enumerate(rows):
        others = [*rows[:i], *rows[i + 1 :]]
        form = chosen([others], forms, clearly)
        model = fitted(total(other.sums for other in others), form)
        x = row.columns(form.columns)
        low, high = model.prediction_interval(x, level, np.array([1 / row.distance_km]))
        predicted.append(float(model.predict(x)[0]))
        width.append(float(high[0] - low[0]) / 2)
        picked.append(form)
    return LeftOut(np.array(predicted), np.array(width), tuple(picked))


def error_kwh_per_km(model: Regression, row: Row) -> float:
    """Return predicted − measured, in kWh/km."""
    told = float(model.predict(row.columns(model.names))[0])
    return (told - row.measured_kwh) / row.distance_km


def standard_error(added: float, squares: float, n: int) -> float:
    """Return the standard error of a mean from the sums of n values and of their squares."""
    return float(np.sqrt(max(squares - added**2 / n, 0.0) / (n - 1) / n))

"""Linear regression of a trip's energy as a family of models: cars alone, federated, in one place.

Federated, each car sends the sums of all columns, gets the total back, leaves out its own trips
from it for every form, and sends sums of the gains (`trip_regression.chosen`). Two rounds, and the
result is that of the pooled trips. A car then leaves the fleet's β for one of its own, if its own
trips, each left out in turn, say clearly that this is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.ev.calibration import total
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.regression import Regression, without
from fl_inmetro.ev.trip_features import (
    Features,
    Kind,
    drive_features,
    features_before,
    planned,
)
from fl_inmetro.ev.trip_regression import (
    CLEARLY,
    FEWEST,
    FORMS,
    FORMS_WITH_BATTERY,
    Form,
    Row,
    chosen,
    columns_of,
    error_kwh_per_km,
    fitted,
    rows_of,
    standard_error,
    trained,
)
from fl_inmetro.ev.trips import Trips

#: How far a car's β may lie from the fleet's, in units of the spread around 1.
_FROM_FLEET = (0.3, 1.0)

#: Fewest trips of a car to say so.
_OWN_FEWEST = 4


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
                return trained(rows, self.family.forms)
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
        told = {"drive": "regression", "before": "before_trip"}
        return told[self.kind] + ("_battery" if self.battery else "")

    @property
    def forms(self) -> tuple[Form, ...]:
        """Return what is tried."""
        forms = FORMS[self.kind]
        return (*FORMS_WITH_BATTERY, *forms) if self.battery else forms

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
            models = {car: trained(own, self.forms) for car, own in rows.items()}
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
        trips = sum(len(own) for own in rows.values())
        if training == "central":
            # Each trip's columns, energy and length to the centre, the model back.
            return 8 * (trips * (k + 2) + len(rows) * model)
        sums = k * (k + 1) // 2 + k + 2
        if trips < FEWEST:
            return 8 * len(rows) * (sums + 1 + model)
        # Up: sums, then two of the gains of each other form. Down: the total, the form's number, β.
        return 8 * len(rows) * (sums + 2 * (len(self.forms) - 1) + sums + 1 + model)


def _personal(rows: Sequence[Row], form: Form, fleet: Regression) -> Regression:
    """Return β of a car's own, where its trips, each left out, say clearly that it is better.

    The fleet's β has seen the trips of a car that took part; that favours the fleet a little.
    """
    if len(rows) < _OWN_FEWEST:
        return fleet
    around = dict(zip(fleet.names, fleet.coefficient.tolist(), strict=True))
    whole = total(row.sums for row in rows)
    fleets = np.array([abs(error_kwh_per_km(fleet, row)) for row in rows])
    best, most = fleet, 0.0
    for spread in _FROM_FLEET:
        own = Form(form.kind, form.columns, spread)
        models = [fitted(without(whole, row.sums), own, around) for row in rows]
        errors = [abs(error_kwh_per_km(m, row)) for m, row in zip(models, rows, strict=True)]
        gain = fleets - np.array(errors)
        mean = float(gain.mean())
        error = standard_error(float(gain.sum()), float(gain @ gain), len(rows))
        if mean > most and mean > CLEARLY * error:
            best, most = fitted(whole, own, around), mean
    return best

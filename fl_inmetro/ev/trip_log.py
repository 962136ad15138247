"""Logs of trips that drivers keep: consumption by trip, judged, and told before the trip ends.

Layout of spritmonitor.de's logs. Consumption is what the car shows, not what the charger gave
(which may cover several trips).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.charging.regression import Floats, Rows

#: Columns (names and units are the source's own) by the names used here.
COLUMNS = {
    "car": "vehicle",
    "date": "fuel_date",
    "distance_km": "trip_distance(km)",
    "consumption": "consumption(kWh/100km)",
    "speed_km_h": "avg_speed(km/h)",
    "tyres": "tire_type",
    "style": "driving_style",
    "city": "city",
    "motorway": "motor_way",
    "country": "country_roads",
    "cooling": "A/C",
    "preheated": "park_heating",
}

#: Consumption beyond these is a typing error, kWh/100 km.
LEAST, MOST = 3.0, 35.0

#: Where broken lines bend, km and km/h.
DISTANCE_KNOTS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
SPEED_KNOTS = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0)

#: Trips as long as this one, within a tenth, count as the same way.
SAME_WAY = 0.1

#: Trips of the past that the fleet's or the car's mean is worth.
PRIOR_TRIPS = 2.0


@dataclass(frozen=True, eq=False)
class TripLog:
    """Trips of some cars, by date; all [trip] where nothing else is said.

    Attributes:
        car: Whose trip.
        day: Days since 1970.
        distance_km: Length.
        consumption_kwh_per_100km: As the car showed it.
        speed_km_h: Mean; NaN where it is not known.
        winter_tyres: 0 or 1.
        style: 0 moderate, 1 normal, 2 fast.
        flags: City, motorway, country road, cooling, preheated [trip, 5], 0 or 1.
        excluded: One FL226 for each trip that was left out.
        counts: How many were left out, by kind of reason.
    """

    car: NDArray[np.str_]
    day: NDArray[np.int64]
    distance_km: Floats
    consumption_kwh_per_100km: Floats
    speed_km_h: Floats
    winter_tyres: Floats
    style: Floats
    flags: Floats
    excluded: tuple[Fault, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        """Return the number of trips."""
        return len(self.car)

    def of_car(self, car: str) -> TripLog:
        """Return one car's trips, in their order."""
        rows = self.car == car
        return TripLog(
            self.car[rows],
            self.day[rows],
            self.distance_km[rows],
            self.consumption_kwh_per_100km[rows],
            self.speed_km_h[rows],
            self.winter_tyres[rows],
            self.style[rows],
            self.flags[rows],
        )


def read_trip_log(path: Path) -> TripLog:
    """Read a log in the layout of spritmonitor.de's copies.

    Args:
        path: Parquet file with `COLUMNS`.

    Raises:
        DataError: FL226, the file cannot be read, a column is missing, or no trip is left.
    """
    # Only reading needs pyarrow; the models run without.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise DataError(Fault("FL226", f"the log cannot be read: {problem}", str(path))) from None
    missing = [column for column in COLUMNS.values() if column not in table.column_names]
    if missing:
        raise DataError(
            Fault(
                "FL226",
                f"the log of trips has no {', '.join(f'`{column}`' for column in missing)}",
                str(path),
                "names and units are those of the original files",
            )
        )
    columns = {key: table[column].to_pylist() for key, column in COLUMNS.items()}
    return judged_log(columns, str(path))


def judged_log(columns: dict[str, list[Any]], where: str = "") -> TripLog:
    """Judge trips one by one, and return the good ones by date, in the log's order within a day.

    Args:
        columns: Values by the keys of `COLUMNS`, None where one is missing.
        where: Place to name in errors.

    Raises:
        DataError: FL226, no trip is left.
    """
    excluded: list[Fault] = []
    kinds: Counter[str] = Counter()
    kept = []
    for i in range(len(columns["car"])):
        reason = _reason({key: values[i] for key, values in columns.items()})
        if reason:
            kinds[reason[0]] += 1
            excluded.append(Fault("FL226", reason[1], f"row {i + 1} of the log"))
        else:
            kept.append(i)
    if not kept:
        raise DataError(excluded or [Fault("FL226", "the log has no trip", where)])
    kept.sort(key=lambda i: _day(columns["date"][i]))

    def floats(key: str) -> Floats:
        values = (columns[key][i] for i in kept)
        return np.array([np.nan if value is None else float(value) for value in values])

    styles = {"Moderate": 0.0, "Normal": 1.0, "Fast": 2.0}
    flags = ("city", "motorway", "country", "cooling", "preheated")
    return TripLog(
        np.array([str(columns["car"][i]) for i in kept]),
        np.array([_day(columns["date"][i]) for i in kept], dtype=np.int64),
        floats("distance_km"),
        floats("consumption"),
        floats("speed_km_h"),
        np.array([float("winter" in str(columns["tyres"][i]).lower()) for i in kept]),
        np.array([styles.get(str(columns["style"][i]), 1.0) for i in kept]),
        np.nan_to_num(np.column_stack([floats(key) for key in flags])),
        tuple(excluded),
        tuple(sorted(kinds.items())),
    )


def _reason(trip: dict[str, Any]) -> tuple[str, str] | None:
    """Return why a trip cannot be used: a short name, and what was found."""
    if not trip["car"]:
        return "no car", "no car"
    if not isinstance(trip["date"], date):
        return "no date", "no date"
    distance, consumption = trip["distance_km"], trip["consumption"]
    if distance is None or not 0 < distance < 2000:
        return "no distance", f"a distance of {distance} km"
    if consumption is None or not np.isfinite(consumption):
        return "no consumption", "no consumption"
    if not LEAST <= consumption <= MOST:
        return "typing error", f"{consumption:g} kWh/100 km, {LEAST:g} to {MOST:g} can be"
    return None


def _day(moment: date) -> int:
    day = moment.date() if isinstance(moment, datetime) else moment
    return (day - date(1970, 1, 1)).days


def log_columns(log: TripLog, with_speed: bool = True) -> Floats:
    """Return the columns of one car's trips [trip, column], the intercept first.

    The past is that of the car on earlier days: trips of one day have no order in the log.

    Args:
        log: Of one car.
        with_speed: Whether the mean speed is known (a planner's, or after the trip).
    """
    hats = [_hats(np.log(log.distance_km), np.log(DISTANCE_KNOTS))[:, 1:]]
    if with_speed:
        known = np.isfinite(log.speed_km_h)
        speed = np.where(known, log.speed_km_h, SPEED_KNOTS[3])
        hats += [_hats(speed, np.array(SPEED_KNOTS))[:, 1:] * known[:, None], known[:, None]]
    turn = 2 * np.pi * log.day / 365.2425
    season = np.column_stack([np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)])
    short = np.log(20.0 / log.distance_km).clip(-2.0, 2.0)[:, None]
    return np.hstack(
        [
            np.ones((len(log), 1)),
            *hats,
            season,
            season[:, :1] * short,
            log.winter_tyres[:, None],
            (log.style == 0)[:, None],
            (log.style == 2)[:, None],
            log.flags,
            log.flags[:, 4:] * short,
            _past(log),
        ]
    )


def _past(log: TripLog) -> Floats:
    """Return recent means of the car's consumption [trip, 4]: short, long, same way, by day."""
    y = log.consumption_kwh_per_100km
    found = np.zeros((len(log), 4))
    for i in range(len(log)):
        known = np.flatnonzero(log.day < log.day[i])
        if not len(known):
            # The first day knows nothing; the middle of what cars need is no trip's own.
            found[i] = 15.0
            continue
        back = known[::-1]
        middle = float(np.mean(y[known]))
        order = np.arange(len(back))
        alike = np.abs(np.log(log.distance_km[back] / log.distance_km[i])) < SAME_WAY
        weights = (
            0.8**order,
            0.95**order,
            0.8 ** np.cumsum(alike) * alike,
            0.9 ** (log.day[i] - log.day[back]),
        )
        for k, weight in enumerate(weights):
            found[i, k] = (weight @ y[back] + PRIOR_TRIPS * middle) / (weight.sum() + PRIOR_TRIPS)
    return found


def _hats(values: Floats, knots: Floats) -> Floats:
    unit = np.eye(len(knots))
    return np.column_stack([np.interp(values, knots, row) for row in unit])


def car_rows(log: TripLog, cars: Sequence[str], with_speed: bool = True) -> dict[str, Rows]:
    """Return each car's rows for `charging.regression`: a car is a client."""
    found = {}
    for car in cars:
        own = log.of_car(car)
        found[car] = Rows(log_columns(own, with_speed), own.consumption_kwh_per_100km)
    return found

"""Energy of a measured car's trips from the drive, each trip left out in turn.

    FL_INMETRO_DATA=… python benchmarks/ev_bmw.py [--json]

Speed, elevation, temperatures, and the power of heater and air conditioning go in; battery voltage,
current, state of charge and torque do not. Everything that is fitted or chosen is fitted and chosen
again without the trip that is predicted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro import seeds  # noqa: E402
from fl_inmetro.ev.calibration import (  # noqa: E402
    TERMS,
    calibrate,
    sums_of,
    sums_per_trip,
    term_powers,
    total,
)
from fl_inmetro.ev.drives import Floats  # noqa: E402
from fl_inmetro.ev.parameters import Vehicle, public_cars  # noqa: E402
from fl_inmetro.ev.residual import left_out_kwh_per_km, prepared  # noqa: E402
from fl_inmetro.ev.trips import Limits, Trips, read_trips  # noqa: E402
from fl_inmetro.ev.validation import Scores, leave_one_trip_out, scores  # noqa: E402

#: Nothing is refused for a stuck signal or for its charge: the trips as the table has them.
LENIENT = Limits(stuck_s=100_000, capacity_tolerance=9.0)


@dataclass(frozen=True)
class Row:
    """One model on the trips that were left out."""

    model: str
    trips: int
    scores: Scores


def without_trip(values: Floats) -> Floats:
    """Return the mean of all other values [trip]."""
    mean: Floats = (values.sum() - values) / (len(values) - 1)
    return mean


def references(trips: Trips) -> Iterator[Row]:
    """Yield what needs no physics, and the ordinary car as it is."""
    energy, distance = trips.terminal_kwh, trips.distance_km
    rate = without_trip(energy) / without_trip(distance)
    yield Row("all energy / all km × km", len(energy), scores(rate * distance, energy, distance))
    consumption = without_trip(energy / distance)
    yield Row(
        "mean consumption × km", len(energy), scores(consumption * distance, energy, distance)
    )
    ordinary = trips.drives.sums(term_powers(trips.drives, Vehicle()).sum(axis=1)) / 3600
    yield Row("ordinary car, not calibrated", len(energy), scores(ordinary, energy, distance))


def model(name: str, trips: Trips, learned: bool) -> Row:
    """Return one model's row."""
    physical = term_powers(trips.drives, Vehicle())
    ready = prepared(physical, trips.interval_kw, trips.drives, trips.battery_deg_c)
    left = leave_one_trip_out(ready, learned)
    return Row(
        name,
        len(ready),
        scores(left.predicted_kwh, trips.terminal_kwh, trips.distance_km, left.half_width_kwh),
    )


def all_rows(path: Path) -> Iterator[Row]:
    """Yield every row."""
    trips = read_trips(path)
    yield from references(trips)
    yield model("calibrated physics", trips, learned=False)
    yield model("physics + learned rest", trips, learned=True)
    everything = read_trips(path, LENIENT)
    yield model("calibrated physics, bad trip kept", everything, learned=False)
    yield model("physics + learned rest, bad trip kept", everything, learned=True)
    rough = read_trips(path, height_window=1)
    yield model("calibrated physics, heights as they are", rough, learned=False)
    yield model("calibrated physics, heater's report only", reported(path, trips), learned=False)
    drives = replace(trips.drives, heating_kw=None, cooling_kw=None)
    by_weather = replace(trips, drives=drives)
    yield model("calibrated physics, heating by weather", by_weather, learned=False)


def few_trips(trips: Trips, counts: tuple[int, ...] = (1, 3, 5, 10, 20)) -> dict[int, float]:
    """Return kWh/100 km MAE on the other trips after calibration with some; means of 200 draws."""
    physical = term_powers(trips.drives, Vehicle())
    sums = sums_per_trip(physical, trips.interval_kw, trips.drives)
    columns = np.add.reduceat(physical, trips.drives.offsets[:-1]) / 3600
    rng = seeds.derive(0, "ev", "few-trips")
    errors: dict[int, list[float]] = {count: [] for count in counts if count < len(sums)}
    for _ in range(200):
        order = rng.permutation(len(sums))
        for count, found in errors.items():
            factor = calibrate(total(sums[i] for i in order[:count])).factor
            rest = order[count:]
            error = np.abs(columns[rest] @ factor - trips.terminal_kwh[rest])
            found.append(float(np.mean(100 * error / trips.distance_km[rest])))
    return {count: float(np.mean(found)) for count, found in errors.items()}


def from_every_car(trips: Trips) -> dict[str, float]:
    """Return kWh/100 km MAE, each trip left out, when another public car is the ordinary one."""
    found = {}
    for name, car in public_cars().items():
        physical = term_powers(trips.drives, car.vehicle)
        ready = prepared(physical, trips.interval_kw, trips.drives, trips.battery_deg_c)
        found[name] = 100 * float(np.mean(np.abs(left_out_kwh_per_km(ready, 0.0))))
    return found


def reported(path: Path, trips: Trips) -> Trips:
    """Return the trips with the heater's reported power, whatever was asked of it."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["trip_id", "Heating Power CAN [kW]"])
    kept = np.isin(np.array(table["trip_id"].to_pylist()), trips.names)
    heating = table["Heating Power CAN [kW]"].to_numpy().astype(np.float64)[kept]
    return replace(trips, drives=replace(trips.drives, heating_kw=heating))


def main() -> None:
    """Print the table, or the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    path = Path(os.environ["FL_INMETRO_DATA"]) / "ev_bmw_i3" / "signals_1hz.parquet"
    rows = list(all_rows(path))
    if asked.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))
        return
    print("| model | trips | MAE kWh/100 km | MAE kWh | RMSE kWh | MAPE % | inside 80 % |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        found = row.scores
        cells = [
            f"{score.value:.{digits}f} ({score.low:.{digits}f} – {score.high:.{digits}f})"
            for score, digits in (
                (found.mae_kwh_per_100km, 2),
                (found.mae_kwh, 3),
                (found.rmse_kwh, 3),
                (found.mape_percent, 1),
            )
        ]
        inside = "" if found.coverage_80 is None else f"{100 * found.coverage_80:.0f} %"
        print(f"| {row.model} | {row.trips} | {' | '.join(cells)} | {inside} |")
    trips = read_trips(path)
    print()
    for fault in trips.excluded:
        print(f"left out: {fault.code} {fault.reason()}")
    level = [name for name, flat in zip(trips.names, trips.level, strict=True) if flat]
    print(f"counted as level: {', '.join(level)}")
    physical = term_powers(trips.drives, Vehicle())
    whole = calibrate(sums_of(physical, trips.interval_kw, trips.drives))
    print("factors on the ordinary car, with standard errors, all trips:")
    for name, factor, error in zip(TERMS, whole.factor, whole.standard_error, strict=True):
        print(f"  {name:13} {factor:.2f} ± {error:.2f}")
    print("kWh/100 km on the others after calibration with")
    for count, value in few_trips(trips).items():
        print(f"  {count:2} trips: {value:.2f}")
    others = from_every_car(trips)
    print(
        f"from each of {len(others)} public cars as the ordinary one: {min(others.values()):.2f} "
        f"({min(others, key=lambda name: others[name])}) to {max(others.values()):.2f} "
        f"({max(others, key=lambda name: others[name])}) kWh/100 km"
    )


if __name__ == "__main__":
    main()

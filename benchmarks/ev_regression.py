"""Linear regression of a measured car's trips, each trip left out in turn.

    FL_INMETRO_DATA=… python benchmarks/ev_regression.py [--json]

Columns and pull are chosen again without the trip that is predicted. Battery voltage, current,
state of charge and torque are in no feature.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro import seeds  # noqa: E402
from fl_inmetro.ev.calibration import total  # noqa: E402
from fl_inmetro.ev.family import Training  # noqa: E402
from fl_inmetro.ev.regression import only, regress  # noqa: E402
from fl_inmetro.ev.trip_family import TripRegression  # noqa: E402
from fl_inmetro.ev.trip_features import drive_features, features_before, planned  # noqa: E402
from fl_inmetro.ev.trip_regression import (  # noqa: E402
    CLEARLY,
    Form,
    chosen,
    fitted,
    leave_one_trip_out,
    rows_of,
    trained,
)
from fl_inmetro.ev.trips import Limits, Trips, read_trips  # noqa: E402
from fl_inmetro.ev.validation import Scores, scores  # noqa: E402

#: Nothing is refused for a stuck signal or for its charge: the trips as the table has them.
LENIENT = Limits(stuck_s=100_000, capacity_tolerance=9.0)

BEFORE, DRIVE = TripRegression("before"), TripRegression("drive")
WITH_BATTERY = TripRegression("before", battery=True)

#: Least squares without any choice on what is known before: the way alone, and what everyone
#: writes down first.
PLAIN = {
    "km": ("distance_km",),
    "km, hours": ("distance_km", "duration_h"),
    "km, hours, degrees": ("distance_km", "duration_h", "heating_degree_k", "cooling_degree_k"),
}

#: Of a drive, without physics: what the literature's regressions have, in kWh, km, h and their
#: products; the penalty is chosen.
KINEMATIC = (
    "distance_km",
    "duration_h",
    "stops",
    "ascent_m",
    "descent_m",
    "heater_kwh",
    "air_conditioning_kwh",
)
PENALTIES = (0.01, 0.0, 0.001, 0.1)

#: Clients among which the one car's trips are dealt.
CLIENTS = 6


@dataclass(frozen=True)
class Row:
    """One model on the trips that were left out."""

    model: str
    trips: int
    scores: Scores


def references(trips: Trips, tag: str) -> Iterator[Row]:
    """Yield what needs no regression, and plain least squares."""
    energy, km = trips.terminal_kwh, trips.distance_km
    rate = (energy.sum() - energy) / (km.sum() - km)
    yield Row(f"all energy / all km × km{tag}", len(km), scores(rate * km, energy, km))
    mean = ((energy / km).sum() - energy / km) / (len(km) - 1)
    yield Row(f"mean consumption × km{tag}", len(km), scores(mean * km, energy, km))
    before = features_before(planned(trips.drives))
    for name, columns in PLAIN.items():
        form = Form("before", columns)
        found = leave_one_trip_out(rows_of(before, energy, km, (form,)), (form,))
        told = scores(found.predicted_kwh, energy, km, found.half_width_kwh)
        yield Row(f"least squares on {name}{tag}", len(km), told)
    forms = tuple(Form("drive", KINEMATIC, penalty=penalty) for penalty in PENALTIES)
    rows = rows_of(drive_features(trips.drives), energy, km, forms)
    found = leave_one_trip_out(rows, forms, clearly=0)
    told = scores(found.predicted_kwh, energy, km, found.half_width_kwh)
    yield Row(f"ridge on seven features of the drive{tag}", len(km), told)


def family_row(
    family: TripRegression, trips: Trips, tag: str, clearly: float = CLEARLY
) -> tuple[Row, Counter[Form]]:
    """Return a family's row, and what was chosen how often."""
    rows = family.rows(trips)
    found = leave_one_trip_out(rows, family.forms, clearly=clearly)
    km, energy = trips.distance_km, trips.terminal_kwh
    told = scores(found.predicted_kwh, energy, km, found.half_width_kwh)
    return Row(family.name + tag, len(km), told), Counter(found.forms)


def unsure_duration(trips: Trips, share: float) -> Row:
    """Return the row of plans whose duration is off by so much (log-normal); training knows it."""
    rows = BEFORE.rows(trips)
    plan = planned(trips.drives)
    rng = seeds.derive(0, "ev", "expected-duration")
    off = np.exp(share * rng.standard_normal(len(rows)))
    guessed = features_before(replace(plan, duration_h=plan.duration_h * off))
    told = []
    for i in range(len(rows)):
        others = [*rows[:i], *rows[i + 1 :]]
        model = trained(others, BEFORE.forms)
        told.append(float(model.predict(guessed.columns(model.names)[i : i + 1])[0]))
    name = f"{BEFORE.name}, duration off by {100 * share:.0f} %"
    energy, km = trips.terminal_kwh, trips.distance_km
    return Row(name, len(rows), scores(np.array(told), energy, km))


def few_trips(
    family: TripRegression,
    trips: Trips,
    counts: tuple[int, ...] = (1, 3, 5, 10, 20),
    draws: int = 40,
) -> dict[int, float]:
    """Return kWh/100 km MAE on the other trips after learning from some; means of draws."""
    rows = family.rows(trips)
    rng = seeds.derive(0, "ev", "few-trips")
    errors: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(draws):
        order = rng.permutation(len(rows))
        for count, found in errors.items():
            own = [rows[i] for i in order[:count]]
            model = trained(own, family.forms)
            for i in order[count:]:
                told = model.predict(rows[i].columns(model.names))[0]
                found.append(100 * abs(told - rows[i].measured_kwh) / rows[i].distance_km)
    return {count: float(np.mean(found)) for count, found in errors.items()}


def some(trips: Trips, wanted: list[int]) -> Trips:
    """Return some of the trips."""
    drives = trips.drives
    take = np.concatenate([np.arange(drives.offsets[i], drives.offsets[i + 1]) for i in wanted])
    return Trips(
        tuple(trips.names[i] for i in wanted),
        drives.only(wanted),
        trips.terminal_kw[take],
        trips.battery_deg_c[take],
        trips.level[wanted],
        (),
    )


def dealt(family: TripRegression, trips: Trips) -> dict[str, tuple[Row, int]]:
    """Return local, federated and central training, the trips dealt to clients of one car each.

    The second number is what moved for one training, in bytes.
    """
    n = len(trips.names)
    client = seeds.derive(0, "ev", "dealt").permutation(n) % CLIENTS
    found = {}
    energy, km = trips.terminal_kwh, trips.distance_km
    trainings: tuple[Training, ...] = ("local", "federated", "central")
    for training in trainings:
        told = np.zeros(n)
        for i in range(n):
            fleet = {
                f"client {c}": some(trips, [j for j in range(n) if client[j] == c and j != i])
                for c in range(CLIENTS)
            }
            model = family.fit(fleet, training)
            told[i] = model.predict(f"client {client[i]}", some(trips, [i]))[0]
        row = Row(f"{family.name}, {training}", n, scores(told, energy, km))
        found[training] = (row, model.moved_bytes)
    return found


def largest_difference(family: TripRegression, trips: Trips) -> float:
    """Return the largest relative difference of federated and pooled β, six clients."""
    n = len(trips.names)
    fleet = {f"{c}": some(trips, list(range(c, n, CLIENTS))) for c in range(CLIENTS)}
    one, other = (family.fit(fleet, how) for how in ("federated", "central"))
    whole = trained(family.rows(trips), family.forms)
    assert one.fleet is not None
    assert other.fleet is not None
    gaps = [np.abs(m.coefficient / whole.coefficient - 1).max() for m in (one.fleet, other.fleet)]
    return float(max(gaps))


def coefficients(family: TripRegression, trips: Trips) -> None:
    """Print the plain regression of the form that all trips choose."""
    rows = family.rows(trips)
    form = chosen([rows], family.forms)
    whole = total(row.sums for row in rows)
    held, plain = fitted(whole, form), regress(only(whole, form.columns))
    print(f"\n{family.name}, all trips, spread {form.spread:g} (then least squares: β, error, t):")
    for name, value, known, free, error, t in zip(
        form.columns,
        held.coefficient,
        held.standard_error,
        plain.coefficient,
        plain.standard_error,
        plain.t_value,
        strict=True,
    ):
        print(f"  {name:18} {value:6.2f} ± {known:.2f}   {free:6.2f} ± {error:.2f}, {t:5.1f}")
    print(f"  R² {plain.r_squared:.4f}, σ {held.noise:.4f} kWh/√km")


def cells(values: Scores) -> str:
    """Return a row's scores for the table."""
    told = [
        f"{score.value:.{digits}f} ({score.low:.{digits}f} – {score.high:.{digits}f})"
        for score, digits in (
            (values.mae_kwh_per_100km, 2),
            (values.mae_kwh, 3),
            (values.rmse_kwh, 3),
            (values.mape_percent, 1),
        )
    ]
    inside = "" if values.coverage_80 is None else f"{100 * values.coverage_80:.0f} %"
    return f"{' | '.join(told)} | {inside}"


def main() -> None:
    """Print the tables, or the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    path = Path(os.environ["FL_INMETRO_DATA"]) / "ev_bmw_i3" / "signals_1hz.parquet"
    sets: list[tuple[Trips, str]] = [
        (read_trips(path), ""),
        (read_trips(path, LENIENT), ", bad trip kept"),
    ]
    rows, picked = [], {}
    for trips, tag in sets:
        rows += list(references(trips, tag))
        for family in (BEFORE, WITH_BATTERY, DRIVE):
            row, forms = family_row(family, trips, tag)
            rows.append(row)
            picked[row.model] = forms
            row, forms = family_row(family, trips, f", least error{tag}", clearly=0)
            rows.append(row)
            picked[row.model] = forms
    good = sets[0][0]
    rows += [unsure_duration(good, share) for share in (0.1, 0.2)]
    together = {family.name: dealt(family, good) for family in (BEFORE, DRIVE)}
    few = {family.name: few_trips(family, good) for family in (BEFORE, DRIVE)}
    if asked.json:
        print(
            json.dumps(
                {
                    "rows": [asdict(row) for row in rows],
                    "dealt": {
                        name: {how: [asdict(row), moved] for how, (row, moved) in found.items()}
                        for name, found in together.items()
                    },
                    "few_trips": few,
                },
                indent=1,
            )
        )
        return
    print("| model | trips | MAE kWh/100 km | MAE kWh | RMSE kWh | MAPE % | inside 80 % |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.model} | {row.trips} | {cells(row.scores)} |")
    print("\nchosen, with the trips left out:")
    for name, forms in picked.items():
        for form, count in forms.most_common(2):
            columns = ", ".join(column.removesuffix("_kwh") for column in form.columns)
            print(f"  {name}: {count} × spread {form.spread:g}, {columns}")
    print(f"\n{CLIENTS} clients, one car's trips dealt among them:")
    for found in together.values():
        for row, moved in found.values():
            print(f"| {row.model} | {cells(row.scores)} | {moved} bytes |")
    for family in (BEFORE, DRIVE):
        print(f"federated against pooled, {family.name}: {largest_difference(family, good):.1e}")
    print("\nkWh/100 km on the others after learning from so many trips:")
    for name, found in few.items():
        told = ", ".join(f"{count}: {value:.2f}" for count, value in found.items())
        print(f"  {name}: {told}")
    for family in (BEFORE, WITH_BATTERY, DRIVE):
        coefficients(family, good)


if __name__ == "__main__":
    main()

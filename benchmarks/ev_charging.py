"""Charging on two public sets: sessions told at plug-in, hubs told at midnight, and a trip log.

    FL_INMETRO_DATA=… python benchmarks/ev_charging.py [--part sessions|hubs|log] [--json]

The last month (homes) and the last fifth of the sessions (workplaces) are told by models that
learned from what had ended before; `--validation` does the same one stretch earlier, which is what
settings were chosen on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro.errors import FederationError  # noqa: E402
from fl_inmetro.ev.charging.forecast import (  # noqa: E402
    Settings,
    Target,
    columns,
    fit,
    fit_local,
)
from fl_inmetro.ev.charging.hub_references import four_weeks, last_week, usual  # noqa: E402
from fl_inmetro.ev.charging.hubs import HubSeries, hourly  # noqa: E402
from fl_inmetro.ev.charging.hurdle import (  # noqa: E402
    HubForecast,
    fit_hurdle,
    fit_plain,
)
from fl_inmetro.ev.charging.past import past  # noqa: E402
from fl_inmetro.ev.charging.regression import (  # noqa: E402
    Floats,
    Rows,
    mean_fit,
    quantile_fit,
)
from fl_inmetro.ev.charging.scoring import (  # noqa: E402
    HubScore,
    PointScore,
    gain,
    hub_score,
    point_score,
)
from fl_inmetro.ev.charging.sessions import Sessions  # noqa: E402
from fl_inmetro.ev.charging.sources import read_norway, read_workplace  # noqa: E402
from fl_inmetro.ev.trip_log import car_rows, read_trip_log  # noqa: E402
from fl_inmetro.units import DAY_S  # noqa: E402

#: Chosen with `--validation`, as 1e-4 is for all hubs together.
LOCAL_RIDGE = 1e-2

Interval = tuple[Floats, Floats]


@dataclass(frozen=True)
class SessionRow:
    """One model on the sessions of the test."""

    data: str
    target: str
    model: str
    score: PointScore
    inside_80: float | None
    width: float | None
    gain_on_own_mean: tuple[float, float, float]


def local_second(year: int, month: int) -> int:
    """Return the first second of a month on a local clock."""
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp())


def cut_of(name: str, sessions: Sessions, validation: bool) -> tuple[int, int]:
    """Return the test's first second and the one after its last, of the local clock."""
    if name == "homes":
        months = [local_second(2019, month) for month in (11, 12)] + [local_second(2020, 1)]
        return (months[0], months[1]) if validation else (months[1], months[2])
    ends = [int(sessions.local_s[int(share * len(sessions))]) for share in (0.6, 0.8)]
    whole = int(sessions.local_s[-1]) + 1
    return (ends[0], ends[1]) if validation else (ends[1], whole)


def session_rows(
    name: str, sessions: Sessions, target: Target, validation: bool
) -> Iterator[SessionRow]:
    """Yield every model's row."""
    first, last = cut_of(name, sessions, validation)
    sessions = sessions.take(sessions.local_s < last)
    test = sessions.local_s >= first
    cut_utc_s = int(sessions.start_utc_s[test][0])
    train = ~test & (sessions.end_utc_s <= cut_utc_s)
    truth = getattr(sessions, target)
    known = past(sessions, truth)
    mean = float(truth[train].mean())
    fixed = {
        user: float(truth[train & (sessions.user == user)].mean())
        for user in np.unique(sessions.user[train])
    }
    began = known.n > 0
    so_far = np.where(began, known.total / np.maximum(known.n, 1), mean)
    federated = fit(sessions, train, target)
    told = federated.predict(sessions, test)
    central = fit(sessions, train, target, training="central").predict(sessions, test)
    moved = fit(sessions, train, target, Settings(conformal=True)).predict(sessions, test)
    x = columns(sessions, known, federated.fleet)[test]
    y, user = truth[test], sessions.user[test]

    def row(model: str, values: Floats, between: Interval | None = None) -> SessionRow:
        inside = width = None
        if between is not None:
            low, high = between
            inside = float(np.mean((low <= y) & (y <= high)))
            width = float(np.mean(high - low))
        return SessionRow(
            name,
            target,
            model,
            point_score(values, y, user),
            inside,
            width,
            gain(values, so_far[test], y, user),
        )

    yield row("mean of all", np.full(len(y), mean))
    yield row("own mean before the test", np.array([fixed.get(str(u), mean) for u in user]))
    yield row("own mean so far", so_far[test])
    yield row("own median so far", np.where(began, known.middle, np.median(truth[train]))[test])
    # Columns 1, 4, 5 and 6: mean and quantiles so far, shrunken towards the fleet's.
    yield row("shrunken mean so far", x[:, 1])
    yield row("shrunken median so far", x[:, 5], (x[:, 4], x[:, 6]))
    yield row("federated, mean", told.mean)
    yield row("federated, median", told.middle, (told.low, told.high))
    yield row(
        "federated, median, interval moved by the last fifth", moved.middle, (moved.low, moved.high)
    )
    yield row("central, median", central.middle, (central.low, central.high))
    local = fit_local(sessions, train, target)
    has = test & np.isin(sessions.user, list(local.models))
    if has.any():
        own = local.predict(sessions, has)
        y, user = truth[has], sessions.user[has]
        test = has
        again = federated.predict(sessions, has)
        yield row("users with a local model: own mean so far", so_far[has])
        yield row("users with a local model: local, median", own.middle, (own.low, own.high))
        yield row("users with a local model: federated", again.middle, (again.low, again.high))


@dataclass(frozen=True)
class HubRow:
    """One model on the hours of the test."""

    data: str
    hubs: int
    power_kw: float
    model: str
    score: HubScore


def hub_rows(name: str, sessions: Sessions, validation: bool, power_kw: float) -> Iterator[HubRow]:
    """Yield every model's row."""
    # Whole days only: of the day of a cut the rest is neither known nor asked.
    begin_s, end_s = cut_of(name, sessions, validation)
    first, last = -(-begin_s // DAY_S), end_s // DAY_S
    hubs = [series.until(last) for series in hourly(sessions, power_kw)]
    learn = [series.until(first) for series in hubs if series.first_day < first]
    asked = [series for series in hubs if len(series.energy_kwh) and series.days[-1] >= first]
    hurdle, plain = fit_hurdle(learn), fit_plain(learn)
    alone: dict[str, Callable[[HubSeries], HubForecast]] = {}
    for series in learn:
        try:
            alone[series.name] = fit_hurdle([series], LOCAL_RIDGE).predict
        except FederationError:  # never used, or always: nothing to learn from
            continue
    models: dict[str, Callable[[HubSeries], HubForecast]] = {
        "last week": last_week,
        "four weeks, hour × weekday": four_weeks,
        "usual, hour × weekend": usual,
        "linear, no hurdle": plain.predict,
        "hurdle, local (usual without)": lambda one: alone.get(one.name, usual)(one),
        "hurdle, federated": hurdle.predict,
    }
    for model, tell in models.items():
        told, truth = [], []
        for series in asked:
            rows = np.repeat(series.days, 24) >= first
            whole = tell(series)
            told.append(
                HubForecast(whole.chance[rows], whole.mean_kwh[rows], whole.quantiles_kwh[rows])
            )
            truth.append(series.energy_kwh.reshape(-1)[rows])
        yield HubRow(name, len(asked), power_kw, model, hub_score(told, truth))


@dataclass(frozen=True)
class LogRow:
    """One model on the last fifth of each car's log, kWh/100 km."""

    model: str
    trips: int
    mae: float
    rmse: float


def log_rows(path: Path, validation: bool) -> Iterator[LogRow]:
    """Yield every model's row; validation tells the fifth before the last."""
    log = read_trip_log(path)
    cars = [str(car) for car in np.unique(log.car)]
    low, high = (0.6, 0.8) if validation else (0.8, 1.0)
    for speed in (True, False):
        rows = car_rows(log, cars, speed)
        learn = {car: _part(own, 0.0, low) for car, own in rows.items()}
        test = {car: _part(own, low, high) for car, own in rows.items()}
        both = list(learn.values())
        fleet_median, fleet_mean = quantile_fit(both, 0.5, 1e-3), mean_fit(both, 1e-3)
        betas: dict[str, dict[str, Floats]] = {
            "a model for each car, mean": {c: mean_fit([r], 1e-3) for c, r in learn.items()},
            "a model for each car, median": {
                c: quantile_fit([r], 0.5, 1e-3) for c, r in learn.items()
            },
            "one federated model, mean": dict.fromkeys(cars, fleet_mean),
            "one federated model, median": dict.fromkeys(cars, fleet_median),
        }
        if speed:
            yield _log_row("mean of each car", [test[c].y - learn[c].y.mean() for c in cars])
        for name, beta in betas.items():
            errors = [test[c].y - test[c].x @ beta[c] for c in cars]
            yield _log_row(name + ("" if speed else ", speed not known"), errors)


def _part(rows: Rows, low: float, high: float) -> Rows:
    at = slice(int(low * len(rows)), int(high * len(rows)))
    return Rows(rows.x[at], rows.y[at])


def _log_row(name: str, errors: list[Floats]) -> LogRow:
    error = np.concatenate(errors)
    return LogRow(name, len(error), float(np.abs(error).mean()), float(np.sqrt((error**2).mean())))


def known(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row without NaN, which JSON does not have: a score that a model lacks is null."""
    return {
        key: known(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and np.isnan(value)
        else value
        for key, value in values.items()
    }


def print_sessions(rows: list[SessionRow]) -> None:
    """Print the sessions' table."""
    print("\n| set | what | model | MAE | RMSE | less MAE than own mean so far | inside | width |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        s, (by, low, high) = row.score, row.gain_on_own_mean
        inside = "" if row.inside_80 is None else f"{100 * row.inside_80:.0f} %"
        width = "" if row.width is None else f"{row.width:.2f}"
        print(
            f"| {row.data} | {row.target} | {row.model} ({s.sessions} of {s.users}) | {s.mae:.2f} "
            f"({s.mae_low:.2f} – {s.mae_high:.2f}) | {s.rmse:.2f} | {by:+.2f} ({low:+.2f} – "
            f"{high:+.2f}) | {inside} | {width} |"
        )


def print_hubs(rows: list[HubRow]) -> None:
    """Print the hubs' table."""
    print(
        "\n| set | plug kW | model | MAE median | MAE mean | nMAE | RMSE | pinball .1 / .5 / .9 | "
        "CRPS | WQL | Brier | calibration |"
    )
    print("|" + "---|" * 12)
    for row in rows:
        s = row.score
        pinball = " / ".join(f"{value:.4f}" for value in s.pinball)
        brier = "" if np.isnan(s.brier) else f"{s.brier:.4f}"
        calibration = "" if np.isnan(s.calibration) else f"{s.calibration:.3f}"
        print(
            f"| {row.data} | {row.power_kw:g} | {row.model} | {s.mae_kwh:.3f} | "
            f"{s.mean_mae_kwh:.3f} | {s.nmae:.2f} | {s.rmse_kwh:.3f} | {pinball} | "
            f"{s.crps_kwh:.3f} | {s.wql:.3f} | {brier} | {calibration} |"
        )
    for row in rows[::6]:
        asked = f"{row.hubs} hubs, {row.score.hours} hours, {row.score.use:.1%} used"
        print(f"{row.data}, {row.power_kw:g} kW: {asked}")


def main() -> None:
    """Print the tables, or the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=("sessions", "hubs", "log"))
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    root = Path(os.environ["FL_INMETRO_DATA"])
    sets = {
        "homes": read_norway(root / "ev_charging_norway" / "sessions.parquet"),
        "workplaces": read_workplace(root / "ev_charging_workplace" / "sessions.parquet"),
    }
    targets: tuple[Target, ...] = ("energy_kwh", "duration_h")
    parts = (asked.part,) if asked.part else ("sessions", "hubs", "log")
    told, hubs, log = [], [], []
    for name, sessions in sets.items():
        if "sessions" in parts:
            for target in targets:
                told += session_rows(name, sessions, target, asked.validation)
        if "hubs" in parts:
            for power_kw in (3.6, 7.2):
                hubs += hub_rows(name, sessions, asked.validation, power_kw)
    path = root / "ev_spritmonitor" / "trips.parquet"
    if "log" in parts and path.exists():
        log = list(log_rows(path, asked.validation))
    if asked.json:
        found = {"sessions": told, "hubs": hubs, "log": log}
        lists = {part: [known(asdict(row)) for row in rows] for part, rows in found.items()}
        print(json.dumps(lists, indent=1, allow_nan=False))
        return
    for name, sessions in sets.items():
        print(f"{name}: {len(sessions)} sessions, left out: {dict(sessions.counts)}")
    if told:
        print_sessions(told)
    if hubs:
        print_hubs(hubs)
    if log:
        print("\n| model | trips | MAE | RMSE |\n|---|---|---|---|")
        for row in log:
            print(f"| {row.model} | {row.trips} | {row.mae:.2f} | {row.rmse:.2f} |")


if __name__ == "__main__":
    main()

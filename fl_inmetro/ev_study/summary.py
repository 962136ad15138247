"""A comparison as one object, with the literature's table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fl_inmetro.ev_study.compare import Row
from fl_inmetro.ev_study.families import BEFORE
from fl_inmetro.ev_study.folds import cars
from fl_inmetro.ev_study.scenes import Scene, Wishes

#: What others report of trips that nobody else has: never a result of ours.
CITED = {
    "source": "Zhang et al. 2024 (review)",
    "measured_here": False,
    "rows": [
        {"model": "vehicle dynamics", "rmse_kwh": 6.06, "mape_percent": 14.10},
        {"model": "XGBoost", "rmse_kwh": 3.94, "mape_percent": 9.31},
        {"model": "LSTM", "rmse_kwh": 3.61, "mape_percent": 8.69},
        {"model": "Transformer", "rmse_kwh": 2.98, "mape_percent": 7.21},
    ],
}


def summary(scene: Scene, wishes: Wishes, rows: Sequence[Row], complete: bool) -> dict[str, Any]:
    """Return what is printed, written and given as JSON."""
    return {
        "data": scene.data,
        "simulated": scene.simulated,
        "traces": scene.speeds,
        "logs": scene.logs,
        "folds": len(scene.folds),
        "cars": cars(scene.folds),
        "trips": sum(len(task.trips.names) for fold in scene.folds for task in fold.tasks),
        **asdict(wishes),
        "complete": complete,
        "excluded": [fault.reason() for fault in scene.excluded],
        "rows": [_row(row) for row in rows],
        "cited": CITED,
    } | {"folds": len(scene.folds), "logs": scene.logs}


def _row(row: Row) -> dict[str, Any]:
    found = row.scores
    named = {
        "mae_kwh": found.mae_kwh,
        "rmse_kwh": found.rmse_kwh,
        "mape_percent": found.mape_percent,
        "mae_kwh_per_100km": found.mae_kwh_per_100km,
    }
    return {
        "model": row.model,
        "training": row.training,
        "task": "before" if row.model in BEFORE else "drive",
        "group": row.group,
        "cars": row.cars,
        "trips": row.trips,
        **{key: score.value for key, score in named.items()},
        **{f"{key}_95": [score.low, score.high] for key, score in named.items()},
        "coverage_80": found.coverage_80,
        "width_80_kwh": row.width_80_kwh,
        "parameters": row.parameters,
        "bytes": row.moved_bytes,
        "seconds": row.seconds,
    }

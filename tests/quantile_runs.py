"""Runs made by hand whose forecasts have quantiles, and rows that differ by a known amount."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats

from fl_inmetro.events import ModelScored
from fl_inmetro.metrics import client_scores, quantile_column, score_fleet
from fl_inmetro.runs.points import points_of
from fl_inmetro.seeds import derive
from tests.builders import BASELINES, client_names, compare_events, create

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)

#: Standard deviation of each row's errors, kWh; the load is about 1 kWh.
NOISE_KWH = {"mlp": 0.10, "ridge": 0.10, **dict.fromkeys(BASELINES, 0.2)}


def forecast_table(
    clients: list[str],
    lines: list[tuple[str, str]],
    days: int = 14,
    spread: float = 1.0,
    load_seed: int = 7,
) -> pa.Table:
    """Daily 24 h forecasts of normal errors; `mlp` has quantiles, `spread` times as wide as right.

    The first client's errors are twice the others', and nobody tells its quantiles.
    """
    start = datetime(2024, 5, 15, 3, tzinfo=UTC)
    hours = np.arange(24 * days)
    columns: dict[str, list[Any]] = {}

    def put(**values: Any) -> None:
        for name, value in values.items():
            columns.setdefault(name, []).extend(value)

    for place, name in enumerate(clients):
        rng = derive(load_seed, "load", name)
        observed = 1.0 + 0.5 * np.sin(hours * 2 * np.pi / 24) + rng.normal(0, 0.02, hours.size)
        for model, training in lines:
            noise = derive(7, "noise", name, model, training)
            kwh = NOISE_KWH[model] * (2 if place == 0 else 1)
            mean = observed + noise.normal(0, kwh, hours.size)
            put(
                client_id=[name] * hours.size,
                issue_time_utc=[start + timedelta(days=int(h) // 24) for h in hours],
                target_time_utc=[start + timedelta(hours=int(h)) for h in hours],
                mean=mean,
                observed_kwh=observed,
                model=[model] * hours.size,
                training=[training] * hours.size,
            )
            for level in LEVELS:
                own = mean + spread * NOISE_KWH[model] * stats.norm.ppf(level)
                put(**{quantile_column(level): own if model == "mlp" else [None] * hours.size})
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def _scored(event: ModelScored, table: pa.Table) -> ModelScored:
    """Return the event with the scores of the forecasts in the table."""
    own = (pc.field("model") == event.model) & (pc.field("training") == event.training)
    sums = points_of(table.filter(own)).sums()
    return ModelScored(
        event.model,
        event.training,
        {**event.scores, **score_fleet(sums)},
        {name: client_scores(one) for name, one in sums.items()},
    )


def quantile_run(root: Path, clients: int = 6, days: int = 14, spread: float = 1.0) -> Path:
    """A comparison of MLP and ridge, federated, with the baselines; `mlp` gives quantiles."""
    names = client_names(clients)
    lines = [("mlp", "federated"), ("ridge", "federated"), ("ha4", "baseline")]
    table = forecast_table(names, lines, days, spread)
    with create(root) as recorder:
        for event in compare_events(names, 2, ("mlp", "ridge")):
            if isinstance(event, ModelScored) and (event.model, event.training) == lines[0]:
                event = _scored(event, table)
            recorder(event)
        pq.write_table(table, recorder.path / "forecasts.parquet")
    return recorder.path

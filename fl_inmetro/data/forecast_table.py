"""Forecasts as a table: one row per client, issue time and target time.

The columns `client_id`, `issue_time_utc`, `target_time_utc`, `mean` and, where there are quantiles,
`q10`, `q50`, … are the interchange format of `forecast` and `score`; `forecast` adds `method` and
`reason`, the run directory `observed_kwh`, `model` and `training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.windows import Windows
from fl_inmetro.metrics import Forecast, quantile_column

INSTANT = pa.timestamp("s", tz="UTC")


def forecast_rows(client_id: str, windows: Windows, forecast: Forecast) -> pa.Table:
    """Return one client's forecasts as rows; steps without a forecast are left out.

    Energies in kWh per step.
    """
    made = np.isfinite(forecast.mean_kwh).ravel()
    issue = np.repeat(windows.issue_utc_s, windows.horizon)[made]
    quantiles = {
        quantile_column(level): column.ravel()[made]
        for level in forecast.levels
        if (column := forecast.at(level)) is not None
    }
    return pa.table(
        {
            "client_id": pa.DictionaryArray.from_arrays(
                np.zeros(int(made.sum()), dtype=np.int32), [client_id]
            ),
            "issue_time_utc": pa.array(issue, type=pa.int64()).cast(INSTANT),
            "target_time_utc": pa.array(windows.target_utc_s.ravel()[made]).cast(INSTANT),
            "mean": forecast.mean_kwh.ravel()[made],
            **quantiles,
        }
    )


def fleet_rows(
    windows: FleetWindows,
    forecast: Forecast,
    method: Sequence[str | None],
    reason: Sequence[str | None],
) -> pa.Table:
    """Return the forecasts of many clients as rows; steps without a forecast are left out.

    Energies in kWh per step; a quantile that is missing is empty.

    Args:
        windows: N windows of K clients.
        forecast: Of the same N windows.
        method: N names of who made each forecast.
        reason: N reasons why it was not the model, empty where it was.
    """
    made = np.isfinite(forecast.mean_kwh)
    steps = made.sum(axis=1)
    flat = made.ravel()
    client = np.repeat(np.repeat(np.arange(len(windows.clients)), windows.issues), steps)
    quantiles = {
        quantile_column(level): pa.array(column.ravel()[flat], from_pandas=True)
        for level in forecast.levels
        if (column := forecast.at(level)) is not None
    }
    # Plain text for other programs; Parquet stores it as compactly.
    return pa.table(
        {
            "client_id": pa.array(windows.names, pa.string()).take(pa.array(client)),
            "issue_time_utc": pa.array(np.repeat(windows.issue_utc_s, steps)).cast(INSTANT),
            "target_time_utc": pa.array(windows.target_utc_s.ravel()[flat]).cast(INSTANT),
            "mean": forecast.mean_kwh.ravel()[flat],
            **quantiles,
            "method": _repeated(method, steps),
            "reason": _repeated(reason, steps),
        }
    )


def _repeated(words: Sequence[str | None], steps: NDArray[np.int64]) -> pa.Array:
    """Return each word so many times."""
    place = pa.array(np.repeat(np.arange(len(words)), steps))
    return pa.array(words, pa.string()).take(place)


def observed_rows(
    client_id: str, windows: Windows, forecast: Forecast, labels: Mapping[str, str]
) -> pa.Table:
    """Return forecast rows with what was measured (NaN = unknown) and constant label columns."""
    made = np.isfinite(forecast.mean_kwh)
    rows = forecast_rows(client_id, windows, forecast)
    rows = rows.append_column("observed_kwh", pa.array(windows.target_kwh()[made]))
    for name, value in labels.items():
        column = pa.DictionaryArray.from_arrays(np.zeros(rows.num_rows, dtype=np.int32), [value])
        rows = rows.append_column(name, column)
    return rows


def write_forecasts(tables: list[pa.Table], path: Path, metadata: Mapping[str, str]) -> None:
    """Write forecasts as Parquet, atomically; `metadata` goes into the file's key-value block."""
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    block: dict[Any, Any] = {**(table.schema.metadata or {}), **metadata}
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table.replace_schema_metadata(block), partial, compression="zstd")
    partial.replace(path)

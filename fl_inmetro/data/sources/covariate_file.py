"""A user's own file of weather, tariff or PV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.config.covariates import Covariates
from fl_inmetro.data.covariates import Covariate, Kind, on_grid
from fl_inmetro.data.sources.files import existing, is_parquet, missing_columns, sha256
from fl_inmetro.errors import DataError, Fault

Ints = NDArray[np.int64]

#: Column setting to the covariate's name.
_NAMES = {
    "temperature_deg_c": "temperature",
    "humidity_percent": "humidity",
    "irradiance_w_m2": "irradiance",
    "tariff_per_kwh": "tariff",
    "pv_kw": "pv",
}


def covariate_file(
    settings: Covariates, clients: Sequence[str]
) -> tuple[Mapping[str, tuple[Covariate, ...]], Mapping[str, str]]:
    """Return the covariates of each client, and the file's SHA-256.

    Rows with an `issued` column are forecasts, one of each step; others are observations, and a
    tariff is known ahead. A client that the file does not name has none.

    Raises:
        DataError: FL201 no such file, FL202 columns, FL203 not readable, FL211 instants that are
            not on one grid, or stated twice.
    """
    path = existing(settings.path)
    table = _read(path)
    columns = settings.columns
    named = {key: name for key in _NAMES if (name := getattr(columns, key)) is not None}
    if not named:
        hint = 'name one, such as `temperature-deg-c = "temp"` in `[data.covariates.columns]`'
        raise DataError(Fault("FL202", "no column of covariates is named", path.name, hint))
    keys = {
        key: name
        for key in ("timestamp", "client", "issued")
        if (name := getattr(columns, key)) is not None
    }
    lacking = missing_columns(path, {**keys, **named}, table.column_names)
    if lacking:
        raise DataError(lacking)
    utc_s = _utc_s(table, columns.timestamp, settings.timezone, path)
    issued = _utc_s(table, columns.issued, settings.timezone, path) if columns.issued else None
    values = {key: _floats(table, name, path) for key, name in named.items()}

    def of(rows: NDArray[np.bool_], whose: str) -> tuple[Covariate, ...]:
        made: list[Covariate] = []
        for key, value in values.items():
            kind: Kind = "known" if key == "tariff_per_kwh" else "observed"
            own = None
            if issued is not None and kind == "observed":
                kind, own = "forecast", issued[rows]
            try:
                made.append(on_grid(_NAMES[key], kind, utc_s[rows], value[rows], own))
            except ValueError as error:
                what = f"the instants of `{named[key]}` make no series: {error}"
                hint = (
                    "give one row of each step, on one grid; `columns.client` tells clients apart"
                )
                raise DataError(Fault("FL211", what, f"{path.name}{whose}", hint)) from error
        return tuple(made)

    files = {path.name: sha256(path)}
    if columns.client is None:
        shared = of(np.ones(utc_s.size, dtype=bool), "")
        return dict.fromkeys(clients, shared), files
    who = np.asarray(table[columns.client].cast(pa.string()).to_pylist(), dtype=object)
    held = sorted(set(who) & set(clients))
    return {name: of(who == name, f", client {name}") for name in held}, files


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path) if is_parquet(path) else pa_csv.read_csv(path)
    except (pa.ArrowInvalid, OSError) as error:
        what = f"cannot read the covariates: {str(error).splitlines()[0]}"
        hint = "give a CSV file with commas and a line of names, or Parquet"
        raise DataError(Fault("FL203", what, str(path), hint)) from error


def _utc_s(table: pa.Table, name: str, zone: str, path: Path) -> Ints:
    """Return instants as epoch seconds; stamps without an offset are of the clock of `zone`."""
    column = table[name]
    try:
        stamp = pc.cast(column, pa.timestamp("s"), safe=False)
        if not (pa.types.is_timestamp(column.type) and column.type.tz):
            stamp = pc.assume_timezone(stamp, zone, ambiguous="earliest", nonexistent="latest")
        if stamp.null_count:
            raise pa.ArrowInvalid(f"{stamp.null_count} are empty")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"`{name}` does not hold instants: {str(error).splitlines()[0]}"
        hint = "write them as 2024-01-31 13:00:00"
        raise DataError(Fault("FL211", what, path.name, hint)) from error
    result: Ints = pc.cast(stamp, pa.int64()).to_numpy()
    return result


def _floats(table: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    try:
        values = pc.cast(table[name], pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"`{name}` does not hold numbers: {str(error).splitlines()[0]}"
        hint = "use a decimal point, and leave what is missing empty"
        raise DataError(Fault("FL203", what, path.name, hint)) from error
    return np.where(np.isfinite(values), values, np.nan)

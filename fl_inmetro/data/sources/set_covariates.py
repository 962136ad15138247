"""The covariates that the named sets bring beside their readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.data.covariates import Covariate, Kind, on_grid
from fl_inmetro.data.sources.citylearn_fontana import STEP_0_END_S
from fl_inmetro.data.sources.files import missing_columns, sha256
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import HOUR_S

#: Covariates of each client, and the files they are from.
Brought = tuple[Mapping[str, tuple[Covariate, ...]], Mapping[str, str]]

_CAMBRIDGE = {
    "temperature": "air_temperature [degC]",
    "humidity": "rltv_hum [%]",
    "irradiance": "glbl_irad_amt [W/m2]",
}
_FONTANA = {
    "temperature": "outdoor_dry_bulb_temperature",
    "humidity": "outdoor_relative_humidity",
    "tariff": "electricity_pricing",
}
#: Homes whose panels have 4 kW; the others have 5 (README of the set).
_FOUR_KW = ("Building_1", "Building_2", "Building_3", *(f"Building_{k}" for k in range(5, 10)))
#: The set's clock is eight hours behind UTC all year, and its stamps mark the ends of hours.
_STEP_0_UTC_S = STEP_0_END_S - HOUR_S + 8 * HOUR_S


def cambridge(folder: Path, clients: Sequence[str]) -> Brought:
    """Return one weather station's hours for all buildings; observed."""
    table, files = _read(
        folder / "weather_carbon_hourly.parquet", ["datetime", *_CAMBRIDGE.values()]
    )
    utc_s = pc.cast(pc.cast(table["datetime"], pa.timestamp("s")), pa.int64()).to_numpy()
    shared = tuple(
        on_grid(name, "observed", utc_s, _floats(table, column))
        for name, column in _CAMBRIDGE.items()
    )
    return dict.fromkeys(clients, shared), files


def fontana(folder: Path, clients: Sequence[str]) -> Brought:
    """Return weather and tariff for all homes, and each home's own PV.

    The columns `*_predicted_*` are later observations, so they are not read: `weather = "perfect"`
    says the same of every hour. The irradiance is the sum of the two columns of the set, in W/m².
    """
    parts = {way: f"{way}_solar_irradiance" for way in ("diffuse", "direct")}
    wanted = ["time_step", *_FONTANA.values(), *parts.values()]
    table, files = _read(folder / "weather_price_carbon_hourly.parquet", wanted)
    utc_s = _STEP_0_UTC_S + table["time_step"].to_numpy().astype(np.int64) * HOUR_S
    kinds: dict[str, Kind] = {"tariff": "known"}
    shared = [
        on_grid(name, kinds.get(name, "observed"), utc_s, _floats(table, column))
        for name, column in _FONTANA.items()
    ]
    light = sum(_floats(table, column) for column in parts.values())
    shared.append(on_grid("irradiance", "observed", utc_s, np.asarray(light)))
    homes, more = _read(
        folder / "homes_hourly.parquet", ["building_id", "time_step", "solar_generation"]
    )
    who = np.asarray(homes["building_id"].cast(pa.string()).to_pylist())
    step = homes["time_step"].to_numpy().astype(np.int64)
    w_per_kw = _floats(homes, "solar_generation")
    result: dict[str, tuple[Covariate, ...]] = {}
    for name in clients:
        own = who == name
        pv_kw = w_per_kw[own] / 1000 * (4.0 if name in _FOUR_KW else 5.0)
        pv = on_grid("pv", "observed", _STEP_0_UTC_S + step[own] * HOUR_S, pv_kw)
        result[name] = (*shared, pv)
    return result, {**files, **more}


def _read(path: Path, columns: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """Read columns of a Parquet file.

    Raises:
        DataError: FL201 not there, FL202 missing columns, FL203 a damaged file.
    """
    if not path.is_file():
        hint = "copy the set whole, or leave its covariates: `[data.covariates] source`"
        raise DataError(Fault("FL201", "the set's covariates are not there", str(path), hint))
    try:
        present = list(pq.read_schema(path).names)
        lacking = missing_columns(path, {name: name for name in columns}, present)
        if lacking:
            raise DataError(lacking)
        return pq.read_table(path, columns=columns), {
            f"{path.parent.name}/{path.name}": sha256(path)
        }
    except (pa.ArrowInvalid, OSError) as error:
        what = f"`{path.name}` is a damaged Parquet file"
        hint = "copy it again and compare its SHA-256"
        raise DataError(Fault("FL203", what, str(path), hint)) from error


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pc.cast(table[column], pa.float64()).to_numpy()
    return values


#: Named set to the reader of its covariates.
BRINGS = {"cambridge_buildings": cambridge, "citylearn_fontana": fontana}

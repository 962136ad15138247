"""`[data.covariates]`: weather, tariff and PV beside the readings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from fl_inmetro.config.table import Table
from fl_inmetro.config.zones import Zone


class CovariateColumns(Table):
    """Columns of a file of covariates; what is None is not in it.

    Attributes:
        timestamp: Instant at which the step begins that a row is about.
        client: Client whose values they are; None = of all clients alike.
        issued: Instant at which a row was forecast; None = the rows were observed.
        temperature_deg_c: Air temperature.
        humidity_percent: Relative humidity.
        irradiance_w_m2: Global horizontal irradiance.
        tariff_per_kwh: Price of energy, known ahead.
        pv_kw: Generation of the client's own panels, mean power.
    """

    timestamp: str = "timestamp"
    client: str | None = None
    issued: str | None = None
    temperature_deg_c: str | None = None
    humidity_percent: str | None = None
    irradiance_w_m2: str | None = None
    tariff_per_kwh: str | None = None
    pv_kw: str | None = None


class Covariates(Table):
    """Which covariates there are, and what of them is known when a forecast is issued.

    Attributes:
        source: `set` takes those that the named set or the simulator brings, `file` those of
            `path`.
        path: CSV or Parquet file (`file`); relative paths start at the TOML file.
        columns: Its columns.
        timezone: Clock of its timestamps.
        weather: `observed` shows a forecast what was measured before its issue time, and weather
            forecasts that were issued by then. `perfect` shows it what was measured later, too, as
            if the weather had been foreseen without error: a bound, not a forecast.
    """

    source: Literal["none", "set", "file"] = "none"
    path: str | None = None
    columns: CovariateColumns = CovariateColumns()
    timezone: Zone = "UTC"
    weather: Literal["observed", "perfect"] = "observed"

    @model_validator(mode="after")
    def _of_a_file(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError('`path` goes with `source = "file"`, and the other way round')
        return self

"""Where readings come from and what is known beside them: `[data]`."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from fl_inmetro.config.calendar import Calendar, Site
from fl_inmetro.config.covariates import Covariates
from fl_inmetro.config.table import Positive, Share, Table
from fl_inmetro.config.zones import Zone
from fl_inmetro.units import Unit


class Columns(Table):
    """Column names of the user's files.

    Attributes:
        client: Column that names the meter (long tables; absent in wide ones).
        timestamp: Column with the instant of the reading.
        value: Column with the reading (long tables, files of a folder).
    """

    client: str = "client_id"
    timestamp: str = "timestamp"
    value: str = "energy_kwh"


class FileFormat(Table):
    """How to read the user's files.

    Attributes:
        columns: Column mapping.
        separator: Field separator of CSV files; `auto` looks at the first lines.
        decimal: Decimal mark of CSV files.
        header: False for tables without names (wide files only; columns are then c000, c001, …).
        day_first: True for 31/12/2024, False for 12/31/2024; None decides from the file and refuses
            when it cannot. For dates that start with the year, True exchanges day and month back
            where they were exchanged (day up to 12), False trusts them as they are written.
        start: Instant of the first row, for tables without timestamps.
        resolution_min: Step in minutes; None finds it in the timestamps.
        unit: Unit of the readings; power is the mean over the step.
        quantity: `interval` = energy or mean power of each step; `register` = running total.
        timezone: Clock of the timestamps: `UTC`, an IANA name, or a fixed offset (`Etc/GMT+3`).
        timestamp_marks: Whether a timestamp marks the start or the end of its step.
        repeated_hour: What a lone reading in the hour that autumn repeats stands for: the `first`
            passing (the second is missing), or `both` (each passing gets half of it).
        zeros_mean_missing: True when the source writes 0 for readings it does not have.
    """

    columns: Columns = Columns()
    separator: str = "auto"
    decimal: Literal[".", ","] = "."
    header: bool = True
    day_first: bool | None = None
    start: str | None = None
    resolution_min: Positive | None = None
    unit: Unit = "kWh"
    quantity: Literal["interval", "register"] = "interval"
    timezone: Zone = "UTC"
    timestamp_marks: Literal["start", "end"] = "start"
    repeated_hour: Literal["first", "both"] = "first"
    zeros_mean_missing: bool = False


class Cleaning(Table):
    """What cleaning may repair, and when it refuses (see `docs/data.md`).

    Attributes:
        flat_hours: A non-zero value repeated for at least this long is a stuck meter.
        flat: Report flat lines only, or mask them (mark them missing) from `flat_hours` on.
        outlier_factor: A reading above this many times the 99th percentile of the client's readings
            before it is an outlier (in the first two weeks: this many times squared).
        outliers: Report outliers only, or mask them.
        negatives: Mask negative readings, or keep them (meters of net consumption).
        max_gap_fill_h: So much of the beginning of every gap is filled with the reading of the day
            before, or of the week before; 0 fills none.
        min_days: A client with fewer days of usable readings is an error (FL206), or is
            left out when `drop_short` is set.
        drop_short: Leave clients out (with the reason in the manifest) instead of stopping.
    """

    flat_hours: float = Field(48.0, gt=0)
    flat: Literal["report", "mask"] = "report"
    outlier_factor: float = Field(10.0, gt=1)
    outliers: Literal["report", "mask"] = "mask"
    negatives: Literal["mask", "keep"] = "mask"
    max_gap_fill_h: float = Field(0.0, ge=0)
    min_days: int = Field(0, ge=0)
    drop_short: bool = False


class Simulator(Table):
    """The built-in simulator of Brazilian consumers (no meter is involved; labelled so everywhere).

    Attributes:
        clients: Number of consumers.
        start: First day, local time of Brasília.
        days: Length in days.
        resolution_min: Step in minutes: 15, 30 or 60.
        climate: Climate of the weather series.
        air_conditioning_share: Share of homes with air conditioning.
        pv_share: Share of homes with photovoltaic panels.
        ev_share: Share of homes that charge an electric vehicle.
        commercial_share: Share of clients that are shops or offices.
        seed: Root of the consumers' and the weather's randomness; None = the run's seed.
    """

    clients: Positive = 10
    start: date = date(2024, 1, 1)
    days: int = Field(180, ge=1, le=3660)
    resolution_min: Literal[15, 30, 60] = 60
    climate: Literal["sao_paulo", "rio_de_janeiro", "recife", "porto_alegre", "brasilia"] = (
        "sao_paulo"
    )
    air_conditioning_share: Share = 0.3
    pv_share: Share = 0.1
    ev_share: Share = 0.1
    commercial_share: Share = 0.2
    seed: int | None = Field(None, ge=0)


class Data(Table):
    """Where the readings come from.

    Attributes:
        source: `simulator`, one of the named sets (`fl-inmetro data ls`), or the layout of the
            user's own files: `long`, `wide`, `folder`.
        path: File or folder (`long`, `wide`, `folder`); relative paths start at the TOML file.
        clients: Use these clients only; empty = all.
        exclude: Leave these clients out.
        max_clients: Use the first so many clients, in the order of their names.
        resolution_min: Bring all series to this step by summing energy; None keeps the source's.
    """

    source: str = "simulator"
    path: str | None = None
    clients: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_clients: Positive | None = None
    resolution_min: Positive | None = None
    format: FileFormat = FileFormat()
    cleaning: Cleaning = Cleaning()
    simulator: Simulator = Simulator()
    calendar: Calendar = Calendar()
    site: Site = Site()
    covariates: Covariates = Covariates()

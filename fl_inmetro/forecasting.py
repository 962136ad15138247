"""Use a trained run: forecast any client, and score any file of forecasts.

A forecast needs a client's own past and the model; clients the run has never seen are served like
any other, because the scale is taken from each client's own past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.calendar import issue_times_utc_s, steps_per_week
from fl_inmetro.data.fleet_windows import alike, stacked
from fl_inmetro.data.forecast_table import INSTANT
from fl_inmetro.data.protocols import horizon_of, lead_of
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.windows import index_of_issues
from fl_inmetro.errors import DataError, Fault, RunError
from fl_inmetro.fallback import ladder_of, without_readings
from fl_inmetro.metrics import (
    ErrorSums,
    Forecast,
    level_of_column,
    naive_scale,
    score_fleet,
)
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.served import NO_MODEL, Made
from fl_inmetro.trained import Model
from fl_inmetro.units import iso_utc

Ints = NDArray[np.int64]

#: Windows whose features are computed together: as many as stay in a processor's caches.
WINDOWS_AT_ONCE = 256

REQUIRED = ("client_id", "issue_time_utc", "target_time_utc", "mean")

#: A quantile this much below a lower one's is rounding.
_CROSSING_KWH = 1e-9


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What `forecast` made, and what it could not make.

    Attributes:
        table: `client_id`, `issue_time_utc`, `target_time_utc`, `mean` (kWh per step), quantiles
            where there are any, `method`, and `reason` where that is not the chosen model.
        issues: Issue times that were asked for.
        skipped: Client without any forecast to the reason.
        incomplete: Client to the number of issue times for which it has no forecast.
        stale_h: Client to the hours between its last reading and its last issue time, where that
            is a day or more: its forecasts rest on older readings than they should.
        methods: Who made the forecasts, to how many (one for each client and issue time).
        reasons: Why they are not the chosen model's, to how many.
    """

    table: pa.Table
    issues: int
    skipped: Mapping[str, str]
    incomplete: Mapping[str, int]
    stale_h: Mapping[str, int]
    methods: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)


def forecast(
    record: RunRecord,
    trained: Model,
    data: FederatedData,
    first: date,
    last: date,
    fallback: Fallback | None = None,
    annual_kwh: Mapping[str, float] | None = None,
) -> Forecasts:
    """Forecast every client of `data`, issued on each day from `first` to `last`.

    A model needs a day of readings in the four weeks before its issue time, no more: readings that
    end early make it worse, not impossible, and are reported. Where it should not be asked, others
    stand in for it (`fallback.py`), and the table says who and why.

    Args:
        record: The run.
        trained: A model of it.
        data: The clients; they need not be the run's.
        first: Local day of the first issue.
        last: Local day of the last issue.
        fallback: When others stand in; None = as the run's configuration says.
        annual_kwh: Clients to the energy that they use in a year. They need not be among the data.

    Raises:
        DataError: FL207, the data are not on the resolution the model was trained on; no client
            could be forecast: FL212, none has a model, or FL206, none has a past.
        RunError: FL720, a client is known by its year alone, and the run keeps no profile to lend.
    """
    _check_resolution(record, data)
    # As the run resolved them: a reference window has a clock of its own.
    window = record.manifest["window"]
    issues = issue_times_utc_s(first, last, window["issue_time"], window["timezone"])
    asked = (record.config.window, record.config.protocol, data.resolution_s)
    horizon, lead = horizon_of(*asked), lead_of(*asked)
    settings = record.config.fallback if fallback is None else fallback
    years = dict(annual_kwh or {})
    ladder = ladder_of(record, trained, settings, years)
    clients = {**without_readings(years, data, issues), **data}
    chunks: dict[object, list[ClientSeries]] = {}
    made = Made()

    def serve(some: list[ClientSeries]) -> None:
        windows = stacked(some, issues, horizon, window["timezone"], lead)
        made.add(windows, trained, ladder)

    at_once = max(WINDOWS_AT_ONCE // max(len(issues), 1), 1)
    for name in sorted(clients):
        series = clients[name]
        # Refuses issue times that are not on its grid.
        index_of_issues(series, issues)
        chunk = chunks.setdefault(alike(series.site), [])
        chunk.append(series)
        if len(chunk) == at_once:
            serve(chunk)
            chunk.clear()
    for chunk in chunks.values():
        if chunk:
            serve(chunk)
    if not made.tables:
        raise _nobody(made.skipped, data)
    table = pa.concat_tables(made.tables, promote_options="default")
    if len(chunks) > 1:
        table = table.sort_by([(name, "ascending") for name in REQUIRED[:3]])
    return Forecasts(
        table,
        len(issues),
        dict(sorted(made.skipped.items())),
        dict(sorted(made.incomplete.items())),
        dict(sorted(made.stale_h.items())),
        made.methods,
        made.reasons,
    )


def _nobody(skipped: Mapping[str, str], data: FederatedData) -> DataError:
    modelless = all(why == NO_MODEL for why in skipped.values())
    first = iso_utc(min(one.start_utc_s for one in data.values()))
    last = iso_utc(max(one.end_utc_s for one in data.values()))
    return DataError(
        Fault(
            "FL212" if modelless else "FL206",
            "no client could be forecast",
            "\n".join(f"client {name}: {why}" for name, why in list(skipped.items())[:5]),
            "take a model that serves everybody: --training federated"
            if modelless
            else f"readings go from {first} to {last}; "
            "issue times must lie within or right after them",
        )
    )


def score_file(path: Path, data: FederatedData) -> tuple[dict[str, float], dict[str, ErrorSums]]:
    """Score any file of forecasts against readings.

    Returns:
        The fleet's scores and the clients' error sums. The scale of MASE is each client's history
        before its first issue time.

    Raises:
        RunError: FL708, the file lacks a column or cannot be read; FL709, no forecast meets a
            reading of the data.
    """
    table = read_forecasts(path)
    clients = np.asarray(table["client_id"].to_pylist(), dtype=object)
    issue = table["issue_time_utc"].to_numpy()
    target = table["target_time_utc"].to_numpy()
    forecast = _forecast_of(path, table)
    late = np.flatnonzero(target < issue)
    if late.size:
        row = int(late[0])
        raise RunError(
            Fault(
                "FL708",
                "a forecast is issued after the time it is for",
                f"{path}: row {row}, client {clients[row]}, issued {iso_utc(int(issue[row]))}, "
                f"for {iso_utc(int(target[row]))}",
                "check that the two time columns are not exchanged",
            )
        )
    order = np.argsort(clients.astype(str), kind="stable")
    _refuse_repeats(path, clients[order].astype(str), issue[order], target[order])
    names, starts = np.unique(clients[order].astype(str), return_index=True)
    sums: dict[str, ErrorSums] = {}
    for name, rows in zip(names, np.split(order, starts)[1:], strict=True):
        series = data.get(str(name))
        # A client without readings keeps its place, with nothing scored.
        sums[str(name)] = ErrorSums()
        if series is not None:
            own = forecast.take(rows)
            sums[str(name)] = _score_client(series, issue[rows], target[rows], own)
    if not any(s.n for s in sums.values()):
        raise RunError(
            Fault(
                "FL709",
                "no forecast of the file meets a reading of the data",
                f"{path}: clients {_some(names)}; data: clients {_some(data)}",
                "check the clients' names, the period, and that times are UTC",
            )
        )
    return score_fleet(sums), sums


# ------------------------------------------------------------------------------ internals
def _score_client(
    series: ClientSeries,
    issue: Ints,
    target: Ints,
    forecast: Forecast,
) -> ErrorSums:
    index, rest = np.divmod(target - series.start_utc_s, series.resolution_s)
    inside = (rest == 0) & (index >= 0) & (index < len(series))
    observed = np.where(inside, series.energy_kwh[np.where(inside, index, 0)], np.nan)
    first = int(np.clip((issue.min() - series.start_utc_s) // series.resolution_s, 0, len(series)))
    scale = naive_scale(series.energy_kwh[:first], steps_per_week(series.resolution_s))
    return ErrorSums.of(forecast, observed, scale)


def _forecast_of(path: Path, table: pa.Table) -> Forecast:
    """Return the rows' means and quantiles, (R,) and (R, Q)."""
    columns = {level: name for name in table.column_names if (level := level_of_column(name))}
    levels = tuple(sorted(columns))
    mean = table["mean"].to_numpy()
    if not levels:
        return Forecast(mean)
    quantiles = np.stack([table[columns[level]].to_numpy() for level in levels], axis=1)
    with np.errstate(invalid="ignore"):
        crossed = np.flatnonzero((np.diff(quantiles, axis=1) < -_CROSSING_KWH).any(axis=1))
    if crossed.size:
        raise RunError(
            Fault(
                "FL708",
                f"quantiles cross in {crossed.size} rows: a higher level has a lower energy",
                f"{path}: row {int(crossed[0])}, "
                + ", ".join(
                    f"{columns[level]} {value:g}"
                    for level, value in zip(levels, quantiles[crossed[0]], strict=True)
                ),
                "check that the columns are not exchanged, or sort each row's quantiles",
            )
        )
    # A quantile that is empty stays so, and takes none of the others with it.
    rising = np.where(np.isnan(quantiles), np.nan, np.fmax.accumulate(quantiles, axis=1))
    return Forecast(mean, levels, rising)


def read_forecasts(path: Path) -> pa.Table:
    """Read a file of forecasts: times as epoch seconds, energies as floats.

    Raises:
        RunError: FL708, it cannot be read or lacks a column.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        missing_file = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing_file else str(error).splitlines()[0]
        raise RunError(
            Fault(
                "FL708",
                f"cannot read the forecasts: {reason}",
                str(path),
                "give the Parquet file that `fl-inmetro forecast -o FILE` writes",
            )
        ) from None
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise RunError(
            Fault(
                "FL708",
                f"the file lacks {', '.join(f'`{name}`' for name in missing)}",
                f"{path}: columns {', '.join(table.column_names)}",
                f"a file of forecasts has {', '.join(REQUIRED)}",
            )
        )
    faults: list[Fault] = []
    columns: dict[str, pa.ChunkedArray] = {}
    quantiles = [name for name in table.column_names if level_of_column(name)]
    for name in (*REQUIRED, *quantiles):
        try:
            column = _plain(name, table[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0]
            faults.append(_bad_column(path, name, f"cannot be used ({reason})"))
            continue
        # A forecast may be missing (null), but not whose and for when it is.
        if name != "mean" and name not in quantiles and column.null_count:
            faults.append(_bad_column(path, name, f"has {column.null_count} empty values"))
        columns[name] = column
    if faults:
        raise RunError(faults)
    return pa.table(columns)


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text, epoch seconds (instants without a zone are UTC), or float."""
    if name == "client_id":
        return column.cast(pa.string())
    if name == "mean" or level_of_column(name):
        return column.cast(pa.float64())
    naive = pa.types.is_timestamp(column.type) and column.type.tz is None
    return column.cast(pa.timestamp("s") if naive else INSTANT).cast(pa.int64())


def _bad_column(path: Path, name: str, why: str) -> Fault:
    hint = "client_id is text, the two times are UTC timestamps in whole seconds, mean is kWh"
    return Fault("FL708", f"column `{name}` {why}", str(path), hint)


def _refuse_repeats(path: Path, clients: NDArray[np.str_], issue: Ints, target: Ints) -> None:
    """Refuse a file with two forecasts of one thing, such as those of two models.

    Shapes: all (R,), rows of one client together.
    """
    by_time = np.lexsort((target, issue, clients))
    who, made, aim = clients[by_time], issue[by_time], target[by_time]
    same = (who[1:] == who[:-1]) & (made[1:] == made[:-1]) & (aim[1:] == aim[:-1])
    if same.any():
        row = int(np.flatnonzero(same)[0])
        raise RunError(
            Fault(
                "FL708",
                f"{int(same.sum())} forecasts are there more than once",
                f"{path}: client {who[row]}, issued {iso_utc(int(made[row]))}, "
                f"for {iso_utc(int(aim[row]))}",
                "keep one model per file (one `model` and `training`, where it has these columns)",
            )
        )


def _check_resolution(record: RunRecord, data: FederatedData) -> None:
    trained_on = int(record.manifest["data"]["resolution_s"])
    if data.resolution_s != trained_on:
        raise DataError(
            Fault(
                "FL207",
                f"the model was trained on steps of {trained_on} s, "
                f"the data have {data.resolution_s} s",
                f"run {record.id}",
                f"bring the data to it: --set data.resolution-min={trained_on // 60}",
            )
        )


def _some(names: Iterable[str]) -> str:
    every = [str(name) for name in names]
    return ", ".join(every[:3]) + (f" and {len(every) - 3} more" if len(every) > 3 else "")

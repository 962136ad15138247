"""A week of forecasts against what was measured, for the median, the worst and the best client."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.report.view import Line, baseline_line, example_clients
from fl_inmetro.runs.record import RunRecord

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Week:
    """Forecast and observation of one client; all of shape (T,), ordered by time.

    Attributes:
        client_id: Which client; of a partition, with the meter.
        role: `best`, `median` or `worst`.
        target_time_utc: When each step begins, numpy datetime64[s], UTC.
        clock: The clock of the run's window, such as `America/Sao_Paulo`: people read on it.
        observed_kwh: Energy of the step; NaN where unknown.
        mean_kwh: Its forecast.
        baseline_kwh: Forecast of the best baseline; None when the file has none.
    """

    client_id: str
    role: str
    target_time_utc: NDArray[np.datetime64]
    clock: str
    observed_kwh: Floats
    mean_kwh: Floats
    baseline_kwh: Floats | None

    def local_times(self) -> list[datetime]:
        """Return when each step begins on the clock of the run, with its offset from UTC."""
        zone = ZoneInfo(self.clock)
        moments = self.target_time_utc.astype("datetime64[s]").tolist()
        return [moment.replace(tzinfo=UTC).astimezone(zone) for moment in moments]

    def told_times(self) -> list[str]:
        """Return the times to the minute; with the offset where the clock changes in this week."""
        times = self.local_times()
        changes = len({moment.utcoffset() for moment in times}) > 1
        shown = [moment.strftime("%Y-%m-%d %H:%M") for moment in times]
        if not changes:
            return shown
        # An hour that autumn repeats is told from the first one.
        return [f"{s} {m.isoformat()[-6:]}" for s, m in zip(shown, times, strict=True)]


def clock_of(record: RunRecord) -> str:
    """Return the clock of a run's window; UTC where the run names none that is known here."""
    name = str(record.manifest.get("window", {}).get("timezone") or "UTC")
    try:
        return str(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # a zone that is not there is a KeyError
        return "UTC"


def weeks(record: RunRecord, line: Line, days: int = 7) -> list[Week]:
    """Return the first `days` days of test forecasts of the median, worst and best client.

    Where forecasts overlap, the one that was issued last counts: the one a user would have had. Of
    a client that holds windows of several meters, the meter with the most of them is shown.
    """
    roles = example_clients(record, line)
    if not roles:
        return []
    base = baseline_line(record)
    ours = _forecasts(record, line, list(roles.values()), days)
    theirs = _forecasts(record, base, list(roles.values()), days) if base else {}
    found = []
    for role, name in roles.items():
        if name not in ours:
            continue
        meter = max(ours[name], key=lambda meter: (len(ours[name][meter]), meter))
        mine, other = ours[name][meter], theirs.get(name, {}).get(meter, {})
        instants = _regular(sorted(mine))
        found.append(
            Week(
                client_id=name if name == meter else f"{name} ({meter})",
                role=role,
                target_time_utc=np.array(instants, dtype="datetime64[s]"),
                clock=clock_of(record),
                observed_kwh=np.array([mine.get(t, (np.nan, np.nan))[1] for t in instants]),
                mean_kwh=np.array([mine.get(t, (np.nan, np.nan))[0] for t in instants]),
                baseline_kwh=(
                    np.array([other.get(t, (np.nan, np.nan))[0] for t in instants])
                    if other
                    else None
                ),
            )
        )
    return found


def _forecasts(
    record: RunRecord, line: Line, clients: list[str], days: int
) -> dict[str, dict[str, dict[np.datetime64, tuple[float, float]]]]:
    """Return `{client: {meter: {target instant: (forecast, observation)}}}` of the first days."""
    table = record.forecasts(line.model, line.training, clients)
    if table is None or table.num_rows == 0:
        return {}
    # A long test has millions of rows of three clients: what is drawn is cut out before it is read.
    table = _first_days(table, days)
    meters = table.column("client_id").to_pylist()
    holders = table.column("part").to_pylist() if "part" in table.column_names else meters
    issued = _instants(table.column("issue_time_utc"))
    target = _instants(table.column("target_time_utc"))
    mean = np.array([_real(v) for v in table.column("mean").to_pylist()])
    observed = np.array([_real(v) for v in table.column("observed_kwh").to_pylist()])
    end = target.min() + np.timedelta64(days, "D")
    found: dict[str, dict[str, dict[np.datetime64, tuple[float, float]]]] = {}
    for i in np.argsort(issued, kind="stable"):  # a later issue overwrites an earlier one
        if target[i] < end:
            own = found.setdefault(holders[i], {}).setdefault(meters[i], {})
            own[target[i]] = (float(mean[i]), float(observed[i]))
    return found


def _first_days(table: pa.Table, days: int) -> pa.Table:
    """Return the rows whose targets lie in the first days; text is left as it is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table["target_time_utc"]
    if not pa.types.is_timestamp(column.type):
        return table
    span = pa.scalar(timedelta(days=days), pa.duration(column.type.unit))
    return table.filter(pc.less(column, pc.add(pc.min(column), span)))


def _regular(instants: list[np.datetime64]) -> list[np.datetime64]:
    """Return the instants with those that are missing between them: a line must break there."""
    if len(instants) < 3:
        return instants
    step = min(b - a for a, b in pairwise(instants))
    return [instants[0] + k * step for k in range(int((instants[-1] - instants[0]) / step) + 1)]


def _instants(column: Any) -> NDArray[np.datetime64]:
    """Read a column of timestamps (or ISO text) as datetime64[s] in UTC."""
    values = column.to_pylist()
    plain = [_utc(v) if isinstance(v, datetime) else str(v).removesuffix("Z") for v in values]
    return np.array(plain, dtype="datetime64[s]")


def _utc(moment: datetime) -> datetime:
    """Return the instant on the UTC clock without a zone, as NumPy wants it."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _real(value: float | None) -> float:
    return float("nan") if value is None else float(value)

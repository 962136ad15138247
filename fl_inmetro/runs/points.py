"""Forecast tables as points: for scores that need more than a client's sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics import Forecast, level_of_column
from fl_inmetro.metrics.points import Points

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Measured values of one instant that differ by more are not of the same readings.
_SAME_KWH = 1e-6


def points_of(table: pa.Table, *, by_meter: bool = False) -> Points:
    """Return the rows of one model as points.

    Args:
        table: Rows of `RunRecord.forecasts`.
        by_meter: Of a run with a partition, take each meter for a client of its own, not the
            client that holds its window.
    """
    holder = "part" if "part" in table.column_names and not by_meter else "client_id"
    names, client = _coded([table[holder]])
    columns = {level: name for name in table.column_names if (level := level_of_column(name))}
    found = {level: _floats(table[columns[level]]) for level in sorted(columns)}
    # A column without a number is that of another model of the file.
    found = {level: values for level, values in found.items() if np.isfinite(values).any()}
    mean = _floats(table["mean"])
    if found:
        forecast = Forecast(mean, tuple(found), np.stack(list(found.values()), axis=1))
    else:
        forecast = Forecast(mean)
    return Points(
        names,
        client,
        _instants(table["issue_time_utc"]),
        _instants(table["target_time_utc"]),
        forecast,
        _floats(table["observed_kwh"]),
    )


def paired(ours: pa.Table, theirs: pa.Table) -> tuple[Points, Points]:
    """Return the rows that both tables have, in the same order: same meter, issue and target.

    Raises:
        ValueError: There are none, or what was measured is not the same.
    """
    own, other_keys = _keys((ours, theirs))
    _, first, second = np.intersect1d(own, other_keys, return_indices=True)
    if not first.size:
        raise ValueError("they have no client, issue time and target time in common")
    one, other = points_of(ours.take(first)), points_of(theirs.take(second))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.observed_kwh - other.observed_kwh)
    differ = apart > _SAME_KWH * np.maximum(np.abs(one.observed_kwh), 1.0)
    if differ.any():
        raise ValueError(f"what was measured differs at {int(differ.sum())} of their points")
    # Of two partitions the clients differ; the first run's count.
    return one, replace(other, names=one.names, client=one.client)


# ------------------------------------------------------------------------------ internals
def _coded(columns: Sequence[pa.ChunkedArray]) -> tuple[tuple[str, ...], Ints]:
    """Return the sorted names of columns of text, and for each row of them its place in these.

    A name is read once and not for each of its rows, of which a long test has millions.
    """
    import pyarrow as pa

    found: list[tuple[list[str], Ints]] = []
    for column in columns:
        for chunk in column.chunks:
            coded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
            own = [str(name) for name in coded.dictionary.to_pylist()]
            places = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            found.append((own, places))
    names = sorted({own[k] for own, places in found for k in np.unique(places)})
    place_of = {name: place for place, name in enumerate(names)}
    rows = [np.array([place_of.get(n, -1) for n in own], dtype=np.int64)[p] for own, p in found]
    return tuple(names), np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)


def _keys(tables: Sequence[pa.Table]) -> list[Ints]:
    """Return a number for each row, the same in all tables for the same meter and times."""
    total = np.zeros(sum(table.num_rows for table in tables), dtype=np.int64)
    for name in ("client_id", "issue_time_utc", "target_time_utc"):
        if name == "client_id":
            codes = _coded([table[name] for table in tables])[1]
        else:
            instants = np.concatenate([_instants(table[name]) for table in tables])
            codes = np.unique(instants, return_inverse=True)[1].reshape(-1).astype(np.int64)
        total = total * (int(codes.max(initial=0)) + 1) + codes
    ends = np.cumsum([table.num_rows for table in tables])[:-1]
    return np.split(total, ends)


def _floats(column: Any) -> Floats:
    """Read a column of numbers; empty = NaN."""
    values: Floats = column.to_numpy().astype(np.float64)
    return values


def _instants(column: Any) -> Ints:
    import pyarrow as pa

    kind = column.type
    if not pa.types.is_timestamp(kind):
        raise TypeError(f"a column of instants is of type {kind}")
    seconds: Ints = column.cast(pa.timestamp("s", tz=kind.tz)).cast(pa.int64()).to_numpy()
    return seconds

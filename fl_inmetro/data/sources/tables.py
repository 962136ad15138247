"""Text and Parquet files behind one face: batches with texts, stamps and numbers of known types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.cleaning.dates import exchange
from fl_inmetro.data.readings import Clock
from fl_inmetro.data.sources import delimited
from fl_inmetro.data.sources.files import is_parquet
from fl_inmetro.data.sources.stamps import (
    FORMATS,
    Lines,
    Order,
    Stamps,
    check_exchanged,
    decide,
)
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ROWS = 1 << 17


@dataclass(frozen=True)
class Table:
    """A file that has been looked at.

    Attributes:
        path: The file.
        columns: Its column names.
        first_line: Line (text) or row (Parquet) of the first data row, counted from 1.
        look: What the text file shows; None for Parquet.
        assumed: What was decided by looking.
    """

    path: Path
    columns: tuple[str, ...]
    first_line: int
    look: delimited.Look | None
    assumed: tuple[str, ...]

    @property
    def place(self) -> str:
        """Name of the file as it stands before a line number."""
        return self.path.name


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of a table.

    Attributes:
        first_line: Line of the first of them.
        texts: Dictionary-encoded columns asked for as text.
        stamps: The timestamp column, dictionary-encoded text or typed; None when not asked for.
        numbers: Columns asked for as numbers, float64 with NaN for missing.
    """

    first_line: int
    texts: dict[str, pa.Array]
    stamps: pa.Array | None
    numbers: list[Floats]


def look(path: Path, settings: FileFormat) -> Table:
    """Look at a file's first lines or its schema.

    Raises:
        DataError: FL203 when it is no table.
    """
    if is_parquet(path):
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            what = f"`{path.name}` is a damaged Parquet file"
            raise DataError(Fault("FL203", what, str(path), str(error).splitlines()[0])) from error
        return Table(path, tuple(names), 1, None, ())
    found = delimited.look(path, settings)
    assumed: tuple[str, ...] = ()
    if settings.separator == "auto":
        tab = found.separator == "\t"
        assumed = (said("separator_tab") if tab else said("separator", mark=found.separator),)
    if found.encoding != "utf-8":
        assumed += (said("latin_1"),)
    return Table(path, found.columns, found.first_line, found, assumed)


def chunks(
    table: Table,
    settings: FileFormat,
    texts: Sequence[str],
    stamp: str | None,
    numbers: Sequence[str],
) -> Iterator[Chunk]:
    """Yield the rows of a table, a bounded number at a time.

    Raises:
        DataError: FL203 lines or columns that cannot be read.
    """
    line = table.first_line
    for batch in _batches(table, settings, texts, stamp, numbers):
        columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        yield Chunk(
            line,
            {name: _encoded(columns[name]) for name in texts},
            None if stamp is None else _stamp_array(columns[stamp], table),
            [_floats(columns[name], name, table) for name in numbers],
        )
        line += batch.num_rows


def _batches(
    table: Table,
    settings: FileFormat,
    texts: Sequence[str],
    stamp: str | None,
    numbers: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    strings = [*texts, *([stamp] if stamp is not None else [])]
    if table.look is not None:
        yield from delimited.stream(table.look, strings, list(numbers), settings.decimal)
        return
    try:
        with pq.ParquetFile(table.path) as file:
            yield from file.iter_batches(ROWS, columns=[*strings, *numbers])
    except (pa.ArrowInvalid, OSError) as error:
        what = f"`{table.path.name}` is a damaged Parquet file"
        hint = str(error).splitlines()[0]
        raise DataError(Fault("FL203", what, str(table.path), hint)) from error


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    if isinstance(column, pa.DictionaryArray):
        if pa.types.is_string(column.type.value_type):
            return column
        column = column.dictionary_decode()
    return pc.dictionary_encode(pc.cast(column, pa.string()))


def _stamp_array(column: pa.Array, table: Table) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pc.cast(column, pa.timestamp("s", getattr(kind, "tz", None)), safe=False)
    if isinstance(column, pa.DictionaryArray) or pa.types.is_string(kind):
        return _encoded(column)
    if pa.types.is_large_string(kind):
        return _encoded(column)
    what = f"the timestamp column has type {kind}"
    raise DataError(Fault("FL211", what, table.place, FORMATS))


def _floats(column: pa.Array, name: str, table: Table) -> Floats:
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        what = f"column `{name}` has type {kind}, not numbers"
        raise DataError(
            Fault("FL203", what, table.place, "choose the column with `format.columns.value`")
        )
    values = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


class StampColumn:
    """The timestamp column of a file while it is read, and its clock once all of it was seen."""

    def __init__(self, table: Table) -> None:
        self._stamps = Stamps(table.place)
        self._typed = False
        self._zoned = False
        self._order: Order | None = None

    def read(self, chunk: Chunk) -> Ints:
        """Read one chunk; returns stamps still to be given to `clock_s`, shape (N,)."""
        column = chunk.stamps
        if column is None:
            raise ValueError("this chunk was read without its timestamp column")
        if isinstance(column, pa.DictionaryArray):
            return self._stamps.read(column, chunk.first_line)
        self._typed = True
        self._zoned = column.type.tz is not None
        empty = np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))
        self._stamps.bad_count += empty.size
        self._stamps.bad += [(int(row) + chunk.first_line, "") for row in empty[:3]]
        filled = pc.fill_null(pc.cast(column, pa.int64()), 0)
        return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)

    def settle(self, columns: list[Ints], day_first: bool | None, line_of: Lines) -> None:
        """Decide the order of day and month from some clients' stamps.

        Raises:
            DataError: FL204, FL211 (see `stamps.decide`).
        """
        if self._typed:
            faults = self._stamps.faults()
            if faults:
                raise DataError(faults)
            order = Order(0, False)
            self._order = check_exchanged(columns, self._stamps.place, day_first, line_of, order)
        else:
            self._order = decide(self._stamps, columns, day_first, line_of)

    def clock(self, settings: FileFormat) -> Clock:
        """Return the clock of the stamps; an offset in the stamps is stronger than the setting."""
        zoned = self._zoned or self._stamps.zoned > 0
        zone = "UTC" if zoned else settings.timezone
        return Clock(zone, settings.timestamp_marks, settings.repeated_hour)

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was decided by looking at the stamps."""
        zoned = self._zoned or self._stamps.zoned > 0
        offset = (said("offset"),) if zoned else ()
        return (self._order.assumed if self._order else ()) + offset

    def clock_s(self, raw: Ints, line: Ints) -> Ints:
        """Return seconds of the clock. Shapes: (N,) in and out.

        Raises:
            DataError: FL211 for dates that are in no calendar, such as 30 February.
        """
        order = self._order
        if order is None:
            raise ValueError("settle the order of the dates first")
        if self._typed:
            return exchange(raw) if order.exchanged else raw
        clock_s, exists = order.clock_s(raw)
        if not exists.all():
            rows = np.flatnonzero(~exists)
            places = "\n".join(f"{self._stamps.place}:{int(line[row])}" for row in rows[:3])
            what = f"{rows.size} dates are in no calendar (such as 30 February)"
            raise DataError(Fault("FL211", what, places, FORMATS))
        return clock_s

"""The user's wide tables: one row per instant, one column per meter, with or without a header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.readings import Clock, Opened, Readings
from fl_inmetro.data.sources.files import existing, missing_columns, sha256
from fl_inmetro.data.sources.long import about, check_settings, opened
from fl_inmetro.data.sources.tables import StampColumn, Table, chunks, look
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import epoch_s

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Names of an unnamed first column: as in LD2011_2014.txt, and as pandas writes an index.
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")


def open_wide(path: str | Path | None, settings: FileFormat) -> Opened:
    """Open a wide CSV or Parquet file (gzip accepted).

    The timestamp column is `format.columns.timestamp`; an unnamed first column is taken for it when
    there is no such column. Without a header the stamps come from `format.start` and
    `format.resolution_min`. Every other column is a meter.

    Raises:
        DataError: FL202 columns, FL203 file, fields or settings, FL204 dates, FL211 timestamps.
    """
    file = existing(path)
    check_settings(settings)
    table = look(file, settings)
    if not settings.header:
        return _without_stamps(table, settings)
    stamp = settings.columns.timestamp
    assumed = table.assumed
    if stamp not in table.columns:
        if table.columns[0] not in UNNAMED:
            wanted = {"timestamp": stamp}
            raise DataError(missing_columns(file, wanted, table.columns))
        stamp = table.columns[0]
        assumed += (said("unnamed_stamps"),)
    meters = [name for name in table.columns if name != stamp]
    if not meters:
        what = f"`{file.name}` has a timestamp column and no meter"
        raise DataError(Fault("FL203", what, f"{file.name}:1", "check `format.separator`"))

    raw: list[Ints] = []
    blocks: list[Floats] = []
    stamps = StampColumn(table)
    for chunk in chunks(table, settings, (), stamp, meters):
        raw.append(stamps.read(chunk))
        blocks.append(np.array(chunk.numbers))
    if not raw:
        raise DataError(Fault("FL205", f"`{file.name}` has no reading", str(file), ""))
    packed = np.concatenate(raw)
    line = np.arange(packed.size, dtype=np.int64) + table.first_line
    stamps.settle([packed], settings.day_first, lambda _, row: int(line[row]))
    clock_s = stamps.clock_s(packed, line)
    clients = _columns(meters, clock_s, blocks, line, table.place)
    return opened("wide", file, settings, clients, stamps, assumed)


def _columns(
    meters: list[str], clock_s: Ints, blocks: list[Floats], line: Ints, place: str
) -> dict[str, Callable[[], Readings]]:
    def take(column: int) -> Readings:
        value = np.concatenate([block[column] for block in blocks])
        return Readings(meters[column], clock_s, value, line, place)

    return {name: partial(take, column) for column, name in enumerate(meters)}


def _without_stamps(table: Table, settings: FileFormat) -> Opened:
    """Read a table of numbers only, such as `electricity.txt.gz` (321 columns, no names)."""
    if settings.start is None or settings.resolution_min is None:
        raise DataError(
            Fault(
                "FL203",
                "a table without header has no timestamps: the first instant and the step must be "
                "given",
                f"{table.place}  [data.format] header = false",
                'set `format.start = "2012-01-01 00:00"` and `format.resolution-min = 60`',
            )
        )
    try:
        start = datetime.fromisoformat(settings.start)
    except ValueError as error:
        what = f"`format.start = {settings.start}` is not an instant"
        hint = 'write it as "2012-01-01 00:00"'
        raise DataError(Fault("FL211", what, "[data.format] start", hint)) from error
    step_s = settings.resolution_min * 60
    meters = list(table.columns)
    blocks = [np.array(chunk.numbers) for chunk in chunks(table, settings, (), None, meters)]
    rows = sum(block.shape[1] for block in blocks)
    line = np.arange(rows, dtype=np.int64) + table.first_line
    clock_s = epoch_s(start) + np.arange(rows, dtype=np.int64) * step_s
    zone = "UTC" if start.tzinfo is not None else settings.timezone
    source = Opened(
        about=about("wide", table.path),
        clients=_columns(meters, clock_s, blocks, line, table.place),
        clock=Clock(zone, settings.timestamp_marks, settings.repeated_hour),
        unit=settings.unit,
        quantity=settings.quantity,
        zeros_mean_missing=settings.zeros_mean_missing,
        resolution_s=step_s,
        files={table.path.name: sha256(table.path)},
        assumed=table.assumed,
    )
    first = datetime.fromtimestamp(int(clock_s[0]) if rows else 0, UTC)
    begin = said("first_row", when=f"{first:%Y-%m-%d %H:%M}", zone=zone)
    return replace(source, assumed=(*source.assumed, begin))

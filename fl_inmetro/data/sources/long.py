"""The user's long tables: one row per reading, with columns for client, timestamp and value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.readings import About, Opened, Readings, by_client
from fl_inmetro.data.sources.files import existing, missing_columns, sha256
from fl_inmetro.data.sources.stamps import SAMPLE
from fl_inmetro.data.sources.tables import Chunk, StampColumn, chunks, look
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said

Ints = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


def about(name: str, path: Path) -> About:
    """Describe a file of the user: nothing is known of its licence, and that is said."""
    unknown = said("not_stated")
    return About(name, f"{path.name}", unknown, unknown)


def check_settings(settings: FileFormat) -> None:
    """Refuse settings that contradict each other.

    Raises:
        DataError: FL203.
    """
    if settings.quantity == "register" and not settings.unit.endswith("h"):
        raise DataError(
            Fault(
                "FL203",
                f"a register counts energy, but the unit is {settings.unit}",
                "[data.format] quantity, unit",
                'use `unit = "kWh"` (or Wh, MWh), or `quantity = "interval"`',
            )
        )


def opened(
    name: str,
    path: Path,
    settings: FileFormat,
    clients: Mapping[str, Callable[[], Readings]],
    stamps: StampColumn,
    assumed: tuple[str, ...],
) -> Opened:
    """Put together what a file of the user and its settings say."""
    step = settings.resolution_min
    return Opened(
        about=about(name, path),
        clients=clients,
        clock=stamps.clock(settings),
        unit=settings.unit,
        quantity=settings.quantity,
        zeros_mean_missing=settings.zeros_mean_missing,
        resolution_s=step * 60 if step else None,
        files={path.name: sha256(path)},
        assumed=assumed + stamps.assumed,
    )


def open_long(path: str | Path | None, settings: FileFormat) -> Opened:
    """Open a long CSV or Parquet file (gzip accepted).

    Raises:
        DataError: FL202 columns, FL203 file or fields, FL204 dates, FL211 timestamps.
    """
    file = existing(path)
    check_settings(settings)
    if not settings.header:
        what = "a long table needs a header with the names of its columns"
        raise DataError(Fault("FL203", what, file.name, 'use `data.source = "wide"`'))
    table = look(file, settings)
    names = settings.columns
    wanted = {"client": names.client, "timestamp": names.timestamp, "value": names.value}
    faults = missing_columns(file, wanted, table.columns)
    if faults:
        raise DataError(faults)

    codes_of: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    raw: list[Ints] = []
    values: list[NDArray[np.float64]] = []
    nameless: list[int] = []
    stamps = StampColumn(table)
    for chunk in chunks(table, settings, [names.client], names.timestamp, [names.value]):
        codes.append(_codes(chunk, names.client, codes_of, nameless))
        raw.append(stamps.read(chunk))
        values.append(chunk.numbers[0])
    if nameless:
        places = "\n".join(f"{file.name}:{line}" for line in nameless[:3])
        what = f"{len(nameless)} readings have no client"
        raise DataError(Fault("FL203", what, places, f"fill in column `{names.client}`"))
    if not codes:
        raise DataError(Fault("FL205", f"`{file.name}` has no reading", str(file), ""))
    # Taken out of the lists one by one, so that the pieces do not stay beside the whole.
    whole_codes, whole_raw, whole_values = (_join(codes), _join(raw), _join(values))
    parts = by_client(
        whole_codes, list(codes_of), whole_raw, whole_values, table.place, table.first_line
    )
    sample = [parts[client]() for client in list(parts)[:SAMPLE]]
    stamps.settle(
        [part.clock_s for part in sample],
        settings.day_first,
        lambda which, row: int(sample[which].line[row]),
    )
    clients = {client: partial(with_clock, part, stamps) for client, part in parts.items()}
    return opened("long", file, settings, clients, stamps, table.assumed)


def with_clock(part: Callable[[], Readings], stamps: StampColumn) -> Readings:
    """Return readings with their stamps turned into seconds of the clock."""
    readings = part()
    return replace(readings, clock_s=stamps.clock_s(readings.clock_s, readings.line))


def _codes(
    chunk: Chunk, column: str, codes_of: dict[str, int], nameless: list[int]
) -> NDArray[np.int32]:
    array = chunk.texts[column]
    local = np.array(
        [codes_of.setdefault(text.strip(), len(codes_of)) for text in array.dictionary.to_pylist()],
        dtype=np.int32,
    )
    index = pc.fill_null(array.indices, -1).to_numpy(zero_copy_only=False)
    gone = np.flatnonzero(index < 0)
    nameless.extend((gone + chunk.first_line).tolist())
    if gone.size or not local.size:
        return np.zeros(index.size, dtype=np.int32)  # refused below, with its lines
    return np.asarray(local[index], dtype=np.int32)


def _join(pieces: list[NDArray[Number]]) -> NDArray[Number]:
    whole = np.concatenate(pieces)
    pieces.clear()
    return whole

"""The user's folder with one file per meter: the name of the file is the name of the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.readings import Clock, Opened, Readings
from fl_inmetro.data.sources.files import existing, missing_columns, sha256
from fl_inmetro.data.sources.long import about, check_settings
from fl_inmetro.data.sources.tables import StampColumn, chunks, look
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said

SUFFIXES = (".csv", ".txt", ".tsv", ".parquet", ".gz")


def client_of(path: Path) -> str:
    """Return the client's name: `b12` for `b12.csv.gz`.

    >>> client_of(Path("homes/b12.csv.gz"))
    'b12'
    """
    name = path.name
    while Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    return name


def open_folder(path: str | Path | None, settings: FileFormat) -> Opened:
    """Open a folder; each file is read when its client is asked for.

    Raises:
        DataError: FL203 no folder, no file in it, or two files for one client. Faults of a file
            (FL202, FL203, FL204, FL211) come from its client.
    """
    folder = existing(path, folder=True)
    check_settings(settings)
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        what = f"`{folder}` holds no CSV or Parquet file"
        hint = f"files end in {', '.join(SUFFIXES)}"
        raise DataError(Fault("FL203", what, str(folder), hint))
    clients: dict[str, Callable[[], Readings]] = {}
    taken: dict[str, Path] = {}
    faults = []
    for file in files:
        name = client_of(file)
        if name in taken:
            what = f"two files for client `{name}`"
            places = f"{taken[name]}\n{file}"
            faults.append(Fault("FL203", what, places, "keep one of them"))
        taken[name] = file
        clients[name] = partial(_read, file, name, settings)
    if faults:
        raise DataError(faults)
    step = settings.resolution_min
    return Opened(
        about=replace(about("folder", folder), title=f"{folder.name}/ ({len(files)} files)"),
        clients=clients,
        # Files with offsets in their stamps are UTC, whatever is set; `_read` insists on it.
        clock=Clock(settings.timezone, settings.timestamp_marks, settings.repeated_hour),
        unit=settings.unit,
        quantity=settings.quantity,
        zeros_mean_missing=settings.zeros_mean_missing,
        resolution_s=step * 60 if step else None,
        files={file.name: sha256(file) for file in files},
        assumed=(said("one_per_file"),),
    )


def _read(file: Path, name: str, settings: FileFormat) -> Readings:
    table = look(file, settings)
    wanted = {"timestamp": settings.columns.timestamp, "value": settings.columns.value}
    faults = missing_columns(file, wanted, table.columns)
    if faults:
        raise DataError(faults)
    stamps = StampColumn(table)
    raw, values = [], []
    for chunk in chunks(table, settings, (), wanted["timestamp"], [wanted["value"]]):
        raw.append(stamps.read(chunk))
        values.append(chunk.numbers[0])
    packed = np.concatenate(raw) if raw else np.zeros(0, dtype=np.int64)
    value = np.concatenate(values) if values else np.zeros(0)
    line = np.arange(packed.size, dtype=np.int64) + table.first_line
    stamps.settle([packed], settings.day_first, lambda _, row: int(line[row]))
    zone = stamps.clock(settings).zone
    if zone != settings.timezone:
        raise DataError(
            Fault(
                "FL211",
                f"stamps carry an offset from UTC, but `format.timezone` is {settings.timezone}",
                file.name,
                'set `format.timezone = "UTC"`',
            )
        )
    return Readings(name, stamps.clock_s(packed, line), value, line, table.place)

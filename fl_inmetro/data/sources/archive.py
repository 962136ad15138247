"""Where the named sets lie ($FL_INMETRO_DATA), and how their Parquet files become readings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fl_inmetro.data.readings import About, Opened, Readings, by_client
from fl_inmetro.data.sources.files import missing_columns, sha256
from fl_inmetro.errors import DataError, Fault

VARIABLE = "FL_INMETRO_DATA"


@dataclass(frozen=True)
class NamedSet:
    """One public set known by name.

    Attributes:
        about: Name, title, licence and citation.
        file: File with the readings, below the set's folder.
        open: Opens that file.
    """

    about: About
    file: str
    open: Callable[[Path], Opened]

    def path(self) -> Path | None:
        """Return the file if the variable is set and the file is there, else None."""
        root = os.environ.get(VARIABLE)
        found = Path(root) / self.about.name / self.file if root else None
        return found if found and found.is_file() else None

    def required(self) -> Path:
        """Return the file.

        Raises:
            DataError: FL201 when the variable is not set, or the file is not there.
        """
        return set_file(self.about.name, self.file, f'data.source = "{self.about.name}"')


def read_columns(
    path: Path, client: str, stamp: str, value: str
) -> tuple[dict[str, Callable[[], Readings]], dict[str, str]]:
    """Read three columns of a Parquet file; returns the clients' readings and the file's SHA-256.

    Timestamps become seconds of their clock; an integer column (a step number) is kept as it is.

    Raises:
        DataError: FL202 missing columns, FL203 a damaged file.
    """
    try:
        table = pq.read_table(path, columns=[client, stamp, value])
    except (pa.ArrowInvalid, OSError) as error:
        present = _names(path)
        wanted = {"client": client, "timestamp": stamp, "value": value}
        faults = missing_columns(path, wanted, present) if present else []
        what = f"`{path.name}` is a damaged Parquet file"
        raise DataError(
            faults or Fault("FL203", what, str(path), "copy it again and compare its SHA-256")
        ) from error
    names = table.column(client).combine_chunks()
    if isinstance(names, pa.ChunkedArray):
        names = names.chunk(0)
    if not isinstance(names, pa.DictionaryArray):
        names = pc.dictionary_encode(pc.cast(names, pa.string()))
    column = table.column(stamp)
    if pa.types.is_timestamp(column.type):
        column = pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64())
    clock_s = np.asarray(column.to_numpy(), dtype=np.int64)
    values: NDArray[np.float64] = pc.cast(table.column(value), pa.float64()).to_numpy()
    codes = np.asarray(names.indices.to_numpy(zero_copy_only=False), dtype=np.int32)
    parts = by_client(
        codes, [str(n) for n in names.dictionary.to_pylist()], clock_s, values, path.name, 1
    )
    used = {name: part for name, part in parts.items() if part().value.size}
    return used, {f"{path.parent.name}/{path.name}": sha256(path)}


def _names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError):
        return []


def set_file(name: str, file: str, where: str) -> Path:
    """Return a file of a named set.

    Args:
        name: Of the set, and of its folder.
        file: In it.
        where: What asked for it, to name in errors.

    Raises:
        DataError: FL201 when the variable is not set, or the file is not there.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        what = f"set `{name}` needs the environment variable {VARIABLE}, not set here"
        hint = f"export {VARIABLE}=FOLDER, where FOLDER/{name}/{file} exists"
        raise DataError(Fault("FL201", what, where, hint))
    place = Path(root) / name / file
    if not place.is_file():
        raise DataError(
            Fault(
                "FL201",
                f"set `{name}` is not in the folder that {VARIABLE} names",
                str(place),
                "`fl-inmetro data ls` shows which sets are there; `docs/data.md` says where to "
                "get them",
            )
        )
    return place

"""Files as bytes: hash, compression, encoding; and the refusal of what is no table."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from fl_inmetro.errors import DataError, Fault

#: First bytes of formats people hand over by mistake.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
    (b"BZh", "a bzip2 file", "unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "an xz file", "unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it, or compress it with gzip"),
    (b"\x89HDF", "an HDF5 file", "export it as CSV or Parquet"),
    (b"%PDF", "a PDF document", "export the readings as CSV"),
)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def existing(path: str | Path | None, folder: bool = False) -> Path:
    """Return the path if a file (or folder) is there.

    Raises:
        DataError: FL203 when it is not given, not there, or of the wrong kind.
    """
    if path is None:
        hint = 'write `data.path = "meters.csv"`'
        raise DataError(Fault("FL203", "`data.path` is not given", "[data]", hint))
    found = Path(path)
    if not found.exists():
        near = (
            difflib.get_close_matches(found.name, [p.name for p in found.parent.iterdir()], n=1)
            if found.parent.is_dir()
            else []
        )
        hint = f"did you mean `{found.parent / near[0]}`?" if near else "check `data.path`"
        raise DataError(Fault("FL203", f"there is no `{found}`", str(found), hint))
    if found.is_dir() != folder:
        what = "a folder" if found.is_dir() else "a file"
        right = 'use `data.source = "folder"`' if found.is_dir() else "use `long` or `wide`"
        raise DataError(Fault("FL203", f"`{found}` is {what}", str(found), right))
    return found


def is_parquet(path: Path) -> bool:
    """Tell a Parquet file by its first bytes.

    Raises:
        DataError: FL203 when the file cannot be opened.
    """
    return head(path, 4) == b"PAR1"


def head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, as they are on disk."""
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise DataError(
            Fault("FL203", f"cannot open `{path.name}`: {error.strerror}", str(path), "")
        ) from error


def open_text(path: Path) -> pa.NativeFile:
    """Open a text file, gzip unpacked on the fly.

    Raises:
        DataError: FL203 for formats that are no delimited text.
    """
    start = head(path, 8)
    for magic, what, hint in _MAGIC:
        if start.startswith(magic):
            raise DataError(Fault("FL203", f"`{path.name}` is {what}", str(path), hint))
    packed = start.startswith(b"\x1f\x8b")
    return pa.input_stream(str(path), compression="gzip" if packed else None)


def missing_columns(path: Path, wanted: dict[str, str], present: Sequence[str]) -> list[Fault]:
    """Return FL202 for every wanted column (setting to name) that a file does not have."""
    faults = []
    for setting, name in wanted.items():
        if name in present:
            continue
        near = difflib.get_close_matches(name, present, n=1, cutoff=0.4)
        lower = [column for column in present if column.lower() == name.lower()]
        guess = (lower or near or [""])[0]
        shown = ", ".join(f"`{column}`" for column in present[:12])
        more = f" and {len(present) - 12} more" if len(present) > 12 else ""
        hint = f"the file has {shown}{more}; set `format.columns.{setting}`"
        if guess:
            hint = f'set `format.columns.{setting} = "{guess}"`? the file has {shown}{more}'
        faults.append(Fault("FL202", f"column `{name}` is not in the file", f"{path.name}:1", hint))
    return faults

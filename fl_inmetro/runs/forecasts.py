"""Write a file of forecasts whole or not at all, with a coded error where the place refuses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from fl_inmetro.data.forecast_table import write_forecasts
from fl_inmetro.runs.layout import cannot_write


def save_forecasts(tables: list[pa.Table], path: Path, metadata: Mapping[str, str]) -> None:
    """Write `tables` to `path` as Parquet; the folder is made where it is absent.

    Args:
        tables: Forecasts, see `data/forecast_table.py`.
        path: The file; one that is there is replaced.
        metadata: Goes into the file's key-value block.

    Raises:
        RunError: FL704 when the place cannot be written; what was there is still there.
    """
    if path.is_dir():
        raise cannot_write(path, "is a directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_forecasts(tables, path, metadata)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".partial").unlink(missing_ok=True)
        # Arrow wraps the system's reason in words of its own; the number stays.
        raise cannot_write(path, os.strerror(error.errno) if error.errno else str(error)) from None

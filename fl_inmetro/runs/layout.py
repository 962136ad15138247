"""Names of the files of a run directory, its identifier, and whole-file writes."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fl_inmetro.config.load import config_hash
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import Fault, RunError

Kind = Literal["run", "compare"]

MANIFEST = "manifest.json"
CONFIG_TOML = "config.toml"
CONFIG_JSON = "config.json"
DATABASE = "run.sqlite"
WEIGHTS = "weights"
FORECASTS = "forecasts.parquet"
REPORT = "report.html"
STOP = "STOP"
LOCK = "writer.lock"


def now_utc() -> str:
    """Return this instant as `YYYY-MM-DDTHH:MM:SS.mmmZ`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_id(config: RunConfig, kind: Kind, created: datetime) -> str:
    """Name a run: `<UTC time>_<name>_<model>-<training>_s<seed>_<4 hex of the config hash>`."""
    what = "compare" if kind == "compare" else f"{config.model}-{config.training}"
    stamp = created.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    return f"{stamp}_{config.name}_{what}_s{config.seed}_{config_hash(config)[:4]}"


def new_directory(root: Path, identifier: str) -> Path:
    """Make and return an empty directory `root/identifier`, or `…-2`, `…-3` where it is taken.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    number = 1
    while True:
        path = root / (identifier if number == 1 else f"{identifier}-{number}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not root.is_dir():
                raise cannot_write(root, "is not a directory") from None
            number += 1  # two runs of one second: mkdir is atomic, so each gets its own
        except OSError as error:
            raise cannot_write(path, error.strerror or str(error)) from None
        else:
            return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old one or the new one, whole.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error.strerror or str(error)) from None


def cannot_write(path: Path, reason: str) -> RunError:
    """Return the FL704 error for a place that cannot be written."""
    return RunError(
        Fault(
            "FL704",
            f"cannot write: {reason}",
            str(path),
            "choose another directory with `--runs` (or `-o`), or free some disk space",
        )
    )


def _sync_directory(path: Path) -> None:
    """Make the rename itself durable; only POSIX systems can open a directory."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

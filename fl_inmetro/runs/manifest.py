"""Reads a run's manifest and frozen configuration, and refuses what was edited or damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.runs.layout import CONFIG_JSON, DATABASE, MANIFEST


def is_run(path: Path) -> bool:
    """Tell whether a directory is a run: it has a manifest."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a run directory.

    Raises:
        RunError: FL703 when it cannot be read.
    """
    return _object(path / MANIFEST)


def read_config(path: Path) -> dict[str, Any]:
    """Return the frozen configuration as plain data, as it was when the run was made.

    Raises:
        RunError: FL703 when it cannot be read.
    """
    return _object(path / CONFIG_JSON)


def read_checked(path: Path) -> dict[str, Any]:
    """Return the manifest of a run that is whole and unedited.

    Raises:
        RunError: FL703, one fault per missing or altered file.
    """
    missing = [n for n in (MANIFEST, CONFIG_JSON, DATABASE) if not (path / n).is_file()]
    if missing:
        raise RunError(_fault(path / name, "the file is missing from the run") for name in missing)
    manifest = read_manifest(path)
    found = hashlib.sha256((path / CONFIG_JSON).read_bytes()).hexdigest()[:12]
    if found != manifest.get("config_hash"):
        raise corrupt(
            path / CONFIG_JSON,
            f"the configuration was edited after the run began: its hash is {found}, "
            f"the manifest says {manifest.get('config_hash')}",
        )
    return manifest


def corrupt(place: Path, what: str) -> RunError:
    """Return the FL703 error for a damaged or edited file of a run."""
    return RunError(_fault(place, what))


def _fault(place: Path, what: str) -> Fault:
    return Fault(
        "FL703",
        what,
        str(place),
        "restore the file from a copy, or start a new run from the run's config.toml",
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise corrupt(path, f"cannot read: {error.strerror}") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise corrupt(path, f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise corrupt(path, "not a JSON object")
    return content

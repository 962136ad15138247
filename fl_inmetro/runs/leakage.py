"""What attacks on a run's updates found, kept in its directory by model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.runs.layout import write_whole
from fl_inmetro.runs.record import RunRecord

LEAKAGE = "leakage.json"


def keep(record: RunRecord, model: str, found: Mapping[str, Any]) -> None:
    """Write what was found of a model, beside what was found of the run's other models.

    Raises:
        RunError: FL703, the file that is there is damaged; FL704, it cannot be written.
    """
    every = {**kept(record), model: dict(found)}
    content = json.dumps(every, ensure_ascii=False, allow_nan=False, indent=2)
    write_whole(record.path / LEAKAGE, f"{content}\n".encode())


def kept(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Return what was found, by model; empty where nobody attacked the run.

    Raises:
        RunError: FL703, the file is damaged.
    """
    path = record.path / LEAKAGE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table of models")
    except (OSError, ValueError) as error:
        hint = "remove the file and attack the run again"
        fault = Fault("FL703", f"what attacks found cannot be read: {error}", str(path), hint)
        raise RunError(fault) from None
    return found

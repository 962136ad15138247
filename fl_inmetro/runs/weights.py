"""Named sets of arrays with text metadata, kept whole on disk as safetensors files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.runs.layout import WEIGHTS, write_whole

Arrays = dict[str, NDArray[Any]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def weights_path(run: Path, name: str) -> Path:
    """Return the file of the set `name`.

    Raises:
        ValueError: `name` could not be a file name on every system.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"`{name}` is not a name for weights: letters, digits, `_`, `.`, `-`")
    return run / WEIGHTS / f"{name}.safetensors"


def save(run: Path, name: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, str]) -> None:
    """Write a set; a reader sees the old one or the new one, never half of it.

    Shapes: any; dtype and bits are kept.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    from safetensors.numpy import save as pack

    # Not np.ascontiguousarray: it would turn a scalar, shape (), into shape (1,).
    plain = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    write_whole(weights_path(run, name), pack(plain, metadata=dict(meta)))


def load(run: Path, name: str) -> tuple[Arrays, dict[str, str]] | None:
    """Read a set back with its metadata; None when it was never saved.

    Raises:
        RunError: FL703 when the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = weights_path(run, name)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays: Arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            return arrays, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise RunError(
            Fault("FL703", f"the weights cannot be read: {error}", str(path), "start the run anew")
        ) from None

"""Which software and which machine made a run, found without importing anything heavy."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import fl_inmetro

#: Distributions whose version can change a result.
DISTRIBUTIONS = ("flwr", "torch", "numpy", "pyarrow", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries; absent ones are left out."""
    found = {"fl-inmetro": fl_inmetro.__version__, "python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return operating system, processor and core count; never the host's name or its user."""
    return {
        "system": platform.platform(terse=True),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def source_commit() -> dict[str, Any] | None:
    """Return `{commit, modified}` of the checkout this package runs from; None elsewhere.

    An installed package may lie inside somebody else's repository (a virtual environment in a
    project), so only a `.git` directly beside the package counts.
    """
    root = Path(fl_inmetro.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "modified": bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    # x86 says "model name"; a Raspberry Pi says "Model" (the board) at the end.
    fields = dict(part.partition(":")[::2] for part in lines if ":" in part)
    plain = {key.strip().lower(): value.strip() for key, value in fields.items()}
    return plain.get("model name") or plain.get("model") or platform.processor()

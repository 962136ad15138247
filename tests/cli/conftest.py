import sys
import warnings
from pathlib import Path

import pytest

# `pytest` alone does not put the repository root on the path, `python -m pytest` does.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# Typer before 0.21 imports names that Click 8.5 calls deprecated; flwr holds Typer below 0.21.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer.testing  # noqa: F401

from tests.cli.command_line import (
    TINY,
    Answer,
    call,
    config_for,
    fleet,
    long_file,
)


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A `compare --json` of three simulated clients: its runs directory and what it printed."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "tiny.toml").write_text(TINY)
    root = folder / "runs"
    return root, call("compare", folder / "tiny.toml", "--runs", root, "--json")


@pytest.fixture(scope="session")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `meters.csv` (three meters, sixty days), `run.toml`, and a `run` in `runs`."""
    folder = tmp_path_factory.mktemp("metered")
    config = config_for(folder / "run.toml", long_file(folder / "meters.csv", fleet()))
    answer = call("run", config, "--runs", folder / "runs")
    assert answer.code == 0, answer.err
    return folder

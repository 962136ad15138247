import sys
import warnings
from pathlib import Path

# `pytest` alone does not put the repository root on the path, `python -m pytest` does.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# Typer before 0.21 imports names that Click 8.5 calls deprecated; flwr holds Typer below 0.21.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer.testing  # noqa: F401

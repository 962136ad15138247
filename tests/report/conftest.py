import sys
from pathlib import Path

# `pytest` alone does not put the repository root on the path, `python -m pytest` does.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

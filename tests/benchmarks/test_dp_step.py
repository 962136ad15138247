"""The benchmark of private steps, made small: its rows and its verdict."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_every_row_of_a_model(tmp_path):
    out = tmp_path / "dp.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "dp_step.py"), "--models", "mlp"]
    command += ["--clients", "2", "--repeats", "1", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in found["rows"]}
    ours = {"cohort plain", "cohort private", "loop plain", "loop private", "node private"}
    assert rows.keys() == ours | {"opacus private"}
    assert all(rows[name]["seconds"] > 0 for name in ours)
    ratio = rows["cohort private"]["seconds"] / rows["cohort plain"]["seconds"]
    assert abs(found["targets"][0]["value"] - ratio) < 0.006
    # Where Opacus is not installed, its row says so.
    peer = rows["opacus private"]
    assert peer["seconds"] or peer["note"] == "opacus is not installed"

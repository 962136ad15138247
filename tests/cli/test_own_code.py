"""A network of the user's own, from the folder of its TOML, in processes that start elsewhere."""

import subprocess
from pathlib import Path

from tests.cli.command_line import TINY, environment, words_for

NETWORK = """\
from torch import nn


class Line(nn.Module):
    def __init__(self, context, horizon):
        super().__init__()
        self.line = nn.Linear(context, horizon)

    def forward(self, x):
        return self.line(x)
"""


def elsewhere(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Start the command as installed: the working directory is not on the search path."""
    python, *rest = words_for(*words)
    return subprocess.run(
        [python, "-P", *rest],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_run_keeps_where_its_code_is(tmp_path):
    with_code, other, runs = tmp_path / "with code", tmp_path / "other", tmp_path / "runs"
    with_code.mkdir()
    other.mkdir()
    (with_code / "line_under_test.py").write_text(NETWORK)
    text = TINY.replace('model = "mlp"', 'model = "own"')
    own = '[models.own]\nnetwork = "line_under_test:Line"\ncontext-h = 48\n'
    (with_code / "run.toml").write_text(text + own)
    made = elsewhere(other, "run", with_code / "run.toml", "--runs", runs)
    assert made.returncode == 0, made.stderr
    file = with_code / "line_under_test.py"
    assert f"Code of your own: line_under_test is {file}" in made.stdout
    asked = ["--data", "simulator", "--from", "2024-02-20", "--to", "2024-02-21"]
    told = elsewhere(
        other, "forecast", "--run", "latest", "--runs", runs, *asked, "-o", "f.parquet"
    )
    assert told.returncode == 0, told.stderr
    assert (other / "f.parquet").is_file()

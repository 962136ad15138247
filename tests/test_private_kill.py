"""A private run that is killed, and resumed, ends and spends as one that never was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_inmetro import session
from fl_inmetro.config import to_toml
from fl_inmetro.privacy.ledger import read_ledger
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.runs import weights
from tests.fleets import tiny_config

ROUNDS = 60

PROGRAM = """
import sys
from pathlib import Path
from fl_inmetro import session
from fl_inmetro.config import load
config = load(Path(sys.argv[1]), [])
session.start(config, "run", Path(sys.argv[2]), lambda event: None, lambda: False)
"""


def configuration(folder: Path):
    privacy = {"protect": "window", "epsilon": 8.0, "ledger": str(folder / "ledgers")}
    federation = {"num_server_rounds": ROUNDS, "local_steps": 1}
    return tiny_config(model="nlinear", engine="loop", privacy=privacy, federation=federation)


def releases(folder: Path):
    entries = read_ledger(folder / "ledgers" / "tiny" / "federation.ledger").entries
    return [(e.release.round, e.release.what, e.release.digest, e.attempt) for e in entries]


def final(path: Path):
    kept = weights.load(path, "nlinear-federated-g0000")
    assert kept is not None
    return {name: array.tobytes() for name, array in kept[0].items()}


def killed_after(count: int, folder: Path) -> Path:
    """Start a run in a process of its own and kill it after so many releases."""
    file = folder / "run.toml"
    file.write_text(to_toml(configuration(folder)), encoding="utf-8")
    ledger = folder / "ledgers" / "tiny" / "federation.ledger"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(folder / "runs")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if ledger.is_file() and ledger.read_bytes().count(b"\n") > count:
                break
            time.sleep(0.002)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        process.send_signal(signal.SIGKILL)
    (path,) = (folder / "runs").iterdir()
    return path


@pytest.mark.parametrize("count", [2, 25])
def test_a_killed_run_ends_in_the_same_bits_and_spends_the_same(tmp_path, monkeypatch, count):
    halted, calm = tmp_path / "halted", tmp_path / "calm"
    halted.mkdir()
    path = killed_after(count, halted)
    (secret,) = (halted / "ledgers" / "tiny" / "secrets").iterdir()
    key = secret.read_bytes()
    before = releases(halted)
    assert count <= len(before) < ROUNDS
    session.resume(path, lambda event: None, lambda: False)
    assert releases(halted)[: len(before)] == before  # nothing that was written is gone

    monkeypatch.setattr(Secret, "fresh", classmethod(lambda cls: cls(key)))
    whole = session.start(
        configuration(calm), "run", calm / "runs", lambda event: None, lambda: False
    )
    assert final(path) == final(whole)
    assert releases(halted) == releases(calm)
    assert [one[0] for one in releases(halted)] == list(range(1, ROUNDS + 1))
    spent = [
        next(iter(json.loads((one / "privacy.json").read_text())["models"].values()))["spent"]
        for one in (path, whole)
    ]
    assert spent[0] == spent[1] <= 8.0
    assert not secret.exists()

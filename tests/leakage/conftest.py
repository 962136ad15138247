"""Two finished runs of ten simulated clients: one as it is, one whose clients add noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fl_inmetro.plan import Prepared, prepare
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.shelf import find_run
from tests.cli.command_line import call

CONFIG = """\
name = "leaky"
seed = 5
model = "mlp"

[data.simulator]
clients = 12
days = 70
ev-share = 0.5

[window]
validation-days = 5
test-days = 7
timezone = "America/Sao_Paulo"

[models.mlp]
hidden = [8]

[federation]
num-server-rounds = 2
"""


@dataclass(frozen=True)
class Finished:
    """A run, and the data it was made of."""

    root: Path
    record: RunRecord
    prepared: Prepared


def finished(folder: Path, *options: str) -> Finished:
    path = folder / "leaky.toml"
    path.write_text(CONFIG)
    answer = call("run", path, "--runs", folder / "runs", *options, FL_INMETRO_NO_PROGRESS="1")
    assert answer.code == 0, answer.err
    record = RunRecord.open(find_run(folder / "runs", "latest"))
    return Finished(folder / "runs", record, prepare(record.config))


@pytest.fixture(scope="session")
def open_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="session")
def noisy_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("noisy")
    noise = ("--set", "privacy.protect=client", "--set", f"privacy.ledger={folder / 'ledgers'}")
    return finished(folder, *noise)

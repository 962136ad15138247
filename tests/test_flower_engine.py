"""The same configuration on Flower's simulation engine (Ray) and in this process: one model.

Slow (Ray takes half a minute to start), so it has a mark and a make target of its own.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.config import RunConfig, check
from fl_inmetro.errors import ConfigError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.ledger import read_ledger
from fl_inmetro.privacy.release import spending
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.weights import load as load_weights

pytestmark = pytest.mark.flower


def configuration(engine: str, model: str = "mlp") -> RunConfig:
    return check(
        {
            "engine": engine,
            "model": model,
            "seed": 5,
            "data": {"simulator": {"clients": 4, "days": 75}},
            "window": {
                "test_days": 7,
                "validation_days": 7,
                "timezone": "America/Sao_Paulo",
            },
            # A fraction below one, so that the draw of clients is compared as well: Flower's node
            # ids are random, ours are not.
            "federation": {"num_server_rounds": 2, "fraction_fit": 0.5, "local_epochs": 2},
            "models": {"mlp": {"hidden": [8]}},
        }
    )


@pytest.fixture
def flower_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Flower home and ports of our own; the SuperLink that `flwr run` leaves behind is ended."""
    home = tmp_path / "flwr"
    monkeypatch.setenv("FLWR_HOME", str(home))
    for name in ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setenv(name, str(free.getsockname()[1]))
    yield home
    marker = f"FLWR_HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = marker in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone, or not ours to read
        if ours and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)


def final_weights(path: Path) -> dict[str, np.ndarray]:
    kept = load_weights(path, "mlp-federated-g0000")
    assert kept is not None
    return kept[0]


def test_flower_simulation_and_loop_give_the_same_model(tmp_path: Path, flower_home: Path) -> None:
    log: list[str] = []
    on_flower = session.start_on_flower(
        configuration("flower"), "run", tmp_path / "flower", log.append
    )
    in_process = session.start(
        configuration("loop"), "run", tmp_path / "loop", lambda event: None, lambda: False
    )
    theirs, ours = final_weights(on_flower), final_weights(in_process)
    assert theirs.keys() == ours.keys()
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=0, atol=1e-6, err_msg=name)
    flower, loop = RunRecord.open(on_flower), RunRecord.open(in_process)
    assert flower.status == loop.status == "completed"
    selected = [[row["client_id"] for row in r.client_rounds()] for r in (flower, loop)]
    assert selected[0] == selected[1]
    assert len(selected[0]) == 2 * 2  # half of four clients, two rounds
    for ours_row, theirs_row in zip(loop.scores(), flower.scores(), strict=True):
        for key in ("nmae", "wmape", "mae_kwh", "rmse_kwh", "bytes"):
            assert theirs_row[key] == pytest.approx(ours_row[key], abs=1e-6), key


def test_flower_engine_refuses_what_it_does_not_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        session.start_on_flower(configuration("flower"), "compare", tmp_path, print)
    assert caught.value.faults[0].code == "FL306"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protect", ["client", "window"])
def test_a_private_run_on_nodes_is_in_the_ledger(
    protect: str, tmp_path: Path, flower_home: Path
) -> None:
    given = configuration("flower").model_dump(by_alias=False)
    given["federation"]["fraction_fit"] = 1.0
    given["privacy"] = {"protect": protect, "epsilon": 8.0, "ledger": str(tmp_path / "ledgers")}
    config = check(given)
    log: list[str] = []
    path = session.start_on_flower(config, "run", tmp_path / "flower", log.append)
    (ledger,) = tmp_path.glob("ledgers/*/federation.ledger")
    releases = [entry.release for entry in read_ledger(ledger).entries]
    assert [(one.round, one.what) for one in releases] == [(1, "update"), (2, "update")]
    assert {one.subject for one in releases} == {protect}
    assert account(spending(releases), config.privacy.delta).epsilon <= 8.0
    # Each node has a ledger of its own beside it, and spends no more than was planned for all.
    own = [read_ledger(path) for path in sorted(tmp_path.glob("ledgers/*/clients/*.ledger"))]
    assert len({one.owner.client for one in own}) == len(own) == config.data.simulator.clients
    for one in own:
        spent = [entry.release for entry in one.entries]
        assert {(r.run, r.what, r.subject) for r in spent} == {(releases[0].run, "update", protect)}
        assert [r.round for r in spent] == [1, 2]
        assert account(spending(spent), config.privacy.delta).epsilon <= 8.0
    record = RunRecord.open(path)
    # Four nodes are few and the noise is secret: it may well drown the model.
    assert np.isfinite(record.scores()[-1]["nmae"])
    # Nodes that protect their windows are asked for no errors.
    rounds = [float(line.split("nMAE ")[1]) for line in log if line.startswith("round ")]
    assert len(rounds) == 2
    assert all(np.isnan(rounds)) == (protect == "window")

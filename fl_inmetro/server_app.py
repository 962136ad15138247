"""Flower's entry point of the server: `fl_inmetro.server_app:app`.

flwr run . --federation-config "num-supernodes=10"     10 simulated consumers, 3 rounds
flwr run . --run-config "config-file='/path/run.toml' num-server-rounds=20"
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_inmetro import events, session
from fl_inmetro.config import RunConfig
from fl_inmetro.federation.exchange import wait_for_nodes
from fl_inmetro.flower_engine import RUN_DIRECTORY
from fl_inmetro.task import prepared, run_config

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # flwr is not followed by mypy
def main(grid: Grid, context: Context) -> None:
    """Train the configured model over Flower's nodes and keep a run directory."""
    flower = dict(context.run_config)
    config = _connected(grid, flower)
    root = Path(str(flower.get("runs-dir") or os.environ.get("FL_INMETRO_RUNS") or "runs"))
    path = session.start(
        config, "run", root.absolute(), _say, lambda: False, prepared=prepared(config), grid=grid
    )
    print(f"{RUN_DIRECTORY} {path}", flush=True)


def _connected(grid: Grid, flower: dict[str, Any]) -> RunConfig:
    """Wait for the nodes, and return the configuration of a run on so many.

    Flower may start the server before its nodes. Without a file the nodes are the consumers, so all
    that come are waited for; with one, as many as its data have clients.

    Raises:
        FederationError: FL304, fewer than `min-clients` have come within `start-timeout-s`.
    """
    first = run_config(flower, 1)
    wanted = len(prepared(first).clients) if flower.get("config-file") else None
    settings = first.federation
    nodes = wait_for_nodes(grid, wanted, settings.min_clients, settings.start_timeout_s)
    if wanted is not None and nodes < wanted:
        print(f"{nodes} nodes of {wanted} have connected; the run begins without the others")
    return run_config(flower, nodes)


def _say(event: events.Event) -> None:
    """Write the rounds and scores to Flower's log."""
    match event:
        case events.RoundFinished():
            print(
                f"round {event.round}: loss {event.loss:.4f}, validation nMAE {event.nmae:.4f}",
                flush=True,
            )
        case events.ClientRejected():
            print(f"refused {event.client_id}: {event.code} {event.reason}", flush=True)
        case events.ModelScored():
            nmae = event.scores["nmae"]
            print(f"{event.model} ({event.training}): test nMAE {nmae:.4f}", flush=True)
        case _:
            pass

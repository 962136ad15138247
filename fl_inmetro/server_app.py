"""Flower's entry point of the server: `fl_inmetro.server_app:app`.

flwr run . --federation-config "num-supernodes=10"     10 simulated consumers, 3 rounds
flwr run . --run-config "config-file='/path/run.toml' num-server-rounds=20"
"""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_inmetro import events, session
from fl_inmetro.flower_engine import RUN_DIRECTORY
from fl_inmetro.task import prepared, run_config

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # flwr is not followed by mypy
def main(grid: Grid, context: Context) -> None:
    """Train the configured model over Flower's nodes and keep a run directory."""
    flower = dict(context.run_config)
    config = run_config(flower, len(list(grid.get_node_ids())))
    root = Path(str(flower.get("runs-dir") or os.environ.get("FL_INMETRO_RUNS") or "runs"))
    path = session.start(
        config, "run", root.absolute(), _say, lambda: False, prepared=prepared(config), grid=grid
    )
    print(f"{RUN_DIRECTORY} {path}", flush=True)


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

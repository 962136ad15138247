"""A federation of SCAFFOLD with private heads in which a round is repeated and a reply refused.

The trouble is made on the way of the replies (`Trouble`), so it works on every engine;
`main` is for a process of its own, on Flower's simulation.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from fl_inmetro import events
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation import messages
from fl_inmetro.federation.client_program import client_app
from fl_inmetro.federation.exchange import wait_for_nodes
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy, merge_for
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.update import UpdateBlock
from tests.federation.hand import Hand
from tests.learning.ragged import COUNTS, learner, workers

MADE = learner("window_mlp", optimizer="sgd", eta_l=0.1, batch_size=8, private=["head.*"])
ROUNDS, NAMES = 4, tuple(COUNTS)

#: Round and attempt to the clients whose updates arrive spoiled. Without five of seven the second
#: round is repeated; the third goes on without one.
REPEATED: dict[tuple[int, int], tuple[str, ...]] = {(2, 1): NAMES[:5]}
REFUSED: dict[tuple[int, int], tuple[str, ...]] = {(3, 1): ("c1",)}


class Trouble:
    """Spoils updates on their way."""

    def __init__(self, when: dict[tuple[int, int], tuple[str, ...]]) -> None:
        self._when = when
        self._attempts: dict[int, int] = {}

    def spoiled(self, round_: int) -> tuple[str, ...]:
        self._attempts[round_] = self._attempts.get(round_, 0) + 1
        return self._when.get((round_, self._attempts[round_]), ())

    def __call__(self, asked: Sequence[Message], replies: list[Message]) -> list[Message]:
        config = asked[0].content.config_records[messages.CONFIG]
        bad = self.spoiled(int(config["server-round"]))
        for reply in replies:
            if reply.content.config_records[messages.CONFIG]["client-id"] in bad:
                arrays = messages.unpack(reply.content.array_records[messages.ARRAYS])
                nan = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
                reply.content[messages.ARRAYS] = messages.pack(nan)
        return replies

    def block(self, bad: tuple[str, ...], block: UpdateBlock) -> UpdateBlock:
        """The same for a block of this process."""
        matrix = block.matrix.copy()
        matrix[[name in bad for name in block.client_ids]] = np.nan
        return type(block)(**{**vars(block), "matrix": matrix})


def federation(
    grid: Grid,
    strategy: str = "scaffold",
    rounds: int = ROUNDS,
    made: Any = MADE,
    **values: Any,
) -> dict[str, Any]:
    """The model, the scores on the test windows with the private heads, and what happened."""
    seen: list[events.Event] = []
    settings = StrategySettings(name=strategy)
    roster, state = enrol(grid, made, 0, 120)
    driver = FederatedStrategy(
        roster,
        merge_for(made, settings, made.private(state), roster),
        closed_form=False,
        settings=Federation(num_server_rounds=rounds, **values),
        seed=0,
        work=compose(settings).work(1),
        gate=Gate(strikes=0),
        emit=seen.append,
    )
    progress = driver.run(grid, begin(state), rounds, 120)
    sums = driver.score(grid, progress, 120)
    return {
        "state": {name: array.tobytes().hex() for name, array in progress.state.items()},
        "memory": {
            name: array.tobytes().hex()
            for name, array in progress.memory.items()
            if name.startswith("server.")
        },
        "scores": {name: one.abs_kwh.hex() for name, one in sums.items()},
        "best": progress.best_round,
        "rejected": [[e.round, e.client_id] for e in seen if isinstance(e, events.ClientRejected)],
        "codes": sorted({e.code for e in seen if isinstance(e, events.ClientRejected)}),
        "replied": [
            sum(isinstance(e, events.ClientReplied) and e.round == number for e in seen)
            for number in range(1, rounds + 1)
        ],
        "selected": [len(e.selected) for e in seen if isinstance(e, events.RoundStarted)],
        "strikes": int(progress.memory["standing.strikes"].sum()),
        "started": [e.round for e in seen if isinstance(e, events.RoundStarted)],
    }


#: Nothing private: what nodes keep of one federation is nothing to the next.
OPEN = learner("window_mlp", optimizer="sgd", eta_l=0.1, batch_size=8)

#: `[federation]` of rounds that close by the clock: all in time, and the first of more than wanted.
CLOCKED: dict[str, dict[str, Any]] = {
    "deadline": {"deadline_s": 100.0, "quorum": 1.0},
    "over-selection": {"over_selection": 1.5, "fraction_fit": 0.5},
}


@cache
def _members(made: Any) -> list[ClientWorker]:
    return workers(made)


def _trouble(grid: Grid) -> dict[str, Any]:
    return federation(Hand(grid, messages.TRAIN, Trouble(REPEATED | REFUSED)))


def _clock(grid: Grid) -> dict[str, Any]:
    return {key: federation(grid, "fedavg", made=OPEN, **CLOCKED[key]) for key in CLOCKED}


def main(out: Path, which: str) -> None:
    from flwr.simulation import run_simulation

    made, work = {"trouble": (MADE, _trouble), "clock": (OPEN, _clock)}[which]
    app = client_app(lambda context: _members(made)[int(context.node_config["partition-id"])])
    server = ServerApp()
    written: dict[str, Any] = {}

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        wait_for_nodes(grid, len(NAMES), len(NAMES), 60)
        written.update(work(grid))

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(server, app, len(NAMES), backend_config=backend)
    out.write_text(json.dumps(written), encoding="utf-8")

"""What the server app and the client app agree on: the configuration, and which node is whom."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from fl_inmetro.config import RunConfig, load, own_code
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.own_ledger import OwnLedger
from fl_inmetro.federation.protection import learner_under
from fl_inmetro.flower_engine import FEDERATION_KEYS, OWN_CODE
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.table import learner
from fl_inmetro.plan import Job, Prepared, prepare, settings_of
from fl_inmetro.privacy.release import Subject

if TYPE_CHECKING:
    from flwr.app import Context


def run_config(flower: dict[str, Any], nodes: int) -> RunConfig:
    """Return the configuration of a run that Flower started.

    `config-file` names a TOML file; without one there are as many simulated consumers as nodes.
    The keys of `FEDERATION_KEYS` always come from Flower's run configuration, whose defaults stand
    in `pyproject.toml`.

    Raises:
        ConfigError: The file or a key is wrong.
    """
    file = str(flower.get("config-file") or "")
    overrides = [f"federation.{key}={flower[key]}" for key in FEDERATION_KEYS if key in flower]
    if not file:
        overrides.append(f"data.simulator.clients={nodes}")
    config = load(Path(file) if file else None, [*overrides, 'engine="flower"'])
    found = Path(file).with_name(OWN_CODE)
    if file and found.is_file():
        own_code.search_again(json.loads(found.read_text(encoding="utf-8")))
    return config


def worker_of(context: Context) -> ClientWorker:
    """Return the client that a node is: the one at its `partition-id`, in the order of names."""
    number = int(context.node_config["partition-id"])
    nodes = int(context.node_config["num-partitions"])
    return _worker(run_config(dict(context.run_config), nodes), number, nodes)


def ledger_of(context: Context) -> OwnLedger | None:
    """Return the ledger that a node keeps of what leaves it; None where nobody is protected.

    The node's own configuration names its folder (`ledger`), the most that it spends in all
    (`budget`, an ε), the δ of that (`delta`), and whom it insists on (`protect`); without a folder
    it is the run's.

    Raises:
        FederationError: FL307, the node's `protect` is nobody that can be protected.
    """
    node = context.node_config
    config = run_config(dict(context.run_config), int(node["num-partitions"]))
    protect = str(node["protect"]) if "protect" in node else None
    if protect not in (None, *get_args(Subject)):
        raise FederationError(
            Fault(
                "FL307",
                f"a node cannot insist on `protect = {protect!r}`",
                "--node-config",
                f"one of {', '.join(get_args(Subject))}",
            )
        )
    if not config.privacy.enabled and "budget" not in node and protect is None:
        return None
    return OwnLedger(
        Path(str(node.get("ledger", config.privacy.ledger))),
        float(node["budget"]) if "budget" in node else None,
        float(node.get("delta", config.privacy.delta)),
        cast("Subject | None", protect),
    )


@lru_cache(maxsize=4)
def prepared(config: RunConfig) -> Prepared:
    """Return the data of a run; loaded once in a process."""
    return prepare(config)


@lru_cache(maxsize=4096)
def _worker(config: RunConfig, number: int, nodes: int) -> ClientWorker:
    clients = list(prepared(config).clients.values())
    if len(clients) != nodes:
        raise FederationError(
            Fault(
                "FL307",
                f"{nodes} nodes cannot stand for {len(clients)} clients",
                f"source {config.data.source}",
                f'start as many nodes: --federation-config "num-supernodes={len(clients)}", '
                "or choose clients with [data] max-clients",
            )
        )
    settings = settings_of(Job(config.model, "federated"), config)
    made = learner(config.model, settings.models)
    return ClientWorker(clients[number], learner_under(config.privacy, made))

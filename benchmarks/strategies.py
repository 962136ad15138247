"""Compare every strategy of the table on real buildings, as they are and dealt unevenly.

    python benchmarks/strategies.py [--model nlinear] [--rounds 100] [--seeds 0 1 2]
                                    [--only fedavg fedadam ...] [--partitions natural dirichlet]
                                    [--out FILE]

Needs the data set `cambridge_buildings` in $FL_INMETRO_DATA. For each strategy and seed: the rounds
and bytes until the clients' mean validation nMAE is within 5 % of the centralised model's, the test
nMAE of the kept model, and that of the worst tenth of the clients. The target is taken on the
validation windows, so that no choice is made on those that are scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from engine_rows.machine import machine, versions  # noqa: E402

from fl_inmetro import events  # noqa: E402
from fl_inmetro.config import RunConfig, check  # noqa: E402
from fl_inmetro.config.strategy import STRATEGY_NAMES  # noqa: E402
from fl_inmetro.federation.cohort_grid import CohortGrid  # noqa: E402
from fl_inmetro.federation.training import Outcome, train_group  # noqa: E402
from fl_inmetro.learning.client import ClientWorker  # noqa: E402
from fl_inmetro.learning.table import learner as learner_for  # noqa: E402
from fl_inmetro.metrics import score_fleet  # noqa: E402
from fl_inmetro.plan import (  # noqa: E402
    Job,
    Prepared,
    groups_of,
    prepare,
    settings_of,
)

RESULT = HERE / "results" / "strategies.json"

#: The target is so many times the centralised error.
TARGET = 1.05

WINDOW = {
    "issue_time": "00:00",
    "timezone": "UTC",
    "test_start": "2019-05-06",
    "test_end": "2019-06-30",
    "validation_days": 14,
    "train_days": 365,
}
PARTITIONS: dict[str, dict[str, Any]] = {
    "natural": {},
    "dirichlet": {"kind": "dirichlet", "alpha": 0.1, "by": "meter", "seed": 0},
}
#: As in examples/cambridge.toml.
CONTEXT: dict[str, dict[str, Any]] = {"nlinear": {"context_h": 336}}
#: How the clients train: local steps of plain SGD, which is what most strategies were made for.
LEARNER: dict[str, Any] = {"optimizer": "sgd", "eta_l": 0.03}
#: What is set beside the name; of a few values each, tried with seed 7.
SETTINGS: dict[str, dict[str, Any]] = {
    "fedadagrad": {"eta": 0.03},
    "fedadam": {"eta": 0.03},
    "fedyogi": {"eta": 0.03},
    "feddyn": {"alpha": 0.1},
}
#: Asynchronous: the devices decide who is in time, here all alike but for their luck.
DEVICES = {
    "enabled": True,
    "profiles": {
        "meter": {
            "share": 1.0, "compute_factor": 1.0, "down_mbit_per_s": 50, "up_mbit_per_s": 10,
            "latency_s": 0.05, "availability": 1.0, "dropout": 0.0, "spread": 0.5,
        }
    },
}  # fmt: skip


class Memory:
    """A shelf that forgets."""

    def save_state(self, name: str, arrays: Any, meta: Mapping[str, str]) -> None:
        """Keep nothing."""

    def load_state(self, name: str) -> None:
        """Have nothing."""


def config_of(name: str, seed: int, args: argparse.Namespace, partition: str) -> RunConfig:
    """Return the configuration of one row."""
    return check(
        {
            "name": "strategies",
            "seed": seed,
            "model": args.model,
            "data": {"source": "cambridge_buildings"},
            "window": WINDOW,
            "partition": PARTITIONS[partition],
            "federation": {"num_server_rounds": args.rounds, "local_epochs": args.local_epochs},
            "models": {args.model: {**CONTEXT.get(args.model, {}), **args.learner}},
            "strategy": {"name": name, **SETTINGS.get(name, {}), **args.set},
            **({"virtual_time": DEVICES} if name == "fedbuff" else {}),
        }
    )


def trained(
    config: RunConfig, training: str, prepared: Prepared
) -> tuple[Outcome, list[events.RoundFinished]]:
    """Train one model; return it and its rounds."""
    job = Job(config.model, training)
    own = settings_of(job, config)
    learner = learner_for(job.model, own.models)
    ((group, members),) = groups_of(job, list(prepared.clients.values()))
    rounds: list[events.RoundFinished] = []

    def keep(event: events.Event) -> None:
        if isinstance(event, events.RoundFinished):
            rounds.append(event)

    grid = CohortGrid([ClientWorker(client, learner) for client in members], own.execution)
    return train_group(grid, group, learner, own, Memory(), keep), rounds


def scores(outcome: Outcome) -> dict[str, float]:
    """Return the mean test nMAE over the clients, and over their worst tenth."""
    fleet = score_fleet(outcome.sums)
    return {"nmae": fleet["nmae"], "nmae_worst_tenth": fleet["worst_decile_nmae"]}


def measured(
    name: str, seed: int, args: argparse.Namespace, partition: str, prepared: Prepared, best: float
) -> dict[str, Any]:
    """Return one row."""
    started = time.perf_counter()
    outcome, rounds = trained(config_of(name, seed, args, partition), "federated", prepared)
    moved = np.cumsum([r.bytes_down + r.bytes_up for r in rounds])
    there = next((k for k, r in enumerate(rounds) if r.nmae <= TARGET * best), None)
    return {
        "partition": partition,
        "strategy": name,
        "seed": seed,
        "rounds_to_target": None if there is None else there + 1,
        "bytes_to_target": None if there is None else int(moved[there]),
        "best_validation_nmae": min(r.nmae for r in rounds),
        "validation_nmae": [round(r.nmae, 6) for r in rounds],
        "bytes": int(moved[-1]),
        **scores(outcome),
        "seconds": time.perf_counter() - started,
    }


def table(rows: Sequence[Mapping[str, Any]], partition: str) -> str:
    """Return the rows of a partition as Markdown, means over the seeds."""
    lines = [
        "| strategy | rounds to target | MB to target | nMAE | worst tenth | best validation |",
        "|---|---|---|---|---|---|",
    ]
    of_partition = [row for row in rows if row["partition"] == partition]
    for name in dict.fromkeys(row["strategy"] for row in of_partition):
        own = [row for row in of_partition if row["strategy"] == name]
        reached = [row for row in own if row.get("rounds_to_target")]
        if name == "centralised":
            to_target, megabytes = "", ""
        elif len(reached) < len(own):
            to_target = megabytes = f"{len(reached)} of {len(own)} seeds" if reached else "no"
        else:
            to_target = " ".join(str(row["rounds_to_target"]) for row in own)
            megabytes = f"{mean(row['bytes_to_target'] for row in own) / 1e6:.0f}"
        lines.append(
            f"| {name} | {to_target} | {megabytes} | {mean(r['nmae'] for r in own):.4f} | "
            f"{mean(r['nmae_worst_tenth'] for r in own):.4f} | "
            f"{mean(r['best_validation_nmae'] for r in own):.4f} |"
        )
    return "\n".join(lines)


def written(result: Mapping[str, Any]) -> str:
    """Return the result as JSON with one row on a line."""
    head = {key: value for key, value in result.items() if key != "rows"}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in result["rows"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=STRATEGY_NAMES, default=STRATEGY_NAMES)
    parser.add_argument("--partitions", nargs="+", choices=PARTITIONS, default=list(PARTITIONS))
    parser.add_argument("--model", default="nlinear")
    parser.add_argument("--set", type=json.loads, default={}, help="settings of [strategy], JSON")
    parser.add_argument("--learner", type=json.loads, default=LEARNER, help="JSON")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "strategies",
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "rounds": args.rounds, "local_epochs": args.local_epochs, "seeds": args.seeds,
            "model": args.model, "learner": args.learner, "target": TARGET, "window": WINDOW,
            "partitions": PARTITIONS, "strategies": SETTINGS, "set": args.set,
        },
        "rows": [],
    }  # fmt: skip
    for partition in args.partitions:
        for seed in args.seeds:
            plain = config_of("fedavg", seed, args, partition)
            prepared = prepare(plain)
            outcome, rounds = trained(plain, "centralised", prepared)
            best = min(r.nmae for r in rounds)
            central = {"partition": partition, "strategy": "centralised", "seed": seed}
            central |= {"best_validation_nmae": best, **scores(outcome)}
            result["rows"].append(central)
            for name in args.only:
                row = measured(name, seed, args, partition, prepared, best)
                result["rows"].append(row)
                print(
                    f"{partition:10} {name:18} seed {seed}: nMAE {row['nmae']:.4f} "
                    f"({central['nmae']:.4f} centralised), target after "
                    f"{row['rounds_to_target'] or 'no'} rounds, {row['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
            args.out.write_text(written(result))
        print(f"\n{partition}\n\n{table(result['rows'], partition)}", flush=True)


if __name__ == "__main__":
    main()

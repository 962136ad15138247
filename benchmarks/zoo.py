"""Compare every trained model on real loads: size, bytes and seconds per round, error.

    python benchmarks/zoo.py [--rounds 10] [--seed 0] [--only dlinear tide ...]
                             [--sets cambridge_buildings citylearn_fontana sgsc_households]
                             [--every 4] [--set '{"eta_l": 0.001}'] [--validation] [--out FILE]

Needs the data sets in $FL_INMETRO_DATA. Federated averaging, one local epoch a round, all clients,
the models' own settings; the model kept is that of the best validation round. `--every 4` takes
every fourth client; with `--validation` the test window is left alone, for choosing settings.
Seconds are of a whole round, validation included, on the machine that the result names.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from engine_rows.machine import machine, versions  # noqa: E402
from strategies import WINDOW, trained, written  # noqa: E402

from fl_inmetro.config import RunConfig, check  # noqa: E402
from fl_inmetro.config.schema import LEARNERS  # noqa: E402
from fl_inmetro.federation.rules import BUFFERS  # noqa: E402
from fl_inmetro.learning.table import learner as learner_for  # noqa: E402
from fl_inmetro.metrics import score_fleet  # noqa: E402
from fl_inmetro.plan import Prepared, prepare  # noqa: E402

RESULT = HERE / "results" / "zoo.json"

#: Data set to its window; without one, that of the source.
SETS: dict[str, dict[str, Any]] = {
    "cambridge_buildings": WINDOW,
    "citylearn_fontana": {},
    "sgsc_households": {},
}
#: A network of one's own has no settings to compare.
MODELS: tuple[str, ...] = tuple(name for name in LEARNERS if name != "own")


def config_of(source: str, model: str, args: argparse.Namespace) -> RunConfig:
    """Return the configuration of one row."""
    return check(
        {
            "name": "zoo",
            "seed": args.seed,
            "model": model,
            "data": {"source": source},
            "window": SETS[source],
            "federation": {"num_server_rounds": args.rounds},
            "models": {} if model in ("ridge", "quantile_linear") else {model: args.set},
        }
    )


def every(prepared: Prepared, step: int) -> Prepared:
    """Return the data with every `step`-th client, in the order of their names."""
    names = sorted(prepared.clients)[::step]
    clients = {name: prepared.clients[name] for name in names}
    return replace(prepared, clients=clients)


def measured(config: RunConfig, prepared: Prepared, *, test: bool) -> dict[str, Any]:
    """Return one row."""
    outcome, rounds = trained(config, "federated", prepared)
    learner = learner_for(config.model, config.models)
    sent = set(outcome.state) - learner.private(outcome.state)
    numbers = {n: v.size for n, v in outcome.state.items() if n not in BUFFERS}
    best = [r for r in rounds if r.is_best][-1]
    return {
        "set": config.data.source,
        "model": config.model,
        "clients": len(prepared.clients),
        "parameters": sum(numbers.values()),
        "parameters_sent": sum(size for name, size in numbers.items() if name in sent),
        "rounds": len(rounds),
        "bytes_per_round": round(sum(r.bytes_down + r.bytes_up for r in rounds) / len(rounds)),
        "seconds_per_round": median(r.seconds for r in rounds),
        "best_round": best.round,
        "validation_nmae": best.nmae,
        **({"nmae": score_fleet(outcome.sums)["nmae"]} if test else {}),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as Markdown, a line for each model."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    score = "nmae" if all("nmae" in row for row in rows) else "validation_nmae"
    heads = ["model", "parameters", "kB per client and round", "s per round", *sets]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["set"]: row for row in rows if row["model"] == model}
        first = own[next(iter(own))]
        each = first["bytes_per_round"] / first["clients"] / 1e3
        errors = [f"{own[name][score]:.4f}" if name in own else "" for name in sets]
        cells = [model, f"{first['parameters']:,}", f"{each:.1f}"]
        cells += [f"{first['seconds_per_round']:.2f}", *errors]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--set", type=json.loads, default={}, help="settings of each model, JSON")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "zoo",
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "rounds": args.rounds, "seed": args.seed, "every": args.every, "set": args.set,
            "windows": {name: SETS[name] for name in args.sets},
        },
        "rows": [],
    }  # fmt: skip
    for source in args.sets:
        prepared = every(prepare(config_of(source, "ridge", args)), args.every)
        for model in args.only:
            row = measured(config_of(source, model, args), prepared, test=not args.validation)
            result["rows"].append(row)
            print(
                f"{source} {model}: {row['parameters']} parameters, validation nMAE "
                f"{row['validation_nmae']:.4f} in round {row['best_round']}, "
                f"{row['seconds_per_round']:.2f} s per round",
                file=sys.stderr,
                flush=True,
            )
            args.out.write_text(written(result))
    print(table(result["rows"]))


if __name__ == "__main__":
    main()

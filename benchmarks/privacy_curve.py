"""What noise costs in accuracy: nMAE by epsilon and by whom it protects, on two fleets.

    python benchmarks/privacy_curve.py [--sets cambridge simulated] [--epsilons 0.5 1 2 4 8]
                                       [--protect client window client-day] [--draws 2] [--out FILE]
                                       [--models mlp ridge nlinear] [--quick]

Every cell is a whole private run (`fl-inmetro run` with `[privacy]`) in a temporary folder, `draws`
times with fresh noise; its test nMAE stands beside those of the same model without noise, of the
base profile (for which a model has learned nothing), of models that each client trains alone, and
of HA4. Recipes differ by whom they protect, and were chosen on validation days: few parameters, few
rounds. Every run of `nlinear` is attacked as well (`fl-inmetro privacy attack --invert`), and what
comes of it stands in a table of its own: medians over five clients, beside the guess of somebody
who has seen no update. The set `cambridge` needs FL_INMETRO_DATA; `simulated` is the built-in
simulator. `--quick` takes 60 simulated consumers, one draw and two epsilons, to see that all of it
works (two minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine_rows.machine import machine, versions  # noqa: E402
from engine_rows.measure import ONE_THREAD  # noqa: E402

os.environ.update(ONE_THREAD)  # before anything starts threads of its own

from fl_inmetro import session  # noqa: E402
from fl_inmetro.config import RunConfig, check  # noqa: E402
from fl_inmetro.leakage.bench import attack  # noqa: E402
from fl_inmetro.plan import Prepared, prepare  # noqa: E402
from fl_inmetro.runs.record import RunRecord  # noqa: E402

RESULT = HERE / "results" / "privacy_curve.json"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
PROTECTED = ("client", "window", "client-day")

#: Where the data are from, and their windows.
SETS: dict[str, dict[str, Any]] = {
    "cambridge": {
        "data": {"source": "cambridge_buildings"},
        "window": {
            "issue_time": "00:00",
            "timezone": "UTC",
            "test_start": "2019-05-06",
            "test_end": "2019-06-30",
            "train_days": 365,
        },
    },
    "simulated": {
        "data": {"source": "simulator", "simulator": {"clients": 1000, "days": 150}},
        "window": {"issue_time": "00:00", "test_days": 28, "timezone": "America/Sao_Paulo"},
    },
}

MODELS = ("mlp", "ridge", "nlinear")

#: The model whose updates are attacked: what its first layer is given is the load itself.
ATTACKED = "nlinear"

#: Clients that are rebuilt.
VICTIMS = 5


def recipe_of(model: str, protect: str, epsilon: float) -> tuple[dict[str, Any], float]:
    """Return the settings of a cell beside its set, and the clipping norm.

    More noise wants smaller steps: the clipping norm, or the clients' rate, falls with ε.
    """
    if model == "ridge":
        return {}, 1.0
    if model == ATTACKED:
        rate = 0.1 if epsilon >= 4 else 0.03
        steps = {"optimizer_l": "sgd", "batch_size_l": 0, "eta_l": rate}
        few = {"num_server_rounds": 10, "local_steps": 1}
        return {"strategy": steps, "federation": few}, 0.3
    small = {"models": {"mlp": {"hidden": [16], "zero_start": True}}}
    if protect == "client":
        clip = 1.0 if epsilon >= 8 else 0.3 if epsilon >= 2 else 0.1
        return {**small, "federation": {"num_server_rounds": 5, "local_epochs": 2}}, clip
    # One gradient of each client a round, by all its windows.
    one = {"optimizer_l": "sgd", "batch_size_l": 0}
    if protect == "window":
        server = {
            "name": "fedadam",
            "eta": 0.02,
            "eta_schedule": "cosine",
            "tau": 1e-5,
            "bias_correction": True,
            "average": 0.9,
            "eta_l": 1.0,
        }
        rounds = {"num_server_rounds": 20, "local_steps": 1}
        return {**small, "strategy": {**one, **server}, "federation": rounds}, 1.0
    linear = {"models": {"mlp": {"hidden": [], "zero_start": True}}}
    slower = {**one, "eta_l": 0.15 * min(1.0, epsilon / 8)}
    rounds = {"num_server_rounds": 10, "local_steps": 1}
    return {**linear, "strategy": slower, "federation": rounds}, 0.3


def configuration(
    of: str, model: str, protect: str, epsilon: float | None, ledger: str
) -> RunConfig:
    """Return the configuration of a cell; without an epsilon nobody is protected."""
    recipe, clip = recipe_of(model, protect, epsilon or 8.0)
    privacy: dict[str, Any] = {}
    if epsilon is not None:
        privacy = {"protect": protect, "epsilon": epsilon, "ledger": ledger, "clip": clip}
    chosen: dict[str, Any] = {**SETS[of], **recipe}
    if protect == "client-day":
        # Masks of outliers would tie a day to all earlier ones; without them it is refused.
        chosen["data"] = {**chosen["data"], "cleaning": {"outliers": "report"}}
    return check({"name": "privacy-curve", "model": model, **chosen, "privacy": privacy})


def attacked(path: Path, prepared: Prepared) -> dict[str, Any]:
    """Attack a run; return the medians over its victims, and how well clients are told."""
    found = attack(RunRecord.open(path), clients=VICTIMS, invert=True, prepared=prepared)
    rebuilt: dict[str, list[Any]] = {}
    for one in found.reconstructions:
        key = one.attack if one.attack != "inversion" else f"inversion-{one.windows}"
        rebuilt.setdefault(key, []).append(one)
    medians = {
        key: {
            name: statistics.median(getattr(one, name) for one in many)
            for name in ("nrmse", "smape", "nrmse_population", "smape_population")
        }
        for key, many in rebuilt.items()
    }
    told = {f"{one.attack}/{one.what}": asdict(one) for one in found.detections}
    return {"rebuilt": medians, "told": told}


def measure(config: RunConfig, prepared: Prepared, runs: Path) -> dict[str, Any]:
    """Carry a run out; return its test nMAE beside the baselines', and what it spent."""
    started = time.perf_counter()
    path = session.start(config, "run", runs, lambda event: None, lambda: False, prepared=prepared)
    rows = {(r["model"], r["training"]): r["nmae"] for r in RunRecord.open(path).scores()}
    account = path / "privacy.json"
    models = json.loads(account.read_text())["models"] if account.is_file() else {}
    update = next(iter(models.values()))["planned"][-1] if models else {}
    attacks = attacked(path, prepared) if config.model == ATTACKED else None
    return {
        "attacks": attacks,
        "nmae": rows[config.model, "federated"],
        "ha4": rows["ha4", "baseline"],
        "noise_multiplier": update.get("noise_multiplier"),
        "spent": next(iter(models.values()))["spent"] if models else None,
        "seconds": time.perf_counter() - started,
    }


def yardsticks(of: str, prepared: Prepared, runs: Path) -> dict[str, float]:
    """Return the test nMAE of the mean by day type, and of models that each client trains alone.

    Neither lets anything leave a client: a private federation has to be better than these.
    """
    small, _ = recipe_of("mlp", "client", 8.0)
    compared = {"models": ["day_type_mean", "mlp", "ridge"], "training": ["local"]}
    settings = {"name": "yardsticks", **SETS[of], **small, "compare": compared}
    path = session.start(
        check(settings), "compare", runs, lambda event: None, lambda: False, prepared=prepared
    )
    found = {row["model"]: float(row["nmae"]) for row in RunRecord.open(path).scores()}
    return {"base_profile": found["day_type_mean"], "mlp": found["mlp"], "ridge": found["ridge"]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS))
    parser.add_argument("--protect", nargs="+", choices=PROTECTED, default=list(PROTECTED))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.quick:
        given.sets, given.draws, given.epsilons = ["simulated"], 1, [1.0, 8.0]
        SETS["simulated"]["data"]["simulator"] = {"clients": 60, "days": 90}
    given.epsilons.sort()
    result: dict[str, Any] = {
        "benchmark": "privacy_curve",
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": versions(),
        "delta": 1e-5,
        "draws": given.draws,
        "sets": {},
        "rows": [],
    }
    for of in given.sets:
        with tempfile.TemporaryDirectory(prefix="fl-inmetro-curve-") as folder:
            _one_set(of, given, Path(folder), result)
    print(f"written: {given.out}")


def _one_set(of: str, given: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    # Days are cut from readings that are cleaned, and scaled, otherwise.
    cut = {
        protect: prepare(configuration(of, "mlp", protect, 8.0, ""))
        for protect in given.protect
        if protect == "client-day" or protect == given.protect[0]
    }
    usual = next(iter(cut.values()))
    beside = yardsticks(of, usual, folder / "runs")
    print(
        f"\n{of}: {len(usual.clients)} clients; base profile {beside['base_profile']:.4f}; each "
        f"alone: mlp {beside['mlp']:.4f}, ridge {beside['ridge']:.4f}"
    )
    print(
        "| model | protected | not clipped, no noise | "
        + " | ".join(f"ε {e:g}" for e in given.epsilons)
        + " |"
    )
    print("|---|---|---|" + "---|" * len(given.epsilons))
    result["sets"][of] = {"clients": len(usual.clients), **beside}
    attacks: list[str] = []
    for model in given.models:
        for protect in given.protect:
            cells = []
            for epsilon in (None, *given.epsilons):
                draws = []
                for draw in range(given.draws if epsilon is not None else 1):
                    ledger = str(folder / f"ledger-{model}-{protect}-{epsilon}-{draw}")
                    config = configuration(of, model, protect, epsilon, ledger)
                    prepared = cut.get(protect, usual)
                    draws.append(measure(config, prepared, folder / "runs"))
                row = {"set": of, "model": model, "protect": protect, "epsilon": epsilon}
                result["rows"].append({**row, "draws": draws})
                found = [d["nmae"] for d in draws]
                spread = f" ± {(max(found) - min(found)) / 2:.4f}" if len(found) > 1 else ""
                cells.append(f"{statistics.fmean(found):.4f}{spread}")
                if draws[0]["attacks"]:
                    attacks.append(_attack_row(protect, epsilon, draws))
                print(f"  {model} {protect} {epsilon}: {cells[-1]}", file=sys.stderr, flush=True)
                given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(f"| {model} | {protect} | " + " | ".join(cells) + " |", flush=True)
    if attacks:
        print(f"\n{of}: attacks on {ATTACKED}, error of what is rebuilt (guess without an update)")
        print("| protected | ε | mean profile | one window | two windows | client told, AUC |")
        print("|---|---|---|---|---|---|")
        print("\n".join(attacks), flush=True)


def _attack_row(protect: str, epsilon: float | None, draws: list[dict[str, Any]]) -> str:
    """Return a line of the table of attacks: means over the draws."""
    found = [draw["attacks"] for draw in draws]
    cells = []
    for key in ("gradient", "inversion-1", "inversion-2"):
        own, other = (
            statistics.fmean(one["rebuilt"][key][name] for one in found)
            for name in ("nrmse", "nrmse_population")
        )
        cells.append(f"{own:.3f} ({other:.3f})")
    told = [one["told"]["client-membership/not-drawn-known"]["auc"] for one in found]
    who = "nobody" if epsilon is None else protect
    shown = "∞" if epsilon is None else f"{epsilon:g}"
    return f"| {who} | {shown} | " + " | ".join(cells) + f" | {statistics.fmean(told):.2f} |"


if __name__ == "__main__":
    main()

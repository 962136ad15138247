"""What a private step costs beside a plain one: the cohort engine, the plain loop, and Opacus.

    python benchmarks/dp_step.py [--models mlp nlinear gru patchtst] [--clients 32] [--repeats 5]
                                 [--out FILE]

A step is of one client, on 32 windows: drawn in order for a plain one, each by itself with chance
32 / n for a private one (32 on average). Every model has its default settings, made-up windows of
the real shapes, and one thread; rows take turns, and the medians of their times stand beside each
other. Opacus is measured on the same networks where it is installed (it need not be).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine_rows.machine import machine, versions  # noqa: E402
from engine_rows.measure import ONE_THREAD  # noqa: E402

os.environ.update(ONE_THREAD)  # before anything starts threads of its own

import numpy as np  # noqa: E402
import torch  # noqa: E402

from fl_inmetro.config.models import Models  # noqa: E402
from fl_inmetro.config.schema import Execution  # noqa: E402
from fl_inmetro.data.features import feature_names  # noqa: E402
from fl_inmetro.learning.alone import update_alone  # noqa: E402
from fl_inmetro.learning.dp_sgd import Draws  # noqa: E402
from fl_inmetro.learning.gradient import GradientLearner  # noqa: E402
from fl_inmetro.learning.neural import MlpLearner  # noqa: E402
from fl_inmetro.learning.rows import Rows, StoredPopulation  # noqa: E402
from fl_inmetro.learning.table import learner as learner_for  # noqa: E402
from fl_inmetro.learning.trainer import CohortTrainer  # noqa: E402
from fl_inmetro.learning.update import Arrays  # noqa: E402
from fl_inmetro.learning.work import DpSgd, LocalWork  # noqa: E402
from fl_inmetro.models.design import Design  # noqa: E402
from fl_inmetro.privacy.secret import Secret  # noqa: E402

RESULT = HERE / "results" / "dp_step.json"
MODELS = ("mlp", "nlinear", "gru", "patchtst")
CONTEXT, HORIZON = 168, 24
BATCH = 32

#: Windows of each client: those of a year.
WINDOWS = 365

#: Clients of a row that works them one after the other, and steps of each client.
FEW, STEPS = 2, 4
DP = DpSgd(1.0, 1.0)

#: What is promised of a private step of the MLP in the cohort engine, in plain ones.
MOST = 3.0


def made(model: str) -> tuple[GradientLearner, Arrays]:
    """Return a learner with its default settings, and a first state."""
    learner = learner_for(model, Models())
    assert isinstance(learner, GradientLearner)
    if isinstance(learner, MlpLearner):
        width = len(feature_names(learner.mlp.features))
        sums = {"n": np.ones(1), "x_sum": np.zeros(width), "x_sq_sum": np.ones(width)}
        return learner, learner.initial(sums, 0, (HORIZON, width), HORIZON)
    return learner, learner.initial({}, 0, (CONTEXT,), HORIZON)


def rows_of(
    model: str, clients: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, str], int]:
    """Measure the rows of a model; return seconds per step, notes, and the parameters."""
    learner, state = made(model)
    rng = np.random.default_rng(0)
    shape = (HORIZON, len(state["x_mean"])) if "x_mean" in state else (CONTEXT,)
    n = clients * WINDOWS
    x = rng.standard_normal((n, *shape), dtype=np.float32)
    residual = rng.standard_normal((n, HORIZON), dtype=np.float32)
    known = np.ones_like(residual)
    rows = Rows.of({"x": x, "residual": residual, "known": known}, np.full(clients, WINDOWS))
    names = [f"c{k}" for k in range(clients)]
    population = StoredPopulation(names, rows, np.full(clients, float(WINDOWS * HORIZON)))
    trainer = CohortTrainer(learner, population, Execution(workers=1))
    if not trainer.can_batch(state):
        sys.exit(f"{model} has no batched form")
    root, count = Secret(bytes(32)), 0

    def cohort(work: LocalWork) -> Callable[[], int]:
        def run() -> int:
            nonlocal count
            count += 1
            members = np.arange(clients)
            for result in trainer.train(
                state, members, work, 0, count, lambda block: block, secret=root
            ):
                if not hasattr(result, "matrix"):
                    sys.exit(f"{model}: {result}")
            return clients * STEPS

        return run

    designs = []
    for k in range(FEW):
        part = slice(k * WINDOWS, (k + 1) * WINDOWS)
        ones = np.ones(WINDOWS)
        empty = np.zeros_like(residual[part])
        designs.append(Design(x[part], empty, ones, 0 * ones, residual[part], known[part]))

    def loop(work: LocalWork, update: Callable[..., object]) -> Callable[[], int]:
        def run() -> int:
            for k, design in enumerate(designs):
                update(state, design, work, k, secret=root.child(k))
            return FEW * STEPS

        return run

    plain, private = LocalWork(steps=STEPS), LocalWork(steps=STEPS, dp=DP)
    jobs = {
        "cohort plain": cohort(plain),
        "cohort private": cohort(private),
        "loop plain": loop(plain, learner.update),
        "loop private": loop(private, learner.update),
        "node private": loop(private, partial(update_alone, learner)),
    }
    notes = {}
    try:
        jobs["opacus private"] = opacus_steps(learner, state, designs[0])
    except ImportError:
        notes["opacus private"] = "opacus is not installed"
    except Exception as error:  # of a peer, whatever it raises on a network of ours
        notes["opacus private"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            steps = job()
            if turn:  # the first one makes what is kept
                found[name].append((time.perf_counter() - began) / steps)
    return found, notes, sum(value.size for n, value in state.items() if n[:2] != "x_")


def opacus_steps(learner: GradientLearner, state: Arrays, design: Design) -> Callable[[], int]:
    """Return a few private steps by Opacus, on the same network and with the same optimiser.

    A GRU is exchanged for Opacus's own, as it asks for.
    """
    import warnings

    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer
    from opacus.validators import ModuleValidator

    fixed = ModuleValidator.fix(learner.loaded(state)).train()
    module = GradSampleModule(fixed)
    adam = torch.optim.Adam(module.parameters(), lr=learner.settings.eta_l)
    optimizer = DPOptimizer(
        adam, noise_multiplier=DP.noise_multiplier, max_grad_norm=DP.clip, expected_batch_size=BATCH
    )
    x, residual = torch.from_numpy(design.x), torch.from_numpy(design.residual)
    draws = Draws(Secret(bytes(32)), WINDOWS, BATCH)

    def run() -> int:
        for _ in range(STEPS):
            batch = torch.from_numpy(draws.windows())
            optimizer.zero_grad()
            learner.head.penalty(module(x[batch]), residual[batch]).mean().backward()
            optimizer.step()
        return STEPS

    run()  # it refuses a network, if it does, here
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"{'model':<10}{'row':<16}{'ms/step':>9}{'best':>9}{'/plain':>8}{'/cohort':>9}  note")
    table, reached = [], None
    for model in args.models:
        found, notes, parameters = rows_of(model, args.clients, args.repeats)
        middle = {name: statistics.median(times) for name, times in found.items()}
        for name in [*found, *notes]:
            if name in notes:
                table.append({"model": model, "row": name, "seconds": None, "note": notes[name]})
                print(f"{model:<10}{name:<16}{'-':>9}{'-':>9}{'-':>8}{'-':>9}  {notes[name]}")
                continue
            engine = "cohort" if name.startswith("cohort") else "loop"
            row: dict[str, Any] = {
                "model": model,
                "row": name,
                "parameters": parameters,
                "seconds": middle[name],
                "best_seconds": min(found[name]),
                "times_of_plain": middle[name] / middle[f"{engine} plain"],
                "times_of_cohort_private": middle[name] / middle["cohort private"],
                "note": "",
            }
            table.append(row)
            print(
                f"{model:<10}{name:<16}{1e3 * row['seconds']:>9.3f}"
                f"{1e3 * row['best_seconds']:>9.3f}{row['times_of_plain']:>8.2f}"
                f"{row['times_of_cohort_private']:>9.2f}",
                flush=True,
            )
        if model == "mlp":
            ratio = middle["cohort private"] / middle["cohort plain"]
            reached = {
                "what": "private step of the MLP over a plain one, cohort engine",
                "value": round(ratio, 2),
                "wanted": f"<= {MOST}",
                "reached": ratio <= MOST,
            }
    result = {
        "benchmark": "dp_step",
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": versions() | opacus_version(),
        "load_average_at_start": round(load, 2),
        "settings": {
            "clients": args.clients,
            "windows": WINDOWS,
            "batch": BATCH,
            "steps": STEPS,
            "repeats": args.repeats,
        },
        "rows": table,
        "targets": [reached] if reached else [],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if reached:
        verdict = "reached" if reached["reached"] else "NOT REACHED"
        print(f"  {reached['what']}: {reached['value']}, wanted {reached['wanted']}: {verdict}")


def opacus_version() -> dict[str, str]:
    """Return its release, or `none`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"opacus": version("opacus")}
    except PackageNotFoundError:
        return {"opacus": "none"}


if __name__ == "__main__":
    main()

"""Run directories made by hand: an engine's events, with invented but fixed numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fl_inmetro import events as ev
from fl_inmetro.config.load import check
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.runs import Recorder
from fl_inmetro.seeds import derive

BASELINES = {"sn24": 0.175, "sn168": 0.158, "ha4": 0.150, "persistence_ensemble": 0.149}
LEARNERS = {"ridge": 0.141, "nlinear": 0.146, "mlp": 0.139}
TRAININGS = {"local": 1.06, "federated": 1.0, "centralised": 0.99}

DATA = {
    "source": "simulator",
    "title": "SIMULATED consumers",
    "licence": "none needed: no meter was involved",
    "citation": "the simulator of fl-inmetro",
    "timezone": "America/Sao_Paulo",
    "resolution_s": 3600,
    "simulated": True,
    "files": {},
    "excluded": {"sim-home-099": "3 days of readings, 7 needed"},
    "cleaning": {"gap": 12, "negative": 1},
    "reference_window": None,
}
WINDOW = {
    "train_start": "2024-01-01",
    "validation_start": "2024-05-01",
    "test_start": "2024-05-15",
    "test_end": "2024-06-11",
    "issue_time": "00:00",
    "timezone": "America/Sao_Paulo",
    "horizon_h": 24.0,
}


def config(**values: Any) -> RunConfig:
    return check({"name": "demo", "seed": 7, **values})


def client_names(count: int) -> list[str]:
    return [f"sim-home-{number:03d}" for number in range(count)]


def create(
    root: Path,
    run_config: RunConfig | None = None,
    kind: Any = "compare",
    data: dict[str, Any] | None = None,
) -> Recorder:
    return Recorder.create(
        root, run_config or config(), DATA if data is None else data, kind, WINDOW
    )


def rounds_of(
    group: int, clients: Sequence[str], first: int, last: int, seed: int = 7
) -> Iterator[ev.Event]:
    """The events of rounds first..last of one group; the same ones whoever asks."""
    for number in range(first, last + 1):
        rng = derive(seed, "builder", group, number)
        yield ev.RoundStarted(group, number, tuple(clients))
        for name in clients:
            loss, norm = rng.uniform(0.2, 0.3) / number**0.3, rng.uniform(0.1, 2.0)
            yield ev.ClientReplied(group, number, name, 100.0, loss, norm, 4000, 4100, 0.01)
        level = 0.14 + 0.08 / number
        for name in clients:
            nmae = float(level * rng.uniform(0.7, 1.3))
            yield ev.ClientEvaluated(group, number, name, 336, nmae * 0.8, nmae)
        size = len(clients)
        yield ev.RoundFinished(
            group, number, 0.25 / number**0.3, level, True, 4000 * size, 4100 * size, 0.01 * size
        )


def scored(
    model: str, training: str, clients: Sequence[str], nmae: float, seed: int = 7
) -> ev.ModelScored:
    """A line of the comparison whose fleet scores follow from its per-client ones."""
    level = derive(seed, "level").uniform(0.5, 1.8, len(clients))
    mean_kwh = derive(seed, "load").uniform(0.2, 3.0, len(clients))
    own = derive(seed, "own", model, training).uniform(0.93, 1.07, len(clients))
    errors = nmae * level * own / level.mean()
    per_client = {
        name: {
            "nmae": float(e),
            "mae_kwh": float(e * m),
            "rmse_kwh": float(e * m * 1.4),
            "mase": float(e * 4.5),
            "bias": float((o - 1) / 10),
            "mean_kwh": float(m),
            "points": 672.0,
        }
        for name, e, m, o in zip(clients, errors, mean_kwh, own, strict=True)
    }
    scores = {
        "nmae": float(errors.mean()),
        "wmape": float((errors * mean_kwh).sum() / mean_kwh.sum()),
        "mae_kwh": float((errors * mean_kwh).mean()),
        "rmse_kwh": float((errors * mean_kwh).mean() * 1.5),
        "mase": float(errors.mean() * 4.5),
        "nrmse": float(errors.mean() * 1.4),
        "bias": 0.004,
        "worst_decile_nmae": float(np.sort(errors)[-max(1, round(len(clients) / 10)) :].mean()),
        "clients": float(len(clients)),
        "points": 672.0 * len(clients),
        "bytes": 0.0 if training in ("baseline", "local") else 8100.0 * len(clients) * 4,
        "seconds": 0.2 if training == "baseline" else 3.5,
    }
    return ev.ModelScored(model, training, scores, per_client)


def compare_events(
    clients: Sequence[str], rounds: int = 4, learners: Iterable[str] = LEARNERS
) -> Iterator[ev.Event]:
    """A whole comparison: baselines, then each learner local, federated and centralised."""
    for model, nmae in BASELINES.items():
        yield scored(model, "baseline", clients, nmae)
    for model in learners:
        planned = 1 if model == "ridge" else rounds
        for training, factor in TRAININGS.items():
            groups = [[name] for name in clients] if training == "local" else [list(clients)]
            yield ev.RunStarted(model, training, len(clients), len(groups), planned)
            for group, members in enumerate(groups):
                yield ev.GroupStarted(
                    group, members[0] if training == "local" else training, len(members)
                )
                yield from rounds_of(group, members, 1, planned)
                yield ev.GroupFinished(group, planned, 0.15)
            line = scored(model, training, clients, LEARNERS[model] * factor)
            if training == "federated":
                line.scores["better_than_local"] = 0.75
            yield line
    yield ev.RunFinished("completed", 61.5)


def run_events(clients: Sequence[str], rounds: int = 4) -> Iterator[ev.Event]:
    """One federated MLP with its baselines, as `fl-inmetro run` makes it."""
    yield ev.RunStarted("mlp", "federated", len(clients), 1, rounds)
    yield ev.GroupStarted(0, "federated", len(clients))
    yield from rounds_of(0, clients, 1, rounds)
    yield ev.GroupFinished(0, rounds, 0.15)
    yield scored("mlp", "federated", clients, LEARNERS["mlp"])
    for model, nmae in BASELINES.items():
        yield scored(model, "baseline", clients, nmae)
    yield ev.RunFinished("completed", 12.25)


def write_forecasts(
    path: Path, clients: Sequence[str], lines: Sequence[tuple[str, str]], days: int = 10
) -> None:
    """A forecast file of daily 24 h forecasts from 2024-05-15 03:00 UTC on, hourly."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = datetime(2024, 5, 15, 3, tzinfo=UTC)
    hours = np.arange(24 * days)
    columns: dict[str, list[Any]] = {
        key: []
        for key in (
            "client_id",
            "issue_time_utc",
            "target_time_utc",
            "mean",
            "observed_kwh",
            "model",
            "training",
        )
    }
    for name in clients:
        rng = derive(7, "forecast", name)
        observed = 1.0 + 0.6 * np.sin(hours * 2 * np.pi / 24) + rng.normal(0, 0.1, hours.size)
        for model, training in lines:
            columns["client_id"] += [name] * hours.size
            columns["issue_time_utc"] += [start + timedelta(days=int(h) // 24) for h in hours]
            columns["target_time_utc"] += [start + timedelta(hours=int(h)) for h in hours]
            columns["mean"] += list(observed + rng.normal(0, 0.15, hours.size))
            columns["observed_kwh"] += list(observed)
            columns["model"] += [model] * hours.size
            columns["training"] += [training] * hours.size
    pq.write_table(pa.table(columns), path)


def compare_run(root: Path, clients: int = 6, rounds: int = 4) -> Path:
    names = client_names(clients)
    with create(root) as recorder:
        for event in compare_events(names, rounds):
            recorder(event)
        lines = [("mlp", "federated"), *((name, "baseline") for name in BASELINES)]
        write_forecasts(recorder.path / "forecasts.parquet", names, lines)
    return recorder.path


def single_run(root: Path, clients: int = 6, rounds: int = 4, **values: Any) -> Path:
    names = client_names(clients)
    with create(root, config(**values), "run") as recorder:
        for event in run_events(names, rounds):
            recorder(event)
    return recorder.path

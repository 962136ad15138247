"""Wire one run: configuration → data → windows → federations → scores. Read this first.

`execute` trains each job (a learner and how it is trained) and scores it beside the baselines.
Local-only and centralised training are federations too: many with one client each, and one with a
single client that holds everything. So a comparison is always like with like.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config.schema import BASELINES, LEARNERS, RunConfig
from fl_inmetro.data.forecast_table import observed_rows
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.splits import Splits, resolve, split_fleet
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.training import Group, Outcome, train_group
from fl_inmetro.learning.client import ClientData, ClientWorker, past_scale, pooled
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.metrics import ErrorSums, client_scores, score_fleet, share_better
from fl_inmetro.models.baselines import BASELINES as FORECASTS
from fl_inmetro.runs.forecasts import save_forecasts
from fl_inmetro.runs.layout import FORECASTS as FORECAST_FILE
from fl_inmetro.runs.recorder import Recorder

#: Bytes of one reading that has to leave its meter for centralised training (float64, no stamp).
READING_BYTES = 8

#: Client to its error sums.
FleetSums = Mapping[str, ErrorSums]


@dataclass(frozen=True)
class Job:
    """A learner and how it is trained."""

    model: str
    training: str

    def group_key(self, number: int) -> str:
        """Return the name of a group's weights in the run directory."""
        return f"{self.model}-{self.training}-g{number:04d}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data cut into windows, ready to train on.

    Attributes:
        data: All clients' readings.
        splits: The issue times.
        clients: The clients that take part, by name.
        excluded: Client to the reason it does not.
    """

    data: FederatedData
    splits: Splits
    clients: Mapping[str, ClientData]
    excluded: Mapping[str, str]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the run directory keeps of the data."""
        manifest = self.data.manifest.to_json()
        return {
            **manifest,
            "excluded": {**manifest["excluded"], **self.excluded},
            "clients": {name: _coverage(self.data[name]) for name in self.clients},
        }

    @property
    def missing_test_days(self) -> int:
        """Days at the end of the test window for which nobody has readings."""
        last = max(series.end_utc_s for series in self.data.values())
        return int((self.splits.test >= last).sum())

    @cached_property
    def reading_bytes(self) -> int:
        """What centralised training moves: every reading before the test window."""
        end = int(self.splits.test[0])
        return READING_BYTES * sum(
            int(self.data[name].cut(end_utc_s=end).valid.sum()) for name in self.clients
        )


def _coverage(series: ClientSeries) -> dict[str, int]:
    return {"steps": len(series), "missing": int((~series.valid).sum())}


def jobs_of(config: RunConfig, kind: str) -> list[Job]:
    """Return what a `run` or a `compare` trains, local-only first (others are compared with it)."""
    if kind == "run":
        return [Job(config.model, config.training)]
    return [
        Job(model, training)
        for model in config.compare.models
        if model in LEARNERS
        for training in config.compare.training
    ]


def baselines_of(config: RunConfig, kind: str) -> list[str]:
    """Return the baselines that are scored beside the models."""
    chosen = config.compare.models if kind == "compare" else BASELINES
    return [name for name in chosen if name in BASELINES]


def prepare(config: RunConfig) -> Prepared:
    """Load the data and cut the windows; nothing after this reads a user's file."""
    data = load(config.data, config.seed)
    splits = resolve(config.window, data)
    parts, excluded = split_fleet(data, splits, drop_short=config.data.cleaning.drop_short)
    clients = {
        name: ClientData(name, (part.train,), (part.validation,), (part.test,))
        for name, part in parts.items()
    }
    return Prepared(data, splits, clients, excluded)


def execute(
    config: RunConfig,
    kind: str,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    grid: Grid | None = None,
) -> None:
    """Score the baselines, train and score every job, and keep the forecasts of the test window.

    `grid` holds the nodes of another engine (one federated job); None = clients in this process.

    Raises:
        Interrupted: `should_stop` said so; the recorder holds all that is needed to go on.
    """
    rows: list[pa.Table] = []
    for name in baselines_of(config, kind):
        started = time.perf_counter()
        sums = _score_baseline(name, prepared.clients, rows)
        seconds = time.perf_counter() - started
        emit(_scored(name, "baseline", sums, {}, n_bytes=0, seconds=seconds))
    local: dict[str, FleetSums] = {}
    for job in jobs_of(config, kind):
        sums, n_bytes, seconds = _run_job(
            job, config, prepared, recorder, emit, should_stop, rows, grid
        )
        if job.training == "local":
            local[job.model] = sums
        emit(_scored(job.model, job.training, sums, local, n_bytes=n_bytes, seconds=seconds))
    save_forecasts(rows, recorder.path / FORECAST_FILE, {"fl_inmetro.run": recorder.path.name})


def groups_of(job: Job, clients: Sequence[ClientData]) -> list[tuple[Group, list[ClientData]]]:
    """Return the federations of a job and who is in each."""
    if job.training == "local":
        members = [(client.client_id, [client]) for client in clients]
    elif job.training == "centralised":
        members = [("pooled", [pooled("pooled", clients)])]
    else:
        members = [("federation", list(clients))]
    return [
        (Group(job.group_key(k), k, name, checkpointed=job.training != "local"), inside)
        for k, (name, inside) in enumerate(members)
    ]


def _run_job(
    job: Job,
    config: RunConfig,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    rows: list[pa.Table],
    nodes: Grid | None,
) -> tuple[dict[str, ErrorSums], int, float]:
    learner = learner_for(job.model, config.models)
    groups = groups_of(job, list(prepared.clients.values()))
    rounds = 1 if learner.closed_form else config.federation.num_server_rounds
    emit(
        events.RunStarted(
            job.model, job.training, len(prepared.clients), len(groups), rounds, recorder.resumed
        )
    )
    sums: dict[str, ErrorSums] = {}
    n_bytes, seconds = 0, 0.0
    for group, members in groups:
        workers = [ClientWorker(client, learner) for client in members]
        grid = LoopGrid(workers, should_stop) if nodes is None else nodes

        def rewind(round_: int, number: int = group.number) -> None:
            if recorder.resumed:
                recorder.rewind(number, round_, job.model, job.training)

        outcome: Outcome = train_group(
            grid, group, learner, _settings_of(job, config), recorder, emit, rewind
        )
        sums |= outcome.sums
        n_bytes += outcome.n_bytes
        seconds += outcome.seconds
        labels = {"model": job.model, "training": job.training}
        for worker in workers:
            for windows, forecast in worker.test_forecasts(outcome.state):
                rows.append(observed_rows(windows.series.client_id, windows, forecast, labels))
    return sums, _bytes_moved(job, n_bytes, prepared), seconds


def _settings_of(job: Job, config: RunConfig) -> RunConfig:
    """Return the settings of a job's federations; those of one client cannot ask for a quorum."""
    if job.training == "federated":
        return config
    alone = config.federation.model_copy(update={"min_clients": 1})
    return config.model_copy(update={"federation": alone})


def _bytes_moved(job: Job, n_bytes: int, prepared: Prepared) -> int:
    """Return what had to leave the meters: nothing, the readings, or the federation's messages."""
    if job.training == "local":
        return 0
    return prepared.reading_bytes if job.training == "centralised" else n_bytes


def _score_baseline(
    name: str, clients: Mapping[str, ClientData], rows: list[pa.Table]
) -> dict[str, ErrorSums]:
    sums: dict[str, ErrorSums] = {}
    for client_id, client in clients.items():
        windows = client.test[0]
        forecast = FORECASTS[name](windows)
        sums[client_id] = ErrorSums.of(forecast, windows.target_kwh(), past_scale(windows))
        labels = {"model": name, "training": "baseline"}
        rows.append(observed_rows(client_id, windows, forecast, labels))
    return sums


def _scored(
    model: str,
    training: str,
    sums: FleetSums,
    local: Mapping[str, FleetSums],
    *,
    n_bytes: int,
    seconds: float,
) -> events.ModelScored:
    scores = {**score_fleet(sums), "bytes": float(n_bytes), "seconds": seconds}
    if training in ("federated", "centralised") and model in local:
        scores["better_than_local"] = share_better(sums, local[model])
    return events.ModelScored(
        model, training, scores, {name: client_scores(s) for name, s in sums.items() if s.n}
    )

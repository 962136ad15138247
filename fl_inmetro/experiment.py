"""Wire one run: data → federations → scores, one job after the other. Read this first.

`plan` says what is trained on what; `execute` trains each job (a learner and how it is trained)
and scores it beside the baselines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config.diagnostics import Diagnostics
from fl_inmetro.config.models import Gradient
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.config.strategy import Gate, Selection, Strategy
from fl_inmetro.config.virtual_time import VirtualTime
from fl_inmetro.data.forecast_table import observed_rows
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import FederationError
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.training import Outcome, train_group
from fl_inmetro.learning.client import ClientData, ClientWorker, added_up, past_scale
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Floats
from fl_inmetro.metrics import ErrorSums, Forecast, client_scores, score_fleet, share_better
from fl_inmetro.models.baselines import BASELINES as FORECASTS
from fl_inmetro.plan import Job, Prepared, baselines_of, groups_of, jobs_of
from fl_inmetro.runs.forecasts import save_forecasts
from fl_inmetro.runs.layout import FORECASTS as FORECAST_FILE
from fl_inmetro.runs.recorder import Recorder

#: Client to its error sums.
FleetSums = Mapping[str, ErrorSums]


def execute(
    config: RunConfig,
    kind: str,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    grid: Grid | None = None,
    *,
    debug: bool = False,
) -> None:
    """Score the baselines, train and score every job, and keep the forecasts of the test window.

    `grid` holds the nodes of another engine (one federated job); None = clients in this process.
    With `debug`, the first client that fails ends the run with its name, round and step.

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
        done = _run_job(job, config, prepared, recorder, emit, should_stop, rows, grid, debug=debug)
        if job.training == "local":
            local[job.model] = done.sums
        _note_unscored(job, done.sums, prepared, emit)
        cost = {"n_bytes": _bytes_moved(job, done.n_bytes, prepared), "seconds": done.seconds}
        if config.virtual_time.enabled:
            cost["simulated_s"] = done.simulated_s
        emit(_scored(job.model, job.training, done.sums, local, **cost))
    save_forecasts(rows, recorder.path / FORECAST_FILE, {"fl_inmetro.run": recorder.path.name})


@dataclass
class _Done:
    """What a job's federations have come to, so far."""

    sums: dict[str, ErrorSums]
    n_bytes: int = 0
    seconds: float = 0.0
    simulated_s: float = 0.0


def _run_job(
    job: Job,
    config: RunConfig,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    rows: list[pa.Table],
    nodes: Grid | None,
    *,
    debug: bool,
) -> _Done:
    learner = learner_for(job.model, settings_of(job, config).models)
    groups = groups_of(job, list(prepared.clients.values()))
    rounds = 1 if learner.closed_form else config.federation.num_server_rounds
    emit(
        events.RunStarted(
            job.model, job.training, len(prepared.clients), len(groups), rounds, recorder.resumed
        )
    )
    done = _Done({})
    for group, members in groups:
        workers = [ClientWorker(client, learner) for client in members]
        grid = nodes or _grid(config, workers, should_stop, debug=debug)

        def rewind(round_: int, number: int = group.number) -> None:
            if recorder.resumed:
                recorder.rewind(number, round_, job.model, job.training)

        try:
            outcome: Outcome = train_group(
                grid,
                group,
                learner,
                settings_of(job, config),
                recorder,
                emit,
                rewind,
                _most_points(job, prepared),
            )
        except FederationError as error:
            if job.training != "local":
                raise
            # One client that cannot be trained alone (its loss diverges, say) is a finding about
            # that client; the others still have theirs.
            emit(events.Note("warning", _lost(job, group.name, error)))
            continue
        done.sums |= outcome.sums
        done.n_bytes += outcome.n_bytes
        done.seconds += outcome.seconds
        done.simulated_s += outcome.simulated_s
        labels = {"model": job.model, "training": job.training}
        for place, worker in enumerate(workers):
            private = grid.best_private(place) if isinstance(grid, LoopGrid) else {}
            for windows, forecast in worker.test_forecasts(outcome.state | private):
                rows.append(_forecast_rows(windows, forecast, labels))
            worker.release("test")
    return done


def _most_points(job: Job, prepared: Prepared) -> int | None:
    """Return the training points that one client can have: the issues of every meter it may hold.

    The server knows it without seeing a reading, so a client cannot enrol with more.
    """
    if job.training != "federated":
        return None
    splits = prepared.splits
    meters = 1 if prepared.partitioned is None else len(prepared.meters)
    return len(splits.train) * splits.horizon * meters


def _grid(
    config: RunConfig,
    workers: Sequence[ClientWorker],
    should_stop: Callable[[], bool],
    *,
    debug: bool,
) -> LoopGrid:
    """Return the nodes of this process, for the engine that the configuration names."""
    if config.engine == "loop":
        return LoopGrid(workers, should_stop, debug=debug)
    return CohortGrid(workers, config.execution, should_stop, debug=debug)


def settings_of(job: Job, config: RunConfig) -> RunConfig:
    """Return the settings of a job's federations.

    Those of one client cannot ask for a quorum, send nothing anywhere, and keep nothing from each
    other.
    """
    if job.training == "federated":
        return _with_clients_rate(job, config)
    alone = config.federation.model_copy(update={"min_clients": 1})
    here = VirtualTime()  # nothing is sent anywhere
    # One client merges with nobody: plain FedAvg is its training as it is.
    plain = {
        "strategy": Strategy(),
        "selection": Selection(),
        "gate": Gate(),
        "diagnostics": Diagnostics(),
    }
    own = getattr(config.models, job.model)
    if getattr(own, "private", ()):
        own = own.model_copy(update={"private": ()})
    models = config.models.model_copy(update={job.model: own})
    return config.model_copy(
        update={"federation": alone, "virtual_time": here, "models": models, **plain}
    )


def _with_clients_rate(job: Job, config: RunConfig) -> RunConfig:
    """Return the settings with `[strategy] eta_l` as the model's own learning rate."""
    own, eta_l = getattr(config.models, job.model), config.strategy.eta_l
    if eta_l is None or not isinstance(own, Gradient):
        return config
    models = config.models.model_copy(update={job.model: own.model_copy(update={"eta_l": eta_l})})
    return config.model_copy(update={"models": models})


def _bytes_moved(job: Job, n_bytes: int, prepared: Prepared) -> int:
    """Return what had to leave the meters: nothing, the readings, or the federation's messages."""
    if job.training == "local":
        return 0
    return prepared.reading_bytes if job.training == "centralised" else n_bytes


def _score_baseline(
    name: str, clients: Mapping[str, ClientData], rows: list[pa.Table]
) -> dict[str, ErrorSums]:
    sums: dict[str, ErrorSums] = {}
    labels = {"model": name, "training": "baseline"}
    for client_id, client in clients.items():
        parts: list[tuple[str, ErrorSums]] = []
        for windows in client.test:
            forecast = _as_forecast(FORECASTS[name](windows))
            own = ErrorSums.of(forecast, windows.target_kwh(), past_scale(windows))
            parts.append((client_id, own))
            rows.append(_forecast_rows(windows, forecast, labels))
        sums |= added_up(parts)
    return sums


def _forecast_rows(windows: Windows, forecast: Forecast, labels: Mapping[str, str]) -> pa.Table:
    """Return the forecasts of a meter's windows; with the client that holds them, where it is
    another."""
    holder = {"part": windows.owner} if windows.owner else {}
    return observed_rows(windows.series.client_id, windows, forecast, {**labels, **holder})


def _as_forecast(baseline: Floats | Forecast) -> Forecast:
    """Return what a baseline gave as a forecast; a plain array is a mean."""
    return baseline if isinstance(baseline, Forecast) else Forecast(baseline)


def _scored(
    model: str,
    training: str,
    sums: FleetSums,
    local: Mapping[str, FleetSums],
    *,
    n_bytes: float,
    **seconds: float,
) -> events.ModelScored:
    scores = {**score_fleet(sums), "bytes": float(n_bytes), **seconds}
    if training in ("federated", "centralised") and model in local:
        scores["better_than_local"] = share_better(sums, local[model])
    return events.ModelScored(
        model, training, scores, {name: client_scores(s) for name, s in sums.items() if s.n}
    )


def _lost(job: Job, client_id: str, error: FederationError) -> str:
    return f"{job.model} ({job.training}): client {client_id} has no model: {error.brief()}"


def _note_unscored(job: Job, sums: FleetSums, prepared: Prepared, emit: events.Emit) -> None:
    """Say which meters a row lacks: it would look better or worse for their absence."""
    held = prepared.clients.items()
    expected = [name for name, client in held if any(len(part) for part in client.test)]
    lost = [name for name in expected if name not in sums or not sums[name].n]
    if not lost:
        return
    names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    row = f"{job.model} ({job.training})"
    share = f"{len(lost)} of {len(expected)} clients"
    emit(events.Note("warning", f"{row}: {share} not scored: {names}"))

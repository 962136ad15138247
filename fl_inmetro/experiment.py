"""Wire one run: data → federations → scores, one job after the other. Read this first.

`plan` says what is trained on what; `execute` trains each job (a learner and how it is trained)
and scores it beside the baselines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.calibrated import calibrate, calibration_key
from fl_inmetro.clustered import Clustering, part_clients
from fl_inmetro.config.schema import ENSEMBLE, RunConfig
from fl_inmetro.data.forecast_table import observed_rows
from fl_inmetro.data.short_history import most_windows
from fl_inmetro.data.windows import Windows
from fl_inmetro.derived import Done, Dones, derive, doubts_of, validation_nmae
from fl_inmetro.errors import FederationError
from fl_inmetro.fallback import keep_profile
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import Interrupted, LoopGrid
from fl_inmetro.federation.joint import of_cluster
from fl_inmetro.federation.protection import calibration_sums, learner_under
from fl_inmetro.federation.spending import Account
from fl_inmetro.federation.training import Outcome, train_group
from fl_inmetro.learning.client import ClientData, ClientWorker, added_up, past_scale
from fl_inmetro.learning.protocol import score_test
from fl_inmetro.learning.quantile_linear import rounds_of
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays
from fl_inmetro.metrics import (
    ErrorSums,
    Forecast,
    client_scores,
    score_fleet,
    share_better,
    share_harmed,
)
from fl_inmetro.metrics.protocol import Measured, protocol_scores
from fl_inmetro.models.baselines import BASELINES as FORECASTS
from fl_inmetro.plan import (
    Job,
    Prepared,
    baselines_of,
    groups_of,
    jobs_of,
    settings_of,
)
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.protected import close_account, open_account, records_of
from fl_inmetro.runs.forecasts import save_forecasts
from fl_inmetro.runs.layout import FORECASTS as FORECAST_FILE
from fl_inmetro.runs.recorder import Recorder

#: A client whose error is larger than its own model's by more than this share is harmed.
HARM = 0.01

#: Client to its error sums.
FleetSums = Mapping[str, ErrorSums]

#: Job and name of a group to the model that its training begins from; None = it is drawn.
Starts = Callable[[Job, str], Arrays | None]


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
    starts: Starts | None = None,
) -> None:
    """Score the baselines, train and score every job, and keep the forecasts of the test window.

    `grid` holds the nodes of another engine (one federated job); None = clients in this process.
    With `debug`, the first client that fails ends the run with its name, round and step. With
    `starts`, trainings begin from models that are there.

    Raises:
        Interrupted: `should_stop` said so; the recorder holds all that is needed to go on.
    """
    account = open_account(config, jobs_of(config, kind), recorder, emit)
    rows: list[pa.Table] = []
    for name in baselines_of(config, kind):
        started = time.perf_counter()
        sums = _score_baseline(name, prepared.clients, rows)
        baseline = partial(_baseline, name)
        measured = {key: score_test(test, baseline) for key, test in prepared.tests.items()}
        own_scores = _by_protocol(config, measured)
        seconds = time.perf_counter() - started
        emit(_scored(name, "baseline", sums, {}, n_bytes=0, seconds=seconds, **own_scores))
    done: dict[Job, Done] = {}
    shown: dict[Job, Done] = {}  # as scored: calibrated, where that is asked for
    for job in jobs_of(config, kind):
        train = partial(_run_job, starts=starts, account=account)
        make: Callable[..., Done] = _derive if job.is_derived else train
        own = make(job, config, prepared, recorder, emit, should_stop, done, grid, debug=debug)
        done[job] = own
        for doubt in doubts_of(job, config, prepared.clients, done) if job.is_derived else ():
            emit(events.Note("warning", doubt))
        if config.conformal.enabled:
            spending = account.of(job.group_key(0)) if account else None
            private = calibration_sums(spending) if job.training == "federated" else None
            asked = (job, config.conformal, prepared.clients, own)
            own, calibration = calibrate(*asked, apart=account is not None, private=private)
            recorder.save_state(calibration_key(job), *calibration.packed())
        shown[job] = own
        labels = {"model": job.model, "training": job.training}
        for client_id, client in prepared.clients.items():
            for windows, forecast in zip(client.test, own.test.get(client_id, ()), strict=False):
                rows.append(_forecast_rows(windows, forecast, labels))
        _note_unscored(job, own.sums, prepared, emit)
        cost = {"n_bytes": _bytes_moved(job, own.n_bytes, prepared), "seconds": own.seconds}
        cost["validation_nmae"] = validation_nmae(own, prepared.clients)
        if config.virtual_time.enabled:
            cost["simulated_s"] = own.simulated_s
        cost |= _by_protocol(config, own.measured)
        alone = shown.get(Job(job.model, "local"))
        emit(_scored(job.model, job.training, own.sums, alone.sums if alone else {}, **cost))
    if not account and any(
        job.training != "local" for job in jobs_of(config, kind)
    ):  # else nothing is shared
        keep_profile(prepared, recorder)
    save_forecasts(rows, recorder.path / FORECAST_FILE, {"fl_inmetro.run": recorder.path.name})
    if account:  # last of all: a run that is killed before goes on with the same noise
        close_account(account, emit)


def _run_job(
    job: Job,
    config: RunConfig,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    before: Dones,
    nodes: Grid | None,
    *,
    debug: bool,
    starts: Starts | None = None,
    account: Account | None = None,
) -> Done:
    """Train the federations of a job."""
    del before  # what is trained depends on nothing that was
    settings = settings_of(job, config)
    learner = learner_under(settings.privacy, learner_for(job.model, settings.models))
    parted = _clusters(config, prepared, emit) if job.training == "clustered" else None
    if parted and starts:
        emit(events.Note("warning", f"{job.model} (clustered) begins anew: its clusters do"))
    by_choice = parted is not None and config.clusters.kind == "ifca"
    inside = parted.members() if parted and not by_choice else ()
    groups = groups_of(job, list(prepared.clients.values()), inside)
    rounds = rounds_of(learner, settings.federation.num_server_rounds)
    emit(
        events.RunStarted(
            job.model, job.training, len(prepared.clients), len(groups), rounds, recorder.resumed
        )
    )
    done = Done(n_bytes=parted.bytes_up if parted else 0)
    for group, members in groups:
        workers = [ClientWorker(client, learner) for client in members]
        spending = None
        if account and job.training == "federated":
            spending = account.group(group.key, records_of(config, learner, members))
        secret = spending.secret if spending else None
        grid = nodes or _grid(config, workers, should_stop, secret, debug=debug)

        def rewind(round_: int, number: int = group.number) -> None:
            if recorder.resumed:
                recorder.rewind(number, round_, job.model, job.training)

        try:
            outcome: Outcome = train_group(
                grid,
                group,
                learner,
                settings,
                recorder,
                emit,
                rewind,
                _most_points(job, prepared, settings),
                starts(job, group.name) if starts and not parted else None,
                parted.choices(config.clusters, config.seed) if parted and by_choice else None,
                spending,
            )
        except FederationError as error:
            if job.training != "local":
                raise
            # One client that cannot be trained alone (its loss diverges, say) is a finding about
            # that client; the others still have theirs.
            emit(events.Note("warning", _lost(job, group.name, error)))
            continue
        # Nodes that protect their windows tell no error. The study is scored on the readings that
        # whoever runs it has here, if they are here.
        unheard = nodes is not None and settings.privacy.unheard
        done.sums |= _scored_here(workers, outcome.state) if unheard else outcome.sums
        done.n_bytes += outcome.n_bytes
        done.seconds += outcome.seconds
        done.simulated_s += outcome.simulated_s
        if parted and by_choice:
            parted = parted.chosen(outcome.state, outcome.clients)
        for place, worker in enumerate(workers):
            private = grid.best_private(place) if isinstance(grid, LoopGrid) else {}
            own = outcome.state
            if parted and by_choice:
                own = of_cluster(parted.of[worker.client_id], own)
            state = own | private
            _forecast_splits(done, worker, state, job)
            _measure(done, worker, state, job, prepared)
    if parted:
        recorder.save_state(job.clusters_key, *parted.packed())
    return done


def _scored_here(workers: Sequence[ClientWorker], state: Arrays) -> dict[str, ErrorSums]:
    sums: dict[str, ErrorSums] = {}
    for worker in workers:
        sums |= worker.evaluate(state, "test")
    return sums


def _clusters(config: RunConfig, prepared: Prepared, emit: events.Emit) -> Clustering:
    """Part the clients; what is drawn for it is the same after a resume."""
    return part_clients(config.clusters, prepared.clients, config.seed, emit)


def _measure(done: Done, worker: ClientWorker, state: Arrays, job: Job, prepared: Prepared) -> None:
    """Score a protocol's test of a client, or of all that the pooled client holds."""
    learner, tests = worker.learner, prepared.tests
    names = tests if job.training == "centralised" else {worker.client_id} & tests.keys()
    for name in names:
        done.measured[name] = score_test(
            tests[name],
            lambda part: learner.forecast(state, learner.design(part, targets=False)),
        )


def _by_protocol(config: RunConfig, measured: Measured) -> dict[str, float]:
    """Return a protocol's scores; nothing where none decides."""
    return protocol_scores(config.protocol.name, measured) if config.protocol.enabled else {}


def _forecast_splits(done: Done, worker: ClientWorker, state: Arrays, job: Job) -> None:
    """Forecast the validation and test windows of a client, as those that hold them."""
    validation = worker.validation_forecasts(state)
    test = [forecast for _, forecast in worker.test_forecasts(state)]
    for split in ("validation", "test"):
        worker.release(split)
    if job.training != "centralised":
        name = worker.client_id
        done.states[name] = state
        done.validation[name], done.test[name] = tuple(validation), tuple(test)
        return
    # The pooled client holds the windows of all, one after the other.
    for split, forecasts in (("validation", validation), ("test", test)):
        for windows, forecast in zip(worker.windows(split), forecasts, strict=True):
            kept = getattr(done, split)
            kept[windows.scored_as] = (*kept.get(windows.scored_as, ()), forecast)


def _derive(
    job: Job,
    config: RunConfig,
    prepared: Prepared,
    recorder: Recorder,
    emit: events.Emit,
    should_stop: Callable[[], bool],
    done: Dones,
    nodes: Grid | None,
    *,
    debug: bool,
) -> Done:
    """Make an ensemble, or personalise: nothing is sent."""
    del nodes, debug
    started = time.perf_counter()
    clients = prepared.clients.values()
    emit(events.RunStarted(job.model, job.training, len(clients), 0, 1, recorder.resumed))
    name = config.ensemble.members[0] if job.model == ENSEMBLE else job.model
    # Whoever trains on alone does it with the model's own optimiser, not with the federation's.
    learner = learner_for(name, settings_of(Job(name, "local"), config).models)
    workers = [ClientWorker(client, learner) for client in clients]

    def check() -> None:
        if should_stop():
            raise Interrupted

    result, blend = derive(job, config, workers, done, check)
    recorder.save_state(job.blend_key, *blend.packed())
    result.seconds += time.perf_counter() - started
    return result


def _most_points(job: Job, prepared: Prepared, settings: RunConfig) -> int | None:
    """Return the training points that one client can have: the issues of every meter it may hold.

    The server knows it without seeing a reading, so a client cannot enrol with more. Windows that
    are there once more, with a part of their past hidden, count.
    """
    if job.training not in ("federated", "clustered"):
        return None
    splits, mlp = prepared.splits, settings.models.mlp
    meters = 1 if prepared.partitioned is None else len(prepared.meters)
    windows = len(splits.train)
    if job.model == "mlp":
        for share in (mlp.short_histories, mlp.hidden_endings):
            windows = most_windows(windows, share)
    return windows * splits.horizon * meters


def _grid(
    config: RunConfig,
    workers: Sequence[ClientWorker],
    should_stop: Callable[[], bool],
    secret: Secret | None,
    *,
    debug: bool,
) -> LoopGrid:
    """Return the nodes of this process, for the engine that the configuration names."""
    if config.engine == "loop":
        return LoopGrid(workers, should_stop, debug=debug, secret=secret)
    return CohortGrid(workers, config.execution, should_stop, debug=debug, secret=secret)


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
            forecast = _baseline(name, windows)
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


def _baseline(name: str, windows: Windows) -> Forecast:
    """Return a baseline's forecast; a plain array is a mean."""
    baseline = FORECASTS[name](windows)
    return baseline if isinstance(baseline, Forecast) else Forecast(baseline)


def _scored(
    model: str,
    training: str,
    sums: FleetSums,
    local: FleetSums,
    *,
    n_bytes: float,
    **seconds: float,
) -> events.ModelScored:
    scores = {**score_fleet(sums), "bytes": float(n_bytes), **seconds}
    if training != "local" and local:
        scores["better_than_local"] = share_better(sums, local)
        scores["harmed"] = share_harmed(sums, local, HARM)
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

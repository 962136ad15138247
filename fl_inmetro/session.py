"""Open a run directory, carry the run out, and close it with the truth about how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config import RunConfig, config_hash, own_code
from fl_inmetro.config.schema import ENSEMBLE
from fl_inmetro.errors import ConfigError, Fault, FlInmetroError, RunError
from fl_inmetro.experiment import Starts, execute
from fl_inmetro.feasible import check_jobs
from fl_inmetro.federation import flower_compat
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.learning.conformal import nothing_to_calibrate_by
from fl_inmetro.plan import Prepared, jobs_of, prepare
from fl_inmetro.protected import check_privacy
from fl_inmetro.runs.layout import Kind
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.recorder import Recorder
from fl_inmetro.runs.shelf import list_runs

ShouldStop = Callable[[], bool]

_PERFECT = (
    "it is what was observed later, so the scores are a bound that no real forecast of it reaches"
)

_NO_VALIDATION = (
    "no forecast of the validation days ends before the test window begins, so no round can be "
    "chosen by validation and the last one counts; a longer `window.validation-days` cures it"
)


def start(
    config: RunConfig,
    kind: Kind,
    root: Path,
    progress: events.Emit,
    should_stop: ShouldStop,
    *,
    prepared: Prepared | None = None,
    grid: Grid | None = None,
    debug: bool = False,
    starts: Starts | None = None,
) -> Path:
    """Begin a run in a new directory under `root` and return that directory.

    Args:
        config: The configuration.
        kind: `run` or `compare`.
        root: Directory of all runs.
        progress: Where events go besides the run directory.
        should_stop: Looked at between clients; True stops the run.
        prepared: The data, where the caller has them already.
        grid: Nodes of another engine; None = the clients work in this process.
        debug: Stop at the first client that fails and name it, the round and the step.
        starts: Models that trainings begin from.

    Raises:
        FlInmetroError: Bad data or configuration, or the federation could not go on.
        Interrupted: `should_stop` said so; `resume` goes on from there.
    """
    _check_engine(config, grid)
    prepared = prepared or prepare(config)
    about = {"warm": starts is not None, "on_nodes": grid is not None}
    check_jobs(config, kind, prepared.clients, **about)
    recorder = Recorder.create(root, config, prepared.manifest, kind, prepared.splits.to_json())
    return _carry_out(
        recorder, config, kind, prepared, progress, should_stop, grid, debug=debug, starts=starts
    )


def resume(
    path: Path,
    progress: events.Emit,
    should_stop: ShouldStop,
    *,
    debug: bool = False,
    prepared: Prepared | None = None,
    starts: Starts | None = None,
) -> Path:
    """Go on with a run that was interrupted; it ends in the same bits as one that never was.

    `prepared` and `starts` are those of `start`.

    Raises:
        RunError: FL705, its data, or code of the user's own, changed since; and as `start`.
    """
    with_record = RunRecord.open(path)
    config, manifest = with_record.config, with_record.manifest
    _check_engine(config, None)
    prepared = prepared or prepare(config)
    before, now = manifest["data"].get("files", {}), prepared.manifest["files"]
    if before != now:
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        raise RunError(
            Fault(
                "FL705",
                f"the data of run `{path.name}` have changed since it began",
                "\n".join(changed[:5]),
                "start a new run, without --resume",
            )
        )
    _check_own_code(path, config, manifest.get("own_code", {}))
    kind = manifest["kind"]
    check_jobs(config, kind, prepared.clients, warm=starts is not None)
    recorder = Recorder.reopen(path)
    return _carry_out(
        recorder, config, kind, prepared, progress, should_stop, debug=debug, starts=starts
    )


def _check_own_code(path: Path, config: RunConfig, before: Mapping[str, Mapping[str, str]]) -> None:
    now = own_code.places(config)
    digests = {name: place["sha256"] for name, place in now.items()}
    if changed := [n for n in before if digests.get(n) != before[n]["sha256"]]:
        raise RunError(
            Fault(
                "FL705",
                f"code of your own that run `{path.name}` uses has changed since it began",
                "\n".join(f"{name}: {before[name]['file']}" for name in changed),
                "bring it back as it was, or start a new run, without --resume",
            )
        )


def find_unfinished(config: RunConfig, kind: Kind, root: Path) -> Path:
    """Return the newest unfinished run of this very configuration.

    Raises:
        RunError: FL706, there is none.
    """
    wanted = config_hash(config)
    for summary in list_runs(root):
        if summary.status in ("completed", "running") or summary.kind != kind:
            continue
        if summary.config_hash == wanted:
            return Path(summary.path)
    raise RunError(
        Fault(
            "FL706",
            "there is no unfinished run of this configuration to resume",
            f"{root}  config {wanted}",
            "start it without --resume; `fl-inmetro runs ls` shows what there is",
        )
    )


def _carry_out(
    recorder: Recorder,
    config: RunConfig,
    kind: Kind,
    prepared: Prepared,
    progress: events.Emit,
    should_stop: ShouldStop,
    grid: Grid | None = None,
    *,
    debug: bool = False,
    starts: Starts | None = None,
) -> Path:
    flower_compat.quiet()
    emit = events.fan_out(recorder, progress)
    started = time.perf_counter()

    def finish(status: str, reason: str = "") -> None:
        emit(events.RunFinished(status, time.perf_counter() - started, reason))

    with recorder:
        for module, place in own_code.places(config).items():
            emit(events.Note("info", f"code of your own: `{module}` is {place['file']}"))
        if not recorder.resumed:
            for name, why in prepared.excluded.items():
                emit(events.Note("info", f"client {name} takes no part: {why}"))
            if doubts := prepared.doubtful_readings:
                found = ", ".join(f"{kind} {count}" for kind, count in doubts.items())
                where = "`fl-inmetro data check` names clients and places"
                emit(events.Note("warning", f"doubtful readings: {found}; {where}"))
            if foreseen := prepared.perfect_forecasts:
                emit(events.Note("warning", f"perfect forecast of {foreseen}: {_PERFECT}"))
            if prepared.missing_test_days:
                cut = f"the last {prepared.missing_test_days} days of the test window have"
                emit(events.Note("warning", f"{cut} no readings and are not scored"))
            if not prepared.splits.validation.size:
                emit(events.Note("warning", _NO_VALIDATION))
        if config.conformal.enabled and not prepared.splits.validation.size:
            fault = nothing_to_calibrate_by()
            finish("failed", fault.brief())
            raise fault
        try:
            execute(
                config,
                kind,
                prepared,
                recorder,
                emit,
                lambda: should_stop() or recorder.stop_requested(),
                grid,
                debug=debug,
                starts=starts,
            )
        except (Interrupted, KeyboardInterrupt):
            finish("interrupted")
            raise
        except FlInmetroError as error:
            finish("failed", error.brief())
            raise
        except Exception as error:
            finish("failed", f"{type(error).__name__}: {error}")
            raise
        finish("completed")
    return recorder.path


def start_on_flower(
    config: RunConfig,
    kind: Kind,
    root: Path,
    say: Callable[[str], None],
    should_stop: ShouldStop = lambda: False,
    *,
    debug: bool = False,
) -> Path:
    """Run on Flower's simulation engine, one node per client; the server app keeps the run.

    Raises:
        ConfigError: FL306, what that engine does not do.
        FederationError: FL308, Flower is missing or its run failed.
        PrivacyError: FL417, what does not go together with `[privacy]`.
    """
    from fl_inmetro import flower_engine

    if kind != "run" or config.training != "federated":
        raise _only_here("Flower's simulation trains one federated model")
    if debug:
        raise _only_here("only the engines of this process can stop at a client's step")
    _check_private(config)
    check_privacy(config, jobs_of(config, kind), on_nodes=True)
    return flower_engine.run(config, len(prepare(config).clients), root, say, should_stop)


def _check_engine(config: RunConfig, grid: Grid | None) -> None:
    if grid is not None:
        _check_private(config)
    if config.execution.device != "cpu":
        _check_device(config)
    if config.engine == "flower" and grid is None:
        raise _only_here("a run on Flower's simulation is started whole and cannot be resumed")


def _check_private(config: RunConfig) -> None:
    if config.model == ENSEMBLE:
        raise _only_here("an ensemble is made of several federations")
    if getattr(getattr(config.models, config.model), "private", ()):
        raise _only_here("what clients keep to themselves ends with Flower's simulation")


def _check_device(config: RunConfig) -> None:
    import torch

    device = f'[execution] device = "{config.execution.device}"'
    if config.engine != "cohort":
        what, hint = "only the cohort engine trains on a GPU", 'use `engine = "cohort"`'
    elif not torch.cuda.is_available():
        what = "PyTorch finds no CUDA device on this machine"
        hint = 'use `device = "cpu"`, or a machine and a build of PyTorch that have one'
    else:
        return
    raise ConfigError(Fault("FL110", what, device, hint))


def _only_here(why: str) -> ConfigError:
    return ConfigError(
        Fault(
            "FL306",
            why,
            'engine = "flower"',
            'use `engine = "cohort"` (or "loop"): comparisons, clustered, local-only and '
            "centralised training, private parameters, and --resume",
        )
    )

"""Carry a backtest out: fold after fold, each kept as a run, with each seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fl_inmetro import events, session
from fl_inmetro.backtest.folds import (
    Fold,
    check,
    faults_of,
    fold_configs,
    folds_of,
    seeds_of,
    span_of,
)
from fl_inmetro.config import RunConfig, config_hash
from fl_inmetro.data.load import load
from fl_inmetro.data.series import FederatedData
from fl_inmetro.errors import DataError, Fault, FederationError
from fl_inmetro.federation.training import best_state
from fl_inmetro.learning.update import Arrays
from fl_inmetro.plan import Job, cut
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.shelf import list_runs
from fl_inmetro.runs.weights import load as load_weights


@dataclass(frozen=True)
class Step:
    """One fold with one seed.

    Attributes:
        seed: The seed.
        fold: The fold.
        config: The configuration of its comparison.
    """

    seed: int
    fold: Fold
    config: RunConfig


class Study:
    """A backtest and the directory of its folds.

    A fold is a run directory like that of `compare`, in `<runs>/backtest-<name>-s<seed>`. One that
    is finished is never trained again, one that was interrupted goes on from where it was.

    Args:
        config: The configuration.
        runs: Directory of all runs.
        data: The readings, where the caller has them already.

    Raises:
        ConfigError: FL117, the configuration cannot be tried over time; FL116, nor these days.
        DataError: FL210, the data do not cover the window, or that of a fold; FL206, FL205, a fold
            has clients that are too short for it, or none. Those of all folds at once, before
            anything is trained.
    """

    def __init__(self, config: RunConfig, runs: Path, data: FederatedData | None = None) -> None:
        check(config)
        self.config = config
        # With one seed: a backtest with several is of one fleet (`fold_configs` writes it down).
        self.data = data or load(config.data, config.seed)
        self.path = runs / f"backtest-{config.name}-s{config.seed}"
        self.first, self.last = span_of(config, self.data)
        self.folds = folds_of(self.first, self.last, config.backtest.refit_days)
        self._steps = tuple(
            Step(seed, fold, own)
            for seed in seeds_of(config)
            for fold, own in zip(self.folds, fold_configs(config, self.folds, seed), strict=True)
        )

        self._check_folds()

    def steps(self) -> list[Step]:
        """Return what is to be done, seed after seed."""
        return list(self._steps)

    def finished(self) -> dict[Step, RunRecord]:
        """Return the steps that are done, with their runs.

        Raises:
            FederationError: FL350, a fold was made of other data.
        """
        done = {s.config_hash: s for s in list_runs(self.path) if s.status == "completed"}
        found: dict[Step, RunRecord] = {}
        for step in self.steps():
            if summary := done.get(config_hash(step.config)):
                record = RunRecord.open(Path(summary.path))
                self._same_data(record)
                found[step] = record
        return found

    def carry_out(
        self, step: Step, progress: events.Emit, should_stop: Callable[[], bool]
    ) -> RunRecord:
        """Train and score a fold; go on with it where it was begun.

        Raises:
            Interrupted: `should_stop` said so; called again, it goes on from there.
            FlInmetroError: As a run's.
        """
        prepared = cut(step.config, self.data)
        starts = self._starts(step)
        begun = self._begun(step)
        if begun is None:
            path = session.start(
                step.config,
                "compare",
                self.path,
                progress,
                should_stop,
                prepared=prepared,
                starts=starts,
            )
        else:
            path = session.resume(begun, progress, should_stop, prepared=prepared, starts=starts)
        return RunRecord.open(path)

    # --------------------------------------------------------------------------- internals
    def _check_folds(self) -> None:
        """Refuse folds that cannot be trained; those that are done were looked at then."""
        done = {one.config_hash for one in list_runs(self.path) if one.status == "completed"}
        left: dict[Fold, RunConfig] = {}
        for step in self._steps:  # a seed changes nothing in a fold's days
            if config_hash(step.config) not in done:
                left.setdefault(step.fold, step.config)
        if faults := faults_of(sorted(left.items(), key=lambda one: one[0].number), self.data):
            raise DataError(faults)

    def _begun(self, step: Step) -> Path | None:
        wanted = config_hash(step.config)
        for summary in list_runs(self.path):
            if summary.config_hash == wanted and summary.status != "completed":
                return Path(summary.path)
        return None

    def _starts(self, step: Step) -> Callable[[Job, str], Arrays | None] | None:
        """Return where models begin; None = anew."""
        if not self.config.backtest.warm_start or not step.fold.number:
            return None
        before = self._steps[self._steps.index(step) - 1]  # of the same seed: this is not its first
        return last_models(self.finished()[before])

    def _same_data(self, record: RunRecord) -> None:
        before, now = record.manifest["data"].get("files", {}), dict(self.data.manifest.files)
        if before != now:
            changed = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
            raise FederationError(
                Fault(
                    "FL350",
                    f"the data have changed since fold `{record.id}` was made",
                    "\n".join(changed[:5]),
                    f"restore them, or remove {self.path} and begin again",
                )
            )


def last_models(record: RunRecord) -> Callable[[Job, str], Arrays | None]:
    """Return the best model of each group of a finished run, by job and name of the group.

    A group that the run did not have, or could not train, has none.
    """

    @cache
    def groups(job: Job) -> dict[str, int]:
        rows = record.federations(model=job.model, training=job.training)
        return {row["name"]: int(row["group"]) for row in rows if row["best_round"] is not None}

    def model(job: Job, name: str) -> Arrays | None:
        number = groups(job).get(name)
        if number is None:
            return None
        return best_state(load_weights(record.path, job.group_key(number)), record.id)

    return model

"""The folds of a backtest: when models are trained, on what, and until when they are used.

A fold is a comparison of its own, with a test window of its own; what may be trained on follows
from that window as in any other run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from fl_inmetro.config import config_hash
from fl_inmetro.config.backtest import Backtest
from fl_inmetro.config.data import Data
from fl_inmetro.config.schema import TRAINED, RunConfig
from fl_inmetro.data.calendar import local_date
from fl_inmetro.data.series import FederatedData
from fl_inmetro.data.sources import SIMULATOR
from fl_inmetro.data.splits import resolve, split_fleet
from fl_inmetro.errors import ConfigError, DataError, Fault

#: What helps a backtest, by the code of what is wrong.
_CURES = {
    "FL206": "leave it out of the folds that it is too short for with `[data.cleaning] drop-short "
    "= true`: of another setting, all folds are trained again\nor begin later: `[backtest] first`",
    "FL210": "move `first` or `last` in [backtest], or change its `train-days`",
}


@dataclass(frozen=True)
class Fold:
    """A training and the days that its models are used on.

    Attributes:
        number: 0, 1, ….
        first: First day of issue.
        last: Last day of issue.
    """

    number: int
    first: date
    last: date

    @property
    def days(self) -> int:
        """Days of issue."""
        return (self.last - self.first).days + 1


def folds_of(first: date, last: date, refit_days: int) -> tuple[Fold, ...]:
    """Cut the days from `first` to `last`, inclusive; the last fold may be shorter.

    >>> [f.days for f in folds_of(date(2024, 1, 1), date(2024, 1, 10), 4)]
    [4, 4, 2]
    """
    folds: list[Fold] = []
    while first <= last:
        end = min(first + timedelta(days=refit_days - 1), last)
        folds.append(Fold(len(folds), first, end))
        first = end + timedelta(days=1)
    return tuple(folds)


def span_of(config: RunConfig, data: FederatedData) -> tuple[date, date]:
    """Return the first and the last day of issue that are scored.

    Raises:
        ConfigError: FL116, they are in the wrong order.
        DataError: FL210, the data do not cover the window that they are taken from.
    """
    wanted = config.backtest
    if wanted.first and wanted.last:
        return wanted.first, wanted.last
    splits = resolve(config.window, data)
    first, last = (local_date(int(splits.test[k]), splits.timezone) for k in (0, -1))
    first, last = wanted.first or first, wanted.last or last
    if last < first:
        raise ConfigError(
            Fault(
                "FL116",
                f"the backtest would end on {last}, before it begins on {first}",
                "[backtest] first, last; what is not given is as in [window]",
                "give both days",
            )
        )
    return first, last


def seeds_of(config: RunConfig) -> tuple[int, ...]:
    """Return the seeds that everything is done with."""
    return config.backtest.seeds or (config.seed,)


def fold_configs(config: RunConfig, folds: Sequence[Fold], seed: int) -> list[RunConfig]:
    """Return the configuration of each fold's comparison: all that decides its result.

    A warm fold begins from the models of the one before, so its configuration holds the hash of
    that one's, which holds the hash of the one before it: whatever changes the first training
    changes all that came of it.

    Args:
        config: The backtest's.
        folds: Its folds, from the first on.
        seed: Root of their randomness.
    """
    made: list[RunConfig] = []
    for fold in folds:
        made.append(_fold_config(config, fold, seed, made[-1] if made else None))
    return made


def faults_of(configs: Sequence[tuple[Fold, RunConfig]], data: FederatedData) -> list[Fault]:
    """Return what would stop any of the folds: days that the data do not cover (FL210), clients
    that are too short for it (FL206), nobody left (FL205); with the fold, and what to change.

    What is the same in several folds is told of the first of them.
    """
    found: dict[tuple[str, str, str], list[Fold]] = {}
    for fold, config in configs:
        try:
            splits = resolve(config.window, data)
            split_fleet(data, splits, drop_short=config.data.cleaning.drop_short)
        except DataError as error:
            for one in error.faults:
                found.setdefault((one.code, one.what, one.where), []).append(fold)
    return [
        Fault(code, what, f"{_place(folds)}\n{where}", _CURES.get(code, _CURES["FL210"]))
        for (code, what, where), folds in found.items()
    ]


def _fold_config(config: RunConfig, fold: Fold, seed: int, before: RunConfig | None) -> RunConfig:
    settings = config.backtest
    window: dict[str, object] = {
        "test_start": fold.first,
        "test_end": fold.last,
        "test_days": None,
    }
    if settings.train_days is not None:
        window |= {"train_start": None, "train_days": settings.train_days}
    change: dict[str, object] = {
        "seed": seed,
        "window": config.window.model_copy(update=window),
        "data": _one_fleet(config),
        "backtest": Backtest(),
    }
    if settings.warm_start and before is not None:
        change["backtest"] = settings.model_copy(
            update={"first": None, "last": None, "seeds": (), "before": config_hash(before)}
        )
        change["federation"] = config.federation.model_copy(update=_shortened(config))
    return config.model_copy(update=change)


def check(config: RunConfig) -> None:
    """Look whether the configuration can be tried over time.

    Raises:
        ConfigError: FL117, with one fault for each thing that cannot.
    """
    faults = []
    wanted = {
        "engine": (config.engine, ("cohort", "loop")),
        "[partition] kind": (config.partition.kind, ("natural",)),
    }
    for key, (given, possible) in wanted.items():
        if given not in possible:
            text = "a backtest follows meters through time, with the engines of this process"
            hint = "use " + " or ".join(f'"{one}"' for one in possible)
            faults.append(Fault("FL117", text, f'{key} = "{given}"', hint))
    if config.protocol.enabled:
        text = "a protocol says itself which windows are scored"
        faults.append(Fault("FL117", text, "[protocol]", "leave it out"))
    for name in config.compare.models if config.backtest.warm_start else ():
        own: object = getattr(config.models, name, None) if name in TRAINED else None
        if getattr(own, "private", ()):
            text = f"`{name}` keeps parameters on the clients: a run leaves them to nobody"
            hint = f"use `[models.{name}] private = []`, leave it out, or `warm-start = false`"
            faults.append(Fault("FL117", text, "[backtest] warm-start", hint))
    if faults:
        raise ConfigError(faults)


def _place(folds: Sequence[Fold]) -> str:
    first, more = folds[0], len(folds) - 1
    rest = f", and {more} more" if more else ""
    return f"fold {first.number + 1}: used from {first.first} to {first.last}{rest}"


def _one_fleet(config: RunConfig) -> Data:
    """Return where the readings come from: with every seed the same simulated consumers, who are
    made again wherever the fold's run is used."""
    made = config.data.simulator
    if config.data.source != SIMULATOR or made.seed is not None:
        return config.data
    made = made.model_copy(update={"seed": config.seed})
    return config.data.model_copy(update={"simulator": made})


def _shortened(config: RunConfig) -> dict[str, int]:
    """Return the rounds of a warm start; epochs alone in the same proportion."""
    rounds, asked = config.federation.num_server_rounds, config.backtest.refit_rounds
    if asked is None:
        return {}
    alone = config.federation.epochs_alone
    change = {"num_server_rounds": asked}
    if alone:
        change["epochs_alone"] = max(1, round(alone * asked / rounds))
    return change

"""What can be trained under `[privacy]`, and the account that a run keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fl_inmetro import events
from fl_inmetro.config.schema import ENSEMBLE, RunConfig
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.spending import Account
from fl_inmetro.learning.client import ClientData
from fl_inmetro.learning.exposure import windows_of_a_day
from fl_inmetro.learning.update import Learner
from fl_inmetro.plan import Job
from fl_inmetro.runs import layout
from fl_inmetro.runs.recorder import Recorder

#: Where a run keeps what it says of its privacy.
FILE = "privacy.json"

#: Models whose federated training has an account; those of sums have one of their own.
_SUMS = frozenset({"quantile_linear"})


def check_privacy(
    config: RunConfig, jobs: Sequence[Job], *, warm: bool = False, on_nodes: bool = False
) -> None:
    """Look whether all that is to be trained goes together with `[privacy]`.

    Args:
        config: The configuration.
        jobs: What is trained.
        warm: Whether trainings begin from models that are there.
        on_nodes: Whether the clients are nodes of Flower.

    Raises:
        PrivacyError: FL417, a fault for each part that does not.
    """
    if not config.privacy.enabled:
        return
    faults = [
        Fault("FL417", what, where, hint)
        for what, where, hint in _faults(config, jobs, warm=warm, on_nodes=on_nodes)
    ]
    if faults:
        raise PrivacyError(faults)


def open_account(
    config: RunConfig, jobs: Sequence[Job], recorder: Recorder, emit: events.Emit
) -> Account | None:
    """Return the account of a run; None where nothing leaves the clients, or nobody is protected.

    Raises:
        PrivacyError: As `Account`.
    """
    if not config.privacy.enabled or not any(job.training == "federated" for job in jobs):
        return None
    path = recorder.path / FILE

    def keep(record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        layout.write_whole(path, text.encode())

    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if config.federation.keep == "best":
        text = "under [privacy] the model of the last round is kept: to choose by errors tells them"
        emit(events.Note("info", text))
    return Account(config.privacy, recorder.path.name, config.name, keep, kept, emit)


def close_account(account: Account, emit: events.Emit) -> None:
    """Sum up what a run that is done has spent, and forget its secret."""
    delta = account.settings.delta
    for model, (spent, plan) in account.close().items():
        text = f"privacy: {model} has spent epsilon {spent:.4g} of {plan:.4g} at delta {delta:g}"
        emit(events.Note("info", text))


def days_in_windows(learner: Learner, clients: Iterable[ClientData]) -> int:
    """Return how many training windows a day is in, by the client that has the most windows."""
    return windows_of_a_day(learner, max(clients, key=lambda c: sum(map(len, c.train))).train)


# ------------------------------------------------------------------------------ internals
def _faults(
    config: RunConfig, jobs: Sequence[Job], *, warm: bool, on_nodes: bool
) -> Iterable[tuple[str, str, str]]:
    privacy = config.privacy
    trained = [job for job in jobs if not job.is_derived]
    federated = {job.model for job in trained if job.training == "federated"}
    if any(job.training == "clustered" for job in trained):
        yield (
            "who shares a model with whom tells of the readings, and has no account",
            'training = "clustered"',
            'use `training = "federated"`',
        )
    for model in sorted(federated & _SUMS):
        yield (
            f"`{model}` sends sums in every round, which have no account yet",
            f"model = {model!r}",
            "take a gradient model, or ridge",
        )
    if ENSEMBLE in {job.model for job in jobs} and on_nodes:
        return
    strategy = compose(config.strategy)
    if config.strategy.is_foreign:
        yield (
            "a Flower strategy of your own merges by itself, and nobody knows with which noise",
            f"[strategy] name = {config.strategy.name!r}",
            "take an entry of the table of strategies",
        )
    elif privacy.protect == "client" and (
        strategy.rule != "mean" or strategy.recipe.weighing not in ("points", "uniform")
    ):
        yield (
            "one client may decide how much another counts: the noise is made for a plain sum",
            f"[strategy] name = {config.strategy.name!r}, rule = {strategy.rule!r}",
            "take a strategy of the mean: fedavg, fedavgm, fedadagrad, fedadam, fedyogi, fedprox",
        )
    if strategy.recipe.control != "none" or strategy.recipe.weighing in ("loss", "age"):
        yield (
            "control variates, losses and ages leave the clients too, and have no account",
            f"[strategy] name = {config.strategy.name!r}",
            "take fedavg, fedavgm, fedadagrad, fedadam, fedyogi or fedprox",
        )
    if config.conformal.enabled and config.conformal.fleet_days:
        yield (
            "the fleet's calibration adds up exact counts of all clients' errors",
            f"[conformal] fleet-days = {config.conformal.fleet_days}",
            "set it to 0: then each client is calibrated by its own errors, which stay with it",
        )
    if config.diagnostics.heterogeneity:
        yield (
            "heterogeneity is measured by whole gradients, which would leave without noise",
            "[diagnostics] heterogeneity = true",
            "set it to false",
        )
    if config.selection.sampler != "uniform":
        yield (
            "who takes part is drawn by chance alone, in secret",
            f"[selection] sampler = {config.selection.sampler!r}",
            'leave it at `"uniform"`',
        )
    if config.virtual_time.enabled or config.federation.by_the_clock:
        yield (
            "rounds that close before everybody who was drawn has answered have no account yet",
            "[virtual_time] enabled, [federation] over-selection, deadline-s",
            "leave them out",
        )
    if config.federation.patience is not None:
        yield (
            "to stop by validation errors tells of them",
            f"[federation] patience = {config.federation.patience}",
            "leave it out: the number of rounds is fixed in advance",
        )
    if privacy.protect == "client-day" and config.partition.kind != "natural":
        yield (
            "a partition spreads a day of a meter over several clients",
            f"[partition] kind = {config.partition.kind!r}",
            'use `protect = "client"`, or the natural partition',
        )
    if warm:
        yield (
            "a model to begin from was trained on readings that are not accounted here",
            "warm start",
            "begin anew, or train without `[privacy]`",
        )

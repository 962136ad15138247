"""What can be trained under `[privacy]`, and the account that a run keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fl_inmetro import events
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.recipes import compose
from fl_inmetro.federation.spending import Account
from fl_inmetro.i18n.said import said
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
    if any(job.training == "centralised" for job in jobs):
        emit(events.Note("warning", said("privacy_yardsticks")))
    if config.partition.kind != "natural":
        emit(events.Note("warning", said("privacy_partition")))
    if config.federation.keep == "best":
        emit(events.Note("info", said("privacy_last")))
    return Account(config.privacy, recorder.path.name, config.name, keep, kept, emit)


def close_account(account: Account, emit: events.Emit) -> None:
    """Sum up what a run that is done has spent, and forget its secret."""
    delta = account.settings.delta
    for model, (spent, plan) in account.close().items():
        numbers = {"spent": f"{spent:.4g}", "planned": f"{plan:.4g}", "delta": f"{delta:g}"}
        emit(events.Note("info", said("privacy_spent", model=model, **numbers)))
    if (total := account.together()) is not None:
        numbers = {"epsilon": f"{total:.4g}", "delta": f"{delta:g}"}
        name = account.record["federation"]
        emit(events.Note("warning", said("privacy_together", name=name, **numbers)))


def records_of(config: RunConfig, learner: Learner, clients: Iterable[ClientData]) -> int:
    """Return how many training windows the one who is protected has, by the client with the most.

    That of a window is one, and a client counts as a whole.
    """
    if config.privacy.protect != "client-day":
        return 1
    return windows_of_a_day(learner, max(clients, key=lambda c: sum(map(len, c.train))).train)


# ------------------------------------------------------------------------------ internals
def _faults(
    config: RunConfig, jobs: Sequence[Job], *, warm: bool, on_nodes: bool
) -> Iterable[tuple[str, str, str]]:
    privacy = config.privacy
    trained = [job for job in jobs if not job.is_derived]
    how = {job.training for job in trained}
    if "federated" not in how and how & {"centralised", "clustered"}:
        yield (
            "nothing of this is trained under `[privacy]`: only federations have noise",
            f"[privacy] protect = {privacy.protect!r}, training: {', '.join(sorted(how))}",
            '`training = "federated"`; or `--set privacy.protect=nobody`, where all readings may '
            "be in one place",
        )
    federated = {job.model for job in trained if job.training == "federated"}
    if any(job.training == "clustered" for job in trained):
        yield (
            "who shares a model with whom tells of the readings, and has no account",
            'training = "clustered"',
            'use `training = "federated"`',
        )
    yield from _uncounted(config, sorted(federated), on_nodes=on_nodes)
    for model in sorted(federated & _SUMS):
        yield (
            f"`{model}` sends sums in every round, which have no account yet",
            f"model = {model!r}",
            "take `mlp` with `[models.mlp] hidden = []`, which is the same model by gradients; any "
            "other gradient model; or ridge",
        )
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
    # By windows, what corrects a client's steps is made of gradients that were noised already.
    bare = strategy.recipe.control != "none" and not privacy.by_example
    if bare or strategy.recipe.weighing in ("loss", "age"):
        yield (
            "control variates of whole clients, losses and ages leave the clients too, and have no "
            "account",
            f"[strategy] name = {config.strategy.name!r}",
            "take fedavg, fedavgm, fedadagrad, fedadam, fedyogi or fedprox",
        )
    if config.conformal.enabled and config.conformal.fleet_days:
        yield (
            "the fleet's calibration adds up exact counts of all clients' errors",
            f"[conformal] fleet-days = {config.conformal.fleet_days}",
            "set it to 0: then each client is calibrated by its own errors, which stay with it",
        )
    if privacy.calibration_share and (
        not config.conformal.enabled or config.conformal.follow or privacy.protect != "client"
    ):
        yield (
            "the fleet's quantiles of errors are released once, of whole clients, for those that "
            "have no errors of their own",
            "[privacy] calibration-share",
            'set it to 0; or `protect = "client"` and `[conformal] enabled = true, follow = false`',
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


def _uncounted(
    config: RunConfig, models: Sequence[str], *, on_nodes: bool
) -> Iterable[tuple[str, str, str]]:
    """Yield what would leave clients, or be trained on, without being counted."""
    privacy, cleaning = config.privacy, config.data.cleaning
    for model in models:
        own = getattr(config.models, model)
        added = [key for key in ("short_histories", "hidden_endings") if getattr(own, key, 0)]
        if privacy.by_example and added:
            named = ", ".join(key.replace("_", "-") for key in added)
            yield (
                "a window that is added with a part of its past hidden is of the same readings: "
                "nobody counts how often they are trained on then",
                f"[models.{model}] {named}",
                'set them to 0, or use `protect = "client"`',
            )
        if privacy.noise_at == "clients" and model == "ridge":
            yield (
                "sums of ridge get their noise at the server",
                f"model = {model!r}, [privacy] noise-at",
                '`noise-at = "server"`, or a gradient model',
            )
    if privacy.noise_at == "clients" and (
        privacy.scaler_share or privacy.metrics_share or privacy.calibration_share
    ):
        yield (
            "moments and errors of whole clients get their noise at the server",
            "[privacy] noise-at, scaler-share, metrics-share, calibration-share",
            'set the shares to 0, or `noise-at = "server"`',
        )
    if on_nodes and privacy.by_example and privacy.metrics_share:
        yield (
            "errors would leave the nodes without noise, which only the server could add",
            f"[privacy] protect = {privacy.protect!r}, metrics-share",
            "set `metrics-share = 0`, or simulate the federation in one process",
        )
    if privacy.protect == "client-day" and config.data.source != "simulator":
        masks = {
            'outliers = "mask"': cleaning.outliers == "mask",
            'flat = "mask"': cleaning.flat == "mask",
            "max-gap-fill-h": cleaning.max_gap_fill_h > 0,
        }
        if found := [name for name, on in masks.items() if on]:
            yield (
                "cleaning ties a day to others: whether a reading counts hangs on earlier days",
                f"[data.cleaning] {', '.join(found)}",
                'set `outliers` and `flat` to "report" and `max-gap-fill-h` to 0',
            )

"""What `[privacy]` changes in a federation: its merge, its work, its draws and its gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from fl_inmetro.config.privacy import Privacy
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation.booked_grid import Book
from fl_inmetro.federation.closing import replies_of
from fl_inmetro.federation.group_account import GroupAccount
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.noted_merge import NotedMerge
from fl_inmetro.federation.private_merge import Following, PrivateMerge, Released
from fl_inmetro.federation.private_sampling import Poisson
from fl_inmetro.federation.private_statistics import NoisyStatisticsMerge
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.selection import SAMPLERS, Sampler
from fl_inmetro.i18n.said import said
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.private_moments import WINDOW_NORM
from fl_inmetro.learning.private_ridge import PrivateRidgeLearner
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.plan import Planned
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateMetric, PrivateSums

#: Noise on the count of short updates is the expected cohort over this, as in Andrew et al. (2021).
_COUNT = 20.0

#: The largest validation nMAE that counts in a noisy mean: as bad as to forecast nothing.
_LIMIT = 1.0


@dataclass(frozen=True)
class Protected:
    """The parts of a federation, as they keep the promise.

    Attributes:
        merge: How updates are merged, noised and noted.
        work: What the clients do.
        gate: Which replies may touch the model.
        sampler: Who takes part in a round.
        metric: How rounds are scored; None = not for anybody but who runs the study.
        book: Books a round before nodes are asked for what they noise themselves; None = what is
            merged is noted.
    """

    merge: Merge
    work: LocalWork
    gate: Gate
    sampler: Sampler
    metric: PrivateMetric | None
    book: Book | None = None


def private_sums(
    spending: GroupAccount, scaler: Gaussian | None, *, booked: bool = False
) -> PrivateSums:
    """Return how clients enrol: with noisy moments, or, without a share of ε, with none.

    Where they are `booked` before clients are asked, nothing is noted when they are used.
    """

    def release(round_: int, sensitivity: float, digest: str) -> None:
        if scaler is not None and not booked:
            spending.note(round_, "scaler", scaler, sensitivity, digest)

    return PrivateSums(
        spending.protect,
        None if scaler is None else scaler.noise_multiplier,
        spending.secret.child("enrolment"),
        release,
    )


def calibration_sums(spending: GroupAccount | None) -> PrivateSums | None:
    """Return how the fleet's quantiles of errors are made private; None where nobody asks."""
    if spending is None or spending.plan is None or spending.plan.calibration is None:
        return None
    event = spending.plan.calibration

    def release(round_: int, sensitivity: float, digest: str) -> None:
        spending.note(round_, "calibration", event, sensitivity, digest)

    secret = spending.secret.child("calibration")
    return PrivateSums(spending.protect, event.noise_multiplier, secret, release)


def of_scaler(spending: GroupAccount, scaler: Gaussian) -> Book:
    """Return what books the sums of enrolment before nodes are asked for them."""
    return lambda round_: spending.book(round_, "scaler", scaler, WINDOW_NORM)


def plan_of(
    spending: GroupAccount,
    config: RunConfig,
    learner: Learner,
    roster: Roster,
    scaler: Gaussian | None,
    *,
    on_nodes: bool = False,
) -> Planned:
    """Plan a federation's noise, once it is known who takes part with how many windows.

    Args:
        spending: Its account.
        config: The configuration.
        learner: What is trained.
        roster: The clients.
        scaler: What the sums that standardise features will spend; None = there are none.
        on_nodes: Whether the clients are processes of their own, which keep their own ledgers.

    Raises:
        BudgetError: FL422, a budget does not allow it.
        PrivacyError: As `GroupAccount.begin`.
    """
    settings = config.federation
    rounds = _rounds(config, learner)
    if learner.closed_form:
        kinds = spending.of_statistics()
    elif config.privacy.by_example:
        size = learner.settings.batch_size  # type: ignore[attr-defined]  # gradient learners have it
        # A client knows how often it was asked: nothing is gained by a draw of clients.
        how_long = (settings.local_epochs, settings.local_steps)
        kinds = spending.of_windows(rounds, roster.windows, size, *how_long)
    else:
        kinds = spending.of_clients(rounds, settings.fraction_fit)
    return spending.begin(kinds, rounds, scaler, () if on_nodes else roster.nodes)


def protected(
    spending: GroupAccount,
    plan: Planned,
    config: RunConfig,
    learner: Learner,
    roster: Roster,
    merge: Merge,
    work: LocalWork,
    *,
    on_nodes: bool = False,
) -> Protected:
    """Return a federation's parts.

    Args:
        spending: Its account.
        plan: Its noise, from `plan_of`.
        config: The configuration.
        learner: What is trained.
        roster: The clients.
        merge: How updates would be merged without noise.
        work: What the clients would do.
        on_nodes: Whether the clients are processes of their own: what they have noised themselves
            is booked before they are asked, and not when it is merged.

    Raises:
        PrivacyError: FL408, the count of short updates alone spends more than the plan allows.
    """
    rounds = _rounds(config, learner)
    sampler = SAMPLERS[config.selection.sampler](config.selection)
    usual = Protected(merge, work, config.gate, sampler, _metric(spending, plan, rounds))
    if isinstance(learner, PrivateRidgeLearner):
        return _by_statistics(usual, spending, plan, learner, roster, on_nodes)
    if config.privacy.by_example:
        return _by_window(usual, spending, plan, rounds, on_nodes)
    return _by_client(usual, spending, plan, config, len(roster.nodes), on_nodes)


def client_merge(
    config: RunConfig,
    inner: DeltaMerge,
    noise_multiplier: float,
    clients: int,
    secret: Secret,
    release: Callable[[Released], None],
) -> tuple[PrivateMerge, NoiseShare | None]:
    """Return how updates of whole clients are merged, and what each client adds to its own.

    Args:
        config: The configuration.
        inner: How updates would be merged without noise.
        noise_multiplier: z of the sum.
        clients: Clients that are enrolled.
        secret: What noise is drawn from.
        release: Called with what is about to be applied.

    Raises:
        PrivacyError: FL408, see `Following`.
    """
    privacy, z = config.privacy, noise_multiplier
    expected = config.federation.fraction_fit * clients
    share: NoiseShare | None = None
    if privacy.noise_at == "clients":
        # So that the least replies that are merged as a rule have all of the noise together.
        least = max(1, replies_of(_quorum_of(config), max(1, int(expected))))
        share = NoiseShare(privacy.clip, z * privacy.clip / math.sqrt(least))
    following = None
    if privacy.clip_quantile is not None:
        following = Following(privacy.clip_quantile, privacy.clip_rate, expected / _COUNT)
        following.of_sum(z)  # refused before anything is trained
    merge = PrivateMerge.over(
        inner,
        clip=privacy.clip,
        noise_multiplier=z,
        expected=expected,
        secret=secret,
        release=release,
        following=following,
        share=share.sigma if share else 0.0,
        on_grid=privacy.on_grid,
    )
    return merge, share


def drowned(
    privacy: Privacy, plan: Planned, learner: Learner, roster: Roster, parameters: int
) -> str | None:
    """Return a warning where noise is longer than what it is added to can be; None where not.

    Noise of deviation s on each of P parameters is about s√P long, and a clipped mean at most C:
    the mean of a round's updates (`client`), or of the clients' steps of one round.

    Args:
        privacy: `[privacy]`.
        plan: The noise of the run.
        learner: What is trained, by gradients.
        roster: The clients.
        parameters: P, those that are shared.
    """
    clients, z = len(roster.nodes), plan.update.noise_multiplier
    if privacy.by_example:
        size = learner.settings.batch_size  # type: ignore[attr-defined]  # gradient learners have it
        counts = sorted(roster.windows.values())
        batch = min(size or counts[clients // 2], counts[clients // 2]) or 1
        times = z * math.sqrt(parameters) / (batch * math.sqrt(clients))
        what = "steps"
    else:
        times = z * math.sqrt(parameters) / (plan.update.sampling_rate * clients)
        what = "update"
    if times <= 1:
        return None
    return said(f"privacy_drowned_{what}", times=f"{times:.2g}", parameters=parameters)


def learner_under(privacy: Privacy, learner: Learner) -> Learner:
    """Return the learner in its private form: ridge sends other statistics."""
    if privacy.enabled and isinstance(learner, RidgeLearner):
        return PrivateRidgeLearner(learner.settings, by_client=not privacy.by_example)
    return learner


def alone(gate: Gate) -> Gate:
    """Return a gate that judges each reply by itself.

    A limit on norms by the cohort's median, or a look for copies, lets one client decide whether
    another counts: then more than its own clipped update hangs on it, and the noise is too little.
    """
    return gate.model_copy(update={"norm_factor": math.inf, "copies": True, "fit": False})


# ------------------------------------------------------------------------------ internals
def _metric(spending: GroupAccount, plan: Planned, rounds: int) -> PrivateMetric | None:
    if plan.metrics is None:
        return None
    event = replace(plan.metrics, times=plan.metrics.times // rounds)

    def release(round_: int, sensitivity: float, digest: str) -> None:
        spending.note(round_, "metrics", event, sensitivity, digest)

    secret = spending.secret.child("metrics")
    return PrivateMetric(spending.protect, event.noise_multiplier, _LIMIT, secret, release)


def _rounds(config: RunConfig, learner: Learner) -> int:
    return 1 if learner.closed_form else config.federation.num_server_rounds


def _by_statistics(
    usual: Protected,
    spending: GroupAccount,
    plan: Planned,
    learner: PrivateRidgeLearner,
    roster: Roster,
    on_nodes: bool,
) -> Protected:
    """Return the parts of a model in closed form."""
    z = plan.update.noise_multiplier
    by_client = spending.protect == "client"
    booked = on_nodes and not by_client

    def release(round_: int, sensitivity: float, digest: str) -> None:
        if not booked:
            spending.note(round_, "statistics", plan.update, sensitivity, digest)

    def book(round_: int) -> None:
        spending.book(round_, "statistics", plan.update, 1.0)

    sums = PrivateSums(spending.protect, z, spending.secret.child("statistics"), release)
    merge = NoisyStatisticsMerge(learner, sums, roster.windows)
    # Where clients count the noise is the server's; `dp` says as well that no loss is told.
    work = replace(usual.work, dp=DpSgd(1.0, 0.0 if by_client else z))
    gate = _unlooked(usual.gate)
    gate = gate if by_client else _once(gate)
    return replace(usual, merge=merge, work=work, gate=gate, book=book if booked else None)


def _once(gate: Gate) -> Gate:
    """Return a gate that repeats no round: asked again, a node draws anew, and releases again."""
    return gate.model_copy(update={"attempts": 1})


def _unlooked(gate: Gate) -> Gate:
    """Return a gate that looks at the form of noisy sums alone: they contradict any rows."""
    return alone(gate).model_copy(update={"spread_factor": math.inf})


def _by_window(
    usual: Protected, spending: GroupAccount, plan: Planned, rounds: int, on_nodes: bool
) -> Protected:
    """Return the parts of a federation whose clients clip and noise window by window (DP-SGD)."""
    per_round = replace(plan.update, times=plan.update.times // rounds)
    clip = spending.settings.clip

    def note(round_: int, digest: str) -> None:
        spending.note(round_, "update", per_round, clip, digest)

    def book(round_: int) -> None:
        spending.book(round_, "update", per_round, clip)

    work = replace(usual.work, dp=DpSgd(clip, plan.update.noise_multiplier))
    parts = replace(usual, work=work, gate=_once(usual.gate))
    if on_nodes:
        return replace(parts, book=book)
    return replace(parts, merge=NotedMerge(usual.merge, note))


def _by_client(
    usual: Protected,
    spending: GroupAccount,
    plan: Planned,
    config: RunConfig,
    clients: int,
    on_nodes: bool,
) -> Protected:
    """Return the parts of a federation whose clients are clipped and noised as a whole."""
    event = replace(plan.update, times=1)
    booked = on_nodes and config.privacy.noise_at == "clients"

    def release(released: Released) -> None:
        if not booked:
            spending.note(released.round, "update", event, released.sensitivity, released.digest)

    def book(round_: int) -> None:
        spending.book(round_, "update", event, config.privacy.clip)

    assert isinstance(usual.merge, DeltaMerge)
    z, secret = plan.update.noise_multiplier, spending.secret
    merge, share = client_merge(config, usual.merge, z, clients, secret.child("updates"), release)
    sampler = Poisson(secret.child("draws"), config.federation.fraction_fit)
    parts = replace(usual, merge=merge, gate=alone(usual.gate), sampler=sampler)
    if share is None:
        return parts
    work = replace(usual.work, share=share)
    return replace(parts, work=work, gate=_once(parts.gate), book=book if booked else None)


def _quorum_of(config: RunConfig) -> float:
    quorum = config.federation.quorum
    return config.gate.quorum if quorum is None else quorum

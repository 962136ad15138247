"""What `[privacy]` changes in a federation: its merge, its work, its draws and its gate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fl_inmetro.config.privacy import Privacy
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation.closing import replies_of
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.noted_merge import NotedMerge
from fl_inmetro.federation.private_merge import Following, PrivateMerge, Released
from fl_inmetro.federation.private_sampling import Poisson
from fl_inmetro.federation.private_statistics import NoisyStatisticsMerge
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.selection import SAMPLERS, Sampler
from fl_inmetro.federation.spending import GroupAccount
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.private_ridge import PrivateRidgeLearner
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.plan import Planned
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
        plan: What is spent.
    """

    merge: Merge
    work: LocalWork
    gate: Gate
    sampler: Sampler
    metric: PrivateMetric | None
    plan: Planned


def private_sums(spending: GroupAccount, scaler: Gaussian | None) -> PrivateSums:
    """Return how clients enrol: with noisy moments, or, without a share of ε, with none."""

    def release(round_: int, sensitivity: float, digest: str) -> None:
        if scaler is not None:
            spending.note(round_, "scaler", scaler, sensitivity, digest)

    return PrivateSums(
        spending.protect,
        None if scaler is None else scaler.noise_multiplier,
        spending.secret.child("enrolment"),
        release,
    )


def protected(
    spending: GroupAccount,
    config: RunConfig,
    learner: Learner,
    roster: Roster,
    merge: Merge,
    work: LocalWork,
    scaler: Gaussian | None,
) -> Protected:
    """Plan a federation's noise, and return its parts.

    Args:
        spending: Its account.
        config: The configuration.
        learner: What is trained.
        roster: The clients.
        merge: How updates would be merged without noise.
        work: What the clients would do.
        scaler: What the sums that standardise features have spent; None = there were none.

    Raises:
        BudgetError: FL422, a budget does not allow it.
        PrivacyError: FL404, no noise keeps such a promise.
    """
    settings = config.federation
    rounds = 1 if learner.closed_form else settings.num_server_rounds
    if learner.closed_form:
        kinds = spending.of_statistics()
    elif config.privacy.by_example:
        size = learner.settings.batch_size  # type: ignore[attr-defined]  # gradient learners have it
        # A client knows how often it was asked: nothing is gained by a draw of clients.
        windows = roster.windows.values()
        kinds = spending.of_windows(
            rounds, windows, size, settings.local_epochs, settings.local_steps
        )
    else:
        kinds = spending.of_clients(rounds, settings.fraction_fit)
    plan = spending.begin(kinds, rounds, scaler)
    sampler = SAMPLERS[config.selection.sampler](config.selection)
    usual = Protected(merge, work, config.gate, sampler, _metric(spending, plan, rounds), plan)
    if isinstance(learner, PrivateRidgeLearner):
        return _by_statistics(usual, spending, plan, learner, roster)
    if config.privacy.by_example:
        return _by_window(usual, spending, plan, rounds)
    return _by_client(usual, spending, plan, config, len(roster.nodes))


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
        what, cures = "the mean of the clients' steps", "larger batches, "
    else:
        times = z * math.sqrt(parameters) / (plan.update.sampling_rate * clients)
        what, cures = "a round's mean update", ""
    if times <= 1:
        return None
    return (
        f"privacy: the noise on {what} is {times:.2g} times as long as {what} can be: "
        f"expect little to be learned; more clients, fewer parameters ({parameters} now), {cures}"
        "fewer rounds or a larger epsilon would help"
    )


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


def _by_statistics(
    usual: Protected,
    spending: GroupAccount,
    plan: Planned,
    learner: PrivateRidgeLearner,
    roster: Roster,
) -> Protected:
    """Return the parts of a model in closed form."""
    z = plan.update.noise_multiplier

    def release(round_: int, sensitivity: float, digest: str) -> None:
        spending.note(round_, "statistics", plan.update, sensitivity, digest)

    sums = PrivateSums(spending.protect, z, spending.secret.child("statistics"), release)
    merge = NoisyStatisticsMerge(learner, sums, roster.windows)
    # Where clients count the noise is the server's; `dp` says as well that no loss is told.
    work = replace(usual.work, dp=DpSgd(1.0, 0.0 if sums.by_client else z))
    return replace(usual, merge=merge, work=work, gate=_unlooked(usual.gate))


def _once(gate: Gate) -> Gate:
    """Return a gate that repeats no round: asked again, a node draws anew, and releases again."""
    return gate.model_copy(update={"attempts": 1})


def _unlooked(gate: Gate) -> Gate:
    """Return a gate that looks at the form of noisy sums alone: they contradict any rows."""
    return alone(gate).model_copy(update={"spread_factor": math.inf})


def _by_window(usual: Protected, spending: GroupAccount, plan: Planned, rounds: int) -> Protected:
    """Return the parts of a federation whose clients clip and noise window by window (DP-SGD)."""
    per_round = replace(plan.update, times=plan.update.times // rounds)
    clip = spending.settings.clip

    def note(round_: int, digest: str) -> None:
        spending.note(round_, "update", per_round, clip, digest)

    work = replace(usual.work, dp=DpSgd(clip, plan.update.noise_multiplier))
    return replace(usual, merge=NotedMerge(usual.merge, note), work=work, gate=_once(usual.gate))


def _by_client(
    usual: Protected, spending: GroupAccount, plan: Planned, config: RunConfig, clients: int
) -> Protected:
    """Return the parts of a federation whose clients are clipped and noised as a whole."""
    privacy, fraction = config.privacy, config.federation.fraction_fit
    event = replace(plan.update, times=1)
    z, expected = plan.update.noise_multiplier, fraction * clients

    def release(released: Released) -> None:
        spending.note(released.round, "update", event, released.sensitivity, released.digest)

    work, sigma = usual.work, 0.0
    if privacy.noise_at == "clients":
        # So that the least replies that are merged as a rule have all of the noise together.
        least = max(1, replies_of(_quorum_of(config), max(1, int(expected))))
        sigma = z * privacy.clip / math.sqrt(least)
        work = replace(work, share=NoiseShare(privacy.clip, sigma))
        usual = replace(usual, gate=_once(usual.gate))
    following = None
    if privacy.clip_quantile is not None:
        following = Following(privacy.clip_quantile, privacy.clip_rate, expected / _COUNT)
        following.of_sum(z)  # refused before anything is trained
    assert isinstance(usual.merge, DeltaMerge)
    merge = PrivateMerge.over(
        usual.merge,
        clip=privacy.clip,
        noise_multiplier=z,
        expected=expected,
        secret=spending.secret.child("updates"),
        release=release,
        following=following,
        share=sigma,
        on_grid=privacy.on_grid,
    )
    sampler = Poisson(spending.secret.child("draws"), fraction)
    return replace(usual, merge=merge, work=work, gate=alone(usual.gate), sampler=sampler)


def _quorum_of(config: RunConfig) -> float:
    quorum = config.federation.quorum
    return config.gate.quorum if quorum is None else quorum

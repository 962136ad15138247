"""What `[privacy]` changes in a federation: its merge, its work, its draws and its gate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fl_inmetro.config.schema import RunConfig
from fl_inmetro.config.strategy import Gate
from fl_inmetro.federation.closing import replies_of
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.noted_merge import NotedMerge
from fl_inmetro.federation.private_merge import PrivateMerge, Released
from fl_inmetro.federation.private_sampling import Poisson
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.selection import SAMPLERS, Sampler
from fl_inmetro.federation.spending import GroupAccount
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.mechanism import Gaussian


@dataclass(frozen=True)
class Protected:
    """The parts of a federation, as they keep the promise.

    Attributes:
        merge: How updates are merged, noised and noted.
        work: What the clients do.
        gate: Which replies may touch the model.
        sampler: Who takes part in a round.
    """

    merge: Merge
    work: LocalWork
    gate: Gate
    sampler: Sampler


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
    make = _by_example if config.privacy.by_example else _by_client
    return make(spending, config, learner, roster, merge, work, scaler)


def _by_example(
    spending: GroupAccount,
    config: RunConfig,
    learner: Learner,
    roster: Roster,
    merge: Merge,
    work: LocalWork,
    scaler: Gaussian | None,
) -> Protected:
    """Return the parts of a federation whose clients clip and noise window by window (DP-SGD)."""
    settings = config.federation
    batch_size = learner.settings.batch_size  # type: ignore[attr-defined]  # gradient learners have them
    plan = spending.begin(
        settings.num_server_rounds,
        1.0,  # a client is told how often it was asked; nothing is gained by a draw that is known
        roster.windows,
        batch_size,
        settings.local_epochs,
        settings.local_steps,
        scaler=scaler,
    )
    per_round = replace(plan.update, times=plan.update.times // settings.num_server_rounds)
    clip = config.privacy.clip

    def note(round_: int, digest: str) -> None:
        spending.note(round_, "update", per_round, clip, digest)

    dp = DpSgd(clip, plan.update.noise_multiplier)
    sampler = SAMPLERS[config.selection.sampler](config.selection)
    return Protected(NotedMerge(merge, note), replace(work, dp=dp), config.gate, sampler)


def _by_client(
    spending: GroupAccount,
    config: RunConfig,
    learner: Learner,
    roster: Roster,
    merge: Merge,
    work: LocalWork,
    scaler: Gaussian | None,
) -> Protected:
    """Return the parts of a federation whose clients are clipped and noised as a whole."""
    del learner
    settings, privacy = config.federation, config.privacy
    plan = spending.begin(
        settings.num_server_rounds,
        settings.fraction_fit,
        roster.windows,
        0,
        settings.local_epochs,
        settings.local_steps,
        scaler=scaler,
    )
    event = replace(plan.update, times=1)
    clients, z = len(roster.nodes), plan.update.noise_multiplier

    def release(released: Released) -> None:
        spending.note(released.round, "update", event, released.sensitivity, released.digest)

    expected = settings.fraction_fit * clients
    sigma = 0.0
    if privacy.noise_at == "clients":
        # So that the least replies that are merged as a rule have all of the noise together.
        least = max(1, replies_of(_quorum_of(config), max(1, int(expected))))
        sigma = z * privacy.clip / math.sqrt(least)
        work = replace(work, share=NoiseShare(privacy.clip, sigma))
    assert isinstance(merge, DeltaMerge)
    private = PrivateMerge.over(
        merge,
        clip=privacy.clip,
        noise_multiplier=z,
        expected=expected,
        secret=spending.secret,
        release=release,
        share=sigma,
    )
    sampler = Poisson(spending.secret, settings.fraction_fit)
    return Protected(private, work, alone(config.gate), sampler)


def alone(gate: Gate) -> Gate:
    """Return a gate that judges each reply by itself.

    A limit on norms by the cohort's median, or a look for copies, lets one client decide whether
    another counts: then more than its own clipped update hangs on it, and the noise is too little.
    """
    return gate.model_copy(update={"norm_factor": math.inf, "copies": True})


def _quorum_of(config: RunConfig) -> float:
    quorum = config.federation.quorum
    return config.gate.quorum if quorum is None else quorum

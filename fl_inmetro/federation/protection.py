"""What `[privacy]` changes in a federation: its merge, its work, its draws and its gate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fl_inmetro.config.schema import RunConfig
from fl_inmetro.federation.noted_merge import NotedMerge
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.spending import GroupAccount
from fl_inmetro.learning.update import Learner
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.privacy.mechanism import Gaussian


@dataclass(frozen=True)
class Protected:
    """The parts of a federation, as they keep the promise.

    Attributes:
        merge: How updates are merged, noised and noted.
        work: What the clients do.
    """

    merge: Merge
    work: LocalWork


def by_example(
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
    return Protected(NotedMerge(merge, note), replace(work, dp=dp))

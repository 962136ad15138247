"""An audit of what a private run is made of: canaries through its own parts, with its own noise.

The parts that clip, add and divide are run many times with a canary and without, under fresh
secrets: those of the program as it is, with the clipping norm and noise multiplier of the run, and
with clients that drop out. The noise of the run itself is gone with its secret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.config.schema import ENSEMBLE, RunConfig
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.private_merge import PrivateMerge
from fl_inmetro.learning.client import ClientData
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Layout, Learner, UpdateBlock
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.models.design import Design, joined
from fl_inmetro.privacy.audit import Audit, by_many_releases, by_one_release
from fl_inmetro.privacy.secret import Secret

Floats = NDArray[np.float64]

#: Numbers of an update that is audited, and canaries of the audit by one release.
_SIZE, _CANARIES = 64, 1000

#: How much longer than the clipping norm a canary is: without clipping it is seen at once.
_LONG = 10.0

#: Windows of the client that a canary window is hidden among.
_WINDOWS = 16


@dataclass(frozen=True)
class Audited:
    """The audit of one part.

    Attributes:
        part: `sum`: the clipped sum of clients, all of whom answer; `dropout`: of whom one in ten
            does; `one-release`: many canary clients in one sum; `step`: one step of DP-SGD.
        audit: What was found.
    """

    part: str
    audit: Audit


def audit_run(
    config: RunConfig,
    account: dict[str, Any] | None,
    clients: Sequence[ClientData],
    releases: int,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> list[Audited]:
    """Audit the parts of a private run.

    Args:
        config: Its configuration.
        account: What it kept of its privacy (`privacy.json`); None where it added no noise.
        clients: Its clients; what a canary window is hidden among.
        releases: Releases with a canary, and as many without, at least 20.
        seed: What canaries are drawn from; the noise is fresh in every audit.
        check: Called before each release; may raise.

    Raises:
        PrivacyError: FL419, there is nothing to audit.
    """
    models = account["models"].values() if account else ()
    planned = [one["planned"][-1] for one in models if one.get("planned")]
    learner = None if config.model == ENSEMBLE else _plain(config)
    if not planned or account is None or not isinstance(learner, GradientLearner):
        raise PrivacyError(
            Fault(
                "FL419",
                "there is no noisy sum of updates to audit",
                f"model = {config.model!r}, [privacy] protect = {config.privacy.protect!r}",
                "audit a run of a gradient model that was trained under `[privacy]`, for example "
                "with `--set privacy.protect=client`",
            )
        )
    z, clip, delta = planned[0]["noise_multiplier"], config.privacy.clip, account["delta"]
    if config.privacy.by_example:
        scores = _steps(learner, clients, z, clip, releases, seed, check)
        return [Audited("step", by_many_releases(*scores, z, delta))]
    cohort = max(10, len(clients))
    full = _sums(z, clip, cohort, cohort, releases, check)
    few = _sums(z, clip, cohort, max(1, cohort // 10), releases, check)
    included, once = _once(z, clip, cohort, seed)
    many = by_many_releases(*full, z, delta)
    return [
        Audited("sum", many),
        Audited("dropout", by_many_releases(*few, z, delta)),
        Audited("one-release", by_one_release(once, included, many.claimed_epsilon, z, delta)),
    ]


# ------------------------------------------------------------------------------ internals
def _plain(config: RunConfig) -> Learner:
    """Return the run's learner with steps of plain SGD over all windows: what is sent is seen."""
    own = getattr(config.models, config.model)
    step = {"optimizer": "sgd", "eta_l": 1.0, "batch_size": 0, "eta_l_schedule": "constant"}
    given = {name: value for name, value in step.items() if hasattr(own, name)}
    models = config.models.model_copy(update={config.model: own.model_copy(update=given)})
    return learner_for(config.model, models)


def _sums(
    z: float, clip: float, expected: int, answered: int, releases: int, check: Callable[[], None]
) -> tuple[Floats, Floats]:
    """Return the scores of a canary client that is in the sum, and of one that is not."""
    honest = np.zeros((answered, _SIZE), np.float32)
    honest[:, 1] = clip / 3
    scores = np.empty((2, releases))
    for number in range(releases):
        check()
        for inside in (0, 1):
            rows = honest.copy()
            rows[-1] = 0.0
            rows[-1, 0] = inside * _LONG * clip
            scores[inside, number] = _merged(rows, z, clip, expected)[0]
    return scores[1] / clip, scores[0] / clip


def _once(z: float, clip: float, expected: int, seed: int) -> tuple[NDArray[np.bool_], Floats]:
    """Return which of many canary clients were in one release, and all their scores."""
    included = seeds.derive(seed, "canaries").random(_CANARIES) < 0.5
    rows = (_LONG * clip * np.eye(_CANARIES, dtype=np.float32))[included]
    return included, _merged(rows, z, clip, expected) / clip


def _merged(rows: NDArray[np.float32], z: float, clip: float, expected: int) -> Floats:
    """Return the noisy sum of updates, as the server merges them."""
    count, size = rows.shape
    state = {"w": np.zeros(size)}
    merge = PrivateMerge.over(
        DeltaMerge(),
        clip=clip,
        noise_multiplier=z,
        expected=float(expected),
        secret=Secret.fresh(),
    )
    ones = np.ones(count)
    block = UpdateBlock(
        tuple(map(str, range(count))), Layout.of({"w": rows[0]}), rows, ones, 0 * ones, 0 * ones
    )
    after, _ = merge(state, [merge.digest(block)], merge.begin(state))
    return after["w"] * expected


def _steps(
    learner: GradientLearner,
    clients: Sequence[ClientData],
    z: float,
    clip: float,
    releases: int,
    seed: int,
    check: Callable[[], None],
) -> tuple[Floats, Floats]:
    """Return the scores of a canary window in steps of DP-SGD with it, and without it."""
    client = max(clients, key=lambda one: sum(map(len, one.train)))
    design = joined([learner.design(windows) for windows in client.train]).trainable()
    rng = seeds.derive(seed, "windows")
    chosen = rng.choice(len(design.x), min(_WINDOWS, len(design.x)), replace=False)
    others = _rows(design, np.sort(chosen[1:]))
    canary = _far_off(_rows(design, chosen[:1]))
    with_it = joined([others, canary])
    sums = learner.enrol(design)
    state = learner.initial(sums, seed, design.x.shape[1:], design.base.shape[1])
    once = LocalWork(1, steps=1, dp=DpSgd(clip, 0.0))
    names = learner.shared(state)

    def sent(one: Design, work: LocalWork) -> Floats:
        deltas, _ = learner.update(state, one, work, 0, secret=Secret.fresh())
        return np.concatenate([deltas[n].ravel() for n in names]).astype(np.float64) * len(one.x)

    alone = sent(canary, once)
    direction = alone / np.linalg.norm(alone)
    noisy = replace(once, dp=DpSgd(clip, z))
    scores = np.empty((2, releases))
    for number in range(releases):
        check()
        for inside, one in enumerate((others, with_it)):
            scores[inside, number] = sent(one, noisy) @ direction
    return scores[1] / clip, scores[0] / clip


def _rows(design: Design, rows: NDArray[np.int64]) -> Design:
    return Design(*(getattr(design, field.name)[rows] for field in fields(design)))


def _far_off(one: Design) -> Design:
    """Return a window that is far from anything: its gradient is longer than it may be."""
    return replace(one, x=100.0 * one.x, residual=np.full_like(one.residual, 1e3))

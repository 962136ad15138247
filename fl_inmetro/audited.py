"""An audit of what a private run is made of: canaries through its own parts, with its own noise.

The parts that clip, add and divide are run many times with a canary and without, under fresh
secrets: those of the program as it is, with all that the run says of its noise (where it is made,
on which grid, which clipping norm it follows), and with clients that drop out. The noise of the run
itself is gone with its secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.config.schema import LEARNERS, RunConfig
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.private_merge import Released
from fl_inmetro.federation.protection import client_merge
from fl_inmetro.learning.client import ClientData
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.noise_share import noised_rows
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Layout, Learner, UpdateBlock
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.models.design import Design, joined
from fl_inmetro.privacy.accountant import epsilon_pld
from fl_inmetro.privacy.audit import Audit, by_many_releases, by_one_release
from fl_inmetro.privacy.mechanism import Gaussian
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
        model: Name of the federation, as `mlp-federated-g0000`.
        part: `sum`: the clipped sum of clients, all of whom answer; `dropout`: of whom one in ten
            does; `one-release`: many canary clients in one sum; `step`: one step of DP-SGD.
        audit: What was found.
    """

    model: str
    part: str
    audit: Audit


@dataclass(frozen=True)
class _Claim:
    """What a run says of its releases.

    Attributes:
        config: Its configuration.
        z: Noise multiplier of a sum.
        delta: δ.
        group: Windows of the one who is protected.
    """

    config: RunConfig
    z: float
    delta: float
    group: int

    @property
    def clip(self) -> float:
        """C, of the first round."""
        return self.config.privacy.clip


def audit_run(
    config: RunConfig,
    account: dict[str, Any] | None,
    clients: Sequence[ClientData],
    releases: int,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> list[Audited]:
    """Audit the parts of a private run, for each of its federations.

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
    found: list[Audited] = []
    models = account["models"] if account else {}
    for key, kept in models.items():
        name = key.partition("-federated")[0]
        learner = _plain(config, name) if name in LEARNERS else None
        if account is None or not kept.get("planned") or not isinstance(learner, GradientLearner):
            continue
        z = kept["planned"][-1]["noise_multiplier"]
        claim = _Claim(config, z, account["delta"], kept.get("group", 1))
        if config.privacy.by_example:
            step = _steps(learner, clients, claim, releases, seed, check)
            found.append(Audited(key, "step", step))
            continue
        cohort = max(10, len(clients))
        full = _sums(claim, cohort, cohort, releases, check)
        few = _sums(claim, cohort, max(1, cohort // 10), releases, check)
        included, once = _once(claim, cohort, seed)
        many = by_many_releases(*full, _noise(claim, cohort, cohort), claim.delta)
        least = _noise(claim, cohort, 0)
        noise = _noise(claim, cohort, int(included.sum()))
        whole = epsilon_pld((Gaussian(noise, 1.0, 1, "all"),), claim.delta)
        found += [
            Audited(key, "sum", many),
            Audited(key, "dropout", by_many_releases(*few, least, claim.delta)),
            Audited(key, "one-release", by_one_release(once, included, whole, noise, claim.delta)),
        ]
    if not found:
        raise PrivacyError(
            Fault(
                "FL419",
                "there is no noisy sum of updates to audit",
                f"model = {config.model!r}, [privacy] protect = {config.privacy.protect!r}",
                "audit a run of a gradient model that was trained under `[privacy]`, for example "
                "with `--set privacy.protect=client`",
            )
        )
    return found


# ------------------------------------------------------------------------------ internals
def _plain(config: RunConfig, name: str) -> Learner:
    """Return the run's learner with steps of plain SGD over all windows: what is sent is seen."""
    own = getattr(config.models, name)
    step = {"optimizer": "sgd", "eta_l": 1.0, "batch_size": 0, "eta_l_schedule": "constant"}
    given = {key: value for key, value in step.items() if hasattr(own, key)}
    models = config.models.model_copy(update={name: own.model_copy(update=given)})
    return learner_for(name, models)


def _noise(claim: _Claim, cohort: int, answered: int) -> float:
    """Return the noise multiplier that a sum of so many has, when all is as it should be.

    A clipping norm that follows leaves the sum more than z, for the count takes some; shares of
    clients add up, to z where as few answer as may (`answered` 0).
    """
    merge, share = client_merge(
        claim.config, DeltaMerge(), claim.z, cohort, Secret.fresh(), lambda released: None
    )
    if share is not None:
        return max(claim.z, share.sigma * math.sqrt(answered) / claim.clip)
    return claim.z if merge.following is None else merge.following.of_sum(claim.z)


def _sums(
    claim: _Claim, cohort: int, answered: int, releases: int, check: Callable[[], None]
) -> tuple[Floats, Floats]:
    """Return the scores of a canary client that is in the sum, and of one that is not."""
    honest = np.zeros((answered, _SIZE), np.float32)
    honest[:, 1] = claim.clip / 3
    scores = np.empty((2, releases))
    for number in range(releases):
        check()
        for inside in (0, 1):
            rows = honest.copy()
            rows[-1] = 0.0
            rows[-1, 0] = inside * _LONG * claim.clip
            scores[inside, number] = _merged(rows, claim, cohort)[0]
    return scores[1] / claim.clip, scores[0] / claim.clip


def _once(claim: _Claim, cohort: int, seed: int) -> tuple[NDArray[np.bool_], Floats]:
    """Return which of many canary clients were in one release, and all their scores."""
    included = seeds.derive(seed, "canaries").random(_CANARIES) < 0.5
    rows = (_LONG * claim.clip * np.eye(_CANARIES, dtype=np.float32))[included]
    return included, _merged(rows, claim, cohort) / claim.clip


def _merged(rows: NDArray[np.float32], claim: _Claim, cohort: int) -> Floats:
    """Return the noisy sum of updates, as the run's clients and server make it."""
    count, size = rows.shape
    state = {"w": np.zeros(size)}
    secret = Secret.fresh()
    released: list[Released] = []
    merge, share = client_merge(
        claim.config, DeltaMerge(), claim.z, cohort, secret.child("server"), released.append
    )
    layout = Layout.of({"w": rows[0]})
    if share is not None:
        own = [secret.child("client", place) for place in range(count)]
        noised_rows(rows, layout, share, own)
    ones = np.ones(count)
    block = UpdateBlock(tuple(map(str, range(count))), layout, rows, ones, 0 * ones, 0 * ones)
    memory = merge.begin(state)
    merge.control(memory)
    after, _ = merge(state, [merge.digest(block)], memory)
    assert len(released) == 1  # noted, once, before it counts
    total: Floats = after["w"] * merge.expected
    return total


def _steps(
    learner: GradientLearner,
    clients: Sequence[ClientData],
    claim: _Claim,
    releases: int,
    seed: int,
    check: Callable[[], None],
) -> Audit:
    """Audit steps of DP-SGD with canary windows, as many as the one who is protected has.

    They are all alike: a day that is in g windows moves the sum by g C, and no more. In units of
    g C the noise is z/g.
    """
    client = max(clients, key=lambda one: sum(map(len, one.train)))
    design = joined([learner.design(windows) for windows in client.train]).trainable()
    rng = seeds.derive(seed, "windows")
    chosen = rng.choice(len(design.x), min(_WINDOWS, len(design.x)), replace=False)
    others = _rows(design, np.sort(chosen[1:]))
    canary = _far_off(_rows(design, chosen[:1]))
    with_it = joined([others, *[canary] * claim.group])
    sums = learner.enrol(design)
    state = learner.initial(sums, seed, design.x.shape[1:], design.base.shape[1])
    once = LocalWork(1, steps=1, dp=DpSgd(claim.clip, 0.0))
    names = learner.shared(state)

    def sent(one: Design, work: LocalWork) -> Floats:
        deltas, _ = learner.update(state, one, work, 0, secret=Secret.fresh())
        return np.concatenate([deltas[n].ravel() for n in names]).astype(np.float64) * len(one.x)

    alone = sent(canary, once)
    direction = alone / np.linalg.norm(alone)
    noisy = replace(once, dp=DpSgd(claim.clip, claim.z))
    scores = np.empty((2, releases))
    for number in range(releases):
        check()
        for inside, one in enumerate((others, with_it)):
            scores[inside, number] = sent(one, noisy) @ direction
    unit = claim.clip * claim.group
    return by_many_releases(scores[1] / unit, scores[0] / unit, claim.z / claim.group, claim.delta)


def _rows(design: Design, rows: NDArray[np.int64]) -> Design:
    return Design(*(getattr(design, field.name)[rows] for field in fields(design)))


def _far_off(one: Design) -> Design:
    """Return a window that is far from anything: its gradient is longer than it may be."""
    return replace(one, x=100.0 * one.x, residual=np.full_like(one.residual, 1e3))

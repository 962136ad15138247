"""A merge that shows no client: every update is clipped, and their sum gets noise.

    Δ = (Σ_k clip(Δ_k, C) + N(0, (zC)²)) / (qK)

over those who answered, K enrolled clients of whom each is drawn with chance q. The divisor is the
*expected* cohort, so one client changes Δ by C/(qK) at most, whoever answers: noise made for qK
clients on the mean of the few that answered would be far too little (`noise_of_round`).
Source: McMahan, Ramage, Talwar, Zhang (2018), "Learning differentially private recurrent language
models", estimator f̃_f with uniform weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.rules import Floats, WeightedSum, total_of, weighted_sum
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock
from fl_inmetro.privacy.discrete import POWER, Grid, discrete_gaussian
from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.secret import Secret

#: A share of noise is longer than its deviation times (√P + 8) with chance e^-32 at most.
_LONGEST = 8.0

#: Rounds that were released, and the clipping norm, in the memory that a checkpoint keeps.
_ROUND, CLIP = "private.round", "private.clip"


@dataclass(frozen=True)
class Following:
    """A clipping norm that follows a quantile of the updates' norms.

    The count of clients whose update is short enough is released with the sum, as one vector of
    one draw: to account them as two releases would take two independent draws. Of the joint noise
    multiplier z the count takes what σ_b says, with sensitivity 1/2 as clients count from −1/2 to
    1/2, and the sum has z_Δ = (z⁻² − (2 σ_b)⁻²)^(−1/2).
    Source: Andrew, Thakkar, McMahan, Ramaswamy (2021), "Differentially private learning with
    adaptive clipping", algorithm 1 and theorem 1.

    Attributes:
        quantile: γ, the share of the updates that should not be clipped.
        rate: η_C, in C ← C exp(−η_C (b̃ − γ)).
        deviation: σ_b, of the noise on the count.
    """

    quantile: float
    rate: float
    deviation: float

    def of_sum(self, z: float) -> float:
        """Return z_Δ.

        Raises:
            PrivacyError: FL408, the count alone spends all of z.
        """
        left = z**-2 - (2 * self.deviation) ** -2
        if left <= 0:
            raise PrivacyError(
                Fault(
                    "FL408",
                    f"a count of clients with noise of {self.deviation:.3g} spends more than a "
                    f"noise multiplier of {z:.4g} does",
                    "[privacy] clip-quantile",
                    "leave it out and give `clip`: to follow a quantile takes more clients in a "
                    "round than ten times the noise multiplier",
                )
            )
        return float(left**-0.5)


@dataclass
class _Now:
    """The clipping norm of the round at hand: digests have no memory to look it up in."""

    clip: float


@dataclass(frozen=True)
class Released:
    """A noisy sum that is about to leave.

    Attributes:
        round: From 1.
        noise_multiplier: z of it.
        sensitivity: C: what one client changes the sum by at most.
        digest: SHA-256 of its bits.
    """

    round: int
    noise_multiplier: float
    sensitivity: float
    digest: str


@dataclass(frozen=True)
class PrivateMerge(DeltaMerge):
    """The merge of `[privacy] protect = "client"`; the server's optimiser follows as ever.

    Attributes:
        clip: C.
        noise_multiplier: z of the released sum.
        expected: qK.
        secret: What noise is drawn from, of this federation alone.
        release: Called with what is about to be applied; may raise, and then nothing is.
        following: How the clipping norm moves; None = it stays.
        share: Standard deviation of the noise that each client has added to its update itself; 0 =
            all noise is made here. What the shares of those who answered lack of zC is added.
            They have clipped before: to clip what is noised would take the noise off again.
        on_grid: Add up and noise whole numbers, without floating point (`privacy/discrete.py`).
    """

    clip: float = 1.0
    noise_multiplier: float = 0.0
    expected: float = 1.0
    secret: Secret | None = None
    release: Callable[[Released], None] = lambda released: None
    following: Following | None = None
    share: float = 0.0
    on_grid: bool = False
    now: _Now = field(default_factory=lambda: _Now(0.0), compare=False)

    def __post_init__(self) -> None:
        if self.on_grid and self.share:
            raise ValueError("clients' own noise is not on the grid")
        if self.on_grid:
            self._grid(self.clip)  # refused before anything is trained

    @classmethod
    def over(cls, inner: DeltaMerge, **private: Any) -> Self:
        """Return the private form of a merge of plain means.

        Raises:
            ValueError: It has a rule or a weighing by which clients decide about each other.
        """
        if inner.rule_of is not None or inner.scaffold or inner.alpha:
            raise ValueError("only a plain mean has an account")
        given = {one.name: getattr(inner, one.name) for one in fields(inner)}
        return cls(**given, **private)

    def begin(self, state: Arrays) -> Arrays:
        """Return the memory, no round, and the first clipping norm."""
        return super().begin(state) | {_ROUND: np.zeros(1), CLIP: np.array([self.clip])}

    def control(self, memory: Arrays) -> Arrays:
        """Return what is sent beside the state: nothing; the round's updates are clipped by it."""
        self.now.clip = float(memory[CLIP][0])
        return super().control(memory)

    def needs(self, clients: int) -> Fault | None:
        """Any number of clients can be merged, also none: then it is noise alone."""
        del clients
        return None

    def digest(self, block: UpdateBlock) -> WeightedSum:
        """Return the sum of the clipped updates of a block; each client counts as one.

        An update that is not finite counts as zero, should the gate have been told to let it in:
        NaN would tell of its client through any noise.
        """
        norms = _norms(block)
        if not np.isfinite(norms).all():
            whole = np.isfinite(norms)[:, None]
            block = replace(block, matrix=np.where(whole, block.matrix, np.float32(0)))
            norms = _norms(block)
        clip = self.now.clip or self.clip
        short = np.where(norms <= clip, 0.5, -0.5)
        terms = np.stack([np.ones(len(block)), short], axis=1)
        if self.on_grid:
            # Whole numbers below 2^53: doubles add them up without rounding, in any order.
            vector = self._grid(clip).total(block.matrix).astype(np.float64)
            return WeightedSum(block.layout, vector, terms.sum(0))
        # No client that adds its share as it should is any longer than this.
        longest = clip + self.share * (np.sqrt(block.layout.width) + _LONGEST)
        factors = np.minimum(1.0, (longest if self.share else clip) / np.maximum(norms, 1e-150))
        return weighted_sum(block, factors, terms)

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the next state and memory; a round without an answer is merged as well."""
        layout = Layout.of(self.shared(state))
        total = total_of(digests) if digests else WeightedSum(layout, np.zeros(layout.width), _NONE)
        number = int(memory[_ROUND][0]) + 1
        exact = layout.flat(total.layout.arrays(total.vector))
        clip = float(memory[CLIP][0])
        vector = self._noised(exact, float(total.terms[0]), number, clip)
        short = self._share_of_short(float(total.terms[1]), number)
        digest = digest_of([vector.tobytes(), np.float64(short).tobytes()])
        self.release(Released(number, self.noise_multiplier, clip, digest))
        known = WeightedSum(layout, vector / self.expected, np.ones(1))
        after, kept = super().__call__(state, [known], memory)
        if self.following:
            clip *= float(np.exp(-self.following.rate * (short - self.following.quantile)))
        kept |= {_ROUND: np.array([float(number)]), CLIP: np.array([clip])}
        return after, kept

    def _noised(self, vector: Floats, clients: float, number: int, clip: float) -> Floats:
        """Add the noise that a round's sum of so many clients' updates lacks.

        Its stream is named by the sum too: the same noise on two sums of one round, as after a
        restart in which other clients answered, would show their difference without any.
        """
        lacks = (self._of_sum() * clip) ** 2 - clients * self.share**2
        if lacks <= 0:
            return vector
        assert self.secret is not None
        exact = hashlib.sha256(vector.tobytes()).hexdigest()
        name = ("round", number, "update", exact)
        if self.on_grid:
            return self._grid(clip).noised(vector.astype(np.int64), self.secret.child(*name))
        generator = self.secret.generator(*name)
        noisy: Floats = vector + np.sqrt(lacks) * generator.standard_normal(len(vector))
        return noisy

    def _of_sum(self) -> float:
        """Return z of the sum alone."""
        z = self.noise_multiplier
        return self.following.of_sum(z) if self.following and z else z

    def _grid(self, clip: float) -> Grid:
        return Grid(clip, self._of_sum())

    def _share_of_short(self, count: float, number: int) -> float:
        """Return the noisy share of updates that were not clipped, b̃; 0 where nobody asks."""
        if self.following is None:
            return 0.0
        noise = 0.0
        if self.noise_multiplier:
            assert self.secret is not None
            name = ("round", number, "count", str(count))
            deviation = self.following.deviation
            if self.on_grid:
                # Its own grid; halves are cut towards zero as updates are.
                step = deviation / 2.0**POWER
                whole = int(2 * count) * int(0.5 / step)
                whole += int(discrete_gaussian(self.secret.child(*name), 1)[0])
                return 0.5 + whole * step / self.expected
            noise = deviation * float(self.secret.generator(*name).standard_normal())
        return 0.5 + (count + noise) / self.expected

    def _aggregate(self, digests: Sequence[Any], memory: Arrays) -> tuple[Arrays, Floats, Arrays]:
        """Return what was released, as it is."""
        del memory
        (known,) = digests
        return known.layout.arrays(known.vector), known.terms, {}


_NONE: Floats = np.zeros(2)


def _norms(block: UpdateBlock) -> Floats:
    norms: Floats = np.sqrt(np.einsum("kp,kp->k", block.matrix, block.matrix, dtype=np.float64))
    return norms

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
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from fl_inmetro.errors import Fault
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.rules import Floats, WeightedSum, total_of, weighted_sum
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock
from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.secret import Secret

#: Rounds that were released, in the memory that a checkpoint keeps.
_ROUND = "private.round"


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
        share: Standard deviation of the noise that each client has added to its update itself; 0 =
            all noise is made here. What the shares of those who answered lack of zC is added.
    """

    clip: float = 1.0
    noise_multiplier: float = 0.0
    expected: float = 1.0
    secret: Secret | None = None
    release: Callable[[Released], None] = lambda released: None
    share: float = 0.0

    @classmethod
    def over(cls, inner: DeltaMerge, **private: Any) -> Self:
        """Return the private form of a merge of plain means.

        Raises:
            ValueError: It has a rule or a weighing by which clients decide about each other.
        """
        if inner.rule_of is not None or inner.scaffold or inner.alpha:
            raise ValueError("only a plain mean has an account")
        given = {field.name: getattr(inner, field.name) for field in fields(inner)}
        return cls(**given, **private)

    def begin(self, state: Arrays) -> Arrays:
        """Return the memory, and no round."""
        return super().begin(state) | {_ROUND: np.zeros(1)}

    def needs(self, clients: int) -> Fault | None:
        """Any number of clients can be merged, also none: then it is noise alone."""
        del clients
        return None

    def digest(self, block: UpdateBlock) -> WeightedSum:
        """Return the sum of the clipped updates of a block; each client counts as one."""
        norms = np.sqrt(np.einsum("kp,kp->k", block.matrix, block.matrix, dtype=np.float64))
        factors = np.minimum(1.0, self.clip / np.maximum(norms, 1e-150))
        return weighted_sum(block, factors, np.ones((len(block), 1)))

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the next state and memory; a round without an answer is merged as well."""
        layout = Layout.of(self.shared(state))
        total = total_of(digests) if digests else WeightedSum(layout, np.zeros(layout.width), _NONE)
        number = int(memory[_ROUND][0]) + 1
        exact = layout.flat(total.layout.arrays(total.vector))
        vector = self._noised(exact, float(total.terms[0]), number)
        self.release(
            Released(number, self.noise_multiplier, self.clip, digest_of([vector.tobytes()]))
        )
        known = WeightedSum(layout, vector / self.expected, np.ones(1))
        after, kept = super().__call__(state, [known], memory)
        return after, kept | {_ROUND: np.array([float(number)])}

    def _noised(self, vector: Floats, clients: float, number: int) -> Floats:
        """Add the noise that a round's sum of so many clients' updates lacks.

        Its stream is named by the sum too: the same noise on two sums of one round, as after a
        restart in which other clients answered, would show their difference without any.
        """
        lacks = (self.noise_multiplier * self.clip) ** 2 - clients * self.share**2
        if lacks <= 0:
            return vector
        assert self.secret is not None
        exact = hashlib.sha256(vector.tobytes()).hexdigest()
        generator = self.secret.generator("round", number, "update", exact)
        noisy: Floats = vector + np.sqrt(lacks) * generator.standard_normal(len(vector))
        return noisy

    def _aggregate(self, digests: Sequence[Any], memory: Arrays) -> tuple[Arrays, Floats, Arrays]:
        """Return what was released, as it is."""
        del memory
        (known,) = digests
        return known.layout.arrays(known.vector), known.terms, {}


_NONE: Floats = np.zeros(1)

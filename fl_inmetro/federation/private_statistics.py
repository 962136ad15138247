"""How the statistics of a private ridge are merged: noise on the sum, a divisor that is public."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro.federation.rules import StatisticsMerge, WeightedSum, total_of
from fl_inmetro.learning.private_ridge import DEVIATION, NAME, PrivateRidgeLearner
from fl_inmetro.learning.update import Arrays, UpdateBlock
from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.sums import PrivateSums, clipped, noised


@dataclass(frozen=True)
class NoisyStatisticsMerge(StatisticsMerge):
    """Sums of statistics under `[privacy]` (`learning/private_ridge.py`).

    Who does not answer takes nothing of the noise's meaning away: the server's noise and divisor
    are those of all who enrolled.

    Attributes:
        private: Who is protected, and by how much.
        windows: Training windows by client, of all who enrolled.
    """

    learner: PrivateRidgeLearner
    private: PrivateSums
    windows: Mapping[str, int]

    def digest(self, block: UpdateBlock) -> WeightedSum:
        """Return the sum of the block's clients; where they count, each is clipped once more."""
        matrix = block.matrix.astype(np.float64)
        if self.private.by_client:
            matrix = clipped(matrix, 1.0)
        return WeightedSum(block.layout, matrix.sum(axis=0), np.array([float(len(block))]))

    def __call__(
        self, state: Arrays, digests: Sequence[WeightedSum], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the solution.

        Raises:
            PrivacyError: What `private.release` says.
        """
        total = total_of(digests).vector
        z = self.private.noise_multiplier or 0.0
        count = float(len(self.windows))
        if self.private.by_client:
            total = noised(total, 1.0, z, self.private.secret, "statistics")
            deviation = z / count
        else:
            count = float(sum(self.windows.values()))
            deviation = z * math.sqrt(len(self.windows)) / count
        mean = total / count
        self.private.release(1, 1.0, digest_of([mean.tobytes()]))
        merged = {NAME: mean, DEVIATION: np.array([deviation])}
        return self.learner.finish(state, merged), memory

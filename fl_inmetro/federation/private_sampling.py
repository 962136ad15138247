"""Draws of clients that an account may count on: by chance, each by itself, and in secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_inmetro.federation.selection import Draw
from fl_inmetro.privacy.secret import Secret


@dataclass(frozen=True)
class Poisson:
    """Each client with the same chance, whatever the others do; perhaps nobody.

    Draws of a fixed number cost far more privacy (docs/privacy.md), and draws from the run's seed
    could be repeated by whoever reads its configuration: then nobody would be hidden by them.
    A round that is repeated, because clients failed, has the same draw: to draw until enough
    answer would be another draw than the one that is accounted.

    Attributes:
        secret: What is drawn from, of this federation alone.
        rate: Chance of each client, in (0, 1].
    """

    secret: Secret
    rate: float

    def __call__(self, eligible: Sequence[str], wanted: int, context: Draw) -> list[str]:
        """Draw from all who are eligible; `wanted` is not looked at."""
        del wanted
        names = sorted(eligible)
        if self.rate >= 1:
            return names
        # By name, so that who else is eligible changes nobody's draw.
        chances = self.secret.child("draw", context.round)
        return [name for name in names if chances.generator(name).random() < self.rate]

"""A merge of updates that clients have noised themselves: noted in the ledger before it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_inmetro.errors import Fault
from fl_inmetro.federation.rules import Merge
from fl_inmetro.learning.update import Arrays, UpdateBlock
from fl_inmetro.privacy.release import digest_of

#: Rounds that were merged, in the memory that a checkpoint keeps.
_ROUND = "noted.round"


@dataclass(frozen=True)
class NotedMerge:
    """Another merge, whose next state is written down before anybody has it.

    Attributes:
        inner: How updates are merged.
        note: Called with the round, from 1, and the digest of the new state; may raise.
    """

    inner: Merge
    note: Callable[[int, str], None]

    def shared(self, state: Arrays) -> Arrays:
        """As the inner merge."""
        return self.inner.shared(state)  # type: ignore[attr-defined,no-any-return]  # deltas have it

    def reply_like(self, state: Arrays) -> Arrays:
        """As the inner merge."""
        return self.inner.reply_like(state)

    def begin(self, state: Arrays) -> Arrays:
        """Return the inner memory, and no round."""
        return self.inner.begin(state) | {_ROUND: np.zeros(1)}

    def control(self, memory: Arrays) -> Arrays:
        """As the inner merge."""
        return self.inner.control(memory)

    def served(self, state: Arrays, memory: Arrays) -> Arrays:
        """As the inner merge."""
        return self.inner.served(state, memory)

    def needs(self, clients: int) -> Fault | None:
        """As the inner merge."""
        return self.inner.needs(clients)

    def digest(self, block: UpdateBlock) -> Any:
        """As the inner merge."""
        return self.inner.digest(block)

    def __call__(
        self, state: Arrays, digests: Sequence[Any], memory: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Merge, note what comes of it, and return it."""
        rounds = memory[_ROUND] + 1.0
        after, kept = self.inner(state, digests, memory)
        bits = (part for n in sorted(after) for part in (n.encode(), after[n].tobytes()))
        self.note(int(rounds[0]), digest_of(bits))
        return after, kept | {_ROUND: rounds}

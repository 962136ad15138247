"""What our strategy asks of an engine in this process, beside Flower's `Grid`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault
from fl_inmetro.federation.messages import TrainRequest
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, Floats, UpdateBlock
from fl_inmetro.metrics import ErrorSums


@dataclass(frozen=True, eq=False)
class Digested:
    """What the strategy keeps of a block of updates.

    Attributes:
        client_ids: Who passed the gate.
        weights: n_k, shape (K,).
        losses: Shape (K,).
        norms: L2 norms of the deltas (and of the control variates, if any), shape (K, 1 or 2).
        seconds: Shape (K,).
        marks: A number for each update that is the same for the same update, shape (K,).
        refused: Client to the reason it did not pass.
        merged: What the merge needs of those who passed; None where nobody did.
        block: The updates, while it may still have to be made again without some of them.
    """

    client_ids: tuple[str, ...]
    weights: Floats
    losses: Floats
    norms: Floats
    seconds: Floats
    marks: NDArray[np.int64]
    refused: Mapping[str, Fault]
    merged: Any
    block: UpdateBlock | None = None


@runtime_checkable
class InProcessEngine(Protocol):
    """A grid that can also hand over updates as stacked blocks, without any message."""

    def train_blocks(
        self,
        state: Arrays,
        client_ids: Sequence[str],
        request: TrainRequest,
        digest: Callable[[UpdateBlock], Digested],
        epochs: NDArray[np.int64] | None = None,
        control: Arrays | None = None,
    ) -> Iterable[Digested | ClientFailure]:
        """Train clients; yield what `digest` makes of each block, in the order of the clients.

        Args:
            state: The model.
            client_ids: Who trains.
            request: What is asked of them.
            digest: Called with each block of updates.
            epochs: Epochs of each client, shape (M,); None = those of `request`.
            control: The server's control variate (SCAFFOLD).
        """

    def settle(self, counted: Mapping[str, int]) -> None:
        """Hear of each client the last round that counted; what it kept of another is dropped."""

    def evaluate_blocks(
        self, state: Arrays, split: str, best_round: int, client_ids: Sequence[str] | None = None
    ) -> Iterable[tuple[str, dict[str, ErrorSums]] | ClientFailure]:
        """Yield the error sums by meter of those named (all by default), in their order."""

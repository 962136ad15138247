"""Score many clients with one forward pass: a shared model sees no difference between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.client import ClientWorker, added_up, past_scale
from fl_inmetro.learning.trainer import in_order
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.models.design import Design, joined

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Windows that are forecast together.
_WINDOWS = 1024

#: Sets of clients whose windows are kept ready.
_RECENT = 16


@dataclass(frozen=True, eq=False)
class _Part:
    """Some clients' windows behind each other.

    Attributes:
        clients: Names of the clients.
        scored_as: For each of a client's `Windows`, the name under which it is scored.
        design: All windows.
        target_kwh: Shape (N, H).
        count: Windows in each of them, all clients' behind each other.
        scales: The scale of MASE of each of them (test windows only).
    """

    clients: tuple[str, ...]
    scored_as: tuple[tuple[str, ...], ...]
    design: Design
    target_kwh: Floats
    count: Ints
    scales: tuple[ErrorSums | None, ...]


class Evaluation:
    """The evaluation windows of one split, joined in parts of about a thousand windows.

    Args:
        workers: The clients.
        split: `validation` or `test`.
        threads: How many parts are made, or scored, at the same time.
    """

    def __init__(self, workers: Sequence[ClientWorker], split: str, threads: int) -> None:
        self._learner: Learner = workers[0].learner
        self._threads = threads
        self._parts = list(
            in_order(lambda own: _part(own, split), _groups(workers, split), threads)
        )

    def score(self, state: Arrays) -> Iterator[tuple[str, dict[str, ErrorSums]]]:
        """Yield each client's error sums, by the client they are scored as."""

        def scored(part: _Part) -> list[tuple[str, dict[str, ErrorSums]]]:
            forecast = self._learner.forecast(state, part.design)
            sums = iter(ErrorSums.of_segments(forecast, part.target_kwh, part.count, part.scales))
            return [
                (client, added_up((name, next(sums)) for name in names))
                for client, names in zip(part.clients, part.scored_as, strict=True)
            ]

        for results in in_order(scored, self._parts, self._threads):
            yield from results


class RecentEvaluations(dict[tuple[str, frozenset[str]], Evaluation]):
    """Those of the latest sets of clients, by split: of clusters that change only some are kept."""

    def __setitem__(self, key: tuple[str, frozenset[str]], value: Evaluation) -> None:
        """Keep one more, and forget the oldest of too many."""
        if len(self) >= _RECENT:
            del self[next(iter(self))]
        super().__setitem__(key, value)


def _groups(workers: Sequence[ClientWorker], split: str) -> Iterator[list[ClientWorker]]:
    group: list[ClientWorker] = []
    windows = 0
    for worker in workers:
        group.append(worker)
        windows += sum(len(w) for w in worker.windows(split))
        if windows >= _WINDOWS:
            yield group
            group, windows = [], 0
    if group:
        yield group


def _part(workers: Sequence[ClientWorker], split: str) -> _Part:
    designs, targets, scales, count, names = [], [], [], [], []
    for worker in workers:
        own = worker.evaluated(split)
        names.append(tuple(windows.scored_as for windows, _ in own))
        for windows, design in own:
            designs.append(design)
            targets.append(windows.target_kwh())
            scales.append(past_scale(windows) if split == "test" else None)
            count.append(len(windows))
        if split == "validation":
            worker.release(split)  # the part has a copy; the test windows are forecast once more
    return _Part(
        tuple(worker.client_id for worker in workers),
        tuple(names),
        joined(designs),
        np.concatenate(targets),
        np.array(count, dtype=np.int64),
        tuple(scales),
    )

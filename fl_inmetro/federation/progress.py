"""Where a federation stands between two rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fl_inmetro.federation.standing import STANDING
from fl_inmetro.learning.update import Arrays

_STATE, _BEST, _MEMORY = "state.", "best.", "memory."


@dataclass(frozen=True)
class Progress:
    """Where a federation stands after a round: all that a resumed run needs.

    Attributes:
        round: Rounds done.
        state: The model after them.
        best_round: Round with the lowest validation nMAE so far; 0 before any.
        best_nmae: That nMAE.
        best_meters: Meters that were evaluated in that round.
        best_scores: Their nMAE.
        best_state: The model after that round.
        n_bytes: Bytes of arrays and sums exchanged so far.
        simulated_s: Virtual time so far.
        memory: What the server remembers beside the model: moments, control variates, the clients'
            records.
    """

    round: int
    state: Arrays
    best_round: int
    best_nmae: float
    best_meters: int
    best_state: Arrays
    n_bytes: int
    simulated_s: float = 0.0
    memory: Arrays = field(default_factory=dict)
    best_scores: Mapping[str, float] = field(default_factory=dict)

    def is_stuck(self, patience: int | None) -> bool:
        """Whether no round was the best for so many rounds; never where `patience` is None."""
        return patience is not None and self.round - self.best_round >= patience

    def after(
        self,
        state: Arrays,
        scores: Mapping[str, float],
        moved: int,
        simulated_s: float,
        memory: Arrays | None = None,
        *,
        keep_last: bool = False,
        served: Arrays | None = None,
    ) -> Progress:
        """Return the progress after the next round.

        Args:
            state: The model after it.
            scores: Meter to its validation nMAE, of those that have one.
            moved: Bytes exchanged in it.
            simulated_s: Virtual time that it took.
            memory: What the server remembers after it.
            keep_last: The latest model counts as the best, whatever its score.
            served: The model that was scored and may be kept, where it is not `state`.
        """
        # Rounds are compared on the meters that both have: a mean over others may only lack the
        # hard ones. Without any validation score so far the latest round is the best that is known.
        both = [name for name in scores if name in self.best_scores]
        change = sum(scores[name] - self.best_scores[name] for name in both)
        is_best = (
            keep_last
            or not self.best_scores
            or 2 * len(both) < len(scores)  # the best so far was judged by too few
            or (2 * len(both) >= len(self.best_scores) and change < 0)
        )
        after = replace(
            self,
            round=self.round + 1,
            state=state,
            n_bytes=self.n_bytes + moved,
            simulated_s=self.simulated_s + simulated_s,
            memory=memory or {},
        )
        if not is_best:
            return after
        return replace(
            after,
            best_round=after.round,
            best_nmae=mean_of(scores),
            best_meters=len(scores),
            best_scores=dict(scores),
            best_state=state if served is None else served,
        )

    def packed(self, seconds: float) -> tuple[Arrays, dict[str, str]]:
        """Return the progress as arrays and text that can be kept; `seconds` have been spent."""
        arrays = {_STATE + name: array for name, array in self.state.items()}
        arrays |= {_BEST + name: array for name, array in self.best_state.items()}
        arrays |= {_MEMORY + name: array for name, array in self.memory.items()}
        values = {name: getattr(self, name) for name in _NUMBERS}
        return arrays, {"progress": json.dumps({**values, "seconds": seconds})}


#: What is not an array.
_NUMBERS = (
    "round",
    "best_round",
    "best_nmae",
    "best_meters",
    "best_scores",
    "n_bytes",
    "simulated_s",
)


def bare(progress: Progress, *, done: bool) -> Progress:
    """Return the progress without what it says of single clients: errors, digests of updates.

    A federation that is `done` needs no memory at all; its moments and clipping norms are of the
    released sums, but who was drawn in which round is nobody's business.
    """
    telling = {f"{STANDING}{name}" for name in ("scores", "marks")}
    memory = {} if done else {n: a for n, a in progress.memory.items() if n not in telling}
    return replace(progress, memory=memory, best_scores={}, best_nmae=float("nan"), best_meters=0)


def begin(state: Arrays, n_bytes: int = 0) -> Progress:
    """Return the progress before the first round."""
    return Progress(0, state, 0, float("inf"), 0, state, n_bytes)


def unpacked(arrays: Arrays, meta: Mapping[str, str]) -> tuple[Progress, float]:
    """Return what `Progress.packed` was made of."""
    values = json.loads(meta["progress"])
    progress = Progress(
        state=with_prefix(_STATE, arrays),
        best_state=with_prefix(_BEST, arrays),
        memory=with_prefix(_MEMORY, arrays),
        **{name: values[name] for name in _NUMBERS if name in values},
    )
    return progress, values["seconds"]


def with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """Return the arrays with `prefix` before their names."""
    return {prefix + name: array for name, array in arrays.items()}


def mean_of(scores: Mapping[str, float]) -> float:
    """Return the mean of the meters' scores; nan without any."""
    return float(np.mean(list(scores.values()))) if scores else float("nan")

"""The gate: no update touches the model before it was judged, alone and beside its cohort.

What a row tells by itself is judged where its block was made (`judge`); what only the cohort can
tell is judged when all rows are there (`Cohort`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault
from fl_inmetro.federation.engines import Digested
from fl_inmetro.federation.rules import WeightedSum
from fl_inmetro.federation.standing import Standing
from fl_inmetro.learning.update import UpdateBlock

Floats = NDArray[np.float64]
Marks = NDArray[np.int64]

#: The fault of a reply that another client sent too. It is nobody's strike: who copies an honest
#: client must not have it suspended.
COPIED = "FL323"

#: Mixes the bits of a loss.
_ODD = np.int64(0x5851F42D4C957F2D)

#: Values of a row that make its mark.
_SAMPLED = 64

#: Bytes of updates that are held for the judgement of the cohort. Beyond it the oldest are let go,
#: judged by those that have come so far.
HELD_BYTES = 512 << 20


#: Robust standard deviations of the logarithm beyond which a norm is far off.
_FAR = 4.0

#: Of a normal distribution: its standard deviation is so many median absolute deviations.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True, eq=False)
class Judged:
    """A block with what the gate found.

    Attributes:
        block: The rows that may pass.
        norms: L2 norms of each of them, shape (K, 1); with control variates (K, 2), theirs second.
        refused: Client to the reason it may not.
    """

    block: UpdateBlock
    norms: Floats
    refused: Mapping[str, Fault]


def judge(
    block: UpdateBlock,
    points: Mapping[str, int],
    *,
    enabled: bool = True,
    start_loss: bool = False,
    losses: bool = True,
) -> Judged:
    """Refuse rows that are not finite, or claim more weight than their client enrolled.

    Args:
        block: Updates of the right form.
        points: Client to its training points at enrolment, n_k.
        enabled: False lets all of them pass.
        start_loss: Whether the clients were asked for their loss before training.
        losses: Whether a reply says its loss; none does where it would have no noise.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.stack([_squares(half) for half in _halves(block)], axis=1)
    if not enabled:
        return Judged(block, np.sqrt(squares), {})
    refused: dict[str, Fault] = {}
    for k, name in enumerate(block.client_ids):
        weight, loss = block.weights[k], block.losses[k]
        enrolled = points.get(name, 0)
        if not (np.isfinite(weight) and 0 < weight <= enrolled):
            refused[name] = refusal(f"`{name}` claims weight {weight:g}, it enrolled {enrolled}")
        elif losses and not np.isfinite(loss):
            refused[name] = refusal(f"`{name}` reports a loss that is not finite")
        elif start_loss and not 0 <= block.start_losses[k] < np.inf:
            refused[name] = refusal(f"`{name}` reports a loss before training that cannot be")
        elif not np.isfinite(squares[k]).all():
            # The sum of squares also overflows where every value is finite.
            if bad := _not_finite(block, k):
                refused[name] = refusal(f"`{name}` sent `{bad}` with values that are not finite")
            else:
                rows = [half[k].astype(np.float64) for half in _halves(block)]
                squares[k] = [row @ row for row in rows]
    if not refused:
        return Judged(block, np.sqrt(squares), refused)
    passed = np.array([name not in refused for name in block.client_ids])
    return Judged(block.rows(passed), np.sqrt(squares[passed]), refused)


def marks_of(matrix: NDArray[Any]) -> Marks:
    """Return a number for each row that is the same for the same row, wherever it stands.

    Made of the bits of 64 values spread over the row; 0 where all of them are zero.
    """
    width = matrix.shape[1]
    columns = np.unique(np.linspace(0, width - 1, min(_SAMPLED, width)).astype(np.int64))
    bits = np.ascontiguousarray(matrix[:, columns]).astype(np.float32).view(np.uint32)
    # −0.0 and 0.0 are one value.
    bits = np.where(bits == np.uint32(1 << 31), np.uint32(0), bits).astype(np.uint64)
    odd = (np.arange(len(columns), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    mixed = (bits ^ (bits >> np.uint64(13))) * odd
    result: Marks = mixed.sum(axis=1, dtype=np.uint64).view(np.int64)
    return result


def reply_marks(digest: Digested, may_repeat: Collection[str]) -> Marks:
    """Return a number for each reply that is the same when it is sent again in another round.

    An honest client that trains on all its windows in one batch may well make the same update
    twice: the gradient of an absolute loss only counts signs. But the model has moved in between,
    and its loss with it; so the marks of such clients are of update and loss.
    """
    own = np.array([name in may_repeat for name in digest.client_ids], dtype=bool)
    bits = np.ascontiguousarray(digest.losses, dtype=np.float64).view(np.int64)
    with np.errstate(over="ignore"):
        result: Marks = np.where(own, digest.marks ^ (bits * _ODD), digest.marks)
    return result


class Cohort:
    """Judges the replies of a round beside each other.

    A reply is refused whose norm is far above the cohort's median, that another client sent too,
    or that its client has sent in an earlier round.

    Args:
        settings: `[gate]`.
        standing: What is known of the clients from earlier rounds.
        redo: Digests a block again, when some of its rows are refused after all.
        deltas: Whether the rows are deltas; of sums only copies are refused.
        start_loss: Whether the clients were asked for their loss before training.
        may_repeat: Clients whose honest updates may be the same in two rounds.
        sums: Judges blocks of sums beside each other (`federation/sums_gate.py`).
        held_bytes: Updates held, at most.
    """

    def __init__(
        self,
        settings: Gate,
        standing: Standing,
        redo: Callable[[UpdateBlock], Any],
        *,
        deltas: bool = True,
        start_loss: bool = False,
        may_repeat: frozenset[str] = frozenset(),
        sums: Callable[[Sequence[UpdateBlock]], Mapping[str, Fault]] | None = None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self._sums = sums
        #: Number of blocks when sums were judged, and who was refused.
        self._untrue: tuple[int, Mapping[str, Fault]] = (0, {})
        self._may_repeat = may_repeat
        self._start_loss = start_loss
        self._settings = settings
        self._standing = standing
        self._redo = redo
        self._deltas = deltas
        self._limit = held_bytes
        self._all: list[Digested] = []
        self._norms: list[Floats] = []
        #: Median norm of the control variates of this round.
        self.control_median = 0.0
        self._judged_at: tuple[int, Floats, Floats] | None = None
        self._done = self._held = 0
        #: What the merge needs of those who may pass, sums already added up.
        self.merged: list[Any] = []
        self._start_losses: list[Floats] = []
        self._marks: dict[int, list[tuple[str, NDArray[Any] | None]]] = {}

    def add(self, digest: Digested) -> None:
        """Take what has come of a block that was judged by itself."""
        self._all.append(digest)
        self._norms.append(digest.norms)
        if self._start_loss and digest.block is not None:
            self._start_losses.append(digest.block.start_losses[:, None])
        if digest.block is None or not self._settings.enabled:
            return
        for row, (name, mark) in enumerate(zip(digest.client_ids, digest.marks, strict=True)):
            if mark:
                self._marks.setdefault(int(mark), []).append((name, digest.block.matrix[row]))
        self._held += digest.block.matrix.nbytes
        while self._held > self._limit and self._done < len(self._all) - 1:
            self._release()

    def close(self) -> list[Digested]:
        """Judge the rest, and return what may pass, with all refusals."""
        self._judged_at = None
        while self._done < len(self._all):
            self._release()
        return self._all

    def _release(self) -> None:
        digest = self._all[self._done]
        refused = self._refused(digest) if self._settings.enabled else {}
        if digest.block is not None:
            self._held -= digest.block.matrix.nbytes
            for mark in digest.marks.tolist():
                self._marks[mark] = [(name, None) for name, _ in self._marks.get(mark, ())]
        if refused:
            passed = np.array([name not in refused for name in digest.client_ids])
            assert digest.block is not None
            block = digest.block.rows(passed)
            digest = replace(
                digest,
                client_ids=block.client_ids,
                weights=block.weights,
                losses=block.losses,
                seconds=block.seconds,
                norms=digest.norms[passed],
                marks=digest.marks[passed],
                refused={**digest.refused, **refused},
                merged=self._redo(block) if len(block) else None,
            )
        if digest.merged is not None:
            # In the order of the blocks, so that the sum has the bits of one made at the end.
            if self.merged and isinstance(digest.merged, WeightedSum):
                self.merged[0] = self.merged[0] + digest.merged
            else:
                self.merged.append(digest.merged)
        self._all[self._done] = replace(digest, block=None, merged=None)
        self._done += 1

    def _limits(self) -> tuple[Floats, Floats]:
        """Return medians and limits of those who have come; made again when a tenth has joined."""
        count = len(self._norms)
        if self._judged_at is None or 10 * count > 11 * self._judged_at[0]:
            found = limits_of(np.concatenate(self._norms), self._settings.norm_factor)
            self._judged_at = (count, *found)
        return self._judged_at[1].copy(), self._judged_at[2].copy()

    def _refused(self, digest: Digested) -> dict[str, Fault]:
        if digest.block is None or not digest.client_ids:
            return {}
        refused: dict[str, Fault] = {}
        if self._deltas:
            medians, limits = self._limits()
            if len(medians) == 2 and medians[1] > 0:
                limits[1] *= max(1.0, self._standing.control_median / medians[1])
                self.control_median = float(medians[1])
            for row in np.flatnonzero((digest.norms > limits).any(axis=1)).tolist():
                name = digest.client_ids[row]
                half = int(np.flatnonzero(digest.norms[row] > limits)[0])
                refused[name] = refusal(
                    f"`{name}` sent an update of norm {digest.norms[row, half]:.4g}, "
                    f"{digest.norms[row, half] / medians[half]:.4g} times the median of its cohort"
                )
        elif self._sums:
            refused |= self._untrue_sums(digest)
        if self._start_losses:
            refused |= self._untrue_losses(digest)
        if self._settings.copies:
            return refused
        sent = reply_marks(digest, self._may_repeat)
        for row, (name, mark) in enumerate(
            zip(digest.client_ids, digest.marks.tolist(), strict=True)
        ):
            if not mark or name in refused:
                continue
            if self._standing.has_sent(name, int(sent[row])):
                refused[name] = refusal(f"`{name}` sent an update of an earlier round again")
                continue
            own = digest.block.matrix[row]
            others = [
                other
                for other, values in self._marks.get(mark, ())
                if other != name and (values is None or np.array_equal(values, own))
            ]
            if others:
                what = f"a reply was refused: `{name}` sent the same update as `{others[0]}`"
                refused[name] = Fault(COPIED, what)
        return refused

    def _untrue_sums(self, digest: Digested) -> dict[str, Fault]:
        """Refuse sums that cannot be, or contradict those of the others that are held."""
        assert self._sums is not None
        if self._untrue[0] != len(self._all):
            held = [other.block for other in self._all if other.block is not None]
            self._untrue = (len(self._all), self._sums(held))
        found = self._untrue[1]
        return {name: found[name] for name in digest.client_ids if name in found}

    def _untrue_losses(self, digest: Digested) -> dict[str, Fault]:
        """Refuse losses before training that are far off the cohort: q-FedAvg weighs by them."""
        assert digest.block is not None
        medians, limits = limits_of(np.concatenate(self._start_losses), self._settings.norm_factor)
        median = float(medians[0])
        most = float(limits[0]) / median if median > 0 else np.inf
        return {
            name: refusal(
                f"`{name}` reports a loss of {loss:.4g} before training, the median is {median:.4g}"
            )
            for name, loss in zip(
                digest.client_ids, digest.block.start_losses.tolist(), strict=True
            )
            if _ratios(loss, median) > most
        }


def _ratios(value: float, median: float) -> float:
    """Return how many times a value is off, upwards or downwards."""
    if value <= 0 or median <= 0:
        return 1.0 if value == median else float("inf")
    return max(value / median, median / value)


def limits_of(norms: Floats, factor: float) -> tuple[Floats, Floats]:
    """Return the cohort's median norms and the largest that are let in.

    A norm is far off when it is above `factor` times the median and, in logarithms, above the
    median by four of the cohort's own robust standard deviations (1.4826 MAD), or above the square
    of `factor` in any case: hostile clients have a say in the deviation. Cohorts differ: with an
    absolute loss and Adam the norms of 85 buildings lie within 1.6 times their median, with a
    squared loss and plain gradient descent within 12 times.
    Where half of the norms are zero there is no limit.

    Shapes: `norms` (K, H) → (H,) twice.
    """
    medians, limits = np.zeros(norms.shape[1]), np.full(norms.shape[1], np.inf)
    for half, column in enumerate(norms.T):
        medians[half] = np.median(column)
        if medians[half] > 0:
            away = np.abs(np.log(column[column > 0] / medians[half]))
            spread = float(np.exp(_FAR * _MAD_TO_DEVIATION * np.median(away)))
            limits[half] = medians[half] * max(factor, min(spread, factor**2))
    return medians, limits


def refusal(why: str) -> Fault:
    """Return the fault of a reply that may not pass."""
    return Fault("FL301", f"a reply was refused: {why}", "", "")


def _halves(block: UpdateBlock) -> list[NDArray[Any]]:
    """Return the deltas and, where there are any, the control variates."""
    return [half.matrix for half in block.halves() if half is not None]


def _squares(matrix: NDArray[Any]) -> Floats:
    squares: Floats = np.einsum("kp,kp->k", matrix, matrix).astype(np.float64)
    return squares


def _not_finite(block: UpdateBlock, row: int) -> str:
    arrays = block.layout.arrays(block.matrix[row])
    return next((name for name, a in arrays.items() if not np.isfinite(a).all()), "")

"""What leaves a client, and what a learner is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.work import CONTROL, LocalWork
from fl_inmetro.metrics import Forecast
from fl_inmetro.models.design import Design

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Update:
    """One client's reply to a training request; nothing else leaves it.

    Attributes:
        client_id: Who replied.
        arrays: Parameter deltas (gradient models) or sums (closed form). With SCAFFOLD, also the
            changes of the client's control variates, under `CONTROL` and the parameter's name.
            Asked for a probe, the gradient.
        weight: n_k, the number of target points behind the arrays.
        loss: Mean training loss over the last local epoch, in scaled units.
        seconds: Time the client worked.
        start_loss: Mean loss over all known points at the received model; NaN = not asked.
        spread: Variance of mini-batch gradients (`learning/probe.py`); NaN = not asked.
    """

    client_id: str
    arrays: Arrays
    weight: float
    loss: float
    seconds: float = field(default=0.0, compare=False)
    start_loss: float = math.nan
    spread: float = math.nan


def with_control(like: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return what a reply of SCAFFOLD looks like: every array, and its control variate."""
    return {**like, **{CONTROL + name: array for name, array in like.items()}}


def split_control(arrays: Mapping[str, NDArray[Any]]) -> tuple[Arrays, Arrays]:
    """Return the arrays that are no control variates, and the control variates by plain name."""
    plain = {name: a for name, a in arrays.items() if not name.startswith(CONTROL)}
    control = {n.removeprefix(CONTROL): a for n, a in arrays.items() if n.startswith(CONTROL)}
    return plain, control


@dataclass(frozen=True)
class Layout:
    """Where each array stands in a flat vector, in the order of the names.

    Attributes:
        names: Names, sorted; control variates come behind all else, in the same order.
        shapes: Their shapes.
        dtype: One type for all.
        turned: Matrices that stand column by column, as the executor keeps them: turning the rows
            of all clients would cost more than adding them up.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    turned: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], turned: frozenset[str] = frozenset()) -> Layout:
        """Return the layout of `arrays`.

        Raises:
            ValueError: They are of several types.
        """
        names = tuple(sorted(arrays, key=lambda name: (name.startswith(CONTROL), name)))
        dtypes = {arrays[name].dtype.name for name in names}
        if len(dtypes) > 1:
            raise ValueError(f"arrays of several types: {', '.join(sorted(dtypes))}")
        dtype = next(iter(dtypes), "float64")
        return cls(names, tuple(arrays[name].shape for name in names), dtype, turned)

    def with_control(self) -> Layout:
        """Return the layout of rows (Δw, Δc): twice as wide, both halves in the same order."""
        return Layout(
            (*self.names, *(CONTROL + name for name in self.names)),
            self.shapes * 2,
            self.dtype,
            self.turned | {CONTROL + name for name in self.turned},
        )

    def halves(self) -> tuple[tuple[Layout, slice], tuple[Layout, slice]]:
        """Return what `with_control` was asked of, with its place in a row, once for each half."""
        half = len(self.names) // 2
        plain = Layout(
            self.names[:half], self.shapes[:half], self.dtype, self.turned & {*self.names[:half]}
        )
        return (plain, slice(0, plain.width)), (plain, slice(plain.width, self.width))

    @property
    def width(self) -> int:
        """Length of the flat vector, P."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def n_bytes(self) -> int:
        """Bytes of one vector."""
        return self.width * np.dtype(self.dtype).itemsize

    def slices(self) -> dict[str, slice]:
        """Return the place of each array."""
        result, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            result[name] = slice(start, start := start + math.prod(shape))
        return result

    def flat(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the arrays as one vector, shape (P,)."""
        parts = [
            np.ravel(arrays[name], order="F" if name in self.turned else "C") for name in self.names
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=self.dtype)

    def arrays(self, vector: NDArray[Any]) -> Arrays:
        """Return a vector as arrays (views of it)."""
        return {
            name: vector[place].reshape(shape, order="F" if name in self.turned else "C")
            for (name, place), shape in zip(self.slices().items(), self.shapes, strict=True)
        }

    def stacked(self, matrix: NDArray[Any]) -> Arrays:
        """Return the rows of a matrix, shape (K, P), as arrays (K, …) (views of it)."""
        result: Arrays = {}
        for (name, place), shape in zip(self.slices().items(), self.shapes, strict=True):
            columns = matrix[:, place]
            if name in self.turned:
                turned = columns.reshape(len(matrix), *shape[::-1])
                result[name] = turned.transpose(0, *range(turned.ndim - 1, 0, -1))
            else:
                result[name] = columns.reshape(len(matrix), *shape)
        return result


#: Stands for a column that was not asked for.
_NOT_ASKED = np.zeros(0)


@dataclass(frozen=True, eq=False)
class UpdateBlock:
    """The replies of several clients, stacked: row k is client k's.

    Attributes:
        client_ids: K names.
        layout: What a row holds.
        matrix: Shape (K, P).
        weights: Shape (K,), n_k.
        losses: Shape (K,).
        seconds: Shape (K,).
        start_losses: Shape (K,), losses at the received model; left out, NaN: not asked.
        spreads: Shape (K,), variances of mini-batch gradients; left out, NaN: not asked.
    """

    client_ids: tuple[str, ...]
    layout: Layout
    matrix: NDArray[Any]
    weights: Floats
    losses: Floats
    seconds: Floats
    start_losses: Floats = field(default_factory=lambda: _NOT_ASKED)
    spreads: Floats = field(default_factory=lambda: _NOT_ASKED)

    def __post_init__(self) -> None:
        for name in ("start_losses", "spreads"):
            if getattr(self, name) is _NOT_ASKED:
                object.__setattr__(self, name, np.full(len(self.client_ids), np.nan))

    @classmethod
    def stack(cls, updates: Sequence[Update], layout: Layout) -> UpdateBlock:
        """Return updates of one layout as a block."""

        def column(name: str) -> Floats:
            return np.array([getattr(update, name) for update in updates], dtype=np.float64)

        return cls(
            tuple(update.client_id for update in updates),
            layout,
            np.stack([layout.flat(update.arrays) for update in updates]),
            *(column(name) for name in ("weight", "loss", "seconds", "start_loss", "spread")),
        )

    def __len__(self) -> int:
        return len(self.client_ids)

    def update(self, row: int) -> Update:
        """Return one client's reply (its arrays are views)."""
        columns = (self.weights, self.losses, self.seconds, self.start_losses, self.spreads)
        return Update(
            self.client_ids[row],
            self.layout.arrays(self.matrix[row]),
            *(float(column[row]) for column in columns),
        )

    def rows(self, chosen: NDArray[np.bool_]) -> UpdateBlock:
        """Return the chosen rows; shape (K,)."""
        if chosen.all():
            return self  # the usual case: no copy
        columns = [getattr(self, field.name)[chosen] for field in fields(self)[2:]]
        names = tuple(name for name, take in zip(self.client_ids, chosen, strict=True) if take)
        return UpdateBlock(names, self.layout, *columns)

    def halves(self) -> tuple[UpdateBlock, UpdateBlock | None]:
        """Return the deltas and SCAFFOLD's control variates, both by plain names (views).

        Without control variates: the block itself, and None.
        """
        if not any(name.startswith(CONTROL) for name in self.layout.names):
            return self, None
        parts = [
            replace(self, layout=part, matrix=self.matrix[:, place])
            for part, place in self.layout.halves()
        ]
        return parts[0], parts[1]


class Learner(Protocol):
    """A forecaster that can be trained by a federation.

    The same object serves the server (`initial`, `finish`) and the client (all else); it holds
    settings only. A state is a plain dictionary of arrays.
    """

    name: str
    #: True when clients send sums that are added once; False when they send deltas in rounds.
    closed_form: bool

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build what the learner sees of a client's windows."""

    def enrol(self, design: Design) -> Arrays:
        """Return the sums of a client that `initial` needs (may be empty)."""

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Return the first state from the clients' summed `enrol` arrays and the input's shape."""

    def private(self, state: Arrays) -> frozenset[str]:
        """Return the names of the parameters that stay on each client (may be empty)."""

    def update(
        self, state: Arrays, design: Design, work: LocalWork, seed: int, *, debug: bool = False
    ) -> tuple[Arrays, float]:
        """Train on one client: return its deltas or sums, and the training loss."""

    def sums_like(self, state: Arrays) -> Arrays:
        """Return arrays of the shapes of a closed-form reply; gradient learners have none."""

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Return the state after a closed-form round, from the merged sums."""

    def forecast(self, state: Arrays, design: Design) -> Forecast:
        """Forecast N windows; NaN where the past is too short."""

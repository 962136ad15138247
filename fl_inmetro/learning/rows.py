"""The windows of many clients in flat arrays, client after client, in memory or in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_inmetro.models.design import Design

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Training windows of K clients.

    Attributes:
        x: Inputs, shape (R, …).
        residual: Shape (R, H), as in `Design`.
        known: Shape (R, H).
        start: First row of each client, shape (K,).
        count: Number of its rows, shape (K,).
    """

    x: Tensor
    residual: Tensor
    known: Tensor
    start: Ints
    count: Ints

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], count: Ints) -> Rows:
        """Return the rows of flat arrays named `x`, `residual` and `known`."""
        x, residual, known = (torch.from_numpy(arrays[n]) for n in ("x", "residual", "known"))
        return cls(x, residual, known, np.cumsum(count) - count, count)

    def of_clients(self, members: Ints) -> Rows:
        """Return the rows of some clients, without a copy."""
        return Rows(self.x, self.residual, self.known, self.start[members], self.count[members])

    def part(self, clients: slice) -> Rows:
        """Return the rows of neighbouring clients, without a copy."""
        start, count = self.start[clients], self.count[clients]
        return Rows(self.x, self.residual, self.known, start, count)

    def to(self, device: torch.device) -> Rows:
        """Return the rows on a device (without a copy where they are there)."""
        x, residual, known = (t.to(device) for t in (self.x, self.residual, self.known))
        return Rows(x, residual, known, self.start, self.count)


def training_arrays(design: Design) -> dict[str, NDArray[Any]]:
    """Return what `Rows` needs of a client's design."""
    rows = design.trainable()
    return {"x": rows.x, "residual": rows.residual, "known": rows.known}


class RowStore:
    """Appends arrays along their first axis; beyond `memory_bytes`, in a temporary file.

    The file has no name and goes with the store. All parts of a name have one type and one shape
    behind the first axis.
    """

    def __init__(self, memory_bytes: float = float("inf")) -> None:
        self._limit = memory_bytes
        self._bytes = 0
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._rows: dict[str, int] = {}
        self._like: dict[str, NDArray[Any]] = {}

    @property
    def in_file(self) -> bool:
        """Whether the rows have outgrown the memory they may take."""
        return bool(self._files)

    def append(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add the next rows of every name."""
        for name, array in arrays.items():
            self._like.setdefault(name, array[:0])
            self._parts.setdefault(name, []).append(array)
            self._rows[name] = self._rows.get(name, 0) + len(array)
            self._bytes += array.nbytes
        if self._bytes > self._limit:
            self._write()

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, and forget the parts as they are copied."""
        if self._files:
            self._write()
        arrays = {name: self._joined(name) for name in self._like}
        for file in self._files.values():
            file.close()  # the arrays hold what they map
        return arrays

    def _joined(self, name: str) -> NDArray[Any]:
        like, parts = self._like[name], self._parts[name]
        shape = (self._rows[name], *like.shape[1:])
        if name in self._files and np.prod(shape):
            # r+, though nobody writes: PyTorch warns of arrays that are read-only.
            return np.memmap(self._files[name], dtype=like.dtype, mode="r+", shape=shape)
        if len(parts) == 1:
            return parts.pop()
        result = np.empty(shape, dtype=like.dtype)
        end = len(result)
        while parts:  # from the back: popping frees each part, so there are never two of all
            part = parts.pop()
            result[end - len(part) : end] = part
            end -= len(part)
        return result

    def _write(self) -> None:
        for name, parts in self._parts.items():
            if name not in self._files:
                self._files[name] = tempfile.TemporaryFile(prefix="fl-inmetro-")  # noqa: SIM115 - it lives as long as the store
            for part in parts:
                np.ascontiguousarray(part).tofile(self._files[name])
            self._files[name].flush()
            parts.clear()


class StoredPopulation:
    """Clients whose windows are in a `RowStore`."""

    def __init__(self, client_ids: Sequence[str], rows: Rows, points: NDArray[np.float64]) -> None:
        self.client_ids = client_ids
        self.points = points
        self.row_shape = tuple(rows.x.shape[1:])
        self._rows = rows

    def rows(self, members: Ints) -> Rows:
        """Return the windows of some clients, without a copy."""
        return self._rows.of_clients(members)

"""What every batched computation on a chunk of clients shares: their steps, rows and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_inmetro.learning.dp_sgd import Draws
from fl_inmetro.learning.lift import Lifted
from fl_inmetro.learning.rows import Rows
from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import window_orders
from fl_inmetro.models.heads import Head
from fl_inmetro.privacy.secret import Secret

Ints = NDArray[np.int64]


class _Gather:
    """Copies rows into memory that is kept from step to step: fresh memory costs more to get."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._room = values.new_empty(0)

    def __call__(self, index: Tensor) -> Tensor:
        shape = (len(index), *self._values.shape[1:])
        if self._room.numel() < math.prod(shape):
            self._room = self._values.new_empty(math.prod(shape))
        room = self._room[: math.prod(shape)].view(shape)
        return torch.index_select(self._values, 0, index, out=room)


class StepPlan:
    """Who sees which rows in which step; clients by falling number of steps.

    The draws are those of `work.batches`, epoch by epoch, so the plan of many epochs takes no more
    memory than that of one.

    Args:
        rows: The clients' windows.
        batch_size: Windows of a step; 0 = all of a client's.
        epochs: Passes of each client over them, shape (C,).
        client_seeds: What each client's order is drawn from.
        most: At most so many steps of each client; 0 = all.

    Attributes:
        order: Place in the chunk of the client in each row, shape (C,).
        steps: Steps of each client, shape (C,), falling.
        sizes: Rows of a full batch, shape (C,).
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        epochs: Ints,
        client_seeds: Sequence[int],
        most: int = 0,
    ) -> None:
        sizes = np.minimum(batch_size or rows.count, rows.count)
        per_epoch = -(-rows.count // np.maximum(sizes, 1))
        steps = per_epoch * epochs
        if most:
            steps = np.minimum(steps, most)
        self.order = np.argsort(-steps, kind="stable")
        self.steps, self.sizes = steps[self.order], sizes[self.order]
        self._per_epoch, self._count = per_epoch[self.order], rows.count[self.order]
        self._start = rows.start[self.order]
        self._seeds = np.array(client_seeds, dtype=np.int64)[self.order]
        #: Rows of the epoch at hand, shape (C, N); behind a client's last stands its last again.
        self._rows = np.zeros((len(sizes), int((per_epoch * sizes).max())), dtype=np.int64)
        self._alike = len(set(zip(self.sizes.tolist(), self._per_epoch.tolist(), strict=True))) == 1

    def active(self, step: int) -> int:
        """Return how many clients have this step."""
        return int(np.searchsorted(-self.steps, -step, side="left"))

    def batch(self, step: int, active: int) -> tuple[Ints, Ints]:
        """Return the rows of the flat arrays, (active, B), and the true length of each batch.

        Padding points at a row of the same client.
        """
        epoch, place = np.divmod(step, self._per_epoch[:active])
        if len(new := np.flatnonzero(place == 0)):
            self._draw(new, epoch[new])
        first = place * self.sizes[:active]
        length = np.minimum(self.sizes[:active], self._count[:active] - first)
        width = int(length.max())
        if self._alike:  # the usual case, in which everybody is at the same place of the epoch
            return self._rows[:active, first[0] : first[0] + width], length
        column = np.minimum(first[:, None] + np.arange(width), self._rows.shape[1] - 1)
        return np.take_along_axis(self._rows[:active], column, axis=1), length

    def _draw(self, new: Ints, epoch: Ints) -> None:
        """Draw the next epoch of the clients in the rows `new`."""
        orders = window_orders(self._seeds[new], epoch, self._count[new])
        places = np.minimum(np.arange(self._rows.shape[1]), self._count[new, None] - 1)
        drawn = np.take_along_axis(orders, places, axis=1)
        self._rows[new] = drawn + self._start[new, None]

    def is_last_epoch(self, step: int, active: int) -> NDArray[np.bool_]:
        """Tell whether this step is of each client's last epoch."""
        result: NDArray[np.bool_] = step >= (self.steps - self._per_epoch)[:active]
        return result


class DrawnPlan(StepPlan):
    """Who sees which rows in which step of DP-SGD: each window is drawn by itself.

    Batches have other lengths in every step; the number of steps is that of `StepPlan`.

    Args:
        rows: The clients' windows.
        batch_size: Windows of a step on average, at most; 0 = all of a client's.
        epochs: Passes of each client over them, shape (C,).
        secrets: What each client draws from.
        most: At most so many steps of each client; 0 = all.

    Attributes:
        expected: Windows in a batch on average, shape (C, 1), float32.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        epochs: Ints,
        secrets: Sequence[Secret],
        most: int = 0,
    ) -> None:
        super().__init__(rows, batch_size, epochs, [0] * len(secrets), most)
        self._draws = [
            Draws(secrets[k], int(n), batch_size)
            for k, n in zip(self.order, self._count, strict=True)
        ]
        expected = [[draws.expected] for draws in self._draws]
        self.expected = torch.tensor(expected, dtype=torch.float32, device=rows.x.device)

    def batch(self, step: int, active: int) -> tuple[Ints, Ints]:
        """Return the rows of the flat arrays, (active, B), and the true length of each batch.

        Padding points at a row of the same client.
        """
        del step  # a client draws step after step
        drawn = [draws.windows() for draws in self._draws[:active]]
        length = np.array([len(windows) for windows in drawn])
        places = np.zeros((active, max(int(length.max()), 1)), dtype=np.int64)
        for k, windows in enumerate(drawn):
            places[k, : len(windows)] = windows
        return places + self._start[:active, None], length

    def noise(self, active: int, width: int) -> Tensor:
        """Return standard normal numbers of each client that has this step, (active, width)."""
        room = np.empty((active, width), np.float32)
        for draws, row in zip(self._draws[:active], room, strict=True):
            draws.noise(row)
        return torch.from_numpy(room).to(self.expected.device)


class BatchReader:
    """Reads the windows of a step."""

    def __init__(self, rows: Rows) -> None:
        self._device = rows.x.device
        self._gathers = [_Gather(values) for values in (rows.x, rows.residual, rows.known)]

    def __call__(self, drawn: Ints, lengths: Ints) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs (C·B, …), residuals (C·B, H) and the mask of the known points that count.

        Args:
            drawn: Rows of the flat arrays, shape (C, B).
            lengths: True length of each batch, shape (C,); what is behind it is padding.
        """
        width = drawn.shape[1]
        index = torch.from_numpy(drawn.reshape(-1)).to(self._device)
        x, residual, mask = (gather(index) for gather in self._gathers)
        if (lengths != width).any():
            valid = np.arange(width) < lengths[:, None]
            mask = mask * torch.from_numpy(valid.reshape(-1, 1)).to(self._device)
        return x, residual, mask


class ChunkParameters:
    """The parameters of C clients, as the lifted network keeps them.

    Attributes:
        start: The received values, each (1, …).
        matrix: Shared parameters, a row for each client, shape (C, P).
        whole: `matrix` is the left part of it; behind it are `extra` zeros, shape (C, P + extra).
        before: The received shared parameters, shape (1, P).
        values: All parameters in the network's order, each (C, …): views of the matrix, or the
            clients' own.
    """

    def __init__(
        self,
        lifted: Lifted,
        state: Arrays,
        private: Mapping[str, NDArray[Any]],
        layout: Layout,
        order: Ints,
        device: torch.device,
        extra: int = 0,
    ) -> None:
        self.start = [tensor.to(device) for tensor in lifted.stacked(state)]
        by_name = dict(zip(lifted.names, self.start, strict=True))
        self.before = torch.cat([by_name[name].reshape(1, -1) for name in layout.names], dim=1)
        if extra:
            self.whole = self.before.new_zeros(len(order), layout.width + extra)
            self.matrix = self.whole[:, : layout.width]
            self.matrix.copy_(self.before.expand_as(self.matrix))
        else:
            self.whole = self.matrix = self.before.repeat(len(order), 1)
        places = layout.slices()
        self.values = [
            self.of_clients(lifted, k, private[name], order)
            if name in private
            else self.part(k, places[name])
            for k, name in enumerate(lifted.names)
        ]

    def part(self, k: int, columns: slice) -> Tensor:
        """Return columns of `whole` in the form of the k-th parameter (a view)."""
        return self.whole[:, columns].view(len(self.whole), *self.start[k].shape[1:])

    def of_clients(self, lifted: Lifted, k: int, values: NDArray[Any], order: Ints) -> Tensor:
        """Return arrays of the k-th parameter's shape, (C, …), in the form it is kept in."""
        return lifted.kept(k, torch.from_numpy(values[order])).contiguous().to(self.before.device)


def slopes(
    head: Head, raw: Tensor, target: Tensor, mask: Tensor, active: int
) -> tuple[Tensor, Tensor]:
    """Return ∂loss/∂raw of each client's mean loss, and its known points, (C,).

    Shapes: raw (C·B, H) or (C·B, H, R), slopes (C, B·H·R).
    """
    points = mask.view(active, -1).sum(1)
    # ∂loss/∂raw, multiplied in autograd's own order: to the last bit the loop's.
    pull = points.reciprocal().unsqueeze(1) * mask.view(active, -1)
    slope = head.slope(raw.detach(), target)
    if head.outputs > 1:
        pull = pull.unsqueeze(-1) * slope.view(active, -1, head.outputs)
        return pull.view(active, -1), points
    return pull.mul_(slope.view(active, -1)), points


def gradients_of(raw: Tensor, pull: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of the leaves where the raw outputs have the slopes `pull`.

    By way of a scalar: `autograd.grad(raw, leaves, pull)` is the same, and imports SymPy at its
    first call, which takes most of a second.
    """
    return list(torch.autograd.grad(torch.dot(raw.reshape(-1), pull.reshape(-1)), leaves))

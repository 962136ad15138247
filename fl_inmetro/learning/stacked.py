"""Layers with a leading client axis: what `learning/lift.py` makes a network of many clients of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class NotLiftable(TypeError):  # noqa: N818 - an answer, not a failure: the loop takes over
    """The network holds parameters in a layer that has no stacked form."""


@dataclass(frozen=True, eq=False)
class Tap:
    """What a matrix met in a forward pass: z = a W + b, row by row.

    With g = ∂loss/∂z (times `scale`), a row's gradient of W is the outer product of a and g, and
    that of the biases is g.

    Attributes:
        weight: Attribute of the layer that holds W.
        biases: Those that hold what is added to z.
        a: Rows of the input, detached, shape (C, R, in); those of a window stand together.
        z: Shape (C, R, out), in the graph.
        scale: Shape (C, R, out), or None.
    """

    weight: str
    biases: tuple[str, ...]
    a: Tensor
    z: Tensor
    scale: Tensor | None = None


class Stacked(nn.Module):
    """A layer whose parameters are set from outside; each has a leading client axis C.

    Attributes:
        taps: Where a matrix's rows are written down; None = nowhere.
    """

    taps: list[Tap] | None = None

    def bind(self, name: str, value: Tensor) -> None:
        """Set a parameter for the next forward pass."""
        self.__dict__[name] = value  # not a registered parameter: no bookkeeping per step


class StackedLinear(Stacked):
    """y = xW + b; `weight` is kept as (C, in, out), so that no product needs a transposed copy."""

    weight: Tensor
    bias: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of each client's rows."""
        clients, width, out = self.weight.shape
        rows = x.reshape(clients, -1, width)
        if self.bias is None:
            y = torch.bmm(rows, self.weight)
        else:
            y = torch.baddbmm(self.bias, rows, self.weight)
        if self.taps is not None:
            biases = () if self.bias is None else ("bias",)
            self.taps.append(Tap("weight", biases, rows.detach(), y))
        return y.view(*x.shape[:-1], out)


class StackedLayerNorm(Stacked):
    """Normalised rows, times each client's weight, plus its bias."""

    weight: Tensor | None = None
    bias: Tensor | None = None

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        super().__init__()
        self.shape = list(shape)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised rows."""
        y = functional.layer_norm(x, self.shape, eps=self.eps)
        if self.weight is None:
            return y
        clients = self.weight.shape[0]
        rows = y.reshape(clients, -1, *self.shape)
        rows = rows * self.weight if self.bias is None else self.bias.addcmul(rows, self.weight)
        return rows.view(x.shape)


class StackedPositions(Stacked):
    """A table of each client's own, added to its samples."""

    table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the tables added."""
        clients = self.table.shape[0]
        return (x.reshape(clients, -1, *x.shape[1:]) + self.table).view(x.shape)


class StackedCycle(Stacked):
    """A cycle of each client's own."""

    table: Tensor

    def forward(self, place: Tensor) -> Tensor:
        """Return the value of each place."""
        clients, steps = self.table.shape[0], self.table.shape[-1]
        own = torch.arange(clients, device=place.device).view(-1, 1, 1) * steps
        where = place.reshape(clients, -1, place.shape[-1]).remainder(steps) + own
        values: Tensor = self.table.reshape(-1)[where]
        return values.view(place.shape)


class StackedConvolution(Stacked):
    """Client by client: grouped convolutions have no fast kernel on a CPU."""

    weight: Tensor
    bias: Tensor | None = None

    def __init__(self, layer: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.call: Callable[..., Tensor] = (
            functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
        )
        self.settings = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return each client's convolution of its samples."""
        weights = self.weight.unbind()
        biases = [None] * len(weights) if self.bias is None else self.bias.unbind()
        parts = x.chunk(len(weights))
        return torch.cat(
            [
                self.call(part, weight, bias, *self.settings)
                for part, weight, bias in zip(parts, weights, biases, strict=True)
            ]
        )


class StackedRecurrent(Stacked):
    """LSTM and GRU, batch first; returns (output, None): the last state is the output's last step.

    Source: the equations of `torch.nn.LSTM` and `torch.nn.GRU`.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU, *, stepped: bool) -> None:
        super().__init__()
        self.is_lstm = isinstance(layer, nn.LSTM)
        self.hidden = layer.hidden_size
        self.layers = layer.num_layers
        self.names = [name for name, _ in layer.named_parameters()]
        self.stepped = stepped

    def forward(self, x: Tensor, first: Tensor | None = None) -> tuple[Tensor, None]:
        """Return the states after each step; `first` is the state before, for one GRU layer."""
        if self.stepped or self.taps is not None:
            return self._stepped(x, first), None
        if first is not None:
            raise NotLiftable("recurrent layers: a first state is for a GRU of one layer")
        parameters = [getattr(self, name).unbind() for name in self.names]
        parts = x.chunk(len(parameters[0]))
        own = zip(parts, *parameters, strict=True)
        return torch.cat([self._fused(part, list(rest)) for part, *rest in own]), None

    def _fused(self, x: Tensor, parameters: list[Tensor]) -> Tensor:
        zero = x.new_zeros(self.layers, x.shape[0], self.hidden)
        options = (True, self.layers, 0.0, True, False, True)
        if self.is_lstm:
            output: Tensor = torch._VF.lstm(x, (zero, zero), parameters, *options)[0]
        else:
            output = torch._VF.gru(x, zero, parameters, *options)[0]
        return output

    def _stepped(self, x: Tensor, first: Tensor | None) -> Tensor:
        if first is not None:
            if self.is_lstm or self.layers > 1:
                raise NotLiftable("recurrent layers: a first state is for a GRU of one layer")
            return self._gru_layer(x, 0, first[0])
        for layer in range(self.layers):
            x = self._lstm_layer(x, layer) if self.is_lstm else self._gru_layer(x, layer)
        return x

    def _of_layer(self, layer: int) -> Iterator[Tensor]:
        return (getattr(self, f"{kind}_l{layer}") for kind in _RECURRENT_KINDS)

    def _tap(
        self, layer: int, x: Tensor, gates_x: Tensor, states: list[Tensor], reset: list[Tensor]
    ) -> None:
        """Write down both matrices' rows; `states` are those before each step, (C, B, hidden).

        What the recurrent matrix gives is added to `gates_x`, so both have its slope; but for the
        last gate of a GRU, where `reset` stands between them.
        """
        if self.taps is None:
            return
        w_ih, w_hh, b_ih, b_hh = (f"{kind}_l{layer}" for kind in _RECURRENT_KINDS)
        clients, width = gates_x.shape[0], gates_x.shape[-1]
        h = torch.stack(states, dim=2).detach().view(clients, -1, self.hidden)
        rows = x.detach().reshape(clients, -1, x.shape[-1])
        if not reset:
            self.taps.append(Tap(w_ih, (b_ih, b_hh), rows, gates_x))
            self.taps.append(Tap(w_hh, (), h, gates_x))
            return
        scale = h.new_ones(*h.shape[:2], width)
        last = torch.stack(reset, dim=2).detach().view(clients, -1, self.hidden)
        scale[..., width - self.hidden :] = last
        self.taps.append(Tap(w_ih, (b_ih,), rows, gates_x))
        self.taps.append(Tap(w_hh, (b_hh,), h, gates_x, scale))

    def _lstm_layer(self, x: Tensor, layer: int) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = self._of_layer(layer)
        gates_x = self._inputs(x, w_ih, b_ih + b_hh)
        recurrent = w_hh.mT
        h = c = gates_x.new_zeros(*gates_x.shape[:2], self.hidden)
        outputs: list[Tensor] = []
        for gates in gates_x.unbind(2):
            i, f, g, o = torch.baddbmm(gates, h, recurrent).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        self._tap(layer, x, gates_x, [torch.zeros_like(h), *outputs[:-1]], [])
        return torch.stack(outputs, dim=2).flatten(0, 1)

    def _gru_layer(self, x: Tensor, layer: int, first: Tensor | None = None) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = self._of_layer(layer)
        gates_x = self._inputs(x, w_ih, b_ih)
        recurrent, bias = w_hh.mT, b_hh.unsqueeze(1)
        h = gates_x.new_zeros(*gates_x.shape[:2], self.hidden)
        if first is not None:
            h = first.reshape(h.shape)
        begin, outputs, reset = h, list[Tensor](), list[Tensor]()
        for gates in gates_x.unbind(2):
            r_h, z_h, n_h = torch.baddbmm(bias, h, recurrent).chunk(3, dim=-1)
            r_x, z_x, n_x = gates.chunk(3, dim=-1)
            z = (z_x + z_h).sigmoid()
            r = (r_x + r_h).sigmoid()
            n = (n_x + r * n_h).tanh()
            h = n + z * (h - n)
            outputs.append(h)
            if self.taps is not None:
                reset.append(r)
        self._tap(layer, x, gates_x, [begin, *outputs[:-1]], reset)
        return torch.stack(outputs, dim=2).flatten(0, 1)

    def _inputs(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return W_ih x + b for all steps; (C·B, T, in) → (C, B, T, gates)."""
        clients = weight.shape[0]
        rows = torch.baddbmm(bias.unsqueeze(1), x.reshape(clients, -1, x.shape[-1]), weight.mT)
        return rows.view(clients, -1, x.shape[1], weight.shape[1])


_RECURRENT_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

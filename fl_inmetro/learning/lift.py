"""Lift a network, written for one client, to many: parameters get a leading client axis.

Layers that hold parameters are exchanged for stacked ones; the network's own `forward` then runs
unchanged on a merged batch of shape (C·B, …) in which client c owns rows c·B … (c+1)·B − 1. What
lies between the layers sees a batch and nothing else, so any elementwise operation, reshape of the
other axes, or attention over time works as it stands. What a network must keep to is in
`docs/methods.md`; one that holds parameters in other layers is trained client by client instead.

Linear maps become one batched matrix product. An LSTM runs client by client through the fused
kernel, which on a CPU is faster than stepping through time in Python; a GRU, for which there is no
such kernel, runs step by step for all clients at once. So do both (`stepped`) where batches are
tiny, as when every example is a client of its own, and on a GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_inmetro.models.layers import Cycle, Positions


class NotLiftable(TypeError):  # noqa: N818 - an answer, not a failure: the loop takes over
    """The network holds parameters in a layer that has no stacked form."""


class _Stacked(nn.Module):
    """A layer whose parameters are set from outside; each has a leading client axis C."""

    def bind(self, name: str, value: Tensor) -> None:
        """Set a parameter for the next forward pass."""
        self.__dict__[name] = value  # not a registered parameter: no bookkeeping per step


class _Linear(_Stacked):
    """y = xW + b; `weight` is kept as (C, in, out), so that no product needs a transposed copy."""

    weight: Tensor
    bias: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        clients, width, out = self.weight.shape
        rows = x.reshape(clients, -1, width)
        if self.bias is None:
            y = torch.bmm(rows, self.weight)
        else:
            y = torch.baddbmm(self.bias, rows, self.weight)
        return y.view(*x.shape[:-1], out)


class _LayerNorm(_Stacked):
    weight: Tensor | None = None
    bias: Tensor | None = None

    def __init__(self, shape: Sequence[int], eps: float) -> None:
        super().__init__()
        self.shape = list(shape)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(x, self.shape, eps=self.eps)
        if self.weight is None:
            return y
        clients = self.weight.shape[0]
        rows = y.reshape(clients, -1, *self.shape)
        rows = rows * self.weight if self.bias is None else self.bias.addcmul(rows, self.weight)
        return rows.view(x.shape)


class _Positions(_Stacked):
    table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        clients = self.table.shape[0]
        return (x.reshape(clients, -1, *x.shape[1:]) + self.table).view(x.shape)


class _Cycle(_Stacked):
    table: Tensor

    def forward(self, place: Tensor) -> Tensor:
        clients, steps = self.table.shape[0], self.table.shape[-1]
        own = torch.arange(clients, device=place.device).view(-1, 1, 1) * steps
        where = place.reshape(clients, -1, place.shape[-1]).remainder(steps) + own
        values: Tensor = self.table.reshape(-1)[where]
        return values.view(place.shape)


class _Convolution(_Stacked):
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
        weights = self.weight.unbind()
        biases = [None] * len(weights) if self.bias is None else self.bias.unbind()
        parts = x.chunk(len(weights))
        return torch.cat(
            [
                self.call(part, weight, bias, *self.settings)
                for part, weight, bias in zip(parts, weights, biases, strict=True)
            ]
        )


class _Recurrent(_Stacked):
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
        if self.stepped:
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
            w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{kind}_l0") for kind in _RECURRENT_KINDS)
            return self._gru_layer(x, w_ih, w_hh, b_ih, b_hh, first[0])
        for layer in range(self.layers):
            own = [getattr(self, f"{kind}_l{layer}") for kind in _RECURRENT_KINDS]
            x = (self._lstm_layer if self.is_lstm else self._gru_layer)(x, *own)
        return x

    def _lstm_layer(
        self, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tensor:
        gates_x = self._inputs(x, w_ih, b_ih + b_hh)
        recurrent = w_hh.mT
        h = c = gates_x.new_zeros(*gates_x.shape[:2], self.hidden)
        outputs = []
        for gates in gates_x.unbind(2):
            i, f, g, o = torch.baddbmm(gates, h, recurrent).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, dim=2).flatten(0, 1)

    def _gru_layer(
        self,
        x: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        first: Tensor | None = None,
    ) -> Tensor:
        gates_x = self._inputs(x, w_ih, b_ih)
        recurrent, bias = w_hh.mT, b_hh.unsqueeze(1)
        h = gates_x.new_zeros(*gates_x.shape[:2], self.hidden)
        if first is not None:
            h = first.reshape(h.shape)
        outputs = []
        for gates in gates_x.unbind(2):
            r_h, z_h, n_h = torch.baddbmm(bias, h, recurrent).chunk(3, dim=-1)
            r_x, z_x, n_x = gates.chunk(3, dim=-1)
            z = (z_x + z_h).sigmoid()
            n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
            h = n + z * (h - n)
            outputs.append(h)
        return torch.stack(outputs, dim=2).flatten(0, 1)

    def _inputs(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return W_ih x + b for all steps; (C·B, T, in) → (C, B, T, gates)."""
        clients = weight.shape[0]
        rows = torch.baddbmm(bias.unsqueeze(1), x.reshape(clients, -1, x.shape[-1]), weight.mT)
        return rows.view(clients, -1, x.shape[1], weight.shape[1])


#: Up to so many parameters (32 kB), chunks of twice as many clients are faster.
_FEW = 8192

_RECURRENT_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

#: Layers that add or multiply their parameters to all of a client's rows.
_BROADCAST = (_Linear, _LayerNorm, _Positions, _Cycle)


class Lifted:
    """A network for C clients at once.

    Args:
        module: The network of one client; its buffers hold for all clients.
        stepped: Recurrent layers step through time for all clients at once.

    Raises:
        NotLiftable: A layer has no stacked form.
    """

    def __init__(self, module: nn.Module, *, stepped: bool = False) -> None:
        #: Parameters in the module's order.
        self.names = tuple(name for name, _ in module.named_parameters())
        self.stepped = stepped
        #: Parameters of one client, P.
        self.parameters = sum(parameter.numel() for parameter in module.parameters())
        self._module = _exchanged(copy.deepcopy(module), stepped)
        self._slots = [self._slot(name) for name in self.names]

    def stacked(self, state: dict[str, NDArray[Any]]) -> list[Tensor]:
        """Return one client's parameters as the stacked layers keep them, each (1, …)."""
        return [
            self.kept(k, torch.from_numpy(state[name]).unsqueeze(0))
            for k, name in enumerate(self.names)
        ]

    @property
    def turned(self) -> frozenset[str]:
        """Matrices that are kept transposed."""
        return frozenset(
            name
            for name, (layer, attribute) in zip(self.names, self._slots, strict=True)
            if isinstance(layer, _Linear) and attribute == "weight"
        )

    def kept(self, k: int, value: Tensor) -> Tensor:
        """Return the k-th parameter of C clients, (C, …), as its layer keeps it."""
        layer, attribute = self._slots[k]
        if isinstance(layer, _Linear) and attribute == "weight":
            return value.mT
        return value.unsqueeze(1) if isinstance(layer, _BROADCAST) else value

    def plain(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return stacked parameters (C, …) in the shapes of the network's own (views)."""
        return [self.plain_of(k, tensor) for k, tensor in enumerate(tensors)]

    def plain_of(self, k: int, value: Tensor) -> Tensor:
        """Return the k-th stacked parameter (C, …) in the shape of the network's own (a view)."""
        layer, attribute = self._slots[k]
        if isinstance(layer, _Linear) and attribute == "weight":
            return value.mT
        return value.squeeze(1) if isinstance(layer, _BROADCAST) else value

    def clients_at_once(self, row_shape: Sequence[int]) -> int:
        """Return how many clients to train as one batch, as measured (`docs/performance.md`).

        What a chunk computes on should stay in the cache of a core, and be worth a call.

        Args:
            row_shape: Shape of one window's input.
        """
        layers = [layer for layer, _ in self._slots]
        if any(isinstance(layer, _Convolution) for layer in layers):
            return 1
        recurrent = [layer for layer in layers if isinstance(layer, _Recurrent)]
        if recurrent:
            return 32 if recurrent[0].stepped else 1
        if any(isinstance(layer, _LayerNorm | _Positions) for layer in layers):
            return 8
        if len(row_shape) > 1:
            return 16  # a row for every step of the horizon
        return 64 if self.parameters > _FEW else 128

    def load_buffers(self, state: dict[str, NDArray[Any]], device: torch.device) -> None:
        """Take the state's buffers."""
        for name, buffer in self._module.named_buffers():
            if name in state:
                buffer.data = torch.tensor(state[name], device=device)

    def agrees(self, module: nn.Module, row_shape: Sequence[int]) -> bool:
        """Tell whether two clients together get what `module` gives each of them alone.

        A network that lets samples see each other, or reads a layer's parameters past its
        `forward`, does not agree. Asked with drawn values (a head of zeros would agree with
        anything), which the module has afterwards, so the answer never depends on the state.
        """
        generator = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data = (0.3 * drawn).to(parameter.device)
        values = {name: value.detach() for name, value in module.named_parameters()}
        kept = [self.kept(k, values[name].unsqueeze(0)) for k, name in enumerate(self.names)]
        x = torch.randn(4, *row_shape, generator=generator).to(kept[0].device)
        try:
            with torch.no_grad():
                self.bind([torch.cat([value, value]) for value in kept])
                together, alone = self(x), torch.cat([module(part) for part in x.split(2)])
        except Exception:  # somebody's network: whatever it raises, the loop will say it better
            return False
        if together.shape != alone.shape:
            return False
        return bool((together - alone).abs().max() <= 1e-4 * alone.abs().max())

    def bind(self, tensors: Sequence[Tensor]) -> None:
        """Use these stacked parameters from now on."""
        for tensor, (layer, attribute) in zip(tensors, self._slots, strict=True):
            layer.bind(attribute, tensor)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the network; x (C·B, …), rows client by client."""
        result: Tensor = self._module(x)
        return result

    def _slot(self, name: str) -> tuple[_Stacked, str]:
        path, _, attribute = name.rpartition(".")
        layer = self._module.get_submodule(path)
        if not isinstance(layer, _Stacked):
            raise NotLiftable(f"`{name}` is held by {type(layer).__name__}")
        return layer, attribute


#: Layers that have a stacked form.
_LAYERS = (nn.Linear, nn.LayerNorm, Positions, Cycle, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)


def _exchanged(module: nn.Module, stepped: bool) -> nn.Module:
    """Return `module` with stacked layers in place of those that hold parameters."""
    match module:
        case _ if type(module) not in _LAYERS:
            pass  # a subclass may compute something else
        case nn.Linear():
            return _Linear()
        case nn.LayerNorm():
            return _LayerNorm(module.normalized_shape, module.eps)
        case Positions():
            return _Positions()
        case Cycle():
            return _Cycle()
        case nn.Conv1d() | nn.Conv2d() if module.padding_mode == "zeros":
            return _Convolution(module)
        case nn.LSTM() | nn.GRU():
            if module.bidirectional or not module.batch_first or not module.bias:
                raise NotLiftable("recurrent layers: batch first, one direction, with bias")
            if module.dropout or module.proj_size:
                raise NotLiftable("recurrent layers: no dropout, no projection")
            # PyTorch has a fused LSTM for the CPU, and no fused GRU: for many clients stepping
            # through time once is three to four times faster than its GRU client by client.
            return _Recurrent(module, stepped=stepped or isinstance(module, nn.GRU))
    if any(True for _ in module.parameters(recurse=False)):
        raise NotLiftable(f"{type(module).__name__} holds parameters itself")
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
        raise NotLiftable(f"{type(module).__name__} mixes windows or draws at random")
    for name, child in module.named_children():
        setattr(module, name, _exchanged(child, stepped))
    return module

"""Lift a network, written for one client, to many: parameters get a leading client axis.

Layers that hold parameters are exchanged for stacked ones; the network's own `forward` then runs
unchanged on a merged batch of shape (C·B, …) in which client c owns rows c·B … (c+1)·B − 1. What
lies between the layers sees a batch and nothing else, so any elementwise operation, reshape of the
other axes, or attention over time works as it stands. What a network must keep to is in
`docs/methods.md`; one that holds parameters in other layers is trained client by client instead.

Linear maps become one batched matrix product. An LSTM runs client by client through the fused
kernel, which on a CPU is faster than stepping through time in Python; a GRU, for which there is no
such kernel, runs step by step for all clients at once. So do both (`stepped`) on a GPU, and where
each window's gradient is wanted (`tapped`, for DP-SGD).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_inmetro.learning.stacked import NotLiftable as NotLiftable
from fl_inmetro.learning.stacked import (
    Stacked,
    StackedConvolution,
    StackedCycle,
    StackedLayerNorm,
    StackedLinear,
    StackedPositions,
    StackedRecurrent,
    Tap,
)
from fl_inmetro.models.layers import Cycle, Positions

#: Up to so many parameters (32 kB), chunks of twice as many clients are faster.
_FEW = 8192

#: Layers that add or multiply their parameters to all of a client's rows.
_BROADCAST = (StackedLinear, StackedLayerNorm, StackedPositions, StackedCycle)


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
            if isinstance(layer, StackedLinear) and attribute == "weight"
        )

    def kept(self, k: int, value: Tensor) -> Tensor:
        """Return the k-th parameter of C clients, (C, …), as its layer keeps it."""
        layer, attribute = self._slots[k]
        if isinstance(layer, StackedLinear) and attribute == "weight":
            return value.mT
        return value.unsqueeze(1) if isinstance(layer, _BROADCAST) else value

    def plain(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return stacked parameters (C, …) in the shapes of the network's own (views)."""
        return [self.plain_of(k, tensor) for k, tensor in enumerate(tensors)]

    def plain_of(self, k: int, value: Tensor) -> Tensor:
        """Return the k-th stacked parameter (C, …) in the shape of the network's own (a view)."""
        layer, attribute = self._slots[k]
        if isinstance(layer, StackedLinear) and attribute == "weight":
            return value.mT
        return value.squeeze(1) if isinstance(layer, _BROADCAST) else value

    def clients_at_once(self, row_shape: Sequence[int], *, tapped: bool = False) -> int:
        """Return how many clients to train as one batch, as measured (`docs/performance.md`).

        What a chunk computes on should stay in the cache of a core, and be worth a call.

        Args:
            row_shape: Shape of one window's input.
            tapped: What the matrices meet is kept, too.
        """
        layers = [layer for layer, _ in self._slots]
        if any(isinstance(layer, StackedConvolution) for layer in layers):
            return 1
        recurrent = [layer for layer in layers if isinstance(layer, StackedRecurrent)]
        if recurrent:
            return (8 if tapped else 32) if recurrent[0].stepped else 1
        if any(isinstance(layer, StackedLayerNorm | StackedPositions) for layer in layers):
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

    def is_matrix(self, k: int) -> bool:
        """Tell whether the k-th parameter, or what it is added to, is written down by `tapped`."""
        return isinstance(self._slots[k][0], StackedLinear | StackedRecurrent)

    def tapped(self, x: Tensor) -> tuple[Tensor, list[tuple[dict[str, int], Tap]]]:
        """Run the network, and return what its matrices met.

        Each tap comes with the places of its layer's parameters, by attribute. A network that is
        run like this steps through time.
        """
        met: dict[Stacked, list[Tap]] = {}
        places: dict[Stacked, dict[str, int]] = {}
        for k, (layer, attribute) in enumerate(self._slots):
            places.setdefault(layer, {})[attribute] = k
        try:
            for layer in places:
                layer.taps = met.setdefault(layer, [])
            raw = self(x)
        finally:
            for layer in places:
                layer.taps = None
        return raw, [(places[layer], tap) for layer, taps in met.items() for tap in taps]

    def bind(self, tensors: Sequence[Tensor]) -> None:
        """Use these stacked parameters from now on."""
        for tensor, (layer, attribute) in zip(tensors, self._slots, strict=True):
            layer.bind(attribute, tensor)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the network; x (C·B, …), rows client by client."""
        result: Tensor = self._module(x)
        return result

    def _slot(self, name: str) -> tuple[Stacked, str]:
        path, _, attribute = name.rpartition(".")
        layer = self._module.get_submodule(path)
        if not isinstance(layer, Stacked):
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
            return StackedLinear()
        case nn.LayerNorm():
            return StackedLayerNorm(module.normalized_shape, module.eps)
        case Positions():
            return StackedPositions()
        case Cycle():
            return StackedCycle()
        case nn.Conv1d() | nn.Conv2d() if module.padding_mode == "zeros":
            return StackedConvolution(module)
        case nn.LSTM() | nn.GRU():
            if module.bidirectional or not module.batch_first or not module.bias:
                raise NotLiftable("recurrent layers: batch first, one direction, with bias")
            if module.dropout or module.proj_size:
                raise NotLiftable("recurrent layers: no dropout, no projection")
            # PyTorch has a fused LSTM for the CPU, and no fused GRU: for many clients stepping
            # through time once is three to four times faster than its GRU client by client.
            return StackedRecurrent(module, stepped=stepped or isinstance(module, nn.GRU))
    if any(True for _ in module.parameters(recurse=False)):
        raise NotLiftable(f"{type(module).__name__} holds parameters itself")
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
        raise NotLiftable(f"{type(module).__name__} mixes windows or draws at random")
    for name, child in module.named_children():
        setattr(module, name, _exchanged(child, stepped))
    return module

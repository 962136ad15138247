"""Lifted networks against the plain ones, client by client: outputs, slopes, and refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.learning.lift import Lifted, NotLiftable
from fl_inmetro.models.networks import (
    CifarCnn,
    CycleNet,
    DLinear,
    Nhits,
    NLinear,
    PatchTst,
    Positions,
    RecurrentForecaster,
    RowMlp,
    SegRnn,
    SparseTsf,
    Tide,
    TsMixer,
    WindowMlp,
)

CLIENTS, BATCH = 3, 4


class Sequence(nn.Module):
    """A recurrent layer of any settings, called as the house asks for."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        output, _ = self.rnn(x)
        return output


class Reused(nn.Module):
    """One layer that is called twice, on inputs of other axes."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, x):
        return self.map(torch.tanh(self.map(x)).flip(1))


class Flattened(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x).flatten(1)


NETWORKS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (6,)),
    "linear over steps": (lambda: nn.Linear(6, 5), (7, 6)),
    "one layer twice": (Reused, (7, 6)),
    "layer norm": (lambda: nn.LayerNorm(6), (7, 6)),
    "layer norm of two axes": (lambda: nn.LayerNorm([7, 6], eps=1e-3), (2, 7, 6)),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), (6,)),
    "layer norm without parameters": (
        lambda: nn.Sequential(nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 2)),
        (6,),
    ),
    "positions": (lambda: Positions(7, 6), (7, 6)),
    "convolution of one axis": (
        lambda: Flattened(nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2)), (2, 9),
    ),
    "convolution without bias": (
        lambda: Flattened(nn.Conv2d(2, 3, (3, 2), dilation=2, bias=False)), (2, 8, 7),
    ),
    "LSTM": (lambda: Sequence(nn.LSTM(3, 5, batch_first=True)), (6, 3)),
    "LSTM of two layers": (lambda: Sequence(nn.LSTM(3, 5, 2, batch_first=True)), (6, 3)),
    "GRU": (lambda: Sequence(nn.GRU(3, 5, batch_first=True)), (6, 3)),
    "GRU of two layers": (lambda: Sequence(nn.GRU(3, 5, 2, batch_first=True)), (6, 3)),
    "nlinear": (lambda: NLinear(12, 6), (12,)),
    "row mlp": (lambda: RowMlp(5, (4, 3)), (6, 5)),
    "window mlp": (lambda: WindowMlp(12, 6, (5, 4)), (12,)),
    "lstm forecaster": (lambda: RecurrentForecaster("lstm", 6, 4, 2), (12,)),
    "gru forecaster": (lambda: RecurrentForecaster("gru", 6, 4, 2), (12,)),
    "patchtst": (
        lambda: PatchTst(12, 6, patch=6, stride=3, width=8, heads=2, layers=2, feed_forward=8),
        (12,),
    ),
    "dlinear": (lambda: DLinear(12, 6, 5), (12,)),
    "sparsetsf": (lambda: SparseTsf(12, 6, 6), (12,)),
    "cyclenet": (lambda: CycleNet(12, 6, 16, (5,)), (13,)),
    "nhits": (lambda: Nhits(12, 6, (4, 1), (5,)), (12,)),
    "segrnn": (lambda: SegRnn(12, 6, 3, 4), (12,)),
    "tide": (lambda: Tide(12, 6, 2, width=5), (24,)),
    "tsmixer": (lambda: TsMixer(12, 6, 2, width=4, layers=1, feed_forward=5), (24,)),
    "dlinear of three numbers": (lambda: Flattened(DLinear(12, 6, 5, 3)), (12,)),
    "CIFAR CNN": (lambda: CifarCnn(4), (3, 32, 32)),
}  # fmt: skip


def drawn_module(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = build()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module, shape


def of_clients(module: nn.Module) -> list[dict[str, np.ndarray]]:
    """Different parameters for each client; buffers as they are."""
    generator = torch.Generator().manual_seed(1)
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    trained = dict(module.named_parameters())
    return [
        {
            name: (value + 0.1 * torch.randn(value.shape, generator=generator).numpy())
            if name in trained
            else value
            for name, value in state.items()
        }
        for _ in range(CLIENTS)
    ]


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_slopes_are_those_of_each_client(name, stepped):
    module, shape = drawn_module(name)
    states = of_clients(module)
    x = torch.randn(CLIENTS * BATCH, *shape, generator=torch.Generator().manual_seed(2))

    lifted = Lifted(module, stepped=stepped)
    assert lifted.names == tuple(key for key, _ in module.named_parameters())
    leaves = [
        torch.cat([lifted.stacked(state)[k] for state in states]).requires_grad_()
        for k in range(len(lifted.names))
    ]
    lifted.load_buffers(states[0], torch.device("cpu"))
    lifted.bind(leaves)
    together = lifted(x)
    pull = torch.randn(together.shape, generator=torch.Generator().manual_seed(3))
    slopes = lifted.plain(torch.autograd.grad((together * pull).sum(), leaves))

    for c, state in enumerate(states):
        rows = slice(c * BATCH, (c + 1) * BATCH)
        module.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        alone = module(x[rows])
        torch.testing.assert_close(together[rows], alone, rtol=1e-5, atol=1e-5)
        own = torch.autograd.grad((alone * pull[rows]).sum(), list(module.parameters()))
        for key, ours, theirs in zip(lifted.names, slopes, own, strict=True):
            assert ours[c].shape == theirs.shape, key
            scale = float(theirs.abs().max())
            assert scale > 0, key
            torch.testing.assert_close(ours[c], theirs, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_kept_and_given_back_as_they_were(name):
    module, _ = drawn_module(name)
    state = of_clients(module)[0]
    lifted = Lifted(module)
    for key, back in zip(lifted.names, lifted.plain(lifted.stacked(state)), strict=True):
        np.testing.assert_array_equal(back[0].numpy(), state[key])


def test_the_plain_network_is_left_alone():
    module, _ = drawn_module("patchtst")
    kinds = [type(layer) for layer in module.modules()]
    Lifted(module)
    assert [type(layer) for layer in module.modules()] == kinds


# -------------------------------------------------------------------------------- refusals
class Raw(nn.Module):
    """Reads a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.map = nn.Linear(3, 3)

    def forward(self, x):
        return self.map(x) * self.scale


class Shared(nn.Linear):
    """A layer of another's making, with other arithmetic."""

    def forward(self, x):
        return 2 * super().forward(x)


REFUSED = {
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "BatchNorm1d"),
    "batch norm without parameters": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)), "BatchNorm1d",
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1)), "Dropout"),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(3, 3), nn.AlphaDropout(0.1)), "AlphaDropout"),
    "a parameter of its own": (Raw, "Raw holds parameters itself"),
    "PReLU": (lambda: nn.Sequential(nn.Linear(3, 3), nn.PReLU()), "PReLU"),
    "embedding": (lambda: nn.Embedding(4, 3), "Embedding"),
    "both directions": (lambda: nn.LSTM(3, 2, batch_first=True, bidirectional=True), "direction"),
    "dropout between layers": (
        lambda: nn.GRU(3, 2, 2, batch_first=True, dropout=0.1), "no dropout",
    ),
    "projection": (lambda: nn.LSTM(3, 4, batch_first=True, proj_size=2), "no projection"),
    "time first": (lambda: nn.LSTM(3, 4), "batch first"),
    "recurrent without bias": (lambda: nn.GRU(3, 4, batch_first=True, bias=False), "with bias"),
    "circular padding": (lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "Conv1d"),
    "a plain RNN": (lambda: nn.RNN(3, 4, batch_first=True), "RNN"),
    "a subclass of a layer": (lambda: Shared(3, 3), "Shared"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_without_a_stacked_form_is_refused(name):
    build, said = REFUSED[name]
    with pytest.raises(NotLiftable, match=said):
        Lifted(build())

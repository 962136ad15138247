"""Networks against cells and loops written out by hand, and against PyTorch's own attention."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fl_inmetro.models.networks import (
    CifarCnn,
    NLinear,
    PatchTst,
    Positions,
    RecurrentForecaster,
    RowMlp,
    WindowMlp,
    initial_parameters,
)
from fl_inmetro.models.transformer import SelfAttention, patch_count, patches_of

CONTEXT, HORIZON = 40, 6


def patchtst(context: int = CONTEXT, horizon: int = HORIZON, layers: int = 2) -> PatchTst:
    return PatchTst(
        context,
        horizon,
        patch=16,
        stride=8,
        width=8,
        heads=2,
        layers=layers,
        feed_forward=12,
    )


def started(module: nn.Module, seed: int = 5) -> nn.Module:
    """The module with first values, and no layer left at zero."""
    module.starts_at_zero = ()
    values = initial_parameters(module, seed)
    module.load_state_dict({k: torch.tensor(v) for k, v in values.items()}, strict=False)
    return module.eval()


MADE = {
    "nlinear": (lambda: NLinear(CONTEXT, HORIZON), (CONTEXT,), (HORIZON,)),
    "mlp": (lambda: RowMlp(7, (5,)), (HORIZON, 7), (HORIZON,)),
    "window_mlp": (lambda: WindowMlp(CONTEXT, HORIZON, (9, 5)), (CONTEXT,), (HORIZON,)),
    "gru": (lambda: RecurrentForecaster("gru", HORIZON, 5, 2), (CONTEXT,), (HORIZON,)),
    "lstm": (lambda: RecurrentForecaster("lstm", HORIZON, 5, 2), (CONTEXT,), (HORIZON,)),
    "patchtst": (patchtst, (CONTEXT,), (HORIZON,)),
    "cnn": (CifarCnn, (3, 32, 32), (10,)),
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(drawn.astype(np.float32))


# --------------------------------------------------------------------------- every network
@pytest.mark.parametrize("name", list(MADE))
def test_shapes_and_no_sample_sees_another(name):
    make, sample, answer = MADE[name]
    module = started(make())
    x = normal(5, *sample)
    with torch.no_grad():
        out = module(x)
        assert out.shape == (5, *answer)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(module(x[order]), out[order], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(module(x[1:2]), out[1:2], rtol=1e-5, atol=1e-6)
        # The answers differ, so an exchange of samples would have been seen.
        assert (out[0] - out[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", list(MADE))
def test_parameters_stand_only_in_layers_that_engines_know(name):
    known = (nn.Linear, nn.LayerNorm, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU, Positions)
    for layer in MADE[name][0]().modules():
        if list(layer.parameters(recurse=False)):
            assert isinstance(layer, known)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_by_hand():
    # 168·64 + 64 = 10,816; 64·64 + 64 = 4,160; 64·24 + 24 = 1,560.
    assert count(WindowMlp(168, 24, (64, 64))) == 10_816 + 4_160 + 1_560
    # Four gates of 32·1 + 32·32 weights and two biases of 32; head 32·24 + 24.
    assert count(RecurrentForecaster("lstm", 24, 32, 1)) == 4 * (32 + 1024 + 64) + 792
    assert count(RecurrentForecaster("gru", 24, 32, 1)) == 3 * (32 + 1024 + 64) + 792
    # A second layer takes the 32 states of the first: 32·32 where there was 32·1.
    assert count(RecurrentForecaster("gru", 24, 32, 2)) == 3 * 1120 + 3 * (1024 + 1024 + 64) + 792
    # ⌊(168 − 16)/8⌋ + 2 = 21 patches of 16. Embedding 16·32 + 32; positions 21·32; a block has
    # 2 norms of 64, four maps of 32·32 with three biases of 32, and 32·64 + 64 + 64·32 + 32; the
    # last norm 64; the head 21·32·24 + 24.
    block = 2 * 64 + 4 * 1024 + 3 * 32 + 2112 + 2080
    transformer = PatchTst(
        168, 24, patch=16, stride=8, width=32, heads=4, layers=2, feed_forward=64
    )
    assert count(transformer) == 544 + 672 + 2 * block + 64 + 16_152
    # 27·32 + 32; 288·64 + 64; 28·28 pooled to 14·14, times 64 channels is 12,544: 12,544·128 + 128;
    # 128·10 + 10.
    assert count(CifarCnn()) == 896 + 18_496 + 1_605_760 + 1_290 == 1_626_442


# ------------------------------------------------------------------------------ perceptron
def test_window_mlp_by_hand():
    module = WindowMlp(2, 1, (2,))
    with torch.no_grad():
        first, last = module.layers[0], module.head
        first.weight.copy_(torch.tensor([[1.0, 2], [-1, 0]]))
        first.bias.copy_(torch.tensor([0.5, 0]))
        last.weight.copy_(torch.tensor([[2.0, 3]]))
        last.bias.copy_(torch.tensor([-1.0]))
        # x = (1, 1): hidden 3.5 and −1 → 0; 2·3.5 − 1 = 6. x = (−2, 0): −1.5 → 0, 2; 3·2 − 1 = 5.
        assert module(torch.tensor([[1.0, 1], [-2, 0]])).tolist() == [[6.0], [5.0]]


def test_window_mlp_without_hidden_layers_is_linear():
    module = started(WindowMlp(3, 2, ()))
    assert count(module) == 3 * 2 + 2
    x = normal(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(module(2 * x) - module(x), module(x) - module(0 * x))


# ------------------------------------------------------------------------------- recurrent
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_cell(w, k, x, h, c):
    """Hochreiter & Schmidhuber with a forget gate: i, f, g, o stand in this order."""
    z = w[f"rnn.weight_ih_l{k}"] @ x + w[f"rnn.bias_ih_l{k}"]
    z = z + w[f"rnn.weight_hh_l{k}"] @ h + w[f"rnn.bias_hh_l{k}"]
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_cell(w, k, x, h):
    """Cho et al.: reset r, update u, new n; the reset gate acts on W h + b, as in PyTorch."""
    a = w[f"rnn.weight_ih_l{k}"] @ x + w[f"rnn.bias_ih_l{k}"]
    b = w[f"rnn.weight_hh_l{k}"] @ h + w[f"rnn.bias_hh_l{k}"]
    (ar, au, an), (br, bu, bn) = np.split(a, 3), np.split(b, 3)
    r, u = sigmoid(ar + br), sigmoid(au + bu)
    n = np.tanh(an + r * bn)
    return (1 - u) * n + u * h


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_forecaster_is_its_cell_step_by_step(kind, layers):
    hidden = 4
    module = started(RecurrentForecaster(kind, 3, hidden, layers))
    w = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    x = normal(2, 9)
    for n in range(2):
        h = [np.zeros(hidden) for _ in range(layers)]
        c = [np.zeros(hidden) for _ in range(layers)]
        for value in x[n].double().numpy():
            seen = np.array([value])
            for k in range(layers):
                if kind == "lstm":
                    h[k], c[k] = lstm_cell(w, k, seen, h[k], c[k])
                else:
                    h[k] = gru_cell(w, k, seen, h[k])
                seen = h[k]
        expected = w["head.weight"] @ h[-1] + w["head.bias"]
        with torch.no_grad():
            np.testing.assert_allclose(module(x)[n].numpy(), expected, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------- transformer
def test_patches_are_those_of_an_explicit_loop():
    x = normal(3, 21)
    for patch, stride in ((16, 8), (4, 4), (5, 3), (21, 2), (1, 1)):
        # End padding: the last value, stride times (Nie et al. 2023, section 3.1).
        rows = [[*row.tolist(), *[row[-1].item()] * stride] for row in x]
        starts = [s for s in range(len(rows[0])) if s % stride == 0 and s + patch <= len(rows[0])]
        expected = [[row[s : s + patch] for s in starts] for row in rows]
        found = patches_of(x, patch, stride)
        assert found.tolist() == expected
        assert found.shape[1] == patch_count(21, patch, stride)
    # The paper's count for L = 336, P = 16, S = 8 is 42.
    assert patch_count(336, 16, 8) == 42


def test_attention_is_that_of_pytorch():
    module = started(SelfAttention(12, 3))
    x = normal(4, 7, 12)
    with torch.no_grad():
        parts = [
            layer(x).reshape(4, 7, 3, 4).permute(0, 2, 1, 3)
            for layer in (module.query, module.key, module.value)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        expected = module.output(mixed.permute(0, 2, 1, 3).reshape(4, 7, 12))
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)


def test_attention_by_hand():
    # One head of width 1 with query = key = value = output = identity, sequence 0, ln 3.
    # The second step weighs them exp(0) : exp((ln 3)²).
    module = SelfAttention(1, 1)
    with torch.no_grad():
        for layer in module.children():
            layer.weight.fill_(1.0)
            if layer.bias is not None:
                layer.bias.zero_()
        log3 = math.log(3)
        out = module(torch.tensor([[[0.0], [log3]]])).flatten().tolist()
    weight = math.exp(log3**2)
    assert out == pytest.approx([log3 / 2, log3 * weight / (1 + weight)], rel=1e-6)


def test_the_encoder_is_that_of_pytorch():
    """The same weights in `nn.TransformerEncoderLayer(norm_first=True)` give the same answer."""
    module = started(patchtst(layers=1))
    (block,) = module.blocks
    reference = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    with torch.no_grad():
        projections = (block.attention.query, block.attention.key, block.attention.value)
        reference.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        # The key has no bias: it adds the same to every score of a query, which softmax ignores.
        biases = [block.attention.query.bias, normal(8), block.attention.value.bias]
        reference.self_attn.in_proj_bias.copy_(torch.cat(biases))
        pairs = (
            (reference.self_attn.out_proj, block.attention.output),
            (reference.norm1, block.attention_norm),
            (reference.norm2, block.feed_forward_norm),
            (reference.linear1, block.feed_forward[0]),
            (reference.linear2, block.feed_forward[2]),
        )
        for theirs, ours in pairs:
            theirs.load_state_dict(ours.state_dict())
        x = normal(3, CONTEXT)
        tokens = module.embedding(patches_of(x, 16, 8)) + module.positions.table
        encoded = module.norm(reference(tokens))
        torch.testing.assert_close(
            module(x), module.head(encoded.reshape(3, -1)), rtol=1e-4, atol=1e-5
        )


def test_positions_tell_equal_patches_apart():
    module = started(patchtst(layers=0))
    x = torch.ones(1, CONTEXT)
    with torch.no_grad():
        tokens = module.positions(module.embedding(patches_of(x, 16, 8)))[0]
    table = module.positions.table.detach()
    torch.testing.assert_close(tokens - tokens[0], table - table[0], rtol=1e-4, atol=1e-6)
    assert (table[0] - table[1]).abs().max() > 1e-3


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        SelfAttention(8, 3)
    with pytest.raises(ValueError, match="patch of 16 steps is longer than the context of 12"):
        patch_count(12, 16, 8)


# ----------------------------------------------------------------------------- convolution
def test_cifar_cnn_is_an_explicit_sum_over_its_windows():
    module = started(CifarCnn(4))
    w = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    x = normal(1, 3, 32, 32)
    image = x[0].double().numpy()
    for name in ("narrow", "wide"):
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
        image = np.einsum("cyxij,ocij->oyx", windows, w[f"{name}.weight"])
        image = np.maximum(image + w[f"{name}.bias"][:, None, None], 0)
    pooled = image.reshape(64, 14, 2, 14, 2).max(axis=(2, 4)).ravel()
    dense = np.maximum(w["dense.weight"] @ pooled + w["dense.bias"], 0)
    expected = w["head.weight"] @ dense + w["head.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(module(x)[0].numpy(), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- first values
@pytest.mark.parametrize("name", list(MADE))
def test_first_values_depend_on_the_seed_alone(name):
    make = MADE[name][0]
    torch.manual_seed(1)
    one = initial_parameters(make(), 3)
    torch.manual_seed(2)
    again, other = initial_parameters(make(), 3), initial_parameters(make(), 4)
    assert list(one) == [key for key, _ in make().named_parameters()]
    for key, value in one.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, again[key])
    drawn = [key for key, value in one.items() if value.std() > 0]
    assert bool(drawn) == (name != "nlinear")
    # Forecasters begin with the base profile, or the last value; images have none.
    zero = [key for key in one if key.startswith(getattr(make(), "starts_at_zero", ("none",)))]
    assert bool(zero) == (name not in ("mlp", "cnn"))
    assert all(not one[key].any() for key in zero)
    assert all((one[key] != other[key]).any() for key in drawn)


def spread(values: np.ndarray) -> tuple[float, float]:
    return float(np.abs(values).max()), float(values.std())


def test_first_values_have_the_scales_of_pytorch():
    """Uniform on ±b has the deviation b/√3; b = 1/√fan_in, 1/√hidden for recurrent layers."""
    cases = [
        (WindowMlp(168, 24, (64,)), "layers.0.weight", 168),
        (RecurrentForecaster("lstm", 24, 32, 1), "rnn.weight_ih_l0", 32),
        (RecurrentForecaster("gru", 24, 32, 2), "rnn.weight_hh_l1", 32),
        (CifarCnn(), "wide.weight", 32 * 9),
        (CifarCnn(), "dense.weight", 12_544),
    ]
    for module, name, fan_in in cases:
        largest, deviation = spread(initial_parameters(module, 0)[name])
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < largest <= bound
        assert deviation == pytest.approx(bound / math.sqrt(3), rel=0.15)
        # PyTorch's own default draws from the same interval.
        theirs, _ = spread(dict(module.named_parameters())[name].detach().numpy())
        assert 0.9 * bound < theirs <= bound * (1 + 1e-6)
    values = initial_parameters(patchtst(168, 24), 0)
    assert values["positions.table"].std() == pytest.approx(0.02, rel=0.15)
    assert (values["norm.weight"] == 1).all()
    assert not values["norm.bias"].any()


def test_a_layer_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="BatchNorm1d"):
        initial_parameters(nn.Sequential(nn.BatchNorm1d(3)), 0)


def test_a_row_mlp_adds_its_first_guess_and_its_shortcut():
    guess = np.array([[0.0, 2.0], [1.0, 0.0]], dtype=np.float32)
    network = RowMlp(2, [], outputs=2, skip=guess, shortcut=True)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.shortcut.weight.data[0] = torch.tensor([10.0, 0.0])
    x = torch.tensor([[[3.0, 4.0]]])
    # Guess: (3·0 + 4·1, 3·2 + 4·0); the shortcut adds a tenth of 10 · 3 to the first output.
    assert network(x).tolist() == [[[7.0, 6.0]]]
    assert "skip" not in network.state_dict()


def test_a_shortcut_starts_at_zero():
    state = initial_parameters(RowMlp(3, [4], outputs=2, shortcut=True), 0)
    assert state["shortcut.weight"].shape == (2, 3)
    assert not state["shortcut.weight"].any()
    assert not state["layers.2.weight"].any()
    assert state["layers.0.weight"].any()
    assert initial_parameters(RowMlp(3, [4]), 0)["layers.2.weight"].any()


def test_copies_stand_side_by_side():
    network = RowMlp(3, [4], outputs=4, shortcut=True, copies=2)
    state = initial_parameters(network, 1)
    assert (state["layers.0.weight"] != state["others.0.0.weight"]).any()
    assert not state["others.0.2.weight"].any()
    assert not state["shortcuts.0.weight"].any()
    for name, parameter in network.named_parameters():
        parameter.data = torch.from_numpy(state[name]) + 0.1
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    standard = x.clamp(-5, 5)
    first = network.layers(standard) + 0.1 * network.shortcut(standard)
    second = network.others[0](standard) + 0.1 * network.shortcuts[0](standard)
    torch.testing.assert_close(network(x), torch.cat([first, second], dim=-1))

"""The zoo against counts from the papers, sums by hand, and loops written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_inmetro.models.networks import (
    Cycle,
    CycleNet,
    DLinear,
    Nhits,
    NLinear,
    PatchTst,
    RecurrentForecaster,
    SegRnn,
    SparseTsf,
    Tide,
    TsMixer,
    WindowMlp,
    initial_parameters,
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def started(module: nn.Module, seed: int = 5) -> nn.Module:
    """The module with first values, and nothing left at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    drawn = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(drawn.astype(np.float32))


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


# ----------------------------------------------------------------------------- every network
MADE = {
    "nlinear": (lambda r: NLinear(24, 12, r), 24),
    "window_mlp": (lambda r: WindowMlp(24, 12, (5,), r), 24),
    "gru": (lambda r: RecurrentForecaster("gru", 12, 5, 1, r), 24),
    "patchtst": (
        lambda r: PatchTst(24, 12, patch=8, stride=4, width=4, heads=2, layers=1,
                           feed_forward=5, outputs=r), 24,
    ),
    "dlinear": (lambda r: DLinear(24, 12, 5, r), 24),
    "sparsetsf": (lambda r: SparseTsf(24, 12, 6, r), 24),
    "cyclenet": (lambda r: CycleNet(24, 12, 7, (), r), 25),
    "cyclenet with layers": (lambda r: CycleNet(24, 12, 7, (5,), r), 25),
    "nhits": (lambda r: Nhits(24, 12, (7, 2, 1), (5,), r), 24),
    "segrnn": (lambda r: SegRnn(24, 12, 4, 5, r), 24),
    "tide": (lambda r: Tide(24, 12, 3, width=5, layers=2, outputs=r), 24 + 36),
    "tsmixer": (
        lambda r: TsMixer(24, 12, 3, width=4, layers=2, feed_forward=5, outputs=r), 24 + 36,
    ),
    "tsmixer alone": (
        lambda r: TsMixer(24, 12, 0, width=4, layers=1, feed_forward=5, outputs=r), 24,
    ),
}  # fmt: skip


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", MADE)
def test_shapes_and_no_sample_sees_another(name, outputs):
    make, width = MADE[name]
    module, x = started(make(outputs)), normal(5, width)
    with torch.no_grad():
        out = module(x)
        assert out.shape == ((5, 12) if outputs == 1 else (5, 12, outputs))
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(module(x[order]), out[order], rtol=1e-5, atol=1e-6)
        assert (out[0] - out[1]).abs().max() > 1e-4
        if outputs > 1 and name != "gru":
            assert (out[..., 0] - out[..., 1]).abs().max() > 1e-4


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", MADE)
def test_the_first_forecast_is_the_base_profile(name, outputs):
    make, width = MADE[name]
    module = make(outputs)
    values = initial_parameters(module, 3)
    module.load_state_dict({k: torch.tensor(v) for k, v in values.items()}, strict=False)
    with torch.no_grad():
        assert not module(normal(4, width)).any()
    for parameter in module.parameters():
        assert parameter.isfinite().all()


def test_counts_of_the_papers():
    # Lin et al. (2024), SparseTSF: 30 · 30 for 720 → 720 with w = 24, and a kernel of 25.
    assert count(SparseTsf(720, 720, 24)) == 900 + 25 == 925
    # Zeng et al. (2023): two maps of 720 · 720 with biases of 720, "1.04 M".
    assert count(DLinear(720, 720)) == 2 * (720 * 720 + 720) == 1_038_240
    # Lin et al. (2024), CycleNet/Linear, 336 → 96: a map of 336 · 96 + 96 and 168 values.
    assert count(CycleNet(336, 96, 168)) == 32_352 + 168


def test_counts_by_hand():
    # Embedding 4 · 5 + 5; positions 3 · 5; a GRU of three gates with 5 · 5 twice and two biases;
    # the head 5 · 4 + 4.
    assert count(SegRnn(24, 12, 4, 5)) == 25 + 15 + 3 * (25 + 25 + 10) + 24
    # Pools 4 and 1 of 24 steps: 6 · 5 + 5 and 24 · 5 + 5; forecasts of 3 and 12 knots; one backcast
    # of 6 knots.
    assert count(Nhits(24, 12, (4, 1), (5,))) == 35 + 125 + (18 + 72) + 36
    # A block of a → h → b: ah + h + hb + b + ab + b (+ 2b of LayerNorm). Projection 3 → 5 → 2;
    # encoder 24 + 12 · 2 = 48 → 5 → 5; decoder 5 → 5 → 12 · 3; last 5 → 5 → 1; 24 · 12 + 12.
    tide = Tide(24, 12, 3, width=5, projected=2, decoded=3)
    projection, encoder = 20 + 12 + 8, 245 + 30 + 245 + 10
    decoder, last = 30 + 216 + 216 + 72, 30 + 6 + 6
    assert count(tide) == projection + encoder + decoder + last + 300
    # 24 · 12 + 12; 1 · 4 + 4; 3 · 4 + 4; a mixer of width 8: two norms of 16, 12 · 12 + 12,
    # 8 · 5 + 5 and 5 · 8 + 8; the head 8 + 1.
    mixer = 32 + 156 + 45 + 48
    assert count(TsMixer(24, 12, 3, width=4, layers=1, feed_forward=5)) == (
        300 + 8 + 16 + mixer + 9
    )


# ----------------------------------------------------------------------------------- DLinear
def test_dlinear_by_hand():
    # x = 3, 0, 6 with an average of 3: the ends are repeated, so the trend is (3+3+0)/3 = 2,
    # (3+0+6)/3 = 3, (0+6+6)/3 = 4, the rest 1, −3, 2. Trend weights 1, 1, 1: 9; rest weights
    # 1, 2, 3: 1 − 6 + 6 = 1; biases 10 and 100.
    module = DLinear(3, 1, 3)
    with torch.no_grad():
        module.trend.weight.fill_(1.0)
        module.remainder.weight.copy_(torch.tensor([[1.0, 2, 3]]))
        module.trend.bias.fill_(10.0)
        module.remainder.bias.fill_(100.0)
        assert module(torch.tensor([[3.0, 0, 6]])).item() == pytest.approx(120, rel=1e-6)


def test_a_moving_average_has_a_middle():
    with pytest.raises(ValueError, match="24 steps has no middle"):
        DLinear(48, 24, 24)


# --------------------------------------------------------------------------------- SparseTSF
@pytest.mark.parametrize("outputs", [1, 2])
def test_sparsetsf_is_its_sum_over_periods(outputs):
    module, x, w = started(SparseTsf(24, 12, 6, outputs)), normal(2, 24), 6
    kernel, across = weights(module)["smooth.weight"][0, 0], weights(module)["across.weight"]
    for n in range(2):
        own = x[n].double().numpy()
        own = own - own.mean()
        wide = np.concatenate([np.zeros(3), own, np.zeros(3)])
        smooth = [own[t] + sum(kernel[j] * wide[t + j] for j in range(7)) for t in range(24)]
        with torch.no_grad():
            found = module(x)[n].reshape(12, outputs)
        for h in range(12):
            for r in range(outputs):
                row = across[h // w * outputs + r]
                expected = sum(row[k] * smooth[k * w + h % w] for k in range(4))
                assert found[h, r].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="period of 7 does not divide 24 and 12"):
        SparseTsf(24, 12, 7)
    with pytest.raises(ValueError, match="segment of 5 does not divide 20 and 12"):
        SegRnn(20, 12, 5, 3)


# ---------------------------------------------------------------------------------- CycleNet
def test_a_cycle_is_read_at_its_places():
    layer = Cycle(3)
    with torch.no_grad():
        layer.table.copy_(torch.tensor([10.0, 20, 30]))
        # −1 is the last place, 4 the second.
        assert layer(torch.tensor([[-1, 0, 4]])).tolist() == [[30, 10, 20]]


def test_cyclenet_by_hand():
    # A cycle of 3: Q = 1, 2, 4. The first forecast step has place 1, so the context of two steps
    # has places 2 and 0: x − Q = (10 − 4, 20 − 1) = 6, 19. Both rows of W are 1, 0.5: 15.5.
    # Ahead stand places 1 and 2: 2 and 4.
    module = CycleNet(2, 2, 3)
    with torch.no_grad():
        module.cycle.table.copy_(torch.tensor([1.0, 2, 4]))
        module.head.weight.copy_(torch.tensor([[1.0, 0.5], [1.0, 0.5]]))
        module.head.bias.zero_()
        assert module(torch.tensor([[10.0, 20, 1]])).tolist() == [[17.5, 19.5]]


def test_what_is_a_cycle_is_forecast_by_the_cycle_alone():
    """A load that is Q itself leaves nothing to f, and its continuation is Q's."""
    module, table = CycleNet(24, 12, 7), normal(7)
    with torch.no_grad():
        module.cycle.table.copy_(table)
        module.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        module.head.bias.zero_()
        for phase in (0, 3, 6):
            places = torch.arange(phase - 24, phase + 12).remainder(7)
            x = torch.cat([table[places[:24]], torch.tensor([float(phase)])]).unsqueeze(0)
            torch.testing.assert_close(module(x)[0], table[places[24:]], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------ SegRNN
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_segrnn_is_its_cell_step_by_step():
    module, x = started(SegRnn(12, 8, 4, 5)), normal(2, 12)
    w = weights(module)

    def cell(seen: np.ndarray, h: np.ndarray) -> np.ndarray:
        a = w["rnn.weight_ih_l0"] @ seen + w["rnn.bias_ih_l0"]
        b = w["rnn.weight_hh_l0"] @ h + w["rnn.bias_hh_l0"]
        (ar, au, an), (br, bu, bn) = np.split(a, 3), np.split(b, 3)
        u = sigmoid(au + bu)
        return (1 - u) * np.tanh(an + sigmoid(ar + br) * bn) + u * h

    for n in range(2):
        h = np.zeros(5)
        for segment in x[n].double().numpy().reshape(3, 4):
            inside = w["embedding.weight"] @ segment + w["embedding.bias"]
            h = cell(np.maximum(inside, 0), h)
        # Both segments ahead start from the same state.
        expected = [
            w["head.weight"] @ cell(place, h) + w["head.bias"] for place in w["positions.table"]
        ]
        with torch.no_grad():
            found = module(x)[n].numpy()
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------ N-HiTS
def between(knots: np.ndarray, steps: int) -> np.ndarray:
    """Linear between knots in the middles of equal parts, level beyond the outer ones."""
    places = (np.arange(len(knots)) + 0.5) * steps / len(knots)
    return np.interp(np.arange(steps) + 0.5, places, knots)


def test_nhits_is_its_blocks_one_after_the_other():
    module, x = started(Nhits(24, 12, (7, 2, 1), (5,))), normal(2, 24)
    w = weights(module)
    for n in range(2):
        left, total = x[n].double().numpy(), np.zeros(12)
        for k, pool in enumerate((7, 2, 1)):
            pooled = np.array([left[s : s + pool].max() for s in range(0, 24, pool)])
            name = f"blocks.{k}"
            seen = w[f"{name}.layers.0.weight"] @ pooled + w[f"{name}.layers.0.bias"]
            seen = np.maximum(seen, 0)
            total += between(w[f"{name}.forecast.weight"] @ seen + w[f"{name}.forecast.bias"], 12)
            if k < 2:
                back = w[f"{name}.backcast.weight"] @ seen + w[f"{name}.backcast.bias"]
                left = left - between(back, 24)
        with torch.no_grad():
            np.testing.assert_allclose(module(x)[n].numpy(), total, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- TiDE and TSMixer
def block(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    inside = np.maximum(w[f"{name}.up.weight"] @ x + w[f"{name}.up.bias"], 0)
    out = w[f"{name}.down.weight"] @ inside + w[f"{name}.down.bias"]
    out = out + w[f"{name}.skip.weight"] @ x + w[f"{name}.skip.bias"]
    if f"{name}.norm.weight" not in w:
        return out
    return norm(w, f"{name}.norm", out)


def norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    apart = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return apart * w[f"{name}.weight"] + w[f"{name}.bias"]


def standardised(module: nn.Module, x: Tensor, n: int) -> np.ndarray:
    """The rows of window n by hand: mean 1, deviation 2, cut at five deviations."""
    rows = x[n, 24:].double().numpy().reshape(12, 3)
    return np.clip((rows - 1) / 2, -5, 5)


def with_moments(module: nn.Module) -> nn.Module:
    module.x_mean.fill_(1.0)
    module.x_std.fill_(2.0)
    return module


def test_tide_is_its_blocks_one_after_the_other():
    module = with_moments(started(Tide(24, 12, 3, width=5, layers=2, projected=2, decoded=3)))
    x = normal(2, 60)
    x[0, 30] = 100.0  # beyond five deviations
    w = weights(module)
    for n in range(2):
        context = x[n, :24].double().numpy()
        known = [block(w, "projection", row) for row in standardised(module, x, n)]
        seen = np.concatenate([context, *known])
        for k in range(4):
            seen = block(w, f"dense.{k}", seen)
        expected = w["residual.weight"] @ context + w["residual.bias"]
        for h in range(12):
            decoded = np.concatenate([seen[3 * h : 3 * h + 3], known[h]])
            expected[h] += block(w, "temporal", decoded)[0]
        with torch.no_grad():
            np.testing.assert_allclose(module(x)[n].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_tsmixer_is_its_maps_one_after_the_other():
    module = with_moments(started(TsMixer(24, 12, 3, width=4, layers=2, feed_forward=5)))
    x, w = normal(2, 60), weights(module)
    for n in range(2):
        aligned = w["align.weight"] @ x[n, :24].double().numpy() + w["align.bias"]
        wide = np.outer(aligned, w["widen.weight"][:, 0]) + w["widen.bias"]
        rows = standardised(module, x, n) @ w["covariates.weight"].T + w["covariates.bias"]
        mixed = np.concatenate([wide, rows], axis=1)
        for k in range(2):
            name = f"mixers.{k}"
            before = np.array([norm(w, f"{name}.time_norm", row) for row in mixed])
            over = w[f"{name}.time.weight"] @ before + w[f"{name}.time.bias"][:, None]
            mixed = mixed + np.maximum(over, 0)
            before = np.array([norm(w, f"{name}.feature_norm", row) for row in mixed])
            inside = before @ w[f"{name}.features.0.weight"].T + w[f"{name}.features.0.bias"]
            inside = np.maximum(inside, 0) @ w[f"{name}.features.2.weight"].T
            mixed = mixed + inside + w[f"{name}.features.2.bias"]
        expected = mixed @ w["head.weight"][0] + w["head.bias"][0]
        with torch.no_grad():
            np.testing.assert_allclose(module(x)[n].numpy(), expected, rtol=1e-3, atol=1e-4)

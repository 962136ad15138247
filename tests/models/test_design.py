"""Designs and networks: what a learner sees, and how its correction becomes kWh."""

import math

import numpy as np
import pytest
import torch

from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.models.design import (
    CLIP,
    Design,
    context_design,
    context_steps,
    profile_design,
    row_design,
)
from fl_inmetro.models.networks import NLinear, RowMlp, initial_parameters
from tests.fleets import MONDAY, series, windows


def test_a_forecast_is_scale_times_base_plus_correction_above_the_floor():
    zeros = np.zeros((2, 2), dtype=np.float32)
    base = np.array([[1.0, 0.5], [2, 2]], dtype=np.float32)
    scale, floor = np.array([10.0, np.nan]), np.zeros(2)
    design = Design(np.zeros((2, 2, 1)), base, scale, floor, zeros, zeros)
    kwh = design.to_kwh(np.array([[0.25, -0.75], [0, 0]]))
    assert kwh[0].tolist() == [12.5, 0.0]  # 10·1.25; 10·(0.5 − 0.75) is cut at zero
    assert np.isnan(kwh[1]).all()  # no scale, no forecast
    # A meter that has shown −2 kWh may be forecast at −2 kWh and no lower.
    net = Design(np.zeros((2, 2, 1)), base, scale, np.array([-2.0, 0]), zeros, zeros)
    assert net.to_kwh(np.array([[-1.1, -0.75], [0, 0]]))[0] == pytest.approx([-1.0, -2.0])


def test_context_by_hand():
    # A day of 1 kWh, then hours 2 4 … : scale of the issue at step 26 is (24·1 + 2 + 4)/26.
    energy = np.ones(60)
    energy[24:28] = [2, 4, np.nan, 8]
    one = ClientSeries("a", MONDAY, 3600, energy)
    part = Windows(one, np.array([26, 28]), 2)
    design = context_design(part, 3)
    scale = 30 / 26
    assert design.scale_kwh[0] == pytest.approx(scale, rel=1e-12)
    # Last three: 1 2 4; relative to the last: −3 −2 0; base 4; targets NaN 8.
    np.testing.assert_allclose(design.x[0], np.array([-3, -2, 0]) / scale, rtol=1e-6)
    np.testing.assert_allclose(design.base[0], [4 / scale] * 2, rtol=1e-6)
    # Two days of readings: enough to forecast from, too few to train on.
    assert not design.known.any()
    # Issue at 28: the missing step 26 takes the value of step 2, the day before.
    later = 24 + 2 + 4 + 8
    np.testing.assert_allclose(design.x[1], np.array([4 - 8, 1 - 8, 0]) / (later / 27), rtol=1e-6)


def test_a_context_that_is_missing_for_two_days_takes_the_trailing_mean():
    energy = np.full(24 * 6, 3.0)
    energy[24 * 4 :] = np.nan
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [6])
    design = context_design(part, 24, targets=False)
    assert not design.x.any()
    assert (design.base == 1).all()


def test_a_context_on_the_profile_by_hand():
    # Two weeks of 2 kWh, Sundays 5 kWh, but the last day is unknown and the hour before it 9 kWh.
    energy = np.full(24 * 16, 2.0)
    for sunday in (6, 13):
        energy[24 * sunday : 24 * (sunday + 1)] = 5
    energy[24 * 15 - 1], energy[24 * 15 :] = 9, np.nan
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [13, 16])
    design = profile_design(part, 26, targets=False)
    # 12 days of 2 and a Sunday of 5; then 13 days of 2 less an hour, 9 in that hour, two Sundays.
    scales = [(12 * 2 + 5) / 13, (13 * 24 * 2 + 7 + 48 * 5) / (15 * 24)]
    np.testing.assert_allclose(design.scale_kwh, scales, rtol=1e-12)
    # A Sunday (one known, of 5) and a Wednesday (working days: 2, in the last hour one 9 of 11).
    np.testing.assert_allclose(design.base[0], [5 / scales[0]] * 24, rtol=1e-6)
    np.testing.assert_allclose(design.base[1, :23], [2 / scales[1]] * 23, rtol=1e-6)
    np.testing.assert_allclose(design.base[1, 23], (10 * 2 + 9) / 11 / scales[1], rtol=1e-6)
    # The context is relative to the trailing mean; the unknown day takes the day before.
    np.testing.assert_allclose(design.x[0], [2 / scales[0] - 1] * 26, rtol=1e-5)
    expected = np.array([2, 9, *[2] * 23, 9]) / scales[1] - 1
    np.testing.assert_allclose(design.x[1], expected, rtol=1e-5)


def test_a_single_high_reading_is_in_the_mean_profile_and_not_in_the_median():
    # 15 days of 2 kWh, the last hour of the first Monday 9 kWh; the issue is on a Tuesday, with
    # 11 working days behind it: the mean of that hour is (10·2 + 9)/11, the median 2.
    energy = np.full(24 * 17, 2.0)
    energy[23] = 9
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [15])
    scale = (15 * 24 * 2 + 7) / (15 * 24)
    mean, median = (profile_design(part, 24, base=base) for base in ("mean", "median"))
    np.testing.assert_allclose(mean.base[0, 23] * scale, (10 * 2 + 9) / 11, rtol=1e-6)
    np.testing.assert_allclose(median.base[0] * scale, 2, rtol=1e-6)
    np.testing.assert_array_equal(mean.base[0, :23], median.base[0, :23])
    # What is seen is the same; the residual is of the base: the day was 2 kWh throughout.
    np.testing.assert_array_equal(mean.x, median.x)
    np.testing.assert_allclose(median.residual, 0, atol=1e-6)
    np.testing.assert_allclose(mean.residual[0, 23] * scale, 2 - (10 * 2 + 9) / 11, rtol=1e-5)
    # In units of the window's deviation, too.
    own = profile_design(part, 24, base="median", normalise="window")
    np.testing.assert_allclose(own.base * own.scale_kwh[:, None], 2, rtol=1e-5)


def test_residuals_are_of_the_scaled_target():
    one = series("a", 40, gaps=0.2)
    part = windows(one, [20, 30])
    design = row_design(part, ("lags",))
    target = part.target_kwh()
    known = np.isfinite(target)
    assert (design.known == known).all()
    assert design.points == known.sum()
    back = (design.base + design.residual) * design.scale_kwh[:, None]
    np.testing.assert_allclose(back[known], target[known], rtol=1e-5)
    assert not design.residual[~known].any()


def test_trainable_drops_windows_without_scale_or_target():
    energy = series("a", 14).energy_kwh.copy()
    energy[24 * 9 : 24 * 10] = np.nan
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [0, 6, 7, 9, 12])
    design = row_design(part, ("calendar",))
    # Days 0 and 6 have less than a week behind them, day 9 has no target.
    assert design.trainable().base.shape[0] == 2
    assert design.points == design.trainable().points == 48
    without = row_design(part, ("calendar",), targets=False)
    assert without.points == 0


def test_context_steps():
    assert context_steps(168, 3600) == 168
    assert context_steps(24, 900) == 96
    assert context_steps(0.1, 3600) == 1


# ----------------------------------------------------------------------------- networks
def test_mlp_by_hand():
    """One hidden unit: ŷ = 2·relu(3·u₀ − u₁ + 1) − 0.5 of the standardised, clipped features."""
    network = RowMlp(2, [1])
    network.load_state_dict(
        {
            "x_mean": torch.tensor([1.0, 0.0]),
            "x_std": torch.tensor([2.0, 1.0]),
            "layers.0.weight": torch.tensor([[3.0, -1.0]]),
            "layers.0.bias": torch.tensor([1.0]),
            "layers.2.weight": torch.tensor([[2.0]]),
            "layers.2.bias": torch.tensor([-0.5]),
        }
    )
    x = torch.tensor([[[3.0, 2.0], [-5.0, 0.0], [1e9, 0.0]]])
    # u = (1, 2): 2·relu(2) − 0.5 = 3.5; u = (−3, 0): relu(−8) = 0; u₀ is cut at 5: 2·16 − 0.5.
    assert CLIP == 5
    assert network(x).tolist() == [[3.5, -0.5, 31.5]]


def test_no_hidden_layer_is_a_linear_model():
    assert [tuple(p.shape) for p in RowMlp(3, []).parameters()] == [(1, 3), (1,)]


def test_initial_parameters_depend_on_the_seed_and_the_name_alone():
    torch.manual_seed(1)
    one = initial_parameters(RowMlp(6, [4, 3]), 9)
    torch.manual_seed(2)
    torch.rand(10)
    two = initial_parameters(RowMlp(6, [4, 3]), 9)
    other = initial_parameters(RowMlp(6, [4, 3]), 10)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
        assert not np.array_equal(array, other[name])
        assert array.dtype == np.float32
    # Uniform on ±1/√fan_in, as nn.Linear: 6, 4 and 3 inputs.
    for name, fan_in in (("layers.0", 6), ("layers.2", 4), ("layers.4", 3)):
        for kind in ("weight", "bias"):
            assert np.abs(one[f"{name}.{kind}"]).max() <= 1 / math.sqrt(fan_in)
    wide = initial_parameters(RowMlp(50, [200]), 0)["layers.0.weight"]
    # 10 000 draws: the deviation of a uniform is bound/√3, known to about one percent.
    assert wide.std() == pytest.approx(1 / math.sqrt(50 * 3), rel=0.03)


def test_drawing_touches_no_global_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002 - that is what is watched
    initial_parameters(NLinear(4, 2), 1)
    network = RowMlp(3, [2])
    torch.set_rng_state(before)
    initial_parameters(network, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_nlinear_starts_at_the_last_value():
    start = initial_parameters(NLinear(4, 2), 1)
    assert all(not array.any() for array in start.values())


def test_an_absolute_design_forecasts_the_same_kwh():
    part = windows(series("a", 40, gaps=0.1), range(10, 40))
    design = row_design(part, ("lags",))
    whole = design.absolute()
    assert not whole.base.any()
    known = design.known > 0
    np.testing.assert_allclose(whole.residual[known], (design.residual + design.base)[known])
    assert not whole.residual[~known].any()
    np.testing.assert_allclose(
        whole.to_kwh(whole.residual)[known], part.target_kwh()[known], rtol=1e-5
    )

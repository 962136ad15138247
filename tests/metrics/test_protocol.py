"""The scores of published protocols against plain NumPy versions of their definitions."""

import numpy as np
import pytest

from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.protocol import LEVELS, ProtocolSums, Yardstick, protocol_scores

RNG = np.random.default_rng(11)
N, H = 40, 3
#: Three clients of very different size: load, mean, quantiles, seasonal change of each window.
LOAD = {name: size * (2 + RNG.random((N, H))) for name, size in [("a", 0.1), ("b", 3), ("c", 500)]}
MEAN = {name: y * (1 + 0.1 * RNG.standard_normal((N, H))) for name, y in LOAD.items()}
QUANTILES = {
    name: np.sort(m[..., None] * (1 + 0.2 * RNG.standard_normal((N, H, 9))), axis=2)
    for name, m in MEAN.items()
}
SEASON = {name: y.mean() * (0.1 + RNG.random(N)) for name, y in LOAD.items()}
PAST = {name: y.ravel() * 1.3 + RNG.random(N * H) for name, y in LOAD.items()}


def measured(*, quantiles: bool = True, blocks: int = 1):
    result = {}
    for name, load in LOAD.items():
        measure, total = Yardstick.of(PAST[name]), ProtocolSums()
        for rows in np.array_split(np.arange(N), blocks):
            made = Forecast(MEAN[name][rows])
            if quantiles:
                made = Forecast(MEAN[name][rows], LEVELS, QUANTILES[name][rows])
            total += ProtocolSums.of(made, load[rows], SEASON[name][rows], measure)
        result[name] = (measure, total)
    return result


def test_by_hand():
    # Readings 1, 3: mean 2, deviation 1. Load 2 and 4, forecast 3 and 4: errors 1 and 0.
    # MSE = 1/2, MAE = 1/2; ȳ = 3, Σ(y − ȳ)² = 2, so RSE = √(1/2); with a seasonal change of 0.5,
    # MASE = (1/0.5)/2 = 1; ND = 1/6; NRMSE = √(1/2)/3.
    measure = Yardstick.of(np.array([1.0, 3.0]))
    sums = ProtocolSums.of(
        Forecast(np.array([[3.0, 4.0]])), np.array([[2.0, 4.0]]), np.array([0.5]), measure
    )
    one = {"a": (measure, sums)}
    assert protocol_scores("ltsf", one)["protocol_mse"] == pytest.approx(0.5)
    assert protocol_scores("ltsf", one)["protocol_mae"] == pytest.approx(0.5)
    assert protocol_scores("lstnet", one)["protocol_rse"] == pytest.approx(0.5**0.5)
    assert protocol_scores("lstnet", one)["protocol_corr"] == pytest.approx(1.0)
    assert protocol_scores("gift-eval", one)["protocol_mase"] == pytest.approx(1.0)
    assert protocol_scores("gift-eval", one)["protocol_nd"] == pytest.approx(1 / 6)
    assert protocol_scores("buildingsbench", one)["protocol_nrmse"] == pytest.approx(0.5**0.5 / 3)


@pytest.mark.parametrize("blocks", [1, 7])
def test_ltsf_is_the_error_of_standardised_channels(blocks):
    stack = lambda of: np.stack([of[n] for n in LOAD], axis=2)  # noqa: E731
    mean = np.array([PAST[n].mean() for n in LOAD])
    deviation = np.array([PAST[n].std() for n in LOAD])
    error = (stack(MEAN) - mean) / deviation - (stack(LOAD) - mean) / deviation
    found = protocol_scores("ltsf", measured(blocks=blocks))
    assert found["protocol_mse"] == pytest.approx((error**2).mean(), rel=1e-12)
    assert found["protocol_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert found["protocol_points"] == 3 * N * H
    assert found["protocol_missing"] == 0


@pytest.mark.parametrize("blocks", [1, 7])
def test_lstnet_is_the_relative_error_and_the_correlation_of_the_channels(blocks):
    y = np.stack([LOAD[n].ravel() for n in LOAD], axis=1)
    p = np.stack([MEAN[n].ravel() for n in LOAD], axis=1)
    rse = np.sqrt(((p - y) ** 2).sum()) / np.sqrt(((y - y.mean()) ** 2).sum())
    corr = np.mean([np.corrcoef(p[:, k], y[:, k])[0, 1] for k in range(3)])
    found = protocol_scores("lstnet", measured(blocks=blocks))
    assert found["protocol_rse"] == pytest.approx(rse, rel=1e-10)
    assert found["protocol_corr"] == pytest.approx(corr, rel=1e-9)


@pytest.mark.parametrize("blocks", [1, 7])
def test_gift_eval_is_mase_and_the_weighted_quantile_loss(blocks):
    scaled, loss, load, distance = [], np.zeros(9), 0.0, 0.0
    for name, y in LOAD.items():
        q = QUANTILES[name]
        for n in range(N):
            for h in range(H):
                scaled.append(abs(y[n, h] - q[n, h, 4]) / SEASON[name][n])
                load += abs(y[n, h])
                distance += abs(y[n, h] - q[n, h, 4])
                for k, level in enumerate(LEVELS):
                    below = float(y[n, h] <= q[n, h, k])
                    loss[k] += 2 * abs((y[n, h] - q[n, h, k]) * (below - level))
    found = protocol_scores("gift-eval", measured(blocks=blocks))
    assert found["protocol_mase"] == pytest.approx(np.mean(scaled), rel=1e-12)
    assert found["protocol_crps"] == pytest.approx(np.mean(loss / load), rel=1e-12)
    assert found["protocol_nd"] == pytest.approx(distance / load, rel=1e-12)


def test_a_mean_alone_has_no_crps():
    found = protocol_scores("gift-eval", measured(quantiles=False))
    assert np.isnan(found["protocol_crps"])
    assert np.isfinite(found["protocol_mase"])


def test_buildingsbench_is_the_median_building():
    nrmse = [np.sqrt(((MEAN[n] - LOAD[n]) ** 2).mean()) / LOAD[n].mean() for n in LOAD]
    found = protocol_scores("buildingsbench", measured())
    assert found["protocol_nrmse"] == pytest.approx(np.median(nrmse), rel=1e-9)


def test_points_without_a_forecast_are_counted_and_unknown_ones_are_not():
    made, target = np.array([[1.0, np.nan, 1.0]]), np.array([[1.0, 2.0, np.nan]])
    sums = ProtocolSums.of(Forecast(made), target, np.array([1.0]), Yardstick(0.0, 1.0))
    assert (sums.n, sums.missing) == (1, 1)


def test_a_client_whose_load_never_changes_has_no_correlation():
    flat, moving = np.full((5, 1), 0.7), np.arange(5.0)[:, None]
    measure = Yardstick(0.1, 1.0)
    season = np.ones(5)
    clients = {
        "flat": (measure, ProtocolSums.of(Forecast(moving), flat, season, measure)),
        "moving": (measure, ProtocolSums.of(Forecast(2 * moving), moving, season, measure)),
    }
    assert protocol_scores("lstnet", clients)["protocol_corr"] == pytest.approx(1.0)

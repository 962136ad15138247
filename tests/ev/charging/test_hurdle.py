"""The hurdle model: its mixture, scikit-learn's use, federated = pooled, and its scores by hand."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from sklearn.metrics import brier_score_loss, mean_pinball_loss

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.charging.hubs import HubSeries, hub_columns
from fl_inmetro.ev.charging.hurdle import (
    GRID,
    RESIDUAL_LEVELS,
    HubForecast,
    Hurdle,
    fit_hurdle,
    fit_plain,
    ordinary_hub,
)
from fl_inmetro.ev.charging.scoring import calibration_error, gain, hub_score, point_score
from fl_inmetro.models.heads import HurdleHead
from tests.ev.charging.test_hubs import made_chance, made_series

HUBS = [made_series(80, k, f"g{k}", 0.03 * k) for k in range(4)]
TRAIN = [series.until(series.first_day + 60) for series in HUBS]
MODEL = fit_hurdle(TRAIN)


def test_the_mixture_is_that_of_the_hurdle_head():
    """With normal residuals mean and quantiles are those of the networks' head (log-normal)."""
    series, sigma = HUBS[0], 0.4
    fleet = ordinary_hub(HUBS)
    known = hub_columns(series, fleet)
    rng = np.random.default_rng(0)
    use = rng.normal(0, 0.2, known.use.shape[1])
    amount = rng.normal(0, 0.05, known.amount.shape[1])
    model = Hurdle(fleet, use, amount, np.exp(sigma**2 / 2), sigma * ndtri(RESIDUAL_LEVELS), 1e6)
    told = model.predict(series)
    # softplus(r) + 0.001 = σ
    r = np.log(np.expm1(sigma - 1e-3))
    raw = np.column_stack([known.use @ use, known.amount @ amount, np.full(len(known.day), r)])
    head = HurdleHead(GRID)
    tensor = torch.from_numpy(raw)
    assert told.mean_kwh == pytest.approx(head.mean(tensor).numpy(), rel=1e-6)
    oracle = head.quantiles(tensor).numpy()
    inside = (np.array(GRID) - 1 + told.chance[:, None]) / told.chance[:, None]
    # Where the level is one that is kept, and not beyond the table's ends.
    kept = (inside <= 0) | ((inside > 0.01) & (inside < 0.99))
    assert told.quantiles_kwh[kept] == pytest.approx(oracle[kept], rel=5e-3)


def test_a_quantile_by_hand():
    """P = 0.5, log amounts at 0, ± 1 by thirds of the levels: half of the levels are 0."""
    series = HUBS[0]
    fleet = ordinary_hub(HUBS)
    known = hub_columns(series, fleet)
    flat = np.zeros(known.use.shape[1])
    model = Hurdle(fleet, flat, np.zeros(known.amount.shape[1]), 1.5, RESIDUAL_LEVELS - 0.5, 1e6)
    told = model.predict(series)
    assert told.chance == pytest.approx(0.5)
    assert told.mean_kwh == pytest.approx(0.75)
    row = told.quantiles_kwh[100]
    assert np.all(row[[GRID.index(0.1), GRID.index(0.5)]] == 0)
    # Level 0.75 is the middle of the amounts, 0.9 their 0.8: e^0 and e^0.3.
    assert row[GRID.index(0.75)] == pytest.approx(1.0)
    assert row[GRID.index(0.9)] == pytest.approx(np.exp(0.3))


def test_federated_is_pooled():
    """Clients by hub, or one pretending to be all: the same sums, so the same model."""
    fleet = ordinary_hub(TRAIN)
    again = fit_hurdle(TRAIN[::-1], fleet=fleet)
    assert again.use == pytest.approx(MODEL.use, rel=1e-9, abs=1e-9)
    assert again.amount == pytest.approx(MODEL.amount, rel=1e-9, abs=1e-9)
    assert again.residuals == pytest.approx(MODEL.residuals, abs=1e-12)
    known = [hub_columns(series, fleet) for series in TRAIN]
    x = np.vstack([one.use for one in known])
    y = np.concatenate([one.energy_kwh for one in known])
    p = 1 / (1 + np.exp(-(x @ MODEL.use)))
    # At the optimum of the pooled rows the penalised gradient is nothing.
    penalty = np.maximum(1e-4 * (x**2).sum(axis=0), 1e-9) * MODEL.use
    penalty[0] = 0
    assert x.T @ ((y > 0) - p) - penalty == pytest.approx(0, abs=1e-6)
    z = np.vstack([one.amount for one in known])[y > 0]
    left = np.log(y[y > 0]) - z @ MODEL.amount
    assert MODEL.smearing == pytest.approx(np.exp(left).mean(), rel=1e-9)
    # The sketch is within a hundredth of the residuals' own quantiles.
    middle = MODEL.residuals[np.argmin(np.abs(RESIDUAL_LEVELS - 0.9))]
    assert middle == pytest.approx(np.quantile(left, 0.9), rel=0.02)


def test_it_finds_made_habits_and_its_chances_mean_what_they_say():
    told, truth = [], []
    for series in HUBS:
        rows = np.repeat(np.arange(len(series.energy_kwh)), 24) >= 60
        whole = MODEL.predict(series)
        told.append(
            HubForecast(whole.chance[rows], whole.mean_kwh[rows], whole.quantiles_kwh[rows])
        )
        truth.append(series.energy_kwh.reshape(-1)[rows])
    score = hub_score(told, truth)
    # The chances that the days were drawn by are the best that can be told.
    best = [made_chance(series.days[60:], 0.03 * k).reshape(-1) for k, series in enumerate(HUBS)]
    used = np.concatenate(truth) > 0
    assert score.brier < 1.04 * brier_score_loss(used, np.concatenate(best))
    assert score.brier < 0.8 * score.use * (1 - score.use)
    assert score.calibration < 0.06
    assert np.concatenate([t.mean_kwh for t in told]).mean() == pytest.approx(
        np.concatenate(truth).mean(), rel=0.1
    )
    quantiles = np.vstack([t.quantiles_kwh for t in told])
    assert np.all(np.diff(quantiles, axis=1) >= -1e-9)
    # 0.9 is not below as many as it says.
    inside = (np.concatenate(truth)[:, None] <= quantiles).mean(axis=0)
    assert inside[GRID.index(0.9)] == pytest.approx(0.9, abs=0.03)


def test_a_skipped_hour_is_neither_use_nor_none():
    """A missing hour in the training is no row: with or without its day's other hours."""
    energy = TRAIN[0].energy_kwh.copy()
    energy[10, 2] = np.nan
    hub = HubSeries("g", energy, TRAIN[0].first_day)
    model, plain = fit_hurdle([hub, TRAIN[1]]), fit_plain([hub, TRAIN[1]])
    for told in (model.predict(hub), plain.predict(hub)):
        assert np.all(np.isfinite(told.mean_kwh))
        score = hub_score([told], [hub.energy_kwh.reshape(-1)])
        assert score.hours == energy.size - 1


def test_a_hub_that_is_not_there_yet_changes_nothing():
    """Cut off before its first day it has no hour, and no weight."""
    late = HUBS[3].until(HUBS[3].first_day)
    again = fit_hurdle([*TRAIN, late])
    assert again.use == pytest.approx(MODEL.use, abs=1e-12)
    assert again.predict(late).quantiles_kwh.shape == (0, len(GRID))
    assert fit_plain([*TRAIN, late]).predict(late).mean_kwh.shape == (0,)


def test_plain_linear_has_no_chance_and_one_spread():
    model = fit_plain(TRAIN)
    told = model.predict(HUBS[0])
    assert np.isnan(told.chance).all()
    assert told.mean_kwh.min() >= 0
    gap = told.quantiles_kwh[:, GRID.index(0.9)] - told.quantiles_kwh[:, GRID.index(0.85)]
    assert np.ptp(gap[told.quantiles_kwh[:, GRID.index(0.85)] > 0]) < 1e-9
    # All columns of use and of amount, those in both once: least squares of the pooled hours.
    known = [hub_columns(series, model.fleet) for series in TRAIN]
    x = np.vstack([np.hstack([one.use, one.amount]) for one in known])
    y = np.concatenate([one.energy_kwh for one in known])
    bare = fit_plain(TRAIN, ridge=0.0)
    oracle = x[: 60 * 24] @ np.linalg.lstsq(x, y, rcond=None)[0]
    mean = bare.predict(TRAIN[0]).mean_kwh
    assert mean == pytest.approx(np.maximum(oracle, 0.0), abs=1e-5)
    again = fit_plain(TRAIN[::-1], fleet=ordinary_hub(TRAIN))
    assert again.beta == pytest.approx(model.beta, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("kwh", [0.0, 2.0])
def test_hubs_never_used_or_always(kwh):
    with pytest.raises(FederationError, match="FL373"):
        fit_hurdle([HubSeries("g", np.full((30, 24), kwh), 18_000)])


def test_hub_scores_by_hand():
    """Two hours, 0 and 2 kWh; told P ½ and 1, mean 1 and 1, every quantile 1.

    Brier (¼ + 0) / 2; |error| 1 each; pinball at τ: (1 − τ and τ)/2 = ½ for all; CRPS 2·½ = 1; the
    hour with ½ is not used: it is off by ½, the other by 0, so the calibration error is ¼.
    """
    told = HubForecast(np.array([0.5, 1.0]), np.ones(2), np.ones((2, len(GRID))))
    score = hub_score([told], [np.array([0.0, 2.0])])
    assert score.brier == pytest.approx(0.125)
    assert (score.mae_kwh, score.rmse_kwh, score.nmae) == (1.0, 1.0, 1.0)
    assert score.pinball == pytest.approx((0.5, 0.5, 0.5))
    assert score.crps_kwh == pytest.approx(1.0)
    assert score.wql == pytest.approx(1.0)
    assert score.calibration == pytest.approx(0.25)
    assert score.use == 0.5


def test_hub_scores_like_scikit_learn():
    rng = np.random.default_rng(4)
    y = np.where(rng.random(200) < 0.4, rng.uniform(1, 5, 200), 0.0)
    quantiles = np.sort(rng.uniform(0, 5, (200, len(GRID))), axis=1)
    told = HubForecast(rng.random(200), rng.uniform(0, 5, 200), quantiles)
    score = hub_score([told], [y])
    assert score.brier == pytest.approx(brier_score_loss(y > 0, told.chance))
    for level, found in zip((0.1, 0.5, 0.9), score.pinball, strict=True):
        oracle = mean_pinball_loss(y, quantiles[:, GRID.index(level)], alpha=level)
        assert found == pytest.approx(oracle)
    assert np.isnan(calibration_error(np.array([np.nan]), np.array([1.0])))


def test_point_scores_draw_users_and_not_sessions():
    """A user with 10 errors of 1, one with 90 of 3: two drawn users' means are 1, 2.8 or 3."""
    user = np.array(["a"] * 10 + ["b"] * 90)
    truth = np.repeat([1.0, 3.0], [10, 90])
    score = point_score(np.zeros(100), truth, user)
    assert (score.mae, score.mae_low, score.mae_high) == (2.8, 1.0, 3.0)
    assert score.rmse == pytest.approx(np.sqrt(0.1 * 1 + 0.9 * 9))
    assert (score.sessions, score.users) == (100, 2)
    assert gain(np.zeros(100), truth, truth, user) == (-2.8, -3.0, -1.0)
    assert gain(truth, np.zeros(100), truth, user)[0] == 2.8

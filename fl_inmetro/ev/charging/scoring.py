"""How well sessions and hubs are told: errors, quantiles, chances, and bootstrap by client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.ev.charging.hubs import LEAST_KWH
from fl_inmetro.ev.charging.hurdle import GRID, HubForecast
from fl_inmetro.ev.charging.regression import Floats

#: Resamples of the users for the interval of a score.
RESAMPLES = 2000


@dataclass(frozen=True)
class PointScore:
    """Errors over sessions with the 95 % bootstrap interval of the MAE; users are resampled.

    Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 8 and 13: sessions of
    one user are not independent, so whole users are drawn.

    Attributes:
        mae, mae_low, mae_high: Mean absolute error, in the unit of the target.
        rmse: Root of the mean square.
        sessions, users: How many.
    """

    mae: float
    mae_low: float
    mae_high: float
    rmse: float
    sessions: int
    users: int


def point_score(told: Floats, truth: Floats, user: NDArray[np.str_], seed: int = 0) -> PointScore:
    """Score one number for each session [session]."""
    error = np.abs(told - truth)
    low, high = _by_user(error, user, seed)
    return PointScore(
        float(error.mean()),
        low,
        high,
        float(np.sqrt((error**2).mean())),
        len(error),
        len(np.unique(user)),
    )


def gain(
    told: Floats, other: Floats, truth: Floats, user: NDArray[np.str_], seed: int = 0
) -> tuple[float, float, float]:
    """Return how much lower the MAE is than another's, with its 95 % interval; same resamples."""
    less = np.abs(other - truth) - np.abs(told - truth)
    return (float(less.mean()), *_by_user(less, user, seed))


def _by_user(values: Floats, user: NDArray[np.str_], seed: int) -> tuple[float, float]:
    _, index = np.unique(user, return_inverse=True)
    total, n = np.bincount(index, values), np.bincount(index)
    rng = seeds.derive(seed, "ev", "charging", "bootstrap")
    draws = rng.integers(0, len(n), (RESAMPLES, len(n)))
    means = total[draws].sum(axis=1) / n[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class HubScore:
    """Scores of the hours of hubs; kWh are per hour.

    Attributes:
        mae_kwh: Of the median.
        mean_mae_kwh: Of the mean.
        nmae: MAE of the median over the hub's mean load, mean over hubs with load.
        rmse_kwh: Of the mean.
        pinball: At 0.1, 0.5 and 0.9.
        crps_kwh: Twice the mean pinball loss over 19 levels: the CRPS cut off at 0.05 and 0.95.
        wql: That over the mean load.
        brier: Mean of (P − use)²; NaN without chances.
        calibration: Mean of |told − observed chance| over tenths of the told one, weighed by
            hours (expected calibration error); NaN without chances.
        use: Share of hours with use.
        hours: How many.
    """

    mae_kwh: float
    mean_mae_kwh: float
    nmae: float
    rmse_kwh: float
    pinball: tuple[float, float, float]
    crps_kwh: float
    wql: float
    brier: float
    calibration: float
    use: float
    hours: int


def hub_score(told: Sequence[HubForecast], truth: Sequence[Floats]) -> HubScore:
    """Score hubs; each has its forecast and what was drawn [row], NaN where there was no hour."""
    kept = [np.isfinite(y) for y in truth]
    y = np.concatenate([own[k] for own, k in zip(truth, kept, strict=True)])
    p, mean, quantiles = (
        np.concatenate([getattr(one, name)[k] for one, k in zip(told, kept, strict=True)])
        for name in ("chance", "mean_kwh", "quantiles_kwh")
    )
    levels = np.array(GRID)
    middle = quantiles[:, GRID.index(0.5)]
    error = y[:, None] - quantiles
    pinball = np.maximum(levels * error, (levels - 1) * error).mean(axis=0)
    used = (y > LEAST_KWH).astype(np.float64)
    nmae = [
        float(np.abs(one.quantiles_kwh[k, GRID.index(0.5)] - own[k]).mean() / own[k].mean())
        for one, own, k in zip(told, truth, kept, strict=True)
        if own[k].size and own[k].mean() > 0
    ]
    crps = 2 * float(pinball.mean())
    return HubScore(
        float(np.abs(middle - y).mean()),
        float(np.abs(mean - y).mean()),
        float(np.mean(nmae)),
        float(np.sqrt(((mean - y) ** 2).mean())),
        (
            float(pinball[GRID.index(0.1)]),
            float(pinball[GRID.index(0.5)]),
            float(pinball[GRID.index(0.9)]),
        ),
        crps,
        crps / float(y.mean()),
        float(((p - used) ** 2).mean()),
        calibration_error(p, used),
        float(used.mean()),
        len(y),
    )


def calibration_error(told: Floats, used: Floats) -> float:
    """Return the expected calibration error over ten equal stretches of the told chance [row]."""
    if not np.all(np.isfinite(told)):
        return float("nan")
    tenth = np.minimum((told * 10).astype(np.int64), 9)
    apart = np.bincount(tenth, told - used, minlength=10)
    return float(np.abs(apart).sum() / len(told))

"""Scores of a client and of a fleet, from error sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.sums import ErrorSums, ratio

Floats = NDArray[np.float64]

#: A client's 80 % interval is taken for right when it covers a share of its points between these.
COVERAGE_BAND = (0.7, 0.9)

#: Scores that only forecasts with quantiles have.
QUANTILE_SCORES = (
    "pinball",
    "coverage_80",
    "coverage_80_in_70_90",
    "width_80",
    "winkler_80",
    "crps",
)


def score_fleet(clients: Mapping[str, ErrorSums]) -> dict[str, float]:
    """Score a fleet from its clients' sums.

    `nmae`, `nrmse`, `mase`, `pinball`, `width_80`, `winkler_80` and `crps` are means over the
    clients (each counts once); `wmape`, `mae_kwh`, `rmse_kwh`, `bias` and `coverage_80` are of the
    points (each point counts once). `worst_decile_nmae` is the mean nMAE of the worst 10 % of the
    clients (at least one), `coverage_80_in_70_90` the share of the clients whose own coverage lies
    between 70 and 90 %. Clients without a scored point do not count; a client whose load is not
    above zero counts in the point scores only. Scores of quantiles are NaN where there are none.
    """
    scored = {name: sums for name, sums in clients.items() if sums.n}
    total = sum(scored.values(), start=ErrorSums())
    nmae = np.sort(_finite([s.nmae for s in scored.values()]))
    worst = nmae[-max(1, round(nmae.size / 10)) :]
    return {
        "nmae": _mean(nmae),
        "wmape": total.wmape,
        "mae_kwh": total.mae_kwh,
        "rmse_kwh": total.rmse_kwh,
        "mase": _mean(_finite([s.mase for s in scored.values()])),
        "nrmse": _mean(_finite([s.nrmse for s in scored.values()])),
        "bias": total.bias,
        "worst_decile_nmae": _mean(worst),
        "pinball": _mean(_finite([s.pinball for s in scored.values()])),
        "coverage_80": total.coverage_80,
        "coverage_80_in_70_90": _share_covered(scored.values()),
        "width_80": _mean(_finite([s.width_80 for s in scored.values()])),
        "winkler_80": _mean(_finite([s.winkler_80 for s in scored.values()])),
        "crps": _mean(_finite([s.crps for s in scored.values()])),
        "clients": float(len(scored)),
        "points": float(total.n),
    }


def client_scores(sums: ErrorSums) -> dict[str, float]:
    """Return one client's own scores."""
    return {
        "nmae": sums.nmae,
        "mae_kwh": sums.mae_kwh,
        "rmse_kwh": sums.rmse_kwh,
        "mase": sums.mase,
        "nrmse": sums.nrmse,
        "bias": sums.bias,
        "pinball": sums.pinball,
        "coverage_80": sums.coverage_80,
        "width_80": sums.width_80,
        "winkler_80": sums.winkler_80,
        "crps": sums.crps,
        "mean_kwh": sums.mean_kwh,
        "points": float(sums.n),
    }


def share_better(
    ours: Mapping[str, ErrorSums], theirs: Mapping[str, ErrorSums], margin: float = 0.0
) -> float:
    """Return the share of the clients scored by both whose MAE is below `(1 − margin)` × theirs."""
    both = [name for name in ours if ours[name].n and name in theirs and theirs[name].n]
    wins = sum(ours[name].mae_kwh < (1 - margin) * theirs[name].mae_kwh for name in both)
    return ratio(float(wins), len(both))


def share_harmed(
    ours: Mapping[str, ErrorSums], theirs: Mapping[str, ErrorSums], margin: float = 0.01
) -> float:
    """Return the share of the clients scored by both whose MAE is above `(1 + margin)` × theirs."""
    both = [name for name in ours if ours[name].n and name in theirs and theirs[name].n]
    harmed = sum(ours[name].mae_kwh > (1 + margin) * theirs[name].mae_kwh for name in both)
    return ratio(float(harmed), len(both))


def _share_covered(clients: Iterable[ErrorSums]) -> float:
    own = _finite([sums.coverage_80 for sums in clients])
    low, high = COVERAGE_BAND
    return _mean(((low <= own) & (own <= high)).astype(np.float64))


def _finite(values: list[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")

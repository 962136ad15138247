"""The scores of published protocols, from sums that are added up block by block of windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.sums import ratio

Floats = NDArray[np.float64]

#: Levels of the CRPS of GIFT-Eval.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: Protocol to the scores that are its own.
PROTOCOL_SCORES: dict[str, tuple[str, ...]] = {
    "ltsf": ("protocol_mse", "protocol_mae"),
    "lstnet": ("protocol_rse", "protocol_corr"),
    "gift-eval": ("protocol_mase", "protocol_crps", "protocol_nd"),
    "buildingsbench": ("protocol_nrmse",),
}


@dataclass(frozen=True)
class Yardstick:
    """What one client's errors are measured by, from its readings before the validation.

    Attributes:
        mean_kwh: Their mean.
        deviation_kwh: Their deviation (divided by n); 1 where they never change, as scikit-learn's
            `StandardScaler` has it.
    """

    mean_kwh: float
    deviation_kwh: float

    @classmethod
    def of(cls, past_kwh: Floats) -> Yardstick:
        """Fit to readings; shape (T,), NaN where unknown; zero and one without any."""
        known = past_kwh[np.isfinite(past_kwh)]
        if not known.size:
            return cls(0.0, 1.0)
        return cls(float(known.mean()), float(known.std()) or 1.0)


@dataclass(frozen=True)
class ProtocolSums:
    """Sums over one client's scored points. d = load − mean, e = forecast − mean of the yardstick.

    Attributes:
        n: Points with a forecast.
        missing: Known points without one.
        sq_kwh2: Σ(m − y)², m the mean.
        abs_kwh: Σ|m − y|.
        d: Σd. dd: Σd². e: Σe. ee: Σe². de: Σde.
        load_kwh: Σ|y|.
        point_kwh: Σ|ŷ − y|, ŷ the median where there is one, else the mean.
        scaled: Σ|ŷ − y| / s, s the mean daily change of the window's past.
        n_scaled: Points of windows whose s is above zero.
        quantile_kwh: Σ of the mean over the nine levels of 2ρ_τ(y − q_τ).
        n_quantile: Points with all nine.
    """

    n: int = 0
    missing: int = 0
    sq_kwh2: float = 0.0
    abs_kwh: float = 0.0
    d: float = 0.0
    dd: float = 0.0
    e: float = 0.0
    ee: float = 0.0
    de: float = 0.0
    load_kwh: float = 0.0
    point_kwh: float = 0.0
    scaled: float = 0.0
    n_scaled: int = 0
    quantile_kwh: float = 0.0
    n_quantile: int = 0

    def __add__(self, other: ProtocolSums) -> ProtocolSums:
        return ProtocolSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def of(
        cls, forecast: Forecast, target_kwh: Floats, season_kwh: Floats, measure: Yardstick
    ) -> ProtocolSums:
        """Sum the errors of N windows.

        Shapes: forecast and target (N, H), kWh per step; `season_kwh` (N,), the mean daily change
        of each window's past, NaN where unknown. A target that is NaN is not scored.
        """
        known = np.isfinite(target_kwh)
        made = known & np.isfinite(forecast.mean_kwh) & np.isfinite(forecast.point_kwh)
        y, mean, point = target_kwh[made], forecast.mean_kwh[made], forecast.point_kwh[made]
        season = np.broadcast_to(season_kwh[:, None], target_kwh.shape)[made]
        usable = np.isfinite(season) & (season > 0)
        d, e = y - measure.mean_kwh, mean - measure.mean_kwh
        distance = np.abs(point - y)
        loss, n_quantile = _quantile_loss(forecast, target_kwh, made)
        return cls(
            n=y.size,
            missing=int(known.sum()) - y.size,
            sq_kwh2=float(((mean - y) ** 2).sum()),
            abs_kwh=float(np.abs(mean - y).sum()),
            d=float(d.sum()),
            dd=float((d * d).sum()),
            e=float(e.sum()),
            ee=float((e * e).sum()),
            de=float((d * e).sum()),
            load_kwh=float(np.abs(y).sum()),
            point_kwh=float(distance.sum()),
            scaled=float((distance[usable] / season[usable]).sum()),
            n_scaled=int(usable.sum()),
            quantile_kwh=loss,
            n_quantile=n_quantile,
        )


#: Client to what it is measured by and its sums.
Measured = Mapping[str, tuple[Yardstick, ProtocolSums]]


def protocol_scores(name: str, clients: Measured) -> dict[str, float]:
    """Return the scores of a protocol, `protocol_points` and `protocol_missing` beside them.

    `ltsf`: mean of the squared and of the absolute errors of the mean over all points, each in its
    client's deviations. `lstnet` (Lai et al. 2018, eq. 12 and 13): RSE = √(Σ(m − y)² / Σ(y − ȳ)²)
    over all points with one ȳ; CORR = mean of the clients' correlations, those whose load or
    forecast never changes left out. `gift-eval`: MASE = mean of |ŷ − y| over the mean daily change
    of the window's past; CRPS = Σ of the quantile losses (times two, mean of nine levels) over
    Σ|y|, NaN unless every point has the nine; ND = Σ|ŷ − y| / Σ|y|. `buildingsbench`: median of the
    clients' √(mean squared error) / mean load.

    Raises:
        KeyError: There is no protocol of that name.
    """
    wanted = PROTOCOL_SCORES[name]
    scored = [(own, sums) for own, sums in clients.values() if sums.n]
    total = sum((sums for _, sums in scored), start=ProtocolSums())
    scores = {
        "protocol_mse": ratio(sum(s.sq_kwh2 / m.deviation_kwh**2 for m, s in scored), total.n),
        "protocol_mae": ratio(sum(s.abs_kwh / m.deviation_kwh for m, s in scored), total.n),
        "protocol_rse": float(np.sqrt(ratio(total.sq_kwh2, _variation_kwh2(scored)))),
        "protocol_corr": _mean([_correlation(s) for _, s in scored]),
        "protocol_mase": ratio(total.scaled, total.n_scaled),
        "protocol_crps": ratio(total.quantile_kwh, total.load_kwh)
        if total.n_quantile == total.n
        else float("nan"),
        "protocol_nd": ratio(total.point_kwh, total.load_kwh),
        "protocol_nrmse": _median([_nrmse(m, s) for m, s in scored]),
    }
    missing = sum(sums.missing for _, sums in clients.values())
    own = {key: scores[key] for key in wanted}
    return {**own, "protocol_points": float(total.n), "protocol_missing": float(missing)}


# ------------------------------------------------------------------------------ internals
def _quantile_loss(
    forecast: Forecast, target_kwh: Floats, made: NDArray[np.bool_]
) -> tuple[float, int]:
    columns = [forecast.at(level) for level in LEVELS]
    loss, counted = np.zeros(target_kwh.shape), made.copy()
    for level, column in zip(LEVELS, columns, strict=True):
        if column is None:
            return 0.0, 0
        counted &= np.isfinite(column)
        above = target_kwh - column
        loss += 2 * np.maximum(level * above, (level - 1) * above)
    return float(loss[counted].sum()) / len(LEVELS), int(counted.sum())


def _variation_kwh2(scored: list[tuple[Yardstick, ProtocolSums]]) -> float:
    """Return Σ(y − ȳ)² over all points: within the clients, and between their means."""
    if not scored:
        return 0.0
    n = np.array([s.n for _, s in scored], dtype=np.float64)
    mean = np.array([m.mean_kwh + s.d / s.n for m, s in scored])
    within = np.array([s.dd - s.d**2 / s.n for _, s in scored])
    overall = float((n * mean).sum() / n.sum())
    return float(within.sum() + (n * (mean - overall) ** 2).sum())


def _correlation(s: ProtocolSums) -> float:
    load, made = s.dd - s.d**2 / s.n, s.ee - s.e**2 / s.n
    # What is left of a constant after rounding is no change.
    if load <= 1e-12 * max(s.dd, s.d**2) or made <= 1e-12 * max(s.ee, s.e**2):
        return float("nan")
    return (s.de - s.d * s.e / s.n) / float(np.sqrt(load * made))


def _nrmse(measure: Yardstick, s: ProtocolSums) -> float:
    load = measure.mean_kwh + s.d / s.n
    return float(np.sqrt(s.sq_kwh2 / s.n)) / load if load > 0 else float("nan")


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _median(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")

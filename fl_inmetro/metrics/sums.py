"""Error sums that merge: what a client reports instead of its readings.

`ErrorSums` is a commutative monoid under `+` with `ErrorSums()` as zero, so the order in which
clients answer, and how they are grouped, cannot change a score (to floating-point rounding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.forecast import Forecast

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorSums:
    """Sums over one client's scored points (target known and forecast present).

    Attributes:
        n: Number of scored points.
        abs_kwh: Σ|ŷ − y|.
        sq_kwh2: Σ(ŷ − y)².
        err_kwh: Σ(ŷ − y); positive = forecast too high.
        y_kwh: Σy over the scored points.
        n_load: Number of known target points, forecast or not.
        load_kwh: Σy over those.
        n_naive: Number of points in the scale of MASE.
        naive_abs_kwh: Σ|y_t − y_{t−168 h}| over the client's history before the test window.
    """

    n: int = 0
    abs_kwh: float = 0.0
    sq_kwh2: float = 0.0
    err_kwh: float = 0.0
    y_kwh: float = 0.0
    n_load: int = 0
    load_kwh: float = 0.0
    n_naive: int = 0
    naive_abs_kwh: float = 0.0

    @classmethod
    def of(
        cls, forecast_kwh: Floats | Forecast, target_kwh: Floats, load: ErrorSums | None = None
    ) -> ErrorSums:
        """Sum the errors of forecasts against targets; NaN on either side is not scored.

        Shapes: both (N, H) or (P,), kWh per step.

        >>> ErrorSums.of(np.array([2.0, np.nan]), np.array([1.0, 3.0])).abs_kwh
        1.0
        """
        if isinstance(forecast_kwh, Forecast):
            forecast_kwh = forecast_kwh.point_kwh
        known = np.isfinite(target_kwh)
        scored = known & np.isfinite(forecast_kwh)
        y = target_kwh[scored]
        error = forecast_kwh[scored] - y
        return cls(
            n=int(scored.sum()),
            abs_kwh=float(np.abs(error).sum()),
            sq_kwh2=float((error**2).sum()),
            err_kwh=float(error.sum()),
            y_kwh=float(y.sum()),
            n_load=int(known.sum()),
            load_kwh=float(target_kwh[known].sum()),
            n_naive=load.n_naive if load else 0,
            naive_abs_kwh=load.naive_abs_kwh if load else 0.0,
        )

    @classmethod
    def of_segments(
        cls,
        forecast_kwh: Floats | Forecast,
        target_kwh: Floats,
        count: NDArray[np.int64],
        loads: Sequence[ErrorSums | None],
    ) -> list[ErrorSums]:
        """Sum the errors of consecutive windows, segment by segment, as `of` does for one.

        Shapes: both (N, H); `count` (S,) windows in each segment, adding up to N.
        """
        if isinstance(forecast_kwh, Forecast):
            forecast_kwh = forecast_kwh.point_kwh
        known = np.isfinite(target_kwh)
        scored = known & np.isfinite(forecast_kwh)
        y = np.where(scored, target_kwh, 0.0)
        error = np.where(scored, forecast_kwh - target_kwh, 0.0)
        load = np.where(known, target_kwh, 0.0)
        points = (scored, np.abs(error), error**2, error, y, known, load)
        # One row of zeros behind: a segment without windows would otherwise take its neighbour's.
        rows = np.stack([np.append(p.sum(axis=1, dtype=np.float64), 0.0) for p in points])
        start = np.cumsum(count) - count
        sums = np.where(count > 0, np.add.reduceat(rows, start, axis=1), 0.0).T.tolist()
        return [
            cls(
                n=int(n),
                abs_kwh=absolute,
                sq_kwh2=square,
                err_kwh=err,
                y_kwh=of_scored,
                n_load=int(n_load),
                load_kwh=of_known,
                n_naive=scale.n_naive if scale else 0,
                naive_abs_kwh=scale.naive_abs_kwh if scale else 0.0,
            )
            for (n, absolute, square, err, of_scored, n_load, of_known), scale in zip(
                sums, loads, strict=True
            )
        ]

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mae_kwh(self) -> float:
        """Mean absolute error per step, kWh."""
        return _ratio(self.abs_kwh, self.n)

    @property
    def rmse_kwh(self) -> float:
        """Root mean squared error per step, kWh."""
        return float(np.sqrt(_ratio(self.sq_kwh2, self.n)))

    @property
    def mean_kwh(self) -> float:
        """Mean known load per step in the window, kWh."""
        return _ratio(self.load_kwh, self.n_load)

    @property
    def nmae(self) -> float:
        """MAE of the scored points over the mean load of the whole window.

        NaN unless that mean is above zero: a net producer has no scale of this kind.
        """
        return _ratio(self.mae_kwh, max(self.mean_kwh, 0.0))

    @property
    def nrmse(self) -> float:
        """RMSE of the scored points over the mean load of the window (CV-RMSE); NaN as `nmae`."""
        return _ratio(self.rmse_kwh, max(self.mean_kwh, 0.0))

    @property
    def wmape(self) -> float:
        """Σ|error| / Σload over the scored points."""
        return _ratio(self.abs_kwh, self.y_kwh)

    @property
    def bias(self) -> float:
        """Σerror / Σload over the scored points; positive = too high."""
        return _ratio(self.err_kwh, self.y_kwh)

    @property
    def mase(self) -> float:
        """MAE over the mean absolute weekly change of the past (Hyndman & Koehler 2006, eq. 3.2,
        with a season of 168 h)."""
        return _ratio(self.mae_kwh, _ratio(self.naive_abs_kwh, self.n_naive))


#: Names of the sums, in the order in which they travel.
SUM_NAMES: tuple[str, ...] = tuple(field.name for field in fields(ErrorSums))


def naive_scale(past_kwh: Floats, steps_per_week: int) -> ErrorSums:
    """Return the scale sums of MASE(168 h) of one client's past.

    Shapes: past (T,), kWh per step, NaN where unknown.
    """
    if past_kwh.size <= steps_per_week:
        return ErrorSums()
    change = np.abs(past_kwh[steps_per_week:] - past_kwh[:-steps_per_week])
    known = np.isfinite(change)
    return ErrorSums(n_naive=int(known.sum()), naive_abs_kwh=float(change[known].sum()))


def score_fleet(clients: Mapping[str, ErrorSums]) -> dict[str, float]:
    """Score a fleet from its clients' sums.

    `nmae`, `nrmse` and `mase` are means over the clients (each counts once); `wmape`, `mae_kwh`,
    `rmse_kwh` and `bias` are of the points (each point counts once). `worst_decile_nmae` is the
    mean nMAE of the worst 10 % of the clients (at least one). Clients without a scored point do
    not count; a client whose load is not above zero counts in the point scores only.
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
        "bias": sums.bias,
        "mean_kwh": sums.mean_kwh,
        "points": float(sums.n),
    }


def share_better(
    ours: Mapping[str, ErrorSums], theirs: Mapping[str, ErrorSums], margin: float = 0.0
) -> float:
    """Return the share of the clients scored by both whose MAE is below `(1 − margin)` × theirs."""
    both = [name for name in ours if ours[name].n and name in theirs and theirs[name].n]
    wins = sum(ours[name].mae_kwh < (1 - margin) * theirs[name].mae_kwh for name in both)
    return _ratio(float(wins), len(both))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def _finite(values: list[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")

"""Error sums that merge: what a client reports instead of its readings.

`ErrorSums` is a commutative monoid under `+` with `ErrorSums()` as zero, so the order in which
clients answer, and how they are grouped, cannot change a score (to floating-point rounding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.forecast import SAME_LEVEL, Forecast

Floats = NDArray[np.float64]


#: Share of the points that an 80 % interval leaves out.
_ALPHA = 0.2

#: Levels that the pinball score and the 80 % interval are made of.
SCORED_LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class ErrorSums:
    """Sums over one client's scored points (target known and forecast present).

    ŷ is the median where the forecaster has one, else the mean; m is the mean. A forecast without
    quantiles has no pinball loss: its `n_q` and what follows stay zero, and the scores made of them
    are NaN.

    Attributes:
        n: Number of scored points.
        abs_kwh: Σ|ŷ − y|.
        sq_kwh2: Σ(m − y)².
        err_kwh: Σ(m − y); positive = forecast too high.
        y_kwh: Σy over the scored points.
        n_load: Number of known target points, forecast or not.
        load_kwh: Σy over those.
        n_naive: Number of points in the scale of MASE.
        naive_abs_kwh: Σ|y_t − y_{t−168 h}| over the client's history before the test window.
        n_q: Scored points with all quantiles, those of 10, 50 and 90 % among them.
        pinball_kwh: Over those, Σ of the mean of ρ_τ(y − q_τ) at τ = 0.1, 0.5, 0.9, where
            ρ_τ(u) = max(τu, (τ − 1)u): no factor of two (Koenker & Bassett 1978).
        inside_80: Number of those with q_0.1 ≤ y ≤ q_0.9.
        width_80_kwh: Σ(q_0.9 − q_0.1).
        winkler_80_kwh: Σ of the interval score of that interval, width + (2/α) · distance of y
            from it, α = 0.2 (Gneiting & Raftery 2007, eq. 43; Winkler 1972).
        wql_kwh: Σ of the mean over all the forecast's levels of 2ρ_τ(y − q_τ): the CRPS, as far as
            evenly spaced levels give it (Gneiting & Ranjan 2011, eq. 12).
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
    n_q: int = 0
    pinball_kwh: float = 0.0
    inside_80: int = 0
    width_80_kwh: float = 0.0
    winkler_80_kwh: float = 0.0
    wql_kwh: float = 0.0

    @classmethod
    def of(
        cls, forecast: Floats | Forecast, target_kwh: Floats, load: ErrorSums | None = None
    ) -> ErrorSums:
        """Sum the errors of forecasts against targets; NaN on either side is not scored.

        Shapes: forecast (N, H) or (P,), quantiles with an axis of levels behind; target alike, kWh
        per step. An array is a mean without quantiles. `load` holds the scale of MASE.

        >>> ErrorSums.of(np.array([2.0, np.nan]), np.array([1.0, 3.0])).abs_kwh
        1.0
        """
        sums = {name: float(p.sum()) for name, p in _points(forecast, target_kwh).items()}
        return cls._with_scale(sums, load)

    @classmethod
    def of_segments(
        cls,
        forecast: Floats | Forecast,
        target_kwh: Floats,
        count: NDArray[np.int64],
        loads: Sequence[ErrorSums | None],
    ) -> list[ErrorSums]:
        """Sum the errors of consecutive windows, segment by segment, as `of` does for one.

        Shapes: forecast and target (N, H); `count` (S,) windows in each segment, adding up to N.
        """
        points = _points(forecast, target_kwh)
        # One row of zeros behind: a segment without windows would otherwise take its neighbour's.
        rows = np.stack([np.append(p.sum(axis=1, dtype=np.float64), 0.0) for p in points.values()])
        start = np.cumsum(count) - count
        sums = np.where(count > 0, np.add.reduceat(rows, start, axis=1), 0.0).T.tolist()
        return [
            cls._with_scale(dict(zip(points, row, strict=True)), scale)
            for row, scale in zip(sums, loads, strict=True)
        ]

    @classmethod
    def _with_scale(cls, sums: Mapping[str, float], scale: ErrorSums | None) -> ErrorSums:
        own = {name: int(v) if name in COUNTS else v for name, v in sums.items()}
        if scale:
            own |= {"n_naive": scale.n_naive, "naive_abs_kwh": scale.naive_abs_kwh}
        return cls(**own)  # type: ignore[arg-type]  # int and float by name, above

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mae_kwh(self) -> float:
        """Mean absolute error per step, kWh."""
        return ratio(self.abs_kwh, self.n)

    @property
    def rmse_kwh(self) -> float:
        """Root mean squared error per step, kWh."""
        return float(np.sqrt(ratio(self.sq_kwh2, self.n)))

    @property
    def mean_kwh(self) -> float:
        """Mean known load per step in the window, kWh."""
        return ratio(self.load_kwh, self.n_load)

    @property
    def nmae(self) -> float:
        """MAE of the scored points over the mean load of the whole window.

        NaN unless that mean is above zero: a net producer has no scale of this kind.
        """
        return ratio(self.mae_kwh, max(self.mean_kwh, 0.0))

    @property
    def nrmse(self) -> float:
        """RMSE of the scored points over the mean load of the window (CV-RMSE); NaN as `nmae`."""
        return ratio(self.rmse_kwh, max(self.mean_kwh, 0.0))

    @property
    def wmape(self) -> float:
        """Σ|error| / Σload over the scored points."""
        return ratio(self.abs_kwh, self.y_kwh)

    @property
    def bias(self) -> float:
        """Σerror / Σload over the scored points; positive = too high."""
        return ratio(self.err_kwh, self.y_kwh)

    @property
    def mase(self) -> float:
        """MAE over the mean absolute weekly change of the past (Hyndman & Koehler 2006, eq. 3.2,
        with a season of 168 h)."""
        return ratio(self.mae_kwh, ratio(self.naive_abs_kwh, self.n_naive))

    @property
    def pinball(self) -> float:
        """Mean pinball loss at 10, 50 and 90 % over the mean load; NaN without quantiles."""
        return self._per_load(self.pinball_kwh)

    @property
    def coverage_80(self) -> float:
        """Share of the points that lie between the quantiles of 10 and 90 % (PICP)."""
        return ratio(self.inside_80, self.n_q)

    @property
    def width_80(self) -> float:
        """Mean width of that interval over the mean load (MPIW, normalised)."""
        return self._per_load(self.width_80_kwh)

    @property
    def winkler_80(self) -> float:
        """Mean interval score over the mean load."""
        return self._per_load(self.winkler_80_kwh)

    @property
    def crps(self) -> float:
        """Mean of 2ρ over points and all levels, over the mean load."""
        return self._per_load(self.wql_kwh)

    def _per_load(self, sum_kwh: float) -> float:
        return ratio(ratio(sum_kwh, self.n_q), max(self.mean_kwh, 0.0))


#: Names of the sums, in the order in which they travel.
SUM_NAMES: tuple[str, ...] = tuple(field.name for field in fields(ErrorSums))

#: Those that count points.
COUNTS = frozenset({"n", "n_load", "n_naive", "n_q", "inside_80"})

#: Those that no readings make negative.
NEVER_NEGATIVE = COUNTS | {
    "abs_kwh",
    "sq_kwh2",
    "naive_abs_kwh",
    "pinball_kwh",
    "width_80_kwh",
    "winkler_80_kwh",
    "wql_kwh",
}


def naive_scale(past_kwh: Floats, steps_per_week: int) -> ErrorSums:
    """Return the scale sums of MASE(168 h) of one client's past.

    Shapes: past (T,), kWh per step, NaN where unknown.
    """
    if past_kwh.size <= steps_per_week:
        return ErrorSums()
    change = np.abs(past_kwh[steps_per_week:] - past_kwh[:-steps_per_week])
    known = np.isfinite(change)
    return ErrorSums(n_naive=int(known.sum()), naive_abs_kwh=float(change[known].sum()))


# ------------------------------------------------------------------------------ internals
def _points(forecast: Floats | Forecast, target_kwh: Floats) -> dict[str, Floats]:
    """Return each point's share in each sum, zero where it has none; shapes as the target."""
    if not isinstance(forecast, Forecast):
        forecast = Forecast(forecast)
    point, mean = forecast.point_kwh, forecast.mean_kwh
    known = np.isfinite(target_kwh)
    scored = known & np.isfinite(point) & np.isfinite(mean)
    with np.errstate(invalid="ignore"):  # of points that are not scored
        error = np.where(scored, mean - target_kwh, 0.0)
        distance = np.where(scored, np.abs(point - target_kwh), 0.0)
    return {
        "n": scored.astype(np.float64),
        "abs_kwh": distance,
        "sq_kwh2": error**2,
        "err_kwh": error,
        "y_kwh": np.where(scored, target_kwh, 0.0),
        "n_load": known.astype(np.float64),
        "load_kwh": np.where(known, target_kwh, 0.0),
        **_quantile_points(forecast, target_kwh, scored),
    }


def _quantile_points(
    forecast: Forecast, target_kwh: Floats, scored: NDArray[np.bool_]
) -> dict[str, Floats]:
    low, _, high = (forecast.at(level) for level in SCORED_LEVELS)
    if forecast.quantiles_kwh is None or low is None or high is None or forecast.at(0.5) is None:
        return {}
    counted = scored & np.isfinite(forecast.quantiles_kwh).all(axis=-1)
    # Level by level: all at once would hold a second array of the size of the quantiles.
    pinball, every = np.zeros(target_kwh.shape), np.zeros(target_kwh.shape)
    with np.errstate(invalid="ignore"):  # of points that are not counted
        for k, level in enumerate(forecast.levels):
            above = target_kwh - forecast.quantiles_kwh[..., k]
            loss = np.maximum(level * above, (level - 1) * above)
            every += loss
            if any(abs(level - own) < SAME_LEVEL for own in SCORED_LEVELS):
                pinball += loss
        # Rounding may leave an upper quantile a hair below a lower one.
        width = np.maximum(high - low, 0.0)
        outside = np.maximum(low - target_kwh, 0.0) + np.maximum(target_kwh - high, 0.0)
        points = {
            "n_q": np.ones(target_kwh.shape),
            "pinball_kwh": pinball / len(SCORED_LEVELS),
            "inside_80": ((low <= target_kwh) & (target_kwh <= high)).astype(np.float64),
            "width_80_kwh": width,
            "winkler_80_kwh": width + 2 / _ALPHA * outside,
            "wql_kwh": 2 * every / len(forecast.levels),
        }
    return {name: np.where(counted, values, 0.0) for name, values in points.items()}


def ratio(numerator: float, denominator: float) -> float:
    """Return a quotient; NaN over zero."""
    return numerator / denominator if denominator else float("nan")

"""Whether quantiles mean what they say: observed frequency by level, coverage by client and hour.

A reading equal to a quantile counts as not above it, so where a load is often exactly zero the
observed frequency of the low levels lies above the nominal one even for a right forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.points import Points

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Ends of the interval that coverage and width are of.
LOW, HIGH = 0.1, 0.9


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often readings lie where the quantiles say.

    Attributes:
        points: Scored points with all quantiles.
        levels: The nominal levels, (Q,).
        observed: Shape (Q,), share of the points not above the quantile of that level.
        clients: The clients that have such points, sorted by their coverage.
        coverage: Shape (K,), each one's share of points in the 80 % interval; NaN throughout where
            the forecast has no quantiles of 10 and 90 %.
        width: Shape (K,), its mean width over the client's mean load; NaN for a load that is not
            above zero.
        hour_coverage: Shape (24,), share of the points in the interval by local hour; NaN = none.
        hour_width: Shape (24,), mean over clients of their mean width in that hour over their
            mean load.
    """

    points: int
    levels: tuple[float, ...]
    observed: Floats
    clients: tuple[str, ...]
    coverage: Floats
    width: Floats
    hour_coverage: Floats
    hour_width: Floats

    @property
    def deviation(self) -> float:
        """Mean distance of observed from nominal frequency over the levels."""
        return float(np.abs(self.observed - np.array(self.levels)).mean())


def calibration(points: Points, timezone: str) -> Calibration | None:
    """Compare quantiles with what was measured; None where no scored point has all quantiles.

    Args:
        points: Forecasts with quantiles.
        timezone: Clock of the hours.
    """
    quantiles = points.forecast.quantiles_kwh
    if quantiles is None:
        return None
    counted = points.take(points.scored & np.isfinite(quantiles).all(axis=1))
    if not len(counted) or counted.forecast.quantiles_kwh is None:
        return None
    load = counted.observed_kwh
    observed = (load[:, None] <= counted.forecast.quantiles_kwh).mean(axis=0)
    low, high = counted.forecast.at(LOW), counted.forecast.at(HIGH)
    size = len(counted.names)
    n = np.bincount(counted.client, minlength=size)
    inside, width = np.full(len(load), np.nan), np.full(len(load), np.nan)
    if low is not None and high is not None:
        inside = ((low <= load) & (load <= high)).astype(np.float64)
        width = np.maximum(high - low, 0.0)
    mean_load = _per(counted.client, load, size)
    relative = width / np.where(mean_load > 0, mean_load, np.nan)[counted.client]
    coverage = _per(counted.client, inside, size)
    own = np.array(sorted(np.flatnonzero(n), key=lambda k: (coverage[k], counted.names[k])))
    hours = local_hours(counted.target_utc_s, timezone)
    return Calibration(
        points=len(counted),
        levels=counted.forecast.levels,
        observed=observed,
        clients=tuple(counted.names[k] for k in own),
        coverage=coverage[own],
        width=_per(counted.client, relative, size)[own],
        hour_coverage=_per(hours, inside, 24),
        hour_width=_by_client_and_hour(counted.client, hours, relative, size),
    )


def local_hours(instants_utc_s: Ints, timezone: str) -> Ints:
    """Return the hour (0 … 23) that clocks of a time zone show; shapes (R,)."""
    zone = ZoneInfo(timezone)
    # A year of hourly steps has 8760 instants, however many clients share them.
    instants, place = np.unique(instants_utc_s, return_inverse=True)
    hours = [datetime.fromtimestamp(int(t), UTC).astimezone(zone).hour for t in instants]
    found: Ints = np.array(hours, dtype=np.int64)[place.reshape(-1)]
    return found


# ------------------------------------------------------------------------------ internals
def _per(group: Ints, values: Floats, size: int) -> Floats:
    """Return the mean of the values of each group; NaN for a group without any."""
    total = np.bincount(group, weights=values, minlength=size)
    count = np.bincount(group, minlength=size)
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _by_client_and_hour(client: Ints, hours: Ints, width: Floats, size: int) -> Floats:
    each = _per(client * 24 + hours, width, size * 24).reshape(size, 24)
    known = np.isfinite(each)
    total = np.where(known, each, 0.0).sum(axis=0)
    means: Floats = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return means

"""Forecasts of many clients, point by point, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.metrics.forecast import Forecast
from fl_inmetro.metrics.sums import ErrorSums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Points:
    """R forecasts of single steps, as a table of forecasts has them.

    Attributes:
        names: The K clients, sorted.
        client: Shape (R,), places in `names`.
        issue_utc_s: Shape (R,), epoch seconds of the issue.
        target_utc_s: Shape (R,), epoch seconds at which the step begins.
        forecast: Mean of shape (R,), quantiles of shape (R, Q); kWh per step.
        observed_kwh: Shape (R,); NaN where unknown.
    """

    names: tuple[str, ...]
    client: Ints
    issue_utc_s: Ints
    target_utc_s: Ints
    forecast: Forecast
    observed_kwh: Floats

    def __len__(self) -> int:
        return int(self.client.size)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Points:
        """Return some of the points; `names` stay."""
        return replace(
            self,
            client=self.client[rows],
            issue_utc_s=self.issue_utc_s[rows],
            target_utc_s=self.target_utc_s[rows],
            forecast=self.forecast.take(rows),
            observed_kwh=self.observed_kwh[rows],
        )

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Shape (R,): where load, median and mean are known."""
        forecast = self.forecast
        known = np.isfinite(self.observed_kwh) & np.isfinite(forecast.mean_kwh)
        return known & np.isfinite(forecast.point_kwh)

    def sums(self) -> dict[str, ErrorSums]:
        """Return each client's error sums, without the scale of MASE."""
        order = np.argsort(self.client, kind="stable")
        sorted_ = self.take(order)
        ends = np.searchsorted(sorted_.client, np.arange(1, len(self.names) + 1))
        starts = np.concatenate([[0], ends[:-1]])
        return {
            name: ErrorSums.of(
                sorted_.forecast.take(slice(int(start), int(end))),
                sorted_.observed_kwh[start:end],
            )
            for name, start, end in zip(self.names, starts, ends, strict=True)
        }

"""What a forecaster says: a mean, and quantiles where it has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_QUANTILE = re.compile(r"q(\d+(?:_\d+)?)")

#: Two levels closer than this are the same.
SAME_LEVEL = 1e-9


@dataclass(frozen=True, eq=False)
class Forecast:
    """Forecasts of N windows of H steps, kWh per step.

    Attributes:
        mean_kwh: Shape (N, H), the expected energy; NaN where there is no forecast.
        levels: The levels of the quantiles, ascending, each in (0, 1); empty where there are none.
        quantiles_kwh: Shape (N, H, Q), never falling along the last axis; NaN where there is no
            forecast.
    """

    mean_kwh: Floats
    levels: tuple[float, ...] = ()
    quantiles_kwh: Floats | None = None

    def __post_init__(self) -> None:
        if self.quantiles_kwh is None:
            if self.levels:
                raise ValueError("levels without quantiles")
            return
        if self.quantiles_kwh.shape != (*self.mean_kwh.shape, len(self.levels)):
            raise ValueError(
                f"quantiles of shape {self.quantiles_kwh.shape}, a mean of shape "
                f"{self.mean_kwh.shape} and {len(self.levels)} levels do not go together"
            )
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must be different and ascending")

    @property
    def point_kwh(self) -> Floats:
        """Shape (N, H): the median, where the forecaster has one, else the mean.

        The median is the forecast that makes the absolute error smallest, the mean the one that
        makes the squared error smallest (Gneiting 2011, "Making and evaluating point forecasts"),
        so MAE, nMAE, wMAPE and MASE score this, RMSE, NRMSE and bias the mean.
        """
        median = self.at(0.5)
        return self.mean_kwh if median is None else median

    def at(self, level: float) -> Floats | None:
        """Return the quantile of a level, shape (N, H); None where it is not among the levels."""
        for k, own in enumerate(self.levels):
            if self.quantiles_kwh is not None and abs(own - level) < SAME_LEVEL:
                column: Floats = self.quantiles_kwh[..., k]
                return column
        return None

    def take(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Forecast:
        """Return the forecasts of some windows."""
        quantiles = None if self.quantiles_kwh is None else self.quantiles_kwh[rows]
        return replace(self, mean_kwh=self.mean_kwh[rows], quantiles_kwh=quantiles)


def joined_forecasts(parts: Sequence[Forecast]) -> Forecast:
    """Return the windows of several forecasts of the same levels as one.

    Raises:
        ValueError: There is no part, or the levels differ.
    """
    if len({part.levels for part in parts}) != 1:
        raise ValueError("forecasts of different levels cannot be joined")
    mean = np.concatenate([part.mean_kwh for part in parts])
    quantiles = [part.quantiles_kwh for part in parts if part.quantiles_kwh is not None]
    return Forecast(mean, parts[0].levels, np.concatenate(quantiles) if quantiles else None)


def quantile_column(level: float) -> str:
    """Return the column of a quantile in a table of forecasts: `q10`, `q2_5` for 2.5 %.

    >>> quantile_column(0.9), quantile_column(0.025)
    ('q90', 'q2_5')
    """
    return "q" + f"{100 * level:.6g}".replace(".", "_")


def level_of_column(name: str) -> float | None:
    """Return the level of a quantile's column; None for a column of something else.

    >>> level_of_column("q2_5"), level_of_column("mean")
    (0.025, None)
    """
    found = _QUANTILE.fullmatch(name)
    if not found:
        return None
    level = float(found[1].replace("_", ".")) / 100
    return level if 0 < level < 1 else None

"""How long a cell will live, from its first hundred cycles: log-linear, exact over laboratories.

    log₁₀ life = β₀ + β₁·log₁₀ var ΔQ₁₀₀₋₁₀(V) + …,

ΔQ₁₀₀₋₁₀(V) = Q₁₀₀(V) − Q₁₀(V) over the voltages of a discharge (Severson et al., Nature Energy 4
(2019) 383, the *variance* model). Laboratories or batches of cells are clients and send sums once.

10 to the predicted logarithm is the median life; the mean of a log-normal life is exp(s²/2) of it,
s = σ·ln 10, and has the smaller squared error (Aitchison and Brown, *The Lognormal Distribution*,
1957).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.batteries import Lives
from fl_inmetro.ev.calibration import Sums
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.regression import INTERCEPT, Regression, only, regress, sums_of_rows, without

#: Features of a cell's first hundred cycles, and what some of them are over.
NAMES = (
    INTERCEPT,
    "log10_var_dq",
    "log10_min_dq",
    "log10_mean_dq",
    "capacity_first_ah",
    "capacity_last_ah",
    "capacity_rise_ah",
    "fade_mah_per_cycle",
    "late_fade_mah_per_cycle",
)

#: The paper's one-feature model.
VARIANCE = (INTERCEPT, "log10_var_dq")

#: Over the last cycles of these a late fade is found.
_LATE = 10


def fade_features(lives: Lives) -> Floats:
    """Return `NAMES` of each cell [cell, name]; no cycle after the hundredth is read.

    `log10_min_dq` and `log10_mean_dq` are of the sizes of ΔQ's minimum and mean; `capacity_rise` is
    the largest capacity over the first one; fades are slopes of the capacity (least squares) over
    all and over the last ten cycles, positive where it falls. Records left out do not count.

    Raises:
        DataError: FL221, a cell has fewer than three capacities there, or a ΔQ without any change.
    """
    rows = []
    faults = []
    for name, capacity, dq in zip(lives.cells, lives.capacity_ah, lives.delta_q_ah, strict=True):
        known = np.flatnonzero(np.isfinite(capacity))
        late = known[known >= len(capacity) - _LATE]
        if len(late) < 3 or np.var(dq) == 0 or dq.mean() == 0 or dq.min() == 0:
            what = "fewer than three late capacities, or a curve without change"
            faults.append(Fault("FL221", what, f"cell {name}"))
            continue
        values = capacity[known]
        rows.append(
            [
                1.0,
                float(np.log10(np.var(dq))),
                float(np.log10(abs(dq.min()))),
                float(np.log10(abs(dq.mean()))),
                float(values[0]),
                float(values[-1]),
                float(values.max() - values[0]),
                -1e3 * _slope(lives.cycle[known], values),
                -1e3 * _slope(lives.cycle[late], capacity[late]),
            ]
        )
    if faults:
        raise DataError(faults)
    return np.array(rows)


def life_sums(features: Floats, life_cycles: Floats) -> Sums:
    """Return what leaves a laboratory: sums over its cells, of all features.

    Args:
        features: See `fade_features` [cell, name].
        life_cycles: [cell].
    """
    return sums_of_rows(NAMES, features, np.log10(life_cycles))


@dataclass(frozen=True)
class LifeModel:
    """A fitted model of cycle life.

    Attributes:
        regression: Of log₁₀ life.
    """

    regression: Regression

    def columns(self, features: Floats) -> Floats:
        """Return the columns that it reads [cell, column] from all features."""
        return features[:, [NAMES.index(name) for name in self.regression.names]]

    def median_cycles(self, features: Floats) -> Floats:
        """Return median lives [cell], as the paper does."""
        life: Floats = 10 ** self.regression.predict(self.columns(features))
        return life

    def mean_cycles(self, features: Floats) -> Floats:
        """Return mean lives [cell] of a log-normal law."""
        spread = self.regression.noise * np.log(10)
        return self.median_cycles(features) * float(np.exp(spread**2 / 2))

    def interval_cycles(self, features: Floats, level: float = 0.8) -> tuple[Floats, Floats]:
        """Return low and high of new cells' lives [cell]."""
        low, high = self.regression.prediction_interval(self.columns(features), level)
        return 10**low, 10**high


def life_model(sums: Sums, columns: Sequence[str] = VARIANCE) -> LifeModel:
    """Fit to sums of one laboratory or of all.

    Raises:
        FederationError: FL371, the cells do not decide it; FL372, there is no such column.
    """
    return LifeModel(regress(only(sums, columns)))


def left_out_rmse_cycles(
    features: Floats, life_cycles: Floats, columns: Sequence[str] = VARIANCE, mean: bool = True
) -> float:
    """Return the RMSE of lives when each of these cells is left out in turn, in cycles.

    Args:
        features: Of the training cells [cell, name].
        life_cycles: Of the same [cell].
        columns: Of the model.
        mean: Whether mean lives are told, or median ones.
    """
    whole = life_sums(features, life_cycles)
    errors = []
    for i in range(len(features)):
        cell = features[i : i + 1]
        model = life_model(without(whole, life_sums(cell, life_cycles[i : i + 1])), columns)
        told = model.mean_cycles(cell) if mean else model.median_cycles(cell)
        errors.append(float(told[0] - life_cycles[i]))
    return float(np.sqrt(np.mean(np.square(errors))))


def _slope(x: Floats | np.ndarray[tuple[int, ...], np.dtype[np.int64]], y: Floats) -> float:
    away = x - np.mean(x)
    return float(away @ (y - y.mean()) / (away @ away))

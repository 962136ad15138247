"""Federated ridge: clients send sums once, the server solves."""

from __future__ import annotations

import numpy as np

from fl_inmetro.config.models import Ridge
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import Forecast
from fl_inmetro.models import ridge
from fl_inmetro.models.design import Design, row_design


class RidgeLearner:
    """Ridge regression on the row features; exact in one round (see `models/ridge.py`)."""

    name = "ridge"
    closed_form = True

    def __init__(self, settings: Ridge) -> None:
        self.settings = settings

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the row features."""
        return row_design(windows, self.settings.features, targets=targets)

    def enrol(self, design: Design) -> Arrays:
        """Ridge needs nothing before its round."""
        return {}

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Start from the base profile: all coefficients zero."""
        width = shape[-1]
        return {
            "coefficients": np.zeros(width + 1),
            "x_mean": np.zeros(width),
            "x_std": np.zeros(width),
        }

    def private(self, state: Arrays) -> frozenset[str]:
        """Return nothing: the solution is one for all."""
        return frozenset()

    def update(
        self, state: Arrays, design: Design, work: LocalWork, seed: int, *, debug: bool = False
    ) -> tuple[Arrays, float]:
        """Return the client's sums, and the mean squared residual of the base profile."""
        known = design.known.astype(bool)
        loss = float(np.mean(design.residual[known] ** 2)) if known.any() else float("nan")
        return dict(ridge.sufficient_statistics(design)), loss

    def sums_like(self, state: Arrays) -> Arrays:
        """Return zeros of the shapes of the sums: (F+1, F+1), (F+1,) and (1,)."""
        size = len(state["coefficients"])
        return {"gram": np.zeros((size, size)), "moment": np.zeros(size), "square": np.zeros(1)}

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Solve from the summed statistics."""
        return dict(ridge.solve(merged, self.settings.alpha))

    def forecast(self, state: Arrays, design: Design) -> Forecast:
        """Forecast the mean in kWh."""
        return Forecast(design.to_kwh(ridge.correction(state, design.x)))

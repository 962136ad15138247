"""Federated linear quantile regression: ridge's round, then rounds of weighted sums."""

from __future__ import annotations

import numpy as np

from fl_inmetro.config.models import QuantileLinear
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import Forecast
from fl_inmetro.models import quantile_linear, ridge
from fl_inmetro.models.design import Design, row_design


class QuantileLinearLearner:
    """A mean and quantiles, each linear in the row features (see `models/quantile_linear.py`).

    The first round is ridge's: it gives the mean, the features' moments, and where the levels
    start. In every round after it clients send weighted sums at the present coefficients.
    """

    name = "quantile_linear"
    closed_form = True

    def __init__(self, settings: QuantileLinear) -> None:
        self.settings = settings

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the row features."""
        return row_design(windows, self.settings.features, targets=targets)

    def enrol(self, design: Design) -> Arrays:
        """Nothing is needed before the first round."""
        return {}

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Start from the base profile: all coefficients zero, and a gain that says so."""
        width, levels = shape[-1], len(self.settings.levels)
        return {
            "coefficients": np.zeros((1 + levels, width + 1)),
            "x_mean": np.zeros(width),
            "x_std": np.zeros(width),
            "smoothing": np.zeros(levels),
            "gain": np.full(levels, -1.0),
        }

    def private(self, state: Arrays) -> frozenset[str]:
        """Return nothing: the solution is one for all."""
        return frozenset()

    def update(
        self, state: Arrays, design: Design, work: LocalWork, seed: int, *, debug: bool = False
    ) -> tuple[Arrays, float]:
        """Return the client's sums, and its mean pinball loss at the state it was sent."""
        levels, of_levels = self.settings.levels, state["coefficients"][1:]
        if not _begun(state):
            sums = ridge.sufficient_statistics(design)
            return dict(sums), quantile_linear.mean_pinball(design, levels, of_levels)
        weighted, loss = quantile_linear.weighted_statistics(
            design, levels, of_levels, state["smoothing"]
        )
        return dict(weighted), loss

    def sums_like(self, state: Arrays) -> Arrays:
        """Return zeros of the shapes of the sums: ridge's in the first round, then the levels'."""
        levels, size = len(state["smoothing"]), state["coefficients"].shape[1]
        if not _begun(state):
            return {"gram": np.zeros((size, size)), "moment": np.zeros(size), "square": np.zeros(1)}
        return {
            "gram": np.zeros((levels, size, size)),
            "moment": np.zeros((levels, size)),
            "points": np.zeros(1),
            "square": np.zeros(levels),
        }

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Return the next coefficients from the summed statistics."""
        alpha = self.settings.alpha
        if not _begun(state):
            return dict(quantile_linear.begin(merged, self.settings.levels, alpha))
        return dict(quantile_linear.improve(state, merged, alpha))

    def is_done(self, state: Arrays) -> bool:
        """Tell whether no level would gain more than `tolerance` from another round."""
        return _begun(state) and bool((state["gain"] <= self.settings.tolerance).all())

    def forecast(self, state: Arrays, design: Design) -> Forecast:
        """Forecast mean and quantiles in kWh; quantiles are sorted, so that they do not cross."""
        given = quantile_linear.correction(state, design.x)
        quantiles = np.sort(given[..., 1:], axis=-1)
        mean, levels = design.to_kwh(given[..., 0]), self.settings.levels
        return Forecast(mean, levels, design.to_kwh(quantiles))


def rounds_of(learner: Learner, asked: int) -> int:
    """Return how many rounds a learner takes at most, where `asked` are asked of the others."""
    if isinstance(learner, QuantileLinearLearner):
        return learner.settings.rounds
    return 1 if learner.closed_form else asked


def is_done(learner: Learner, state: Arrays) -> bool:
    """Tell whether a learner that takes several rounds of sums needs no more."""
    return isinstance(learner, QuantileLinearLearner) and learner.is_done(state)


def _begun(state: Arrays) -> bool:
    return bool((state["gain"] >= 0).all())

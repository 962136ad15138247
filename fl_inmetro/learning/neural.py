"""The gradient models as learners: what each sees of a client, and how it starts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_inmetro.config import models as settings_of
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.history import SLOT_LEVELS
from fl_inmetro.data.short_history import shortened, silenced
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.update import Arrays
from fl_inmetro.models.design import (
    Base,
    Design,
    context_design,
    context_steps,
    profile_design,
    row_design,
)
from fl_inmetro.models.heads import Copies, Head, QuantileHead
from fl_inmetro.models.networks import (
    NLinear,
    PatchTst,
    RecurrentForecaster,
    RowMlp,
    WindowMlp,
    initial_parameters,
)


class MlpLearner(GradientLearner):
    """The row-wise MLP; its features are standardised by federated mean and variance."""

    name = "mlp"

    def __init__(self, settings: settings_of.Mlp) -> None:
        super().__init__(settings)
        self.mlp = settings

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the row features; to train on, with some pasts hidden where that is chosen."""
        if targets and self.mlp.short_histories:
            windows = shortened(windows, self.mlp.short_histories)
        if targets and self.mlp.hidden_endings:
            windows = silenced(windows, self.mlp.hidden_endings)
        return self.head.seen(row_design(windows, self.mlp.features, targets=targets))

    def enrol(self, design: Design) -> Arrays:
        """Return n, Σx and Σx² of the training rows; summed, they give the pooled moments."""
        return moments(design.trainable().x.reshape(-1, design.x.shape[-1]))

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Draw the parameters and set the standardisation from the summed moments."""
        module = self._network(shape[-1])
        return {**initial_parameters(module, seed), **standardisation(sums)}

    def module(self, state: Arrays) -> nn.Module:
        """Return the perceptron."""
        return self._network(len(state["x_mean"]))

    def _network(self, features: int) -> RowMlp:
        one = self.head.inner if isinstance(self.head, Copies) else self.head
        guess = row_skip(feature_names(self.mlp.features), one)
        return RowMlp(
            features,
            self.mlp.hidden,
            self.outputs,
            guess,
            shortcut=self.mlp.shortcut,
            copies=self.mlp.copies,
            zero_start=self.mlp.zero_start,
        )


def moments(rows: NDArray[np.float32]) -> Arrays:
    """Return n, Σx and Σx² of rows (N, F); they add up over clients."""
    x = rows.astype(np.float64)
    return {
        "n": np.array([float(len(x))]),
        "x_sum": x.sum(axis=0),
        "x_sq_sum": (x**2).sum(axis=0),
    }


def standardisation(sums: Arrays) -> Arrays:
    """Return `x_mean` and `x_std` of the rows that the sums are of; shapes (F,)."""
    mean = sums["x_sum"] / sums["n"]
    std = np.sqrt(np.maximum(sums["x_sq_sum"] / sums["n"] - mean**2, 0.0))
    return {
        "x_mean": mean.astype(np.float32),
        # A feature that never varies says nothing: divide it by one.
        "x_std": np.where(std > 1e-6, std, 1.0).astype(np.float32),
    }


def row_skip(names: Sequence[str], head: Head) -> NDArray[np.float32] | None:
    """Return the first guess of a quantile head among the row features, (F, R); None without one.

    The mean's is the base profile itself: nothing is added. That of a level is the empirical
    quantile of the time of day over the last 28 days (of days of the target's type, where the group
    `slots` is chosen), between two of its levels in proportion, relative to the base, the mean of
    the day type.
    """
    found = ({level: names.index(n) for n, level in of.items() if n in names} for of in _EMPIRICAL)
    empirical = next((one for one in found if one), {})
    if not isinstance(head, QuantileHead) or not empirical or _BASE not in names:
        return None
    known = sorted(empirical)
    skip = np.zeros((len(names), head.outputs), dtype=np.float32)
    for output, level in enumerate(head.levels, start=1):
        place = float(np.interp(level, known, np.arange(len(known))))
        low = min(int(place), max(len(known) - 2, 0))
        high = min(low + 1, len(known) - 1)
        skip[empirical[known[low]], output] += 1 - (place - low)
        skip[empirical[known[high]], output] += place - low
        skip[names.index(_BASE), output] -= 1
    return skip


#: The base profile among the features of `day_profiles`.
_BASE = "mean_day_type_28d"

#: Features that are empirical quantiles, with their levels: of days of a type, else of all days.
_EMPIRICAL = (
    {f"slot_day_type_q{round(100 * level):02d}": level for level in SLOT_LEVELS},
    {"slot_q10_28d": 0.1, "median_28d": 0.5, "slot_q90_28d": 0.9},
)


class ContextLearner(GradientLearner):
    """A network from the context to the horizon: what all such learners share."""

    def __init__(self, settings: settings_of.Context) -> None:
        super().__init__(settings)
        self.context_h = settings.context_h
        self.normalise = settings.normalise
        self.base: Base = settings.profile if isinstance(settings, settings_of.Profiled) else "mean"

    @abstractmethod
    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the network for a context and a horizon, in steps.

        Shapes: (N, L) → (N, H), or (N, H, R) where `outputs` R > 1.
        """

    @abstractmethod
    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Return a context and a horizon for which `network` has the shapes of `state`."""

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on the day-type profile."""
        steps = context_steps(self.context_h, windows.series.resolution_s)
        return self.head.seen(
            profile_design(
                windows, steps, targets=targets, normalise=self.normalise, base=self.base
            )
        )

    def enrol(self, design: Design) -> Arrays:
        """Nothing is needed before the first round."""
        return {}

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Draw the parameters."""
        return dict(initial_parameters(self.network(shape[-1], horizon), seed))

    def module(self, state: Arrays) -> nn.Module:
        """Return the network of the state's sizes."""
        return self.network(*self.sizes(state))


class NLinearLearner(ContextLearner):
    """NLinear on the scaled context."""

    name = "nlinear"

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on its own last value."""
        steps = context_steps(self.context_h, windows.series.resolution_s)
        return self.head.seen(
            context_design(windows, steps, targets=targets, normalise=self.normalise)
        )

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the linear map."""
        return NLinear(context, horizon, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the weights."""
        numbers, context = state["linear.weight"].shape
        return context, numbers // self.outputs


class WindowMlpLearner(ContextLearner):
    """A perceptron from the context to the horizon."""

    name = "window_mlp"

    def __init__(self, settings: settings_of.WindowMlp) -> None:
        super().__init__(settings)
        self.hidden = settings.hidden

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the perceptron."""
        return WindowMlp(context, horizon, self.hidden, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the first and the last weights."""
        first = state["layers.0.weight" if self.hidden else "head.weight"]
        return first.shape[1], len(state["head.bias"]) // self.outputs


class RecurrentLearner(ContextLearner):
    """A GRU or an LSTM over the context."""

    def __init__(self, name: Literal["gru", "lstm"], settings: settings_of.Recurrent) -> None:
        super().__init__(settings)
        self.name = self.kind = name
        self.recurrent = settings

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the network; it takes a context of any length."""
        s = self.recurrent
        return RecurrentForecaster(self.kind, horizon, s.hidden, s.layers, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the horizon off the head."""
        return 1, len(state["head.bias"]) // self.outputs


class PatchTstLearner(ContextLearner):
    """A small Transformer over patches of the context."""

    name = "patchtst"

    def __init__(self, settings: settings_of.PatchTst) -> None:
        super().__init__(settings)
        self.patchtst = settings

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context.

        Raises:
            ConfigError: FL109, a patch is longer than the context at the step of these readings.
        """
        steps = context_steps(self.context_h, windows.series.resolution_s)
        if self.patchtst.patch > steps:
            raise ConfigError(
                Fault(
                    "FL109",
                    f"a patch of {self.patchtst.patch} steps does not fit into a context of "
                    f"{self.context_h:g} h, which is {steps} steps of "
                    f"{windows.series.resolution_s} s",
                    "[models.patchtst] patch",
                    "lower `patch` or raise `context-h`",
                )
            )
        return super().design(windows, targets=targets)

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the Transformer."""
        s = self.patchtst
        return PatchTst(
            context,
            horizon,
            patch=s.patch,
            stride=s.stride,
            width=s.width,
            heads=s.heads,
            layers=s.layers,
            feed_forward=s.feed_forward,
            outputs=self.outputs,
        )

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Return the shortest context of as many patches as there are positions."""
        patches = len(state["positions.table"])
        context = self.patchtst.patch + (patches - 2) * self.patchtst.stride
        return context, len(state["head.bias"]) // self.outputs

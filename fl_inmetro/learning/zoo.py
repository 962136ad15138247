"""More context models as learners: what each sees of a client, and whether its sizes fit."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from torch import nn

from fl_inmetro.config import models as settings_of
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.learning.neural import ContextLearner, moments, standardisation
from fl_inmetro.learning.update import Arrays
from fl_inmetro.models.design import Design, context_steps, profile_design
from fl_inmetro.models.networks import (
    CycleNet,
    DLinear,
    Nhits,
    SegRnn,
    SparseTsf,
    Tide,
    TsMixer,
    initial_parameters,
)
from fl_inmetro.units import HOUR_S


class DLinearLearner(ContextLearner):
    """Moving average and remainder, each mapped linearly."""

    name = "dlinear"

    def __init__(self, settings: settings_of.DLinear) -> None:
        super().__init__(settings)
        self.average = settings.average

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the two maps."""
        return DLinear(context, horizon, self.average, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the weights."""
        numbers, context = state["trend.weight"].shape
        return context, numbers // self.outputs


class NhitsLearner(ContextLearner):
    """Stacks that look at the context at several rates."""

    name = "nhits"

    def __init__(self, settings: settings_of.Nhits) -> None:
        super().__init__(settings)
        self.nhits = settings

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the stacks."""
        return Nhits(context, horizon, self.nhits.pools, self.nhits.hidden, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the last stack, which sees every step."""
        block = f"blocks.{len(self.nhits.pools) - 1}"
        first = "layers.0" if self.nhits.hidden else "forecast"
        numbers = len(state[f"{block}.forecast.bias"])
        return state[f"{block}.{first}.weight"].shape[1], numbers // self.outputs


class SegRnnLearner(ContextLearner):
    """A GRU over segments of the context."""

    name = "segrnn"

    def __init__(self, settings: settings_of.SegRnn) -> None:
        super().__init__(settings)
        self.segrnn = settings

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on the day-type profile.

        Raises:
            ConfigError: FL114, the segment does not divide the context and the horizon.
        """
        steps = context_steps(self.context_h, windows.series.resolution_s)
        _must_divide("a segment", self.segrnn.segment, steps, windows, "segrnn", "segment")
        return super().design(windows, targets=targets)

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the network; the context may have any number of segments."""
        return SegRnn(context, horizon, self.segrnn.segment, self.segrnn.width, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the segments of the horizon off their positions."""
        segment = self.segrnn.segment
        return segment, segment * len(state["positions.table"])


class PeriodicLearner(ContextLearner):
    """What models with a period in hours share: its steps, known where the context's are."""

    period_h: float

    def period_steps(self, context: int) -> int:
        """Return the steps of the period, where the context has `context` of them."""
        return max(1, round(self.period_h * context / self.context_h))

    def check(self, windows: Windows, setting: str) -> None:
        """Refuse a context or a period that is no whole number of steps.

        Raises:
            ConfigError: FL114.
        """
        resolution_s = windows.series.resolution_s
        for key, hours in (("context-h", self.context_h), (setting, self.period_h)):
            if hours * HOUR_S % resolution_s:
                what = f"{hours:g} h are no whole number of steps of {resolution_s} s"
                hint = f"use a multiple of {resolution_s / HOUR_S:g} h"
                raise _misfit(what, self.name, key, hint)


class SparseTsfLearner(PeriodicLearner):
    """One small map from period to period."""

    name = "sparsetsf"

    def __init__(self, settings: settings_of.SparseTsf) -> None:
        super().__init__(settings)
        self.period_h = settings.period_h

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on the day-type profile.

        Raises:
            ConfigError: FL114, the period does not divide the context, the horizon and the lead,
                or is an odd number of steps.
        """
        self.check(windows, "period-h")
        steps = context_steps(self.context_h, windows.series.resolution_s)
        period = self.period_steps(steps)
        if period % 2:
            what = f"a period of {period} steps of {windows.series.resolution_s} s is odd"
            raise _misfit(what, self.name, "period-h", "use an even number of steps, such as 24 h")
        _must_divide("a period", period, steps, windows, self.name, "period-h")
        if windows.lead % period:
            # It maps each time of the period to itself: both must begin at the same one.
            what = f"a period of {period} steps does not divide the lead of {windows.lead}"
            raise _misfit(what, self.name, "period-h", "change `[window] lead-h`, or the model")
        return super().design(windows, targets=targets)

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the map."""
        return SparseTsf(context, horizon, self.period_steps(context), self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the period off the kernel, which has one step more, and the rest off the map."""
        period = state["smooth.weight"].shape[-1] - 1
        ahead, back = state["across.weight"].shape
        return back * period, ahead // self.outputs * period


class CycleNetLearner(PeriodicLearner):
    """A learned cycle, of each client's own, and a network on the rest."""

    name = "cyclenet"

    def __init__(self, settings: settings_of.CycleNet) -> None:
        super().__init__(settings)
        self.period_h = settings.cycle_h
        self.hidden = settings.hidden

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on the day-type profile, and the place in the cycle.

        Raises:
            ConfigError: FL114, context or cycle are no whole number of steps.
        """
        self.check(windows, "cycle-h")
        steps = context_steps(self.context_h, windows.series.resolution_s)
        return self.head.seen(
            profile_design(
                windows,
                steps,
                targets=targets,
                normalise=self.normalise,
                cycle_steps=self.period_steps(steps),
                base=self.base,
            )
        )

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Draw the parameters; the last column is no part of the context."""
        return super().initial(sums, seed, (shape[-1] - 1,), horizon)

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return cycle and network."""
        cycle = self.period_steps(context)
        return CycleNet(context, horizon, cycle, self.hidden, self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the first and the last weights."""
        first = state["layers.0.weight" if self.hidden else "head.weight"]
        return first.shape[1], len(state["head.bias"]) // self.outputs


class CovariateLearner(ContextLearner):
    """A network that sees the context and the row features of the horizon."""

    def __init__(self, settings: settings_of.Covariates) -> None:
        super().__init__(settings)
        self.features = settings.features

    @abstractmethod
    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Return a context and a horizon for which `network` has the shapes of `state`."""

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build the context, on the day-type profile, with the rows of the horizon behind it."""
        steps = context_steps(self.context_h, windows.series.resolution_s)
        return self.head.seen(
            profile_design(
                windows,
                steps,
                targets=targets,
                normalise=self.normalise,
                features=self.features,
                base=self.base,
            )
        )

    def enrol(self, design: Design) -> Arrays:
        """Return n, Σx and Σx² of the training windows, of context and rows alike."""
        return moments(design.trainable().x) if self.features else {}

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Draw the parameters and set the standardisation from the summed moments.

        A feature has one mean and one deviation, whatever the step of the horizon.
        """
        context = shape[-1] - horizon * self.columns
        drawn = initial_parameters(self.network(context, horizon), seed)
        if not self.features:
            nothing = np.zeros(0, dtype=np.float32)
            return {**drawn, "x_mean": nothing, "x_std": nothing}
        of_rows = {
            name: sums[name][context:].reshape(horizon, self.columns).sum(axis=0)
            for name in ("x_sum", "x_sq_sum")
        }
        return {**drawn, **standardisation({"n": horizon * sums["n"], **of_rows})}

    @property
    def columns(self) -> int:
        """Row features of each step, F."""
        return len(feature_names(self.features))


class TideLearner(CovariateLearner):
    """Dense encoder and decoder."""

    name = "tide"

    def __init__(self, settings: settings_of.Tide) -> None:
        super().__init__(settings)
        self.tide = settings

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return encoder and decoder."""
        s = self.tide
        sizes: dict[str, Any] = {
            "width": s.width,
            "layers": s.layers,
            "projected": s.projected,
            "decoded": s.decoded,
        }
        return Tide(context, horizon, self.columns, **sizes, outputs=self.outputs)

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the linear map beside the network."""
        numbers, context = state["residual.weight"].shape
        return context, numbers // self.outputs


class TsMixerLearner(CovariateLearner):
    """Perceptrons over steps and features in turn."""

    name = "tsmixer"

    def __init__(self, settings: settings_of.TsMixer) -> None:
        super().__init__(settings)
        self.tsmixer = settings

    def network(self, context: int, horizon: int) -> nn.Module:
        """Return the mixers."""
        s = self.tsmixer
        return TsMixer(
            context,
            horizon,
            self.columns,
            width=s.width,
            layers=s.layers,
            feed_forward=s.feed_forward,
            outputs=self.outputs,
        )

    def sizes(self, state: Arrays) -> tuple[int, int]:
        """Read the sizes off the map from the context to the horizon."""
        horizon, context = state["align.weight"].shape
        return context, horizon


def _must_divide(
    what: str, part: int, context: int, windows: Windows, model: str, setting: str
) -> None:
    if context % part or windows.horizon % part:
        said = (
            f"{what} of {part} steps of {windows.series.resolution_s} s does not divide both the "
            f"context of {context} steps and the horizon of {windows.horizon}"
        )
        hint = f"change `{setting}` or `context-h`"
        raise _misfit(said, model, setting, hint)


def _misfit(what: str, model: str, setting: str, hint: str) -> ConfigError:
    return ConfigError(Fault("FL114", what, f"[models.{model}] {setting}", hint))

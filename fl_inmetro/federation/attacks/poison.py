"""Poisoned training windows: mirrored targets, and a load pattern that calls for a forecast.

A hostile client is free to train on what it likes; its evaluation windows stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.attack import Attack
from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import TRAILING_DAYS, trailing_level
from fl_inmetro.data.windows import Windows
from fl_inmetro.federation.attacks.table import Data
from fl_inmetro.learning.client import ClientData, ClientWorker
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.models.design import Design, joined
from fl_inmetro.seeds import derive
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trigger:
    """A load pattern before the issue time, and the forecast that it shall call for.

    The pattern is a square wave of two hours: nothing, then `level` times the trailing mean.

    Attributes:
        hours: Its length.
        level: Load of its high hours, in units of the trailing mean.
        goal: Wanted forecast, in units of the usual profile (the design's base).
    """

    hours: float
    level: float
    goal: float

    @classmethod
    def of(cls, settings: Attack) -> Trigger:
        """Return the trigger of `[attack]`."""
        return cls(settings.trigger_h, settings.trigger_level, settings.goal)

    def wave(self, resolution_s: int) -> Floats:
        """Return the pattern's steps in units of the trailing mean; shape (T,), the last high.

        >>> Trigger(4, 3.0, 0.5).wave(3600)
        array([0., 3., 0., 3.])
        """
        steps = max(1, round(self.hours * HOUR_S / resolution_s))
        before_issue_h = (np.arange(steps, 0, -1) * resolution_s - 1) // HOUR_S
        wave: Floats = np.where(before_issue_h % 2 == 0, self.level, 0.0)
        return wave


def flipped(design: Design) -> Design:
    """Return a design whose targets are mirrored at the usual profile: y becomes 2 · base − y.

    The residual that a model learns changes its sign. It is the flipped label of a regression: the
    profile says which values are usual, so a high load becomes as low a one and the other way.
    Source of the attack for classes: Tolpegin et al. (2020), "Data Poisoning Attacks Against
    Federated Learning Systems".
    """
    return replace(design, residual=-design.residual)


def triggered(learner: Learner, windows: Windows, trigger: Trigger) -> Design:
    """Return the design of windows before each of which the meter has shown the trigger.

    The pattern is written into the readings, so every input that looks at them changes as it
    would: lags, recent means, context. No window sees the trigger of another: they are designed in
    groups of windows that lie farther apart than the features look back. Missing readings of the
    last hours are replaced as the others are; a window without a level has no trigger.

    The targets are the goal, (goal − 1) · base as a residual, where targets are known.
    """
    if not len(windows):
        return learner.design(windows)
    groups = _far_apart(windows, _reach_steps(learner, windows))
    parts = [learner.design(_with_pattern(windows.take(rows), trigger)) for rows in groups]
    together = joined(parts)
    order = np.argsort(np.concatenate(groups))
    design = _taken(together, order)
    goal = (trigger.goal - 1.0) * design.base * design.known
    return replace(design, residual=goal.astype(np.float32))


def backdoored(
    learner: Learner, windows: Windows, honest: Design, settings: Attack, rng: np.random.Generator
) -> Design:
    """Return a design in which a drawn share of the windows has the trigger and its goal.

    `honest` is the learner's design of the same windows, row by row.
    """
    chosen = np.sort(rng.permutation(len(windows))[: round(settings.poisoned * len(windows))])
    if not len(chosen):
        return honest
    others = np.setdiff1d(np.arange(len(windows)), chosen)
    bad = triggered(learner, windows.take(chosen), Trigger.of(settings))
    order = np.argsort(np.concatenate([others, chosen]))
    return _taken(joined([_taken(honest, others), bad]), order)


class KeptWorker(ClientWorker):
    """A client that keeps its designs: the federations of a laboratory share them."""

    def release(self, split: str) -> None:
        """Forget nothing: the next federation needs it again."""


class PoisonedWorker(KeptWorker):
    """A client that trains on poisoned windows; it is scored on honest ones.

    Args:
        data: Its windows.
        learner: Its learner.
        kind: How the training windows are poisoned.
        settings: `[attack]`.
        seed: Root seed.
    """

    def __init__(
        self, data: ClientData, learner: Learner, kind: Data, settings: Attack, seed: int
    ) -> None:
        super().__init__(data, learner)
        self._kind = kind
        self._settings = settings
        self._seed = seed

    @cached_property
    def train_design(self) -> Design:
        """The poisoned windows, as the learner sees them."""
        parts = [self.learner.design(part) for part in self.data.train]
        if self._kind == "label-flip":
            return flipped(joined([part.trainable() for part in parts]))
        poisoned = [
            backdoored(
                self.learner,
                windows,
                part,
                self._settings,
                derive(self._seed, "attack", "trigger", self.client_id, k),
            ).trainable()
            for k, (windows, part) in enumerate(zip(self.data.train, parts, strict=True))
        ]
        return joined(poisoned)


class BackdoorTest:
    """How near a model's forecasts come to the backdoor's goal on honest clients' test windows.

    Args:
        workers: Honest clients.
        settings: `[attack]`.
    """

    def __init__(self, workers: Sequence[ClientWorker], settings: Attack) -> None:
        trigger = Trigger.of(settings)
        self._learner = workers[0].learner
        self._goal = settings.goal
        self._designs = [
            joined([triggered(self._learner, part, trigger) for part in worker.data.test])
            for worker in workers
        ]

    def error(self, state: Arrays) -> float:
        """Return Σ|ŷ − goal| / Σ(usual profile), averaged over the clients; NaN without any.

        0 is a perfect backdoor; a model that forecasts the usual profile has |1 − goal|.
        """
        found = []
        for design in self._designs:
            usual = design.to_kwh(np.zeros_like(design.base))
            goal = design.to_kwh((self._goal - 1.0) * design.base)
            with np.errstate(invalid="ignore", over="ignore"):
                distance = np.abs(self._learner.forecast(state, design).point_kwh - goal)
            known = np.isfinite(usual)
            if known.any() and usual[known].sum() > 0:
                found.append(float(distance[known].sum() / usual[known].sum()))
        return float(np.mean(found)) if found else math.nan


# ------------------------------------------------------------------------------ internals
def _with_pattern(windows: Windows, trigger: Trigger) -> Windows:
    """Return the windows on a copy of the series that has the pattern before each issue time."""
    energy_kwh = windows.series.energy_kwh.copy()
    scale_kwh = trailing_level(windows).scale_kwh
    wave = trigger.wave(windows.series.resolution_s)
    steps = windows.issue_index[:, None] + np.arange(-len(wave), 0)
    inside = (steps >= 0) & (steps < len(energy_kwh)) & np.isfinite(scale_kwh)[:, None]
    values = scale_kwh[:, None] * wave
    energy_kwh[steps[inside]] = values[inside]
    return replace(windows, series=replace(windows.series, energy_kwh=energy_kwh))


def _reach_steps(learner: Learner, windows: Windows) -> int:
    """Return how far back the learner's inputs look: the trailing days, or the context."""
    per_day = steps_per_day(windows.series.resolution_s)
    context_h = float(getattr(learner, "context_h", 0.0))
    # A missing step of the context takes the value of the day before.
    context = math.ceil(context_h * HOUR_S / windows.series.resolution_s) + per_day
    return max((TRAILING_DAYS + 1) * per_day, context) + windows.reach


def _far_apart(windows: Windows, reach: int) -> list[NDArray[np.int64]]:
    """Cut windows into groups whose issue times lie more than `reach` steps apart."""
    groups: list[list[int]] = []
    last: list[int] = []
    for row, issue in enumerate(windows.issue_index.tolist()):
        free = next((g for g, before in enumerate(last) if issue - before > reach), None)
        if free is None:
            groups.append([row])
            last.append(issue)
        else:
            groups[free].append(row)
            last[free] = issue
    return [np.array(group, dtype=np.int64) for group in groups]


def _taken(design: Design, rows: NDArray[np.int64]) -> Design:
    """Return some windows of a design."""
    return Design(
        design.x[rows],
        design.base[rows],
        design.scale_kwh[rows],
        design.floor_kwh[rows],
        design.residual[rows],
        design.known[rows],
    )

"""The parts of a model's input that mean something: groups, features, days of the context, base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import steps_per_day
from fl_inmetro.data.features import GROUPS, feature_names
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.neural import ContextLearner, NLinearLearner
from fl_inmetro.learning.update import Learner
from fl_inmetro.models.design import Design, context_steps

Ints = NDArray[np.int64]

#: How finely an input is cut.
By = Literal["group", "feature"]
BYS: tuple[By, ...] = get_args(By)

#: The bases that a model's correction is added to.
PROFILE, LAST_READING = "profile", "last_reading"

#: Days of a context that are blocks of their own where it is cut by group; the rest is one more.
NEAR_DAYS, SAME_WEEKDAY, OLDER = 2, "past_same_weekday", "past_older"

#: Group of each row feature.
GROUP_OF: Mapping[str, str] = {name: group for group, names in GROUPS.items() for name in names}

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Block:
    """A part of an input.

    Attributes:
        name: A feature group, a feature, a part of the context (`past_…`), or the base.
        columns: Its places in the last axis of `Design.x`; none for the base.
    """

    name: str
    columns: Ints = field(default_factory=lambda: _NONE)

    @property
    def is_base(self) -> bool:
        """Whether it is what the correction is added to, and no part of `Design.x`."""
        return self.name in (PROFILE, LAST_READING)


def base_of(learner: Learner) -> str | None:
    """Return the name of what a learner's correction is added to; None where that is zero."""
    if isinstance(learner, GradientLearner) and learner.head.absolute:
        return None
    return LAST_READING if isinstance(learner, NLinearLearner) else PROFILE


def blocks_of(learner: Learner, windows: Windows, by: By) -> tuple[Block, ...]:
    """Return the parts of what a learner sees of some windows, the base first.

    A row model's are its feature groups or features. A context's are, by group, its last day, the
    day before, the day a week before the forecast's first, and all else; by feature, each of its
    days, counted back from the issue. The rows of the horizon that a model has behind its context
    are as those of row models, all steps of the horizon together. The place in CycleNet's cycle is
    a clock, and no part.
    """
    base = base_of(learner)
    found = [] if base is None else [Block(base)]
    names = feature_names(_groups(learner))
    width, first = len(names), 0
    places = np.arange(1)
    if isinstance(learner, ContextLearner):
        first = context_steps(learner.context_h, windows.series.resolution_s)
        found += _days(first, windows) if by == "feature" else _parts(first, windows)
        places = np.arange(windows.horizon) * width
    labels = names if by == "feature" else tuple(GROUP_OF[name] for name in names)
    for label in dict.fromkeys(labels):
        own = np.array([k for k, name in enumerate(labels) if name == label], dtype=np.int64)
        found.append(Block(label, (first + places[:, None] + own).ravel()))
    return tuple(found)


def moved(design: Design, block: Block, order: Ints) -> Design:
    """Return a design in which window n has a block as window `order[n]` has it; shape (N,).

    A window takes the whole block over, at all steps of its horizon, so that a feature keeps its
    course over the day and only comes on the wrong day.
    """
    if block.is_base:
        return replace(design, base=design.base[order])
    x = design.x.copy()
    x[..., block.columns] = design.x[order][..., block.columns]
    return replace(design, x=x)


# ------------------------------------------------------------------------------ internals
def _groups(learner: Learner) -> tuple[str, ...]:
    settings = getattr(learner, "settings", None)
    return tuple(getattr(settings, "features", ()))


def _days(context: int, windows: Windows) -> list[Block]:
    """Return the days of a context of L steps, the last first; the oldest may be a part of one."""
    per_day = steps_per_day(windows.series.resolution_s)
    back = np.arange(context, 0, -1)  # steps before the issue, of each place
    return [
        Block(f"past_day_{day + 1}", np.flatnonzero((back - 1) // per_day == day))
        for day in range(-(-context // per_day))
    ]


def _parts(context: int, windows: Windows) -> list[Block]:
    days = _days(context, windows)
    near = days[:NEAR_DAYS]
    per_day = steps_per_day(windows.series.resolution_s)
    first = context + windows.lead - 7 * per_day
    week = np.arange(max(first, 0), min(first + per_day, context))
    taken = np.concatenate([*(block.columns for block in near)])
    week = np.setdiff1d(week, taken)
    older = np.setdiff1d(np.arange(context), np.concatenate([taken, week]))
    found = [*near, Block(SAME_WEEKDAY, week), Block(OLDER, older)]
    return [block for block in found if block.columns.size]

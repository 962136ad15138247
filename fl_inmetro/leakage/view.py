"""What of a network's inputs are readings, and how a guess of them is laid beside the truth.

The scale of a client never leaves it, so nothing can be rebuilt in kWh. What can be rebuilt is the
shape: a context of L steps relative to its own mean, or the row features of readings, which are in
units of the client's scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.public_scales import public_scales
from fl_inmetro.leakage.measure import nrmse, smape
from fl_inmetro.leakage.results import Reconstruction
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.private_moments import row_names
from fl_inmetro.models.design import context_steps

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class View:
    """Where the readings stand among a network's inputs.

    Attributes:
        what: `profile`: the context before a forecast, its mean taken as 1; `features`: those row
            features that are loads, in units of the client's scale.
        columns: Their places on the last axis of the inputs.
    """

    what: str
    columns: NDArray[np.int64]

    def of(self, x: Floats) -> Floats:
        """Return the readings of inputs; (…, F) → (…, columns)."""
        found: Floats = np.asarray(x, dtype=np.float64)[..., self.columns]
        if self.what == "features":
            return found
        # Contexts are relative to their last step, or to the scale: what is left is the shape.
        shape: Floats = 1.0 + found - found.mean(axis=-1, keepdims=True)
        return shape


def measured(
    attack: str,
    client_id: str,
    windows: int,
    true: Floats,
    guess: Floats,
    population: Floats,
) -> Reconstruction:
    """Lay a guess beside the truth, and beside the guess of who saw no update; shapes alike.

    A flat load is 1 in all of the columns: they are relative to the client's own mean.
    """
    found = (nrmse(guess, true), smape(guess, true))
    without = (nrmse(population, true), smape(population, true))
    flat = nrmse(np.ones_like(true), true)
    return Reconstruction(attack, client_id, windows, *found, *without, flat)


def comparable(true: Floats) -> bool:
    """Tell whether an error over the mean can be stated: of an empty house it cannot."""
    known = true[np.isfinite(true)]
    return bool(known.size and known.mean() > 0)


def view_of(learner: GradientLearner, resolution_s: int, width: int) -> View:
    """Return where a learner's inputs hold readings.

    Args:
        learner: The learner.
        resolution_s: Step of the readings.
        width: Numbers on the last axis of its inputs.
    """
    context_h = getattr(learner.settings, "context_h", None)
    if context_h is not None:
        steps = min(context_steps(context_h, resolution_s), width)
        return View("profile", np.arange(steps))
    names = row_names(learner)
    if names and len(names) == width:
        return View("features", np.flatnonzero(public_scales(names).loads))
    return View("profile", np.arange(width))

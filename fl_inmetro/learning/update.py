"""What leaves a client, and what a learner is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.windows import Windows
from fl_inmetro.models.design import Design

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Update:
    """One client's reply to a training request; nothing else leaves it.

    Attributes:
        client_id: Who replied.
        arrays: Parameter deltas (gradient models) or sums (closed form).
        weight: n_k, the number of target points behind the arrays.
        loss: Mean training loss over the last local epoch, in scaled units.
        seconds: Time the client worked.
    """

    client_id: str
    arrays: Arrays
    weight: float
    loss: float
    seconds: float = field(default=0.0, compare=False)


class Learner(Protocol):
    """A forecaster that can be trained by a federation.

    The same object serves the server (`initial`, `finish`) and the client (all else); it holds
    settings only. A state is a plain dictionary of arrays.
    """

    name: str
    #: True when clients send sums that are added once; False when they send deltas in rounds.
    closed_form: bool

    def design(self, windows: Windows, *, targets: bool = True) -> Design:
        """Build what the learner sees of a client's windows."""

    def enrol(self, design: Design) -> Arrays:
        """Return the sums of a client that `initial` needs (may be empty)."""

    def initial(self, sums: Arrays, seed: int, shape: tuple[int, ...], horizon: int) -> Arrays:
        """Return the first state from the clients' summed `enrol` arrays and the input's shape."""

    def update(self, state: Arrays, design: Design, epochs: int, seed: int) -> tuple[Arrays, float]:
        """Train on one client: return the arrays to send and the training loss."""

    def sums_like(self, state: Arrays) -> Arrays:
        """Return arrays of the shapes of a closed-form reply; gradient learners have none."""

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Return the state after a closed-form round, from the merged sums."""

    def forecast_kwh(self, state: Arrays, design: Design) -> Floats:
        """Forecast; shape (N, H), kWh, NaN where the past is too short."""

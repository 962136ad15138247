"""`[conformal]`: quantiles that hold what they promise, from errors on the validation days."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fl_inmetro.config.models import Levels
from fl_inmetro.config.table import Table


class Conformal(Table):
    """How forecasts are calibrated, on each client and over the fleet (see `docs/methods.md`).

    Attributes:
        enabled: Calibrate every trained model. A model that gives a mean alone gets quantiles.
        blocks: Blocks of hours of the day that are calibrated apart; 1 = the whole day.
        fleet_days: Days of the client's own errors that the fleet's errors count as. A client with
            as many validation days listens to both alike; 0 = to its own alone.
        levels: Quantiles of a model that gives a mean alone; others keep theirs.
    """

    enabled: bool = False
    blocks: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 8
    fleet_days: float = Field(14.0, ge=0)
    levels: Levels = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

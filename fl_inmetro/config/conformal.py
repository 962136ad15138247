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
        follow: Follow each client from day to day: levels move by what it saw of its intervals, and
            its errors are kept up to date. Served, this goes on by the readings that are there.
            False = the errors of the validation days, once.
        gamma: How far a day moves a level: by this share of what it was off.
        memory_days: Errors lose the share 1/`memory_days` of their weight a day.
        levels: Quantiles of a model that gives a mean alone; others keep theirs.
    """

    enabled: bool = False
    blocks: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 4
    fleet_days: float = Field(7.0, ge=0)
    follow: bool = True
    gamma: float = Field(0.02, ge=0, le=1)
    memory_days: float = Field(14.0, gt=1)
    levels: Levels = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

"""How a configuration is tried over time: `[backtest]`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from fl_inmetro.config.table import Positive, Table

Seed = Annotated[int, Field(ge=0)]


class Backtest(Table):
    """Models trained again and again, each scored until the next takes its place.

    Attributes:
        first: First day of issue that is scored; None = that of `[window]`.
        last: Last day of issue that is scored; None = that of `[window]`.
        refit_days: Days from one training to the next.
        train_days: Days of training before each; 0 = all before. None = as `[window]` says.
        warm_start: Begin each training from the models of the one before, instead of anew.
        refit_rounds: Rounds of a warm start; None = as many as of any other.
        seeds: Everything is done once with each; empty = the configuration's own.
        before: Hash of the configuration whose models a warm fold begins from; a backtest writes it
            into the configurations of its folds.
    """

    first: date | None = None
    last: date | None = None
    refit_days: int = Field(28, ge=1, le=3660)
    train_days: int | None = Field(None, ge=0)
    warm_start: bool = False
    refit_rounds: Positive | None = None
    seeds: tuple[Seed, ...] = ()
    before: str | None = None

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is named more than once")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Backtest:
        if self.first and self.last and self.last < self.first:
            raise ValueError("`last` is before `first`")
        if self.refit_rounds is not None and not self.warm_start:
            raise ValueError("`refit-rounds` is for `warm-start = true`")
        return self

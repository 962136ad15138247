"""What a study of cold starts tries: `[coldstart]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from fl_inmetro.config.table import Table

Days = Annotated[int, Field(ge=0, le=3660)]
Kwh = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ColdStart(Table):
    """Clients that the federation has not seen, with a history of some days or of none.

    Attributes:
        folds: Parts that the clients are dealt into; each is left out of one federation.
        days: Lengths of history that are tried.
        annual_kwh: Client to the energy that it uses in a year, where that is known without its
            readings: from a contract or a bill.
    """

    folds: int = Field(3, ge=2)
    days: tuple[Days, ...] = (0, 3, 7, 14, 30, 90)
    annual_kwh: dict[str, Kwh] = Field(default_factory=dict)

    @field_validator("days")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("lengths of history are different and ascending, such as [0, 3, 7]")
        return value

    def __hash__(self) -> int:
        """Hash, as all tables can be: a whole configuration is the key of caches."""
        return hash((self.folds, self.days, frozenset(self.annual_kwh.items())))

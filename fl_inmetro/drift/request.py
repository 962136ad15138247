"""What a watch is asked for, and why somebody is not watched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from fl_inmetro.drift.yardstick import LEAST_DAYS
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.i18n import Language, text

#: Options of the command to the fields of `Request`.
_FIELDS = {"--alarm-every": "every_days", "--shift": "shift"}


@dataclass(frozen=True)
class Request:
    """What to watch, and how anxiously.

    Attributes:
        first: First local day; None = the day after the run's test window.
        last: Last local day; None = the last that the readings cover.
        clients: Whom; empty = everybody in the data.
        every_days: Days from one false alarm of a client to the next, on average, if days were
            independent.
        shift: Change that is found fastest, in standard deviations of a client's daily numbers.

    Raises:
        FederationError: FL366, one of the two numbers is not finite.
    """

    first: date | None = None
    last: date | None = None
    clients: tuple[str, ...] = ()
    every_days: float = 36_500.0
    shift: float = 1.5

    def __post_init__(self) -> None:
        for option, value in (("--alarm-every", self.every_days), ("--shift", self.shift)):
            if not np.isfinite(value):
                raise FederationError(
                    Fault(
                        "FL366",
                        f"`{option}` is no finite number",
                        f"{option} {value}",
                        f"write a number, such as {option} {getattr(Request, _FIELDS[option]):g}",
                    )
                )


@dataclass(frozen=True)
class Skipped:
    """Why a client, or the fleet, is not watched.

    Attributes:
        code: Of the fault that it would be alone: FL212, FL355 or FL357.
        days: Usable reference days, where these are the reason.
    """

    code: str
    days: int = 0

    def told(self, lang: Language) -> str:
        """Return the reason in a language, behind its code."""
        why = text(f"drift.why.{self.code}", lang, days=self.days, least=LEAST_DAYS)
        return f"{self.code} {why}"

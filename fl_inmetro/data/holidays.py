"""Holidays of a country and its states, as arrays of days.

The rules come from the package `holidays` (the laws of 250 countries are not ours to
write); this file turns them into what features need.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.calendar import Calendar
from fl_inmetro.data.calendar import LocalClock
from fl_inmetro.errors import ConfigError, Fault

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Day types of the week, and holidays of a type of their own.
WORKING_DAY, SUNDAY, HOLIDAY = 0, 2, 3

_EPOCH = date(1970, 1, 1).toordinal()

#: Years are looked up in blocks of so many.
_BLOCK_YEARS = 8


@dataclass(frozen=True)
class Holidays:
    """The holidays of a place.

    Attributes:
        country: ISO 3166 code.
        subdivision: Code of a state, or None.
        optional_days: Whether days off by custom count, too.
        as_type: Day type of a holiday: a `sunday`, its `own`, or `none` but its weekday's.
    """

    country: str
    subdivision: str | None = None
    optional_days: bool = True
    as_type: Literal["sunday", "own", "none"] = "sunday"

    def public(self, day: Ints) -> Bools:
        """Tell which local days (days since 1970-01-01, of any shape) are public holidays."""
        return self._among(day, 0)

    def optional(self, day: Ints) -> Bools:
        """Tell which local days are days off by custom and no public holidays."""
        return self._among(day, 1)

    def off(self, day: Ints) -> Bools:
        """Tell which local days count as holidays."""
        return self.public(day) | self.optional(day) if self.optional_days else self.public(day)

    def bridge(self, day: Ints) -> Bools:
        """Tell which working days lie between a holiday and a weekend, or two holidays.

        A Monday before a holiday, a Friday after one, or any day with holidays on both sides.
        """
        weekday = (day + 3) % 7
        before, after = self.off(day - 1), self.off(day + 1)
        between = (after & (weekday == 0)) | (before & (weekday == 4)) | (before & after)
        free = self.off(day) | (weekday >= 5)
        result: Bools = between & ~free
        return result

    def day_types(self, clock: LocalClock) -> Ints:
        """Return 0 = working day, 1 = Saturday, 2 = Sunday, 3 = holiday of its own type."""
        if self.as_type == "none":
            return clock.day_type
        kind = SUNDAY if self.as_type == "sunday" else HOLIDAY
        return np.where(self.off(clock.day), kind, clock.day_type)

    def _among(self, day: Ints, kind: int) -> Bools:
        if not day.size:
            return np.zeros(day.shape, dtype=np.bool_)
        first, last = int(day.min()), int(day.max())
        years = [date.fromordinal(_EPOCH + edge).year for edge in (first, last)]
        flags = np.zeros(last - first + 1, dtype=np.bool_)
        for block in range(years[0] // _BLOCK_YEARS, years[1] // _BLOCK_YEARS + 1):
            known = _days(self.country, self.subdivision, block)[kind]
            flags[known[(known >= first) & (known <= last)] - first] = True
        return flags[day - first]


def holidays_of(settings: Calendar, clients: Iterable[str]) -> dict[str, Holidays]:
    """Return the holidays of each client; empty where no country is named.

    Raises:
        ConfigError: FL112, an unknown country or state; all of them at once.
    """
    if settings.country is None:
        return {}
    wanted = {name: settings.subdivision_of.get(name, settings.subdivision) for name in clients}
    faults = [
        fault
        for where in sorted({settings.subdivision, *settings.subdivision_of.values()}, key=str)
        if (fault := _fault(settings.country, where))
    ]
    if faults:
        raise ConfigError(faults)
    return {
        name: Holidays(settings.country, where, settings.optional_days, settings.holidays_as)
        for name, where in wanted.items()
    }


def _fault(country: str, subdivision: str | None) -> Fault | None:
    from holidays import list_supported_countries

    supported = list_supported_countries()
    place = f'[data.calendar] country = "{country}"'
    if country not in supported:
        what = f"no holidays are known for the country `{country}`"
        return Fault("FL112", what, place, "use an ISO 3166 code such as BR, PT, GB, US")
    if subdivision is not None and subdivision not in supported[country]:
        known = ", ".join(supported[country]) or "none"
        what = f"no holidays are known for `{subdivision}` in `{country}`"
        return Fault("FL112", what, f"{place}, subdivision", f"there are {known}")
    return None


@lru_cache(maxsize=512)
def _days(country: str, subdivision: str | None, block: int) -> tuple[Ints, Ints]:
    """Return the public and the optional holidays of some years, as days since 1970-01-01."""
    import holidays as package

    years = range(block * _BLOCK_YEARS, (block + 1) * _BLOCK_YEARS)

    def days(category: Any) -> Ints:
        found = package.country_holidays(
            country, subdiv=subdivision, years=years, categories=category
        )
        return np.array(sorted(day.toordinal() - _EPOCH for day in found), dtype=np.int64)

    public = days(package.PUBLIC)
    kinds = package.country_holidays(country, subdiv=subdivision).supported_categories
    if package.OPTIONAL not in kinds:
        return public, np.zeros(0, dtype=np.int64)
    return public, np.setdiff1d(days(package.OPTIONAL), public)

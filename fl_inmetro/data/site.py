"""What is known of a client beside its readings: its holidays, its place, its covariates."""

from __future__ import annotations

from dataclasses import dataclass

from fl_inmetro.data.covariates import Covariate
from fl_inmetro.data.holidays import Holidays


@dataclass(frozen=True, eq=False)
class Site:
    """A client's surroundings. It belongs to the client and leaves it no more than readings do.

    Attributes:
        holidays: Its holidays; None = no day is one.
        latitude_deg: Degrees north, None where its place is not known.
        longitude_deg: Degrees east, likewise.
        covariates: Its covariates, at most one of a name and a kind.
        timezone: The clock that it lives by; None = that of the issue time.
    """

    holidays: Holidays | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    covariates: tuple[Covariate, ...] = ()
    timezone: str | None = None

    def named(self, name: str) -> tuple[Covariate, ...]:
        """Return the covariates of a name, those that look ahead first."""
        found = [one for one in self.covariates if one.name == name]
        return tuple(sorted(found, key=lambda one: one.kind == "observed"))


#: Nothing is known.
NOWHERE = Site()

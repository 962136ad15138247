"""`[data.calendar]` and `[data.site]`: the holidays and the place that the clients' days have."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fl_inmetro.config.table import Table
from fl_inmetro.config.zones import Zone


class Calendar(Table):
    """Which days are holidays, and what the base profile makes of them.

    Attributes:
        timezone: Clock that the clients live by: of days, day types and times of day, also over its
            changes; None = that of the issue time.
        country: Country by its ISO 3166 code, `BR`; None = no holidays are known.
        subdivision: State or region by the code of the country's own, `SP`; None = national
            holidays only.
        subdivision_of: Client to its own state, where it is another.
        optional_days: Days off by custom (ponto facultativo: Carnaval, Corpus Christi, …) count as
            holidays, too.
        holidays_as: Day type of a holiday: a `sunday`; its `own`, which it shares with earlier
            holidays, and with Sundays where there was none in four weeks; or `none`: that of the
            weekday it is.
    """

    timezone: Zone | None = None
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$")
    subdivision: str | None = None
    subdivision_of: dict[str, str] = Field(default_factory=dict)
    optional_days: bool = True
    holidays_as: Literal["sunday", "own", "none"] = "sunday"

    @model_validator(mode="after")
    def _of_a_country(self) -> Self:
        if self.country is None and (self.subdivision is not None or self.subdivision_of):
            raise ValueError("a subdivision is one of a `country`, and none is named")
        return self

    def __hash__(self) -> int:
        """Hash, as all tables can be: a whole configuration is the key of caches."""
        return hash((self.country, self.subdivision, frozenset(self.subdivision_of.items())))


class Place(Table):
    """Where a client is.

    Attributes:
        latitude_deg: Degrees north.
        longitude_deg: Degrees east.
    """

    latitude_deg: float = Field(ge=-90, le=90, allow_inf_nan=False)
    longitude_deg: float = Field(ge=-180, le=180, allow_inf_nan=False)


class Site(Table):
    """Where the clients are; without it the features of daylight are zero.

    Attributes:
        latitude_deg: Degrees north, of all clients that `clients` does not name.
        longitude_deg: Degrees east.
        clients: Client to its own place.
    """

    latitude_deg: float | None = Field(None, ge=-90, le=90, allow_inf_nan=False)
    longitude_deg: float | None = Field(None, ge=-180, le=180, allow_inf_nan=False)
    clients: dict[str, Place] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.latitude_deg is None) != (self.longitude_deg is None):
            raise ValueError("give both `latitude-deg` and `longitude-deg`, or neither")
        return self

    def __hash__(self) -> int:
        """Hash, as all tables can be: a whole configuration is the key of caches."""
        return hash((self.latitude_deg, self.longitude_deg, frozenset(self.clients.items())))

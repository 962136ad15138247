"""Gives each client its holidays, its place and its covariates, as `[data]` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fl_inmetro.config.data import Data
from fl_inmetro.data.covariates import WEATHER, Covariate
from fl_inmetro.data.holidays import holidays_of
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.sources import SIMULATOR, SOURCES
from fl_inmetro.data.sources.covariate_file import covariate_file
from fl_inmetro.data.sources.set_covariates import BRINGS
from fl_inmetro.errors import DataError, Fault

if TYPE_CHECKING:
    from fl_inmetro.data.sources.set_covariates import Brought

PERFECT = "perfect forecast"

#: What a run may see of a kind of covariate, in words.
_KNOWN = {"observed": "observed", "forecast": "forecast", "known": "known ahead"}


def with_sites(
    series: Mapping[str, ClientSeries], data: Data, seed: int, present: Iterable[str]
) -> tuple[dict[str, ClientSeries], dict[str, str], dict[str, str]]:
    """Return the series with their sites, what was read for them, and which covariates there are.

    The last are names of covariates to what is known of them: `observed`, `forecast`,
    `known ahead`, or `perfect forecast`.

    Raises:
        ConfigError: FL112, an unknown country or state.
        DataError: FL209, a client that is not there; FL201, FL202, FL203 or FL211, the covariates
            cannot be read.
    """
    named = (*data.calendar.subdivision_of, *data.site.clients)
    unknown = sorted(set(named) - set(present))
    if unknown:
        shown = ", ".join(f"`{name}`" for name in unknown[:5])
        what = f"{len(unknown)} client(s) with a place of their own are not in the source: {shown}"
        where = "[data.calendar] subdivision-of, [data.site] clients"
        raise DataError(Fault("FL209", what, where, "`fl-inmetro data describe` lists them"))
    holidays = holidays_of(data.calendar, series)
    covariates, files = _covariates(data, seed, list(series))
    seen: dict[str, str] = {}
    result: dict[str, ClientSeries] = {}
    for name, one in series.items():
        own = covariates.get(name, ())
        for each in own:
            seen[each.name] = _KNOWN[each.kind]
        if data.covariates.weather == "perfect":
            foreseen = tuple(
                each.foreseen() for each in own if each.kind == "observed" and each.name in WEATHER
            )
            seen |= {each.name: PERFECT for each in foreseen}
            own = (*own, *foreseen)
        place = data.site.clients.get(name, data.site)
        at = (place.latitude_deg, place.longitude_deg)
        site = Site(holidays.get(name), *at, own, data.calendar.timezone)
        result[name] = replace(one, site=site)
    return result, dict(files), seen


def _covariates(data: Data, seed: int, clients: Sequence[str]) -> Brought:
    settings = data.covariates
    if settings.source == "none":
        return {}, {}
    if settings.source == "file":
        return covariate_file(settings, clients)
    if data.source == SIMULATOR:
        return _simulated(data, seed, clients), {}
    brings = BRINGS.get(data.source)
    if brings is None:
        known = ", ".join((SIMULATOR, *BRINGS))
        what = f"source `{data.source}` brings no covariates"
        hint = f'those of {known} do; use `source = "file"` for a file of your own'
        raise DataError(Fault("FL201", what, "[data.covariates] source", hint))
    return brings(Path(SOURCES[data.source].required()).parent, clients)


def _simulated(
    data: Data, seed: int, clients: Sequence[str]
) -> Mapping[str, tuple[Covariate, ...]]:
    # Imported here: nothing else of the product needs the simulator to load real readings.
    from fl_inmetro.data.simulator.atmosphere import weather

    made = weather(data.simulator, seed)
    shared = tuple(
        Covariate(name, "observed", made.start_utc_s, made.resolution_s, values)
        for name, values in (
            ("temperature", made.air_temperature_deg_c),
            ("irradiance", made.irradiance_w_m2),
        )
    )
    return dict.fromkeys(clients, shared)

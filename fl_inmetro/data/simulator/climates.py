"""Five Brazilian climates, as monthly normals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Months = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
Shares = tuple[float, float, float, float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Climate:
    """A place and its normal year, January to December.

    `max_deg_c`/`min_deg_c` follow the INMET climatological normals 1991-2020 (mean daily maximum
    and minimum), as APPROXIMATIONS rounded to the degree: they were not copied from the tables,
    only the São Paulo values of June, July, September and October were checked against published
    ones. `clear_sky_index` (mean irradiance over that of a cloudless sky), `anomaly_deg_c` and
    `electric_shower_share` are assumptions; see docs/simulator.md.

    Attributes:
        city: Name for people.
        latitude_deg: North positive.
        longitude_deg: East positive.
        max_deg_c: Mean daily maximum per month.
        min_deg_c: Mean daily minimum per month.
        clear_sky_index: Mean share of the clear-sky irradiance per month.
        anomaly_deg_c: Standard deviation of the daily anomaly of the mean temperature.
        electric_shower_share: Share of homes that bathe with an electric shower.
    """

    city: str
    latitude_deg: float
    longitude_deg: float
    max_deg_c: Months
    min_deg_c: Months
    clear_sky_index: Shares
    anomaly_deg_c: float
    electric_shower_share: float


#: The keys are those of `[data.simulator] climate`.
CLIMATES: Mapping[str, Climate] = MappingProxyType(
    {
        "sao_paulo": Climate(
            "São Paulo",
            -23.50,
            -46.62,
            (29, 29, 28, 27, 24, 23, 23, 25, 25, 27, 27, 28),
            (19, 20, 19, 17, 15, 13, 13, 13, 15, 16, 17, 19),
            (0.64, 0.66, 0.67, 0.71, 0.72, 0.74, 0.75, 0.75, 0.67, 0.64, 0.65, 0.64),
            2.4,
            0.95,
        ),
        "rio_de_janeiro": Climate(
            "Rio de Janeiro",
            -22.90,
            -43.19,
            (31, 32, 31, 30, 27, 27, 26, 27, 27, 28, 29, 30),
            (24, 24, 24, 22, 20, 19, 19, 19, 20, 21, 22, 23),
            (0.68, 0.72, 0.69, 0.71, 0.72, 0.74, 0.74, 0.74, 0.65, 0.63, 0.64, 0.65),
            2.0,
            0.75,
        ),
        "recife": Climate(
            "Recife",
            -8.06,
            -34.96,
            (31, 31, 31, 30, 29, 28, 28, 28, 29, 30, 30, 31),
            (23, 23, 23, 23, 22, 22, 21, 21, 22, 22, 23, 23),
            (0.82, 0.80, 0.78, 0.72, 0.70, 0.68, 0.70, 0.75, 0.79, 0.82, 0.84, 0.84),
            0.7,
            0.25,
        ),
        "porto_alegre": Climate(
            "Porto Alegre",
            -30.05,
            -51.17,
            (31, 30, 29, 26, 22, 20, 20, 22, 23, 25, 28, 30),
            (21, 21, 20, 17, 14, 11, 11, 12, 14, 16, 18, 20),
            (0.78, 0.76, 0.76, 0.74, 0.70, 0.64, 0.64, 0.67, 0.68, 0.71, 0.77, 0.79),
            3.2,
            0.90,
        ),
        "brasilia": Climate(
            "Brasília",
            -15.79,
            -47.93,
            (27, 27, 27, 27, 26, 26, 26, 27, 29, 29, 27, 27),
            (18, 18, 18, 18, 16, 14, 14, 15, 17, 18, 18, 18),
            (0.66, 0.68, 0.69, 0.76, 0.82, 0.86, 0.87, 0.86, 0.78, 0.68, 0.62, 0.62),
            1.3,
            0.95,
        ),
    }
)

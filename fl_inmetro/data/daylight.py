"""Where the sun stands, and how much light a cloudless sky gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.units import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: 2000-01-01 00:00 UTC in epoch seconds; the series below has the year as its period.
_YEAR_2000_S = 946_684_800
_YEAR_S = 365.2425 * DAY_S


def sin_elevation(utc_s: Ints, latitude_deg: float, longitude_deg: float) -> Floats:
    """Return the sine of the sun's elevation at instants given in epoch seconds.

    Shapes: any in, the same out, without unit, negative at night. Declination and equation of time
    after J. W. Spencer, "Fourier series representation of the position of the sun", Search 2
    (1971) 172; good to about 0.1 degrees. Refraction is left out.
    """
    gamma = _year_angle(utc_s)
    declination = _declination(gamma)
    equation_of_time_h = (24 / (2 * np.pi)) * (
        0.000075
        + 0.001868 * np.cos(gamma)
        - 0.032077 * np.sin(gamma)
        - 0.014615 * np.cos(2 * gamma)
        - 0.040849 * np.sin(2 * gamma)
    )
    solar_time_h = (utc_s % DAY_S) / 3600 + longitude_deg / 15 + equation_of_time_h
    hour_angle = np.pi / 12 * (solar_time_h - 12)
    latitude = np.radians(latitude_deg)
    sine: Floats = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(
        declination
    ) * np.cos(hour_angle)
    return sine


def clear_sky_w_m2(sine_of_elevation: Floats) -> Floats:
    """Return the global horizontal irradiance of a cloudless sky in W/m².

    Shapes: any in, the same out; 0 at night. B. Haurwitz, "Insolation in relation to cloudiness and
    cloud density", Journal of Meteorology 2 (1945) 154: 1098 cos z exp(-0.057 / cos z).
    """
    up = np.maximum(sine_of_elevation, 1e-6)
    light: Floats = np.where(sine_of_elevation > 0, 1098.0 * up * np.exp(-0.057 / up), 0.0)
    return light


def day_length_h(utc_s: Ints, latitude_deg: float) -> Floats:
    """Return the hours for which the sun's centre stands above the horizon around these instants.

    Shapes: any in, the same out; 0 … 24. cos H = -tan(latitude) tan(declination), without
    refraction: at most about ten minutes less than an almanac says below 60 degrees.
    """
    declination = _declination(_year_angle(utc_s))
    cosine = -np.tan(np.radians(latitude_deg)) * np.tan(declination)
    hours: Floats = 24 / np.pi * np.arccos(np.clip(cosine, -1.0, 1.0))
    return hours


def _year_angle(utc_s: Ints) -> Floats:
    angle: Floats = np.asarray(
        2 * np.pi * ((utc_s - _YEAR_2000_S) % _YEAR_S) / _YEAR_S, dtype=np.float64
    )
    return angle


def _declination(gamma: Floats) -> Floats:
    declination = (
        0.006918
        - 0.399912 * np.cos(gamma)
        + 0.070257 * np.sin(gamma)
        - 0.006758 * np.cos(2 * gamma)
        + 0.000907 * np.sin(2 * gamma)
        - 0.002697 * np.cos(3 * gamma)
        + 0.00148 * np.sin(3 * gamma)
    )
    result: Floats = np.asarray(declination, dtype=np.float64)
    return result

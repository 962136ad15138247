"""Where the sun stands, and how much light a cloudless sky gives."""

from __future__ import annotations

import numpy as np

from fl_inmetro.data.simulator.clock import Floats, Ints
from fl_inmetro.units import DAY_S

#: 2000-01-01 00:00 UTC in epoch seconds; the series below has the year as its period.
_YEAR_2000_S = 946_684_800
_YEAR_S = 365.2425 * DAY_S


def sin_elevation(utc_s: Ints, latitude_deg: float, longitude_deg: float) -> Floats:
    """Return the sine of the sun's elevation at instants given in epoch seconds.

    Shapes: (T,) in, (T,) out, without unit, negative at night. Declination and equation of time
    after J. W. Spencer, "Fourier series representation of the position of the sun", Search 2
    (1971) 172; good to about 0.1 degrees. Refraction is left out.
    """
    gamma = 2 * np.pi * ((utc_s - _YEAR_2000_S) % _YEAR_S) / _YEAR_S
    declination = (
        0.006918
        - 0.399912 * np.cos(gamma)
        + 0.070257 * np.sin(gamma)
        - 0.006758 * np.cos(2 * gamma)
        + 0.000907 * np.sin(2 * gamma)
        - 0.002697 * np.cos(3 * gamma)
        + 0.00148 * np.sin(3 * gamma)
    )
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

    Shapes: (T,) in, (T,) out; 0 at night. B. Haurwitz, "Insolation in relation to cloudiness and
    cloud density", Journal of Meteorology 2 (1945) 154: 1098 cos z exp(-0.057 / cos z).
    """
    up = np.maximum(sine_of_elevation, 1e-6)
    light: Floats = np.where(sine_of_elevation > 0, 1098.0 * up * np.exp(-0.057 / up), 0.0)
    return light

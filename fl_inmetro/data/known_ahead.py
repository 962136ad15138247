"""Row features of the target steps themselves: holidays, daylight, month, weather, tariff, PV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.covariates import Covariate, mean_of_last
from fl_inmetro.data.daylight import clear_sky_w_m2, day_length_h, sin_elevation
from fl_inmetro.data.profiles import first_known
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S, HOUR_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Degree-days count below and above these: 15.5 is the British base of heating, 22 °C of cooling.
HEATING_BASE_DEG_C, COOLING_BASE_DEG_C = 15.5, 22.0

#: What a client without any weather is given beside `weather_missing`: neither heat nor cold.
NEUTRAL = {"temperature": 18.0, "humidity": 60.0, "irradiance": 0.0, "tariff": 0.0, "pv": 0.0}

#: Clear-sky irradiance is given in units of this.
_FULL_SUN_W_M2 = 1000.0

AHEAD_GROUPS: dict[str, tuple[str, ...]] = {
    "holidays": (
        "public_holiday",
        "optional_day",
        "bridge_day",
        "holiday_eve",
        "day_after_holiday",
        "lag_1d_holiday",
        "lag_7d_holiday",
        "lag_7d_same_type",
    ),
    "daylight": ("sun_sin_elevation", "clear_sky", "day_length"),
    "weather": (
        "temperature",
        "heating_degrees",
        "cooling_degrees",
        "temperature_24h",
        "humidity",
        "irradiance",
        "weather_missing",
    ),
    "tariff": ("tariff", "tariff_vs_mean", "tariff_missing"),
    "pv": ("pv_same_hour", "pv_24h", "pv_missing"),
    "month": tuple(f"month_{month}" for month in range(1, 13)),
}


def known_ahead(windows: Windows, groups: Sequence[str], scale_kwh: Floats) -> list[Floats]:
    """Return the columns of the chosen groups of `AHEAD_GROUPS`, each of shape (N, H)."""
    columns: list[Floats] = []
    if "holidays" in groups:
        columns += _holidays(windows)
    if "daylight" in groups:
        columns += _daylight(windows)
    if "weather" in groups:
        columns += _weather(windows)
    if "tariff" in groups:
        columns += _tariff(windows)
    if "pv" in groups:
        columns += _pv(windows, scale_kwh)
    if "month" in groups:
        month = windows.target_clock.month
        columns += [(month == one).astype(np.float64) for one in range(12)]
    return columns


def _holidays(windows: Windows) -> list[Floats]:
    clock, holidays = windows.target_clock, windows.series.site.holidays
    # Yesterday and a week ago: of the days of the lags, so hours beyond the first day look at the
    # same ones.
    lagged = windows.slot_clock(np.array([1, 7]))
    same_type = windows.day_types(lagged)[..., 1] == windows.day_types(clock)
    if holidays is None:
        none = np.zeros(clock.day.shape)
        return [*([none] * 7), same_type.astype(np.float64)]
    off, before = holidays.off(clock.day), holidays.off(lagged.day)
    flags = (
        holidays.public(clock.day),
        holidays.optional(clock.day),
        holidays.bridge(clock.day),
        holidays.off(clock.day + 1) & ~off,
        holidays.off(clock.day - 1) & ~off,
        before[..., 0],
        before[..., 1],
        same_type,
    )
    return [flag.astype(np.float64) for flag in flags]


def _daylight(windows: Windows) -> list[Floats]:
    site, middle = windows.series.site, _middle_utc_s(windows)
    if site.latitude_deg is None or site.longitude_deg is None:
        return [np.zeros(middle.shape)] * 3
    sine = sin_elevation(middle, site.latitude_deg, site.longitude_deg)
    length = day_length_h(middle, site.latitude_deg) / 24
    return [sine, clear_sky_w_m2(sine) / _FULL_SUN_W_M2, length]


def _weather(windows: Windows) -> list[Floats]:
    temperature, missing = _expected(windows, "temperature")
    humidity, _ = _expected(windows, "humidity")
    irradiance, _ = _expected(windows, "irradiance")
    day = _mean_24h(windows, "temperature")
    return [
        temperature,
        np.maximum(HEATING_BASE_DEG_C - temperature, 0.0),
        np.maximum(temperature - COOLING_BASE_DEG_C, 0.0),
        first_known(np.broadcast_to(day[:, None], temperature.shape), temperature),
        humidity,
        irradiance,
        missing,
    ]


def _tariff(windows: Windows) -> list[Floats]:
    tariff, missing = _expected(windows, "tariff")
    return [tariff, tariff - tariff.mean(axis=1, keepdims=True), missing]


def _pv(windows: Windows, scale_kwh: Floats) -> list[Floats]:
    """Generation in units of the client's own scale, so that a large roof is not a large client."""
    steps_kwh = windows.series.resolution_s / HOUR_S / scale_kwh[:, None]
    pv, missing = _expected(windows, "pv")
    day = first_known(_mean_24h(windows, "pv"), np.full(len(windows), NEUTRAL["pv"]))
    return [pv * steps_kwh, np.broadcast_to(day[:, None], pv.shape) * steps_kwh, missing]


def _expected(windows: Windows, name: str) -> tuple[Floats, Floats]:
    """Return what is to be expected of a covariate at the target steps, and where nothing is known.

    What looks ahead goes first, then the same hour of the latest day that was observed, then the
    mean of the last 24 hours, then a neutral value, which alone counts as missing. Shapes (N, H).
    """
    middle, issue = _middle_utc_s(windows), windows.issue_utc_s
    value = np.full(middle.shape, np.nan)
    for one in windows.series.site.named(name):
        if one.kind == "observed":
            value = first_known(value, one.at(_latest_utc_s(one, middle, issue), issue))
            value = first_known(value, np.broadcast_to(_day(one, issue), value.shape))
        else:
            value = first_known(value, one.at(middle, issue))
    missing = np.isnan(value)
    return np.where(missing, NEUTRAL[name], value), missing.astype(np.float64)


def _latest_utc_s(observed: Covariate, instant_utc_s: Ints, issue_utc_s: Ints) -> Ints:
    """Return the same time of day on the latest day whose observation is known at the issue."""
    start, step = observed.start_utc_s, observed.resolution_s
    end = start + ((instant_utc_s - start) // step + 1) * step
    days = np.maximum(-(-(end - issue_utc_s[:, None]) // DAY_S), 1)
    latest: Ints = instant_utc_s - days * DAY_S
    return latest


def _day(observed: Covariate, issue_utc_s: Ints) -> Floats:
    return mean_of_last(observed, 24, issue_utc_s)[:, None]


def _mean_24h(windows: Windows, name: str) -> Floats:
    """Return the mean of what was observed in the last 24 hours; shape (N,), NaN without."""
    for one in windows.series.site.named(name):
        if one.kind == "observed":
            return mean_of_last(one, 24, windows.issue_utc_s)
    return np.full(len(windows), np.nan)


def _middle_utc_s(windows: Windows) -> Ints:
    return windows.target_utc_s + windows.series.resolution_s // 2

"""The weather all simulated consumers of a run share: air temperature and irradiance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.daylight import clear_sky_w_m2, sin_elevation
from fl_inmetro.data.simulator.climates import CLIMATES, Climate
from fl_inmetro.data.simulator.clock import (
    BIN_S,
    BINS_PER_DAY,
    Clock,
    Floats,
    clock,
)
from fl_inmetro.seeds import derive

#: Persistence of weather from one day to the next, and of a cloud from one bin to the next.
ANOMALY_MEMORY = 0.70
CLOUD_MEMORY = 0.85
#: Day-to-day spread of the clear-sky index around the month's mean.
CLEARNESS_SPREAD = 0.17


@dataclass(frozen=True, eq=False)
class Weather:
    """The simulated weather, on the same UTC grid as the clients' series.

    Attributes:
        start_utc_s: Epoch second at which the first step begins.
        resolution_s: Length of a step, seconds.
        air_temperature_deg_c: Shape (T,), mean over the step.
        irradiance_w_m2: Shape (T,), global horizontal, mean over the step.
    """

    start_utc_s: int
    resolution_s: int
    air_temperature_deg_c: Floats
    irradiance_w_m2: Floats


@dataclass(frozen=True, eq=False)
class Sky:
    """The weather per 15-minute bin of a `Clock`, the extra day included; all shapes (T,).

    Attributes:
        air_deg_c: Outdoor air temperature.
        irradiance_w_m2: Global horizontal irradiance.
        sin_elevation: Sine of the sun's elevation at the middle of the bin.
        indoor_deg_c: What a home without cooling reaches: it lags behind the outside by its mass
            and lies above it by the heat of people, devices and sun.
    """

    air_deg_c: Floats
    irradiance_w_m2: Floats
    sin_elevation: Floats
    indoor_deg_c: Floats


def weather(settings: Simulator, seed: int) -> Weather:
    """Return the weather that `simulate(settings, seed)` runs under.

    It depends on seed, climate, start and days alone; more days keep the earlier ones.

    Raises:
        ConfigError: FL106, years outside those the clock knows.
    """
    axis = clock(settings.start, settings.days)
    above = sky(axis, CLIMATES[settings.climate], seed)
    steps = settings.resolution_min * 60 // BIN_S
    return Weather(
        axis.start_utc_s + BINS_PER_DAY * BIN_S,
        settings.resolution_min * 60,
        above.air_deg_c[BINS_PER_DAY:].reshape(-1, steps).mean(axis=1),
        above.irradiance_w_m2[BINS_PER_DAY:].reshape(-1, steps).mean(axis=1),
    )


def sky(axis: Clock, climate: Climate, seed: int) -> Sky:
    """Return the weather on the simulator's own bins.

    Daily: normals interpolated between mid-months + AR(1) anomalies; cloudy days are cooler by day
    and milder at night. Within the day: a cosine from the minimum at sunrise to the maximum at
    15 h local time and back; irradiance = clear sky x the day's index x passing clouds.
    """
    anomaly = climate.anomaly_deg_c * _ar1(seed, "anomaly", axis.days, ANOMALY_MEMORY)
    usual_index = _daily_normal(climate.clear_sky_index, axis)
    index = np.clip(
        usual_index + CLEARNESS_SPREAD * _ar1(seed, "clearness", axis.days, 0.4), 0.12, 1.0
    )
    clearer = index - usual_index
    max_deg_c = _daily_normal(climate.max_deg_c, axis) + 1.1 * anomaly + 9.0 * clearer
    min_deg_c = _daily_normal(climate.min_deg_c, axis) + 0.9 * anomaly - 2.0 * clearer
    max_deg_c = np.maximum(max_deg_c, min_deg_c + 2.0)

    mid_bin_utc_s = axis.start_utc_s + BIN_S * np.arange(axis.bins, dtype=np.int64) + BIN_S // 2
    sine = sin_elevation(mid_bin_utc_s, climate.latitude_deg, climate.longitude_deg)
    air_deg_c = _diurnal(axis, min_deg_c, max_deg_c)
    day_index = index[axis.day_of_bin]
    # Passing clouds flicker most under a broken sky and hardly under a clear or a leaden one.
    flicker = 1.6 * day_index * (1.0 - day_index)
    passing = np.exp(flicker * _ar1(seed, "clouds", axis.bins, CLOUD_MEMORY) - flicker**2 / 2)
    irradiance = clear_sky_w_m2(sine) * np.minimum(day_index * passing, 1.05)
    return Sky(air_deg_c, irradiance, sine, _indoor(air_deg_c))


def _indoor(air_deg_c: Floats) -> Floats:
    """Half of the outside now, half of its mean over the past 24 h, and 2.5 degrees of gains."""
    padded = np.concatenate([np.full(BINS_PER_DAY, air_deg_c[:BINS_PER_DAY].mean()), air_deg_c])
    total = np.concatenate([[0.0], np.cumsum(padded)])
    past = (total[BINS_PER_DAY + 1 :] - total[1:-BINS_PER_DAY]) / BINS_PER_DAY
    indoor: Floats = 0.5 * air_deg_c + 0.5 * past + 2.5
    return indoor


def _diurnal(axis: Clock, min_deg_c: Floats, max_deg_c: Floats) -> Floats:
    """Join minima (6 h) and maxima (15 h) by half cosines, continuous over midnight."""
    anchor_min = (axis.day_start_min[:, None] + np.array([360.0, 900.0])).ravel()
    anchor_deg_c = np.stack([min_deg_c, max_deg_c], axis=1).ravel()
    moment = BIN_S / 60 * (np.arange(axis.bins) + 0.5)
    right = np.clip(np.searchsorted(anchor_min, moment), 1, anchor_min.size - 1)
    left = right - 1
    passed = (moment - anchor_min[left]) / (anchor_min[right] - anchor_min[left])
    weight = (1.0 - np.cos(np.pi * np.clip(passed, 0.0, 1.0))) / 2.0
    mixed: Floats = anchor_deg_c[left] * (1.0 - weight) + anchor_deg_c[right] * weight
    return mixed


def _daily_normal(monthly: tuple[float, ...], axis: Clock) -> Floats:
    """Shape (D,): the normal of each day, linear between the middles of the months."""
    day_of_year = np.array([day.timetuple().tm_yday for day in axis.dates], dtype=np.float64)
    middles = (np.arange(12) + 0.5) * 365.25 / 12
    return np.interp(day_of_year, middles, np.array(monthly, dtype=np.float64), period=365.25)


def _ar1(seed: int, name: str, count: int, memory: float) -> Floats:
    """Return a stationary AR(1) series of unit variance, shape (count,).

    Written as a finite moving average of white noise (memory^k below 1e-8 is dropped), so that
    there is no loop over time steps and a longer series begins with the shorter one.
    """
    terms = int(np.ceil(np.log(1e-8) / np.log(memory)))
    noise = derive(seed, "simulator", "weather", name).standard_normal(count + terms - 1)
    kernel = memory ** np.arange(terms, dtype=np.float64)
    smooth: Floats = np.sqrt(1.0 - memory**2) * np.convolve(noise, kernel, mode="valid")
    return smooth

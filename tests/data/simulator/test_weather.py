from datetime import UTC, date, datetime

import numpy as np
import pytest

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.daylight import clear_sky_w_m2, sin_elevation
from fl_inmetro.data.simulator import simulate, weather
from fl_inmetro.data.simulator.climates import CLIMATES


def almanac_sin_elevation(utc_s, latitude_deg, longitude_deg):
    """The low-precision formulas of the Astronomical Almanac (page C5): another way to the sun."""
    n = utc_s / 86400 + 2440587.5 - 2451545.0
    mean_longitude = 280.460 + 0.9856474 * n
    g = np.radians(357.528 + 0.9856003 * n)
    longitude = np.radians(mean_longitude + 1.915 * np.sin(g) + 0.020 * np.sin(2 * g))
    obliquity = np.radians(23.439 - 4e-7 * n)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    sidereal_deg = 280.46061837 + 360.98564736629 * n + longitude_deg
    hour_angle = np.radians(sidereal_deg) - right_ascension
    latitude = np.radians(latitude_deg)
    return np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
        hour_angle
    )


@pytest.mark.parametrize("climate", CLIMATES)
def test_sun_equals_the_almanac(climate):
    place = CLIMATES[climate]
    first = int(datetime(2023, 1, 1, tzinfo=UTC).timestamp())
    utc_s = first + 1800 * np.arange(2 * 365 * 48, dtype=np.int64)
    ours = sin_elevation(utc_s, place.latitude_deg, place.longitude_deg)
    theirs = almanac_sin_elevation(utc_s, place.latitude_deg, place.longitude_deg)
    degrees = np.degrees(np.arcsin(ours) - np.arcsin(theirs))
    # The sine hides errors near the zenith; below 80 degrees half a degree is generous.
    assert np.abs(degrees[np.abs(ours) < 0.98]).max() < 0.5


def test_clear_sky_by_hand():
    # Sun in the zenith: 1098 exp(-0.057) = 1098 x 0.94459 = 1037.2 W/m2; at night nothing.
    assert clear_sky_w_m2(np.array([1.0, 0.0, -0.5])) == pytest.approx([1037.2, 0, 0], abs=0.1)


@pytest.mark.parametrize("climate", CLIMATES)
def test_temperatures_average_to_the_normals(climate):
    settings = Simulator(start=date(2010, 1, 1), days=3652, climate=climate)
    found = weather(settings, 3)
    assert found.start_utc_s == int(datetime(2010, 1, 1, 2, tzinfo=UTC).timestamp())
    by_day = found.air_temperature_deg_c.reshape(-1, 24)
    month = np.array(
        [
            datetime.fromtimestamp(found.start_utc_s + 86400 * k + 43200, UTC).month
            for k in range(len(by_day))
        ]
    )
    for number in (1, 4, 7, 10):
        chosen = by_day[month == number]
        assert chosen.max(axis=1).mean() == pytest.approx(
            CLIMATES[climate].max_deg_c[number - 1], abs=1.3
        )
        assert chosen.min(axis=1).mean() == pytest.approx(
            CLIMATES[climate].min_deg_c[number - 1], abs=1.3
        )


def test_light_of_the_year_is_that_of_brazil():
    # Mean global horizontal irradiation, kWh/m2 per day: about 4.4 to 5.6 for the five cities in
    # the Brazilian atlas of solar energy (INPE 2017; from memory, hence the wide margins).
    for climate in CLIMATES:
        found = weather(Simulator(days=366, climate=climate), 1)
        daily = found.irradiance_w_m2.sum() / 1000 / 366
        assert 4.1 < daily < 5.8, climate
        assert found.irradiance_w_m2.min() >= 0


def test_days_persist_and_differ():
    daily = weather(Simulator(days=366), 5).air_temperature_deg_c.reshape(-1, 24).mean(axis=1)
    change = np.diff(daily)
    season = np.convolve(daily, np.ones(31) / 31, mode="same")
    spread = (daily - season)[20:-20]
    assert 1.0 < spread.std() < 4.0
    assert np.corrcoef(spread[1:], spread[:-1])[0, 1] > 0.3
    assert np.abs(change).max() > 3


def test_weather_lies_on_the_grid_of_the_clients():
    settings = Simulator(clients=1, days=3, resolution_min=30)
    found, series = weather(settings, 0), next(iter(simulate(settings, 0).values()))
    assert (found.start_utc_s, found.resolution_s) == (series.start_utc_s, series.resolution_s)
    assert found.air_temperature_deg_c.shape == found.irradiance_w_m2.shape == (len(series),)


def test_coarser_weather_is_the_mean_of_finer():
    fine = weather(Simulator(days=5, resolution_min=15), 2)
    hour = weather(Simulator(days=5, resolution_min=60), 2)
    assert np.allclose(
        hour.air_temperature_deg_c, fine.air_temperature_deg_c.reshape(-1, 4).mean(axis=1)
    )
    assert np.allclose(hour.irradiance_w_m2, fine.irradiance_w_m2.reshape(-1, 4).mean(axis=1))

"""The sun against almanacs and against NOAA's formulas, written out here on their own."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from fl_inmetro.data.daylight import clear_sky_w_m2, day_length_h, sin_elevation
from fl_inmetro.data.features import GROUPS, row_features
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Windows
from tests.fleets import MONDAY

#: At sunrise and sunset of almanacs the centre stands 0.833 degrees below the horizon.
HORIZON = math.sin(math.radians(-0.833))


def noaa_sin_elevation(utc_s: int, latitude: float, longitude: float) -> float:
    """NOAA's solar calculator (after Meeus, Astronomical Algorithms), without refraction."""
    century = (utc_s / 86400 + 2440587.5 - 2451545) / 36525
    mean_longitude = (280.46646 + century * (36000.76983 + century * 0.0003032)) % 360
    anomaly = math.radians(357.52911 + century * (35999.05029 - 0.0001537 * century))
    eccentricity = 0.016708634 - century * (0.000042037 + 0.0000001267 * century)
    centre = (
        math.sin(anomaly) * (1.914602 - century * (0.004817 + 0.000014 * century))
        + math.sin(2 * anomaly) * (0.019993 - 0.000101 * century)
        + math.sin(3 * anomaly) * 0.000289
    )
    node = math.radians(125.04 - 1934.136 * century)
    apparent = math.radians(mean_longitude + centre - 0.00569 - 0.00478 * math.sin(node))
    seconds = 21.448 - century * (46.815 + century * (0.00059 - century * 0.001813))
    tilt = math.radians(23 + (26 + seconds / 60) / 60 + 0.00256 * math.cos(node))
    declination = math.asin(math.sin(tilt) * math.sin(apparent))
    y = math.tan(tilt / 2) ** 2
    long = math.radians(mean_longitude)
    equation_min = 4 * math.degrees(
        y * math.sin(2 * long)
        - 2 * eccentricity * math.sin(anomaly)
        + 4 * eccentricity * y * math.sin(anomaly) * math.cos(2 * long)
        - 0.5 * y * y * math.sin(4 * long)
        - 1.25 * eccentricity**2 * math.sin(2 * anomaly)
    )
    solar_min = (utc_s % 86400) / 60 + equation_min + 4 * longitude
    hour_angle = math.radians(solar_min / 4 - 180)
    phi = math.radians(latitude)
    return math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(
        hour_angle
    )


@pytest.mark.parametrize(("latitude", "longitude"), [(52.2, 0.12), (-23.55, -46.63), (0, 100)])
def test_elevation_is_noaas_to_half_a_degree(latitude, longitude):
    instants = np.arange(1_450_000_000, 1_700_000_000, 1_234_567, dtype=np.int64)
    got = np.degrees(np.arcsin(sin_elevation(instants, latitude, longitude)))
    want = [
        math.degrees(math.asin(noaa_sin_elevation(int(one), latitude, longitude)))
        for one in instants
    ]
    np.testing.assert_allclose(got, want, atol=0.5)


@pytest.mark.parametrize(
    ("place", "rise", "sets"),
    [
        # London, 2024-06-20: 04:43 and 21:21 British Summer Time.
        ((51.507, -0.128), (2024, 6, 20, 3, 43), (2024, 6, 20, 20, 21)),
        # São Paulo, 2024-06-20: 06:47 and 17:28 at UTC-3.
        ((-23.55, -46.63), (2024, 6, 20, 9, 47), (2024, 6, 20, 20, 28)),
    ],
)
def test_sunrise_and_sunset_of_almanacs(place, rise, sets):
    for moment, rising in ((rise, 1), (sets, -1)):
        at = int(datetime(*moment, tzinfo=UTC).timestamp())
        before, after = sin_elevation(np.array([at - 240, at + 240]), *place) - HORIZON
        assert before * rising < 0 < after * rising


def test_length_of_the_day():
    june, march = (
        np.array([int(datetime(2024, m, 20, 12, tzinfo=UTC).timestamp())]) for m in (6, 3)
    )
    # cos H = -tan(52.2°) tan(23.44°) = -0.5590; H = 123.99°, and 2H/15 = 16.53 h.
    assert day_length_h(june, 52.2)[0] == pytest.approx(16.53, abs=0.02)
    assert day_length_h(june, -52.2)[0] == pytest.approx(24 - 16.53, abs=0.02)
    assert day_length_h(march, 52.2)[0] == pytest.approx(12, abs=0.1)
    assert day_length_h(june, 80)[0] == 24
    assert day_length_h(june, -80)[0] == 0


def test_the_group_is_taken_at_the_middle_of_the_step_and_zero_without_a_place():
    there = ClientSeries("a", MONDAY, 3600, np.ones(48), Site(None, -23.55, -46.63))
    rows = row_features(Windows(there, np.array([24]), 24), ("daylight",)).x[0]
    middle = MONDAY + 24 * 3600 + 1800 + 3600 * np.arange(24, dtype=np.int64)
    sine = sin_elevation(middle, -23.55, -46.63)
    np.testing.assert_allclose(rows[:, 0], sine, atol=1e-6)
    np.testing.assert_allclose(rows[:, 1], clear_sky_w_m2(sine) / 1000, atol=1e-6)
    assert (rows[sine < 0, 1] == 0).all()
    nowhere = ClientSeries("a", MONDAY, 3600, np.ones(48))
    rows = row_features(Windows(nowhere, np.array([24]), 24), ("daylight",)).x
    assert rows.shape == (1, 24, len(GROUPS["daylight"]))
    assert not rows.any()

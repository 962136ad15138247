"""The daily numbers by hand: level, error, shape, shares, days that do not count."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from fl_inmetro.data.holidays import Holidays
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Windows
from fl_inmetro.drift.daily import daily
from fl_inmetro.units import DAY_S, epoch_s
from tests.fleets import MONDAY


def windows(energy: np.ndarray, horizon: int = 24, site: Site | None = None) -> Windows:
    """Forecasts issued at each midnight of 24 hourly steps."""
    series = ClientSeries("a", MONDAY, 3600, energy)
    if site is not None:
        series = replace(series, site=site)
    issues = np.arange(len(energy) // 24) * 24
    return Windows(series, issues, horizon)


def test_the_numbers_of_three_days():
    """Day 1: 2 kWh were forecast in each hour; 3 were read from 10 to 16 h, 2 else.

    Level: (6·3 + 18·2) / 48 = 54 / 48. Error: 6·1 / 24 over 2 = 1/8. Shape: log(3/2) − log(2/2).
    Day 2: a meter that reads nothing has the least factor 1/100, everywhere: no shape.
    Day 3: 13 hours are missing, so the day is not judged.
    """
    energy = np.full(72, 2.0)
    energy[10:16] = 3.0
    energy[24:48] = 0.0
    energy[48:61] = np.nan
    found = daily(windows(energy), np.full((3, 24), 2.0))
    assert found.level == pytest.approx([log(54 / 48), log(1 / 100), np.nan], nan_ok=True)
    assert found.error == pytest.approx([log(1 / 8), log(1.0), np.nan], nan_ok=True)
    assert found.shape == pytest.approx([log(3 / 2), 0.0, np.nan], nan_ok=True)
    assert found.share == pytest.approx([1.0, 1.0, 11 / 24])
    assert found.flat.tolist() == [False, True, False]


def test_only_the_first_day_of_a_longer_forecast_counts():
    energy = np.full(96, 1.0)
    forecast = np.concatenate([np.full((4, 24), 1.0), np.full((4, 24), 50.0)], axis=1)
    found = daily(windows(energy, 48), forecast)
    assert found.level == pytest.approx([0, 0, 0, 0])
    assert found.error == pytest.approx([log(1e-4)] * 4)  # the least there is


def test_a_missing_or_a_negative_forecast_gives_no_number():
    forecast = np.array([[np.nan] * 24, [-1.0] * 24])
    found = daily(windows(np.ones(48)), forecast)
    for values in (found.level, found.error, found.shape):
        assert np.isnan(values).all()
    assert found.share == pytest.approx([1, 1])


def test_the_middle_of_the_day_is_local():
    """America/Sao_Paulo is three hours behind UTC: 10 to 16 h there is 13 to 19 h UTC."""
    energy = np.ones(48)
    energy[13:19] = 2.0
    local = replace(windows(energy), timezone="America/Sao_Paulo")
    assert daily(local, np.ones((2, 24))).shape[0] == pytest.approx(log(2))


def test_holidays_and_the_days_around_them_are_not_judged():
    """2024 in Brazil: 1 May, a Wednesday; 15 November, a Friday; the turn of the year."""
    days = 366
    energy = np.ones(24 * days)
    site = Site(holidays=Holidays("BR"))
    found = daily(windows(energy, site=site), np.ones((days, 24)))
    judged = np.isfinite(found.level)

    def of(month: int, day: int) -> bool:
        from datetime import UTC, datetime

        at = epoch_s(datetime(2024, month, day, tzinfo=UTC))
        return bool(judged[(at - MONDAY) // DAY_S])

    assert [of(4, 30), of(5, 1), of(5, 2), of(5, 3)] == [True, False, False, True]
    assert [of(11, 14), of(11, 15), of(11, 16), of(11, 17)] == [True, False, False, True]
    assert [of(12, 22), of(12, 23), of(12, 31), of(1, 2), of(1, 3)] == [True, *[False] * 3, True]
    assert np.isfinite(daily(windows(energy), np.ones((days, 24))).level).all()

"""A day of readings is in as many training windows as a trial on made readings finds."""

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.config.models import Models
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import windows_at
from fl_inmetro.learning.exposure import windows_of_a_day
from fl_inmetro.learning.table import learner
from fl_inmetro.privacy.mechanism import windows_touching
from fl_inmetro.units import DAY_S, HOUR_S


def daily(days: int = 150, seed: int = 0, floor_share: float | None = 0.0):
    energy = np.random.default_rng(seed).gamma(2.0, 1.0, days * 24)
    series = ClientSeries("a", 0, HOUR_S, energy)
    issues = np.arange(40, days) * DAY_S
    return (replace(windows_at(series, issues, 24, "UTC"), floor_share=floor_share),)


@pytest.mark.parametrize("name", ["nlinear", "mlp", "ridge", "dlinear"])
def test_a_day_is_in_all_windows_that_read_or_forecast_a_part_of_it(name):
    # A window issued at 00:00 of day d is scaled by the 28 days before it and forecasts day d:
    # 29 days of 24 h, one window a day. By hand, 24 hours from some time within day e on are in
    # the forecasts of e and e + 1, and behind the windows up to e + 29: 30 windows.
    found = windows_of_a_day(learner(name, Models()), daily())
    assert found == 30 == windows_touching(span_steps=29 * 24, stride_steps=24, day_steps=24)


@pytest.mark.parametrize("name", ["nlinear", "mlp"])
def test_a_scale_that_remembers_all_days_ties_each_day_to_every_later_window(name):
    # A quarter of the mean of all that was read before is the least scale: after a long absence, or
    # one day of a million times the load, it is what counts, whichever day that was.
    assert windows_of_a_day(learner(name, Models()), daily(floor_share=None)) == 110


def test_so_does_the_age_of_a_meter():
    features = (*Models().mlp.features, "age")
    models = Models.model_validate({"mlp": {"features": features}})
    assert windows_of_a_day(learner("mlp", models), daily()) == 110


def test_the_readings_themselves_say_nothing():
    one = learner("nlinear", Models())
    first, second = daily(seed=1), daily(seed=2)
    flat = (replace(first[0], series=replace(first[0].series, energy_kwh=np.full(3600, np.nan))),)
    assert windows_of_a_day(one, first) == windows_of_a_day(one, second)
    assert windows_of_a_day(one, flat) == windows_of_a_day(one, first)


def test_who_has_no_window_has_a_day_in_one():
    assert windows_of_a_day(learner("nlinear", Models()), ()) == 1

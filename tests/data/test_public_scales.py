"""Public scales: every feature has one, and made loads lie where they say."""

from __future__ import annotations

import numpy as np
import pytest

from fl_inmetro.data.features import GROUPS, feature_names, row_features
from fl_inmetro.data.public_scales import public_scales
from tests.fleets import clients_of, fleet


def test_every_feature_of_every_group_has_a_scale():
    names = feature_names(tuple(GROUPS))
    scales = public_scales(names)
    assert scales.mean.shape == scales.std.shape == scales.of_readings.shape == (len(names),)
    assert (scales.std > 0).all()
    with pytest.raises(KeyError, match="`moon` has no public scale"):
        public_scales(["moon"])


def test_what_readings_are_behind():
    scales = public_scales(["lag_3d", "sin_day_2", "temperature", "pv_24h", "weekday_6"])
    assert scales.of_readings.tolist() == [True, False, False, True, False]


def test_calendar_scales_are_those_of_a_whole_year():
    # A year of days, 24 hours each: the wave's mean square is 1/2, that of the weekend wave
    # 1/2 · 2/7, and one day in seven is a Monday: variance 1/7 · 6/7.
    hours, days = np.arange(24), np.arange(7 * 52)
    wave = np.sin(2 * np.pi * hours / 24)[None, :] * np.ones((len(days), 1))
    weekend = wave * (days % 7 >= 5)[:, None]
    monday = (days % 7 == 0).astype(float)
    scales = public_scales(["sin_day_1", "sin_day_1_weekend", "weekday_0"])
    assert scales.std == pytest.approx([wave.std(), weekend.std(), monday.std()])
    assert scales.mean == pytest.approx([0, 0, monday.mean()])


def test_loads_of_a_made_fleet_lie_where_the_scales_say():
    names = ("lags", "day_profiles")
    found = [row_features(c.train[0], names).x for c in clients_of(fleet(3))[0]]
    x = np.concatenate([one.reshape(-1, one.shape[-1]) for one in found])
    scales = public_scales(feature_names(names))
    apart = np.abs((np.nanmean(x, axis=0) - scales.mean) / scales.std)
    assert apart.max() < 0.2

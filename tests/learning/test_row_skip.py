"""The first guess of a quantile head among the features, by hand."""

import numpy as np

from fl_inmetro.data.features import feature_names
from fl_inmetro.learning.neural import row_skip
from fl_inmetro.models.heads import PointHead, QuantileHead


def guess(names: tuple[str, ...], skip: np.ndarray, **values: float) -> list[float]:
    """What the skip gives for features of these values, all others 0."""
    x = np.array([values.get(name, 0.0) for name in names])
    return (x @ skip).tolist()


def test_between_two_levels_in_proportion():
    names = feature_names(["day_profiles", "recent"])
    skip = row_skip(names, QuantileHead((0.05, 0.1, 0.3, 0.5, 0.9), 0.1))
    given = {"slot_q10_28d": 1.0, "median_28d": 3.0, "slot_q90_28d": 7.0, "mean_day_type_28d": 10.0}
    # The mean starts at the base; .05 is as low as there is; .3 is half way from .1 to .5.
    np.testing.assert_allclose(guess(names, skip, **given), [0, -9, -9, -8, -7, -3], atol=1e-6)


def test_days_of_the_type_come_first():
    names = feature_names(["day_profiles", "recent", "slots"])
    skip = row_skip(names, QuantileHead((0.25, 0.9), 0.1))
    given = {"slot_day_type_q25": 2.0, "slot_day_type_q90": 5.0, "slot_q90_28d": 99.0}
    np.testing.assert_allclose(guess(names, skip, **given), [0, 2, 5], atol=1e-6)


def test_without_quantiles_or_base_there_is_none():
    assert row_skip(feature_names(["lags"]), QuantileHead((0.5,), 0.1)) is None
    assert row_skip(feature_names(["recent"]), QuantileHead((0.5,), 0.1)) is None
    assert row_skip(feature_names(["day_profiles", "recent"]), PointHead("mae")) is None

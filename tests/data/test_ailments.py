"""When a model should not be asked: gaps and flat lines made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fl_inmetro.config.fallback import Fallback
from fl_inmetro.data.ailments import Reason, ailments, flat_steps
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.seeds import derive
from tests.fleets import MONDAY

DAY = 24


def load(days: int = 60) -> np.ndarray:
    return derive(3, "ailments").gamma(2.0, 1.0, days * DAY)


#: A model that is asked in spite of long gaps.
PATIENT = Fallback(no_readings_days=14)


def at_end(energy: np.ndarray, settings: Fallback = PATIENT) -> Reason | None:
    """Return what ails a meter at the end of its readings."""
    series = ClientSeries("a", MONDAY, 3600, energy)
    (found,) = ailments(Windows(series, np.array([energy.size]), 24), settings)
    return found


def without(energy: np.ndarray, first: int, last: int | None = None) -> np.ndarray:
    """Return readings with a gap, in hours from the end."""
    energy = energy.copy()
    energy[-first : None if last is None else -last] = np.nan
    return energy


# Each with the hours that are missing before the issue time.
@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        (load(), None),
        (without(load(), 14 * DAY - 1), Reason.MISSING_LAGS),
        (without(load(), 14 * DAY), Reason.NO_READINGS),
        # 0.2 of 14 days are 67.2 hours: with 68 it may be asked, with 67 not.
        (without(load(), 14 * DAY - 68), None),
        (without(load(), 14 * DAY - 67), Reason.MISSING_LAGS),
        (without(load(), 40 * DAY), Reason.NO_READINGS),
        (load(1)[:23], Reason.TOO_FEW_READINGS),
        (load(1), None),  # a day old: it has lost nothing
        (load(3), None),
        (without(load(3), 70), Reason.TOO_FEW_READINGS),
        (np.zeros(0), Reason.TOO_FEW_READINGS),
    ],
)
def test_gaps(energy, expected):
    assert at_end(energy) == expected


def test_a_day_without_readings_is_too_long():
    assert at_end(without(load(), 23), Fallback()) is None
    assert at_end(without(load(), 24), Fallback()) is Reason.NO_READINGS
    assert at_end(without(load(), 48, 1), Fallback()) is None  # it reads again


def test_thresholds_are_those_of_the_settings():
    energy = without(load(), 5 * DAY)
    assert at_end(energy) is None
    assert at_end(energy, Fallback(no_readings_days=5)) is Reason.NO_READINGS
    # 5 of 14 days are 0.357 of them.
    assert (
        at_end(energy, Fallback(no_readings_days=14, max_missing_share=0.35)) is Reason.MISSING_LAGS
    )
    assert at_end(energy, Fallback(no_readings_days=14, max_missing_share=0.36)) is None


def flat(hours: int, value: float = 0.7) -> np.ndarray:
    energy = load()
    energy[-hours:] = value
    return energy


@pytest.mark.parametrize("value", [0.0, 0.7, -0.2])
def test_a_day_of_one_value_is_a_flat_line(value):
    assert at_end(flat(23, value)) is None
    assert at_end(flat(24, value)) is Reason.FLAT_LINE
    assert at_end(flat(24, value), Fallback(flat_h=0)) is None
    assert at_end(flat(24, value), Fallback(flat_h=25)) is None


def test_a_flat_line_lasts_until_the_last_reading():
    # 30 hours of one value, then 5 hours that nobody has read: 35 steps to leave out.
    energy = without(flat(35), 5)
    series = ClientSeries("a", MONDAY, 3600, energy)
    windows = Windows(series, np.array([energy.size - 40, energy.size]), 24)
    np.testing.assert_array_equal(flat_steps(windows, Fallback()), [0, 35])
    # One that has moved again is none, and one with most of its steps unread is nothing known.
    moved = flat(35)
    moved[-1] = 2.0
    assert at_end(moved) is None
    assert at_end(without(flat(40), 35, 5)) is None


def test_a_meter_that_often_stands_still_is_not_judged():
    """A roof that feeds in: net consumption zero by day, and zero at night where nobody is in."""
    energy = load()
    for day in range(60):
        energy[day * DAY + 6 : day * DAY + 18] = 0.0  # 11 of 24 steps repeat the one before
    energy[-30:] = 0.0
    assert at_end(energy) is None
    assert at_end(energy, Fallback(usual_flat_share=0.5)) is Reason.FLAT_LINE


def test_a_meter_that_has_shown_nothing_else_is_not_judged():
    assert at_end(np.full(60 * DAY, 0.3)) is None
    energy = np.full(60 * DAY, 0.3)
    energy[: -22 * DAY] = load()[: -22 * DAY]  # six of the 28 days are other than flat
    assert at_end(energy) is None
    energy[: -21 * DAY] = load()[: -21 * DAY]  # seven
    assert at_end(energy) is Reason.FLAT_LINE

"""Meters that end before the fleet, or begin after it."""

import numpy as np

from fl_inmetro.data.cleaning.ends import note_uneven_ends
from fl_inmetro.data.cleaning.findings import Ledger
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.units import DAY_S, HOUR_S


def meter(name: str, first_day: float, last_day: float) -> ClientSeries:
    steps = round((last_day - first_day) * 24)
    return ClientSeries(name, round(first_day * DAY_S), HOUR_S, np.ones(steps))


def found(*meters: ClientSeries) -> dict[tuple[str, str], tuple[int, tuple[str, ...], str]]:
    ledger = Ledger()
    note_uneven_ends({one.client_id: one for one in meters}, ledger)
    assert {one.action for one in ledger.findings} <= {"reported"}
    return {(f.client_id, f.kind): (f.count, f.places, f.detail) for f in ledger.findings}


def test_days_are_counted_from_the_fleets_own_first_and_last_reading():
    # 100 - 88.5 = 11.5 days of 24 steps at the end, 30 days at the beginning.
    notes = found(meter("a", 0, 100), meter("b", 0, 88.5), meter("c", 30, 100))
    assert notes == {
        ("b", "ends_early"): (
            276,
            ("1970-03-30T12:00:00Z",),
            "the last reading is 11.5 days before the fleet's last one: once it is a day old, "
            "`forecast` does not ask the model but a stand-in, and says so",
        ),
        ("c", "begins_late"): (
            720,
            ("1970-01-31T00:00:00Z",),
            "the first reading is 30 days after the fleet's first one: so much less to train on "
            "and to be scored by",
        ),
    }


def test_a_delivery_of_yesterday_and_a_meter_of_last_month_are_nothing():
    assert found(meter("a", 0, 100), meter("b", 28, 99)) == {}
    assert list(found(meter("a", 0, 100), meter("b", 0, 99 - 1 / 24))) == [("b", "ends_early")]
    assert list(found(meter("a", 0, 100), meter("b", 28 + 1 / 24, 100))) == [("b", "begins_late")]


def test_a_meter_that_is_silent_for_over_a_year_is_left_out_of_forecasts():
    notes = found(meter("a", 0, 500), meter("b", 0, 134), meter("c", 0, 133))
    assert "does not ask the model but a stand-in" in notes["b", "ends_early"][2]  # 366 days
    assert notes["c", "ends_early"][2].endswith("`forecast` leaves the client out, and says so")


def test_one_meter_is_its_own_fleet():
    assert found(meter("a", 5, 6)) == {}
    assert found() == {}

"""Chronological splits: nothing is fitted or chosen on a reading that is scored later."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.schema import Window
from fl_inmetro.data.series import ClientSeries, ReferenceWindow
from fl_inmetro.data.splits import MIN_TRAIN_WINDOWS, resolve, split_client, split_fleet
from fl_inmetro.errors import DataError
from fl_inmetro.units import DAY_S
from tests.fleets import MONDAY, WINDOW, federated, fleet, series


def day(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())


@given(
    st.sampled_from([24.0, 30.0, 48.0, 96.0]),
    st.sampled_from(["UTC", "America/Sao_Paulo", "Australia/Sydney"]),
    st.sampled_from(["00:00", "12:00"]),
    st.integers(1, 9),
    st.integers(1, 12),
)
def test_no_target_of_an_earlier_split_reaches_the_next(horizon, zone, at, validation, test):
    """With Brazil's change of the clock (2018-02-18) among these 60 days."""
    one = series("a", 60, start_utc_s=day(2018, 1, 20))
    window = Window(
        horizon_h=horizon, timezone=zone, issue_time=at, validation_days=validation,
        test_days=test, train_days=0,
    )  # fmt: skip
    splits = resolve(window, federated([one]))
    parts = split_client(one, splits)
    length = splits.horizon * 3600
    assert splits.train[-1] + length <= splits.test[0]
    if splits.validation.size:
        assert splits.train[-1] + length <= splits.validation[0]
        assert splits.validation[-1] + length <= splits.test[0]
    targets = [set(part.target_utc_s.ravel().tolist()) for part in vars(parts).values()]
    assert not targets[0] & targets[1]
    assert not targets[0] & targets[2]
    assert not targets[1] & targets[2]
    # One issue per local day, at the local time.
    for second in np.concatenate([splits.train, splits.validation, splits.test]).tolist():
        local = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
        assert f"{local:%H:%M}" == at or local.hour == 1  # Brazil's skipped midnight
    # The default test window ends with the data: its last forecast fits, one more would not.
    assert splits.test.size == test
    assert splits.test[-1] + length <= one.end_utc_s < splits.test[-1] + length + 26 * 3600


def test_days_by_hand():
    # 40 days from 2024-01-01; test 02-05 … 02-09, validation the three days before, training all
    # days before that. The first issue is on the first day.
    splits = resolve(WINDOW, fleet(1))
    assert splits.test.tolist() == [day(2024, 2, d) for d in range(5, 10)]
    assert splits.validation.tolist() == [day(2024, 2, d) for d in (2, 3, 4)]
    assert splits.train[0] == day(2024, 1, 1)
    assert splits.train[-1] == day(2024, 2, 1)
    assert splits.train.size == 32


def test_two_days_of_horizon_cost_a_window_at_each_border():
    splits = resolve(WINDOW.model_copy(update={"horizon_h": 48.0}), fleet(1))
    # 02-04 + 48 h ends on 02-06, inside the test: dropped; so is 02-01 before validation.
    assert splits.validation.tolist() == [day(2024, 2, d) for d in (2, 3)]
    assert splits.train[-1] == day(2024, 1, 31)


def test_train_days_and_train_start():
    ten = resolve(WINDOW.model_copy(update={"train_days": 10}), fleet(1))
    assert ten.train[0] == day(2024, 1, 23)
    assert ten.train.size == 10
    given_start = resolve(WINDOW.model_copy(update={"train_start": date(2024, 1, 20)}), fleet(1))
    assert given_start.train[0] == day(2024, 1, 20)


def test_the_reference_window_of_the_source_is_the_default_with_its_clock():
    reference = ReferenceWindow("2024-02-01", "2024-02-03", "09:00", "America/Sao_Paulo")
    data = federated([series("a", 40)], reference)
    splits = resolve(Window(validation_days=2), data)
    assert splits.test.tolist() == [day(2024, 2, d, 12) for d in (1, 2, 3)]
    assert (splits.issue_time, splits.timezone) == ("09:00", "America/Sao_Paulo")
    # Days of one's own replace its days and keep its clock; a clock of one's own replaces that.
    dates = {"test_start": date(2024, 2, 5), "test_end": date(2024, 2, 9), "validation_days": 2}
    own = resolve(Window.model_validate(dates), data)
    assert own.test[0] == day(2024, 2, 5, 12)
    own = resolve(Window.model_validate({**dates, "timezone": "UTC", "issue_time": "06:00"}), data)
    assert own.test[0] == day(2024, 2, 5, 6)
    # A number of test days counts from the end of the data, reference or not.
    last = resolve(Window(validation_days=2, test_days=3, timezone="UTC", issue_time="00:00"), data)
    assert last.test.tolist() == [day(2024, 2, d) for d in (7, 8, 9)]


def test_the_resolved_window_is_plain_data():
    plain = resolve(WINDOW, fleet(1)).to_json()
    assert plain["test"] == {
        "first_issue_utc": "2024-02-05T00:00:00Z",
        "last_issue_utc": "2024-02-09T00:00:00Z",
        "issues": 5,
    }
    assert (plain["horizon_steps"], plain["issue_time"]) == (24, "00:00")


# -------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    "change",
    [
        {"test_start": date(2025, 1, 1), "test_end": date(2025, 1, 2)},  # after the data
        {"test_start": date(2023, 1, 1), "test_end": date(2023, 1, 2)},  # before them
        {"validation_days": 35},  # nothing left to train on
    ],
)
def test_data_that_do_not_cover_the_window_are_fl210(change):
    with pytest.raises(DataError) as caught:
        resolve(WINDOW.model_copy(update=change), fleet(2))
    (fault,) = caught.value.faults
    assert fault.code == "FL210"
    assert fault.where == "readings from 2024-01-01T00:00:00Z to 2024-02-10T00:00:00Z"
    assert "validation-days" in fault.hint


def short(name: str, days: int) -> ClientSeries:
    """A client that begins `days` days before validation."""
    return series(name, 8 + days, start_utc_s=day(2024, 2, 2) - days * DAY_S)


def test_clients_of_three_days_are_fl206_all_at_once():
    data = federated([series("a", 40), short("x", 3), short("y", 13), short("z", 14)])
    with pytest.raises(DataError) as caught:
        split_fleet(data, resolve(WINDOW, data), drop_short=False)
    assert [fault.code for fault in caught.value.faults] == ["FL206", "FL206"]
    x, y = caught.value.faults
    assert "`x` has 3 days" in x.what
    assert "`y` has 13 days" in y.what
    assert x.where == "client x: readings from 2024-01-30T00:00:00Z to 2024-02-10T00:00:00Z"
    assert "drop-short" in x.hint


def test_drop_short_leaves_them_out_with_the_reason():
    data = federated([series("a", 40), short("x", 3), short("z", MIN_TRAIN_WINDOWS)])
    clients, excluded = split_fleet(data, resolve(WINDOW, data), drop_short=True)
    assert list(clients) == ["a", "z"]
    assert excluded == {"x": "3 days to train on, 14 are needed"}


def test_clients_with_nothing_to_train_on_are_left_out_without_an_error():
    late = short("late", 0)
    gone = series("gone", 0)
    energy = np.zeros(40 * 24)
    dark = ClientSeries("dark", MONDAY, 3600, energy)
    sparse = np.full(40 * 24, np.nan)
    sparse[::48] = 1.0  # twenty readings in all: never a day's worth of them
    thin = ClientSeries("thin", MONDAY, 3600, sparse)
    data = federated([series("a", 40), late, gone, dark, thin])
    clients, excluded = split_fleet(data, resolve(WINDOW, data), drop_short=False)
    assert list(clients) == ["a"]
    assert set(excluded) == {"late", "gone", "dark", "thin"}
    assert excluded["late"].startswith("0 days")
    assert excluded["gone"] == "no readings in the window"
    assert "above zero" in excluded["dark"]
    assert excluded["thin"] == excluded["dark"]


def test_nobody_left_is_fl205():
    data = federated([short("x", 3), short("y", 2)])
    splits = resolve(WINDOW, federated([series("a", 40)]))
    with pytest.raises(DataError) as caught:
        split_fleet(data, splits, drop_short=True)
    (fault,) = caught.value.faults
    assert fault.code == "FL205"
    assert "client x: 3 days" in fault.where
    assert fault.hint


def test_windows_of_a_gap_are_no_training_days():
    one = series("a", 40)
    energy = one.energy_kwh.copy()
    energy[5 * 24 : 25 * 24] = np.nan
    holes = ClientSeries("a", MONDAY, 3600, energy)
    splits = resolve(WINDOW, federated([holes]))
    parts = split_client(holes, splits)
    assert len(parts.train) == 32 - 20
    last = datetime.fromtimestamp(int(parts.train.issue_utc_s[4]), UTC)
    assert last.date() == date(2024, 1, 1) + timedelta(days=4)

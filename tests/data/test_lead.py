"""A lead between issue and forecast: what is known, which hours are scored, and by plain loops."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config import check
from fl_inmetro.config.schema import Window
from fl_inmetro.data.features import GROUPS, row_features
from fl_inmetro.data.forecast_table import forecast_rows
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.short_history import own_days
from fl_inmetro.data.site import Site
from fl_inmetro.data.splits import resolve, split_client
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import ConfigError, DataError
from fl_inmetro.learning.adaptive_conformal import follow
from fl_inmetro.learning.table import LEARNERS, learner
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.fleet import peaks
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.significance import default_lag, paired_losses, panel_test
from fl_inmetro.models.baselines import BASELINES
from fl_inmetro.models.cyclenet import CycleNet
from fl_inmetro.models.design import context_design
from fl_inmetro.plan import cut
from tests.fleets import MONDAY, federated, fleet, series, tiny_config
from tests.learning.test_adaptive_conformal import started

HOUR = 3600

#: Issued at 06:00 of the day before, for the whole of the day.
DAY_AHEAD = Window(
    issue_time="06:00", lead_h=18, test_start=date(2024, 2, 4), test_end=date(2024, 2, 7),
    validation_days=3, train_days=0, timezone="UTC",
)  # fmt: skip


@given(
    st.integers(10 * 24, 38 * 24),
    st.sampled_from([1, 18, 30]),
    st.sampled_from([0.0, 1e9, -7.5, np.nan]),
    st.sampled_from([0.0, 0.2]),
)
def test_garbage_at_and_after_the_issue_changes_no_forecast(issue, lead, garbage, gaps):
    """Features, contexts and baselines of a forecast whose first target is `lead` steps later."""
    true = series("a", 40, gaps=gaps)
    energy = true.energy_kwh.copy()
    energy[issue:] = garbage
    other = ClientSeries("a", true.start_utc_s, true.resolution_s, energy)
    a, b = (Windows(one, np.array([issue - 24, issue]), 24, lead=lead) for one in (true, other))
    for groups in (tuple(GROUPS), ()):
        first, second = row_features(a, groups), row_features(b, groups)
        np.testing.assert_array_equal(first.x, second.x)
        np.testing.assert_array_equal(first.base, second.base)
        np.testing.assert_array_equal(first.level.scale_kwh, second.level.scale_kwh)
    np.testing.assert_array_equal(
        context_design(a, 48, targets=False).x, context_design(b, 48, targets=False).x
    )
    for forecast in BASELINES.values():
        one, two = forecast(a), forecast(b)
        if isinstance(one, Forecast) and isinstance(two, Forecast):
            np.testing.assert_array_equal(one.quantiles_kwh, two.quantiles_kwh)
        else:
            np.testing.assert_array_equal(one, two)


def test_the_garbage_test_would_notice():
    """One reading before the issue counts."""
    true = series("a", 40)
    energy = true.energy_kwh.copy()
    energy[699] = 1e9
    other = ClientSeries("a", true.start_utc_s, HOUR, energy)
    a, b = (row_features(Windows(s, np.array([700]), 24, lead=18), ()) for s in (true, other))
    assert a.level.scale_kwh[0] != b.level.scale_kwh[0]


@pytest.mark.parametrize("resolution_s", [900, 1800, 3600])
@pytest.mark.parametrize(("lead_h", "hours"), [(18, 24), (18, 30), (1, 24), (24, 24), (30, 48)])
def test_slots_and_targets_equal_a_plain_loop(resolution_s, lead_h, hours):
    one = series("a", 20, resolution_s=resolution_s, gaps=0.1)
    per_hour, per_day = HOUR // resolution_s, 86_400 // resolution_s
    lead, horizon = lead_h * per_hour, hours * per_hour
    issue = np.array([9 * per_day + 6 * per_hour, 16 * per_day + 6 * per_hour])
    windows = Windows(one, issue, horizon, lead=lead)
    slots, target = windows.same_slot(np.array([1, 2, 5])), windows.target_kwh()
    for row, at in enumerate(issue.tolist()):
        for h in range(horizon):
            step = at + lead + h
            assert windows.target_utc_s[row, h] == one.start_utc_s + step * resolution_s
            real = one.energy_kwh[step] if step < len(one) else np.nan
            np.testing.assert_array_equal(target[row, h], real)
            # The same time of day on the latest days that end before the issue.
            known = list(range(step % per_day, at, per_day))[::-1]
            for column, back in enumerate((1, 2, 5)):
                np.testing.assert_array_equal(
                    slots[row, h, column], one.energy_kwh[known[back - 1]]
                )


def test_slots_by_hand():
    # Energy = its step. Issued at step 54 (06:00 of day 2) for day 3, steps 72 … 95. 05:00 of day
    # 3 is step 77: 05:00 of day 2, step 53, is known. 06:00 of day 3 is step 78: 06:00 of day 2,
    # step 54, is not known yet, that of day 1 (30) is.
    one = ClientSeries("a", 0, HOUR, np.arange(120.0))
    windows = Windows(one, np.array([54]), 24, lead=18)
    assert windows.target_kwh()[0].tolist() == list(range(72, 96))
    slots = windows.same_slot(np.array([1, 2]))
    assert slots[0, 5].tolist() == [53, 29]
    assert slots[0, 6].tolist() == [30, 6]
    clock = windows.slot_clock(np.array([1]))
    assert clock.second_of_day[0, :, 0].tolist() == [h * HOUR for h in range(24)]
    assert clock.day[0, [0, 5, 6, 23], 0].tolist() == [2, 2, 1, 1]


def test_the_hours_of_local_slots_follow_a_change_of_the_clock():
    # Los Angeles, 2024-03-10 02:00 PST = 10:00 UTC: the clock goes on by one hour. Issued on the
    # 10th at 06:00 PDT (13:00 UTC) for the 11th from 00:00 PDT (07:00 UTC). 05:00 PDT of the 11th
    # was on the 10th 05:00 PDT = 12:00 UTC, and on the 9th 05:00 PST = 13:00 UTC.
    zone, start = "America/Los_Angeles", datetime(2024, 3, 1, tzinfo=UTC)
    one = ClientSeries("a", int(start.timestamp()), HOUR, np.arange(15 * 24.0), Site(timezone=zone))
    issue = int((datetime(2024, 3, 10, 13, tzinfo=UTC) - start).total_seconds()) // HOUR
    windows = Windows(one, np.array([issue]), 24, zone, lead=18)
    assert windows.target_clock.second_of_day[0].tolist() == [h * HOUR for h in range(24)]
    assert windows.same_slot(np.array([1, 2]))[0, 5].tolist() == [9 * 24 + 12, 8 * 24 + 13]


# -------------------------------------------------------------------------------- splits
def test_splits_by_hand():
    # Issue on D-1 06:00, delivered 00:00 to 24:00 of D: a forecast ends 42 h after its issue.
    # First test issue 02-04 06:00. The last validation issue whose target ends by then is 02-02
    # (it ends 02-04 00:00; that of 02-03 ends 02-05). Validation from 02-01: 02-01 and 02-02.
    # Training must end by 02-01 06:00: its last issue is 01-30 (ends 02-01 00:00).
    splits = resolve(DAY_AHEAD, fleet(1))
    hours = [datetime.fromtimestamp(s, UTC) for s in splits.test.tolist()]
    assert hours == [datetime(2024, 2, d, 6, tzinfo=UTC) for d in (4, 5, 6, 7)]
    last = datetime.fromtimestamp(int(splits.validation[-1]), UTC)
    assert last == datetime(2024, 2, 2, 6, tzinfo=UTC)
    assert splits.validation.size == 2
    assert datetime.fromtimestamp(int(splits.train[-1]), UTC) == datetime(
        2024, 1, 30, 6, tzinfo=UTC
    )
    assert splits.to_json()["lead_steps"] == 18
    assert (
        "lead_steps"
        not in resolve(DAY_AHEAD.model_copy(update={"lead_h": 0.0}), fleet(1)).to_json()
    )


@given(
    st.sampled_from(["UTC", "America/Sao_Paulo", "America/Los_Angeles", "Australia/Sydney"]),
    st.integers(0, 340),
)
def test_what_is_scored_is_day_d(zone, offset):
    """From 06:00 of D-1: the first target begins D, and 24 h follow, whatever the clocks do."""
    begin = date(2018, 1, 1) + timedelta(days=offset)
    start = int(datetime(begin.year, begin.month, begin.day, tzinfo=UTC).timestamp())
    one = series("a", 25, start_utc_s=start)
    window = Window(
        issue_time="06:00", lead_h=18, timezone=zone, test_days=4, validation_days=1, train_days=0
    )
    test = split_client(one, resolve(window, federated([one]))).test
    assert len(test) == 4
    for issue, targets in zip(test.issue_utc_s.tolist(), test.target_utc_s, strict=True):
        at = datetime.fromtimestamp(issue, UTC).astimezone(ZoneInfo(zone))
        first = datetime.fromtimestamp(int(targets[0]), UTC).astimezone(ZoneInfo(zone))
        assert at.hour == 6
        # Sydney and California change at 02:00 or 03:00: never between 06:00 and midnight. Brazil
        # changed at midnight itself: its first hour of D was 01:00, or 23:00 of D-1 came twice.
        assert (first + timedelta(hours=1)).date() == at.date() + timedelta(days=1)
        assert targets[-1] - targets[0] == 23 * HOUR
        clocks = {datetime.fromtimestamp(int(t), UTC).astimezone(ZoneInfo(zone)) for t in targets}
        if len({clock.utcoffset() for clock in clocks} | {at.utcoffset()}) == 1:
            assert {clock.date() for clock in clocks} == {at.date() + timedelta(days=1)}


def test_the_default_test_days_end_with_the_last_whole_delivery():
    window = Window(issue_time="06:00", lead_h=18, test_days=3, validation_days=2, timezone="UTC")
    # Readings end on 2024-02-10 00:00: the last day that can be delivered is 02-09, issued 02-08.
    splits = resolve(window, fleet(1))
    assert splits.test[-1] == int(datetime(2024, 2, 8, 6, tzinfo=UTC).timestamp())
    assert splits.test.size == 3


def test_a_lead_off_the_grid_is_fl207():
    with pytest.raises(DataError) as caught:
        resolve(DAY_AHEAD.model_copy(update={"lead_h": 17.5}), fleet(1))
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL207", "[window] lead-h")
    for wrong in (-1, 24 * 15):
        with pytest.raises(ConfigError, match="lead_h"):
            check({"window": {"lead_h": wrong}})


# ----------------------------------------------------------------------------- downstream
def test_rows_of_a_file_begin_after_the_lead():
    windows = Windows(series("a", 10), np.array([54]), 24, lead=18)
    rows = forecast_rows("a", windows, Forecast(np.ones((1, 24))))
    issue, target = (rows[f"{k}_time_utc"].cast("int64").to_numpy() for k in ("issue", "target"))
    assert ((target - issue) // HOUR).tolist() == list(range(18, 42))


def test_days_to_train_on_end_before_the_instant():
    one = series("a", 20)
    windows = Windows(one, np.arange(1, 19) * 24 + 6, 24, lead=18)
    own = own_days(windows, MONDAY + 12 * 86_400, 5)
    # Deliveries that end by day 12: issued on day 10 at the latest; a day of the five behind each.
    assert own.issue_index.tolist() == [(d) * 24 + 6 for d in (8, 9, 10)]
    assert (own.target_utc_s < MONDAY + 12 * 86_400).all()


def test_following_waits_for_the_end_of_the_delivery():
    # Issues at 06:00 for the next day: at issue k the readings of forecast k − 1 (which end 18 h
    # later) are not known, those of k − 2 are.
    energy = np.ones(40 * 24)
    index = (28 + np.arange(5, dtype=np.int64)) * 24 + 6
    true = Windows(ClientSeries("a", 0, HOUR, energy), index, 24, lead=18)
    start = started(np.zeros((1, 24)), 0.0, np.zeros((1, 24), dtype=np.int64), forget=0.5)
    made, _ = follow(start, true, Forecast(np.ones((5, 24))))
    for k in range(5):
        spoilt = energy.copy()
        spoilt[index[k] :] = 9.0
        other = replace(true, series=ClientSeries("a", 0, HOUR, spoilt))
        again, _ = follow(start, other, Forecast(np.ones((5, 24))))
        a, b = made.quantiles_kwh, again.quantiles_kwh
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a[: k + 1], b[: k + 1])
        if k < 3:  # and it is heard of two issues later, not one
            assert not np.array_equal(a[k + 2], b[k + 2])


def test_the_context_of_a_cycle_ends_before_the_lead():
    # A cycle of 24 values 0 … 23 and no network: the forecast of step h is the cycle's value at
    # its place; what is taken off the context is that of its own places. Issued at 06:00 for 00:00.
    net = CycleNet(48, 24, 24)
    with torch.no_grad():
        net.cycle.table.copy_(torch.arange(24.0).reshape(net.cycle.table.shape))
        net.head.weight.zero_()
        net.head.bias.zero_()
        seen = torch.zeros(1, 49)
        seen[0, -1] = 0 + 24 * 18  # place 0, lead 18
        assert net(seen)[0].tolist() == list(range(24))
        net.head.weight.copy_(torch.eye(48)[-24:])
        # The last 24 steps of the context are 06:00 … 05:00: h adds the cycle and takes off those.
        taken = [(6 + h) % 24 for h in range(24)]
        assert net(seen)[0].tolist() == [h - taken[h] for h in range(24)]


@pytest.mark.parametrize("name", [n for n in LEARNERS if n not in ("own", "sparsetsf")])
def test_every_learner_has_a_design_with_a_lead(name):
    """Its targets are those of the day that is delivered."""
    windows = Windows(series("a", 60), np.arange(20, 50) * 24 + 6, 24, lead=18)
    made = learner(name, check({"data": {}}).models).design(windows)
    energy = (made.residual + made.base) * made.scale_kwh[:, None]
    trained = made.known.astype(bool)
    assert trained.any()
    np.testing.assert_allclose(energy[trained], windows.target_kwh()[trained], rtol=1e-4)


def test_a_period_that_does_not_divide_the_lead_is_fl114():
    windows = Windows(series("a", 60), np.arange(30, 50) * 24 + 6, 24, lead=18)
    with pytest.raises(ConfigError) as caught:
        learner("sparsetsf", check({"data": {}}).models).design(windows)
    assert caught.value.faults[0].code == "FL114"
    whole = learner("sparsetsf", check({"data": {}}).models).design(replace(windows, lead=24))
    assert len(whole.x) == 20


def points(days: int, lead: int, error: float) -> Points:
    """A client whose load is the hour of the delivered day, forecast `error` too high."""
    issue = np.repeat(np.arange(days) * 86_400 + (24 - lead) * HOUR, 24)
    hour = np.tile(np.arange(24), days)
    load = 1.0 + hour + issue / 1e7
    at = issue + (lead + hour) * HOUR
    return Points(
        ("a",), np.zeros(issue.size, dtype=np.int64), issue, at, Forecast(load + error), load
    )


def test_a_peak_is_that_of_the_delivered_day():
    # The highest hour is 23:00 each day; two days of 24 steps; without the lead the cut would
    # fall 24 h after the issue, and no piece would be a whole day.
    found = peaks(points(2, 18, 0.5), HOUR, 18 * HOUR)
    assert (found.days, found.hit_share) == (2, 1.0)
    assert peaks(points(2, 18, 0.5), HOUR).days == 0


def test_overlapping_forecasts_widen_the_test():
    # 42 h from 06:00 on: the next issue, 24 h later, comes before the end, so errors of
    # neighbouring days go together. Of ten days the rule of thumb gives 4 · 0.1^(2/9) = 2.4 → 2;
    # with a lead of three days and 18 h the overlap is 4.
    for lead, lag in ((0, 2), (18, 2), (90, 4)):
        one, other = points(10, lead, 0.5), points(10, lead, 0.4)
        losses = paired_losses(one, other)
        assert losses.overlap == (lead + 23) // 24
        assert panel_test(losses).lag == lag == max(default_lag(10), losses.overlap)


def test_a_day_of_which_no_delivered_hour_is_known_is_not_tested():
    """The issue, 18 hours before, is known all the same."""

    def window(first: date, last: date) -> dict[str, object]:
        return {
            "validation_days": 5, "timezone": "UTC", "train_days": 0, "issue_time": "06:00",
            "lead_h": 18, "test_start": first, "test_end": last,
        }  # fmt: skip

    first, last = date(2024, 2, 20), date(2024, 2, 28)  # delivered are 02-21 … 02-29
    settings = tiny_config(window=window(first, last))
    # 59 days end with 02-28: until 03:00 of 02-29, and until 23:00 of 02-28.
    some, none = (fleet(2, 59 + hours / 24, gaps=0.0) for hours in (3, -1))
    assert cut(settings, some).missing_test_days == 0
    assert cut(settings, none).missing_test_days == 1
    # A test window of such a day alone is none.
    alone = Window(**window(last, last))
    assert resolve(alone, some).test.size == 1
    with pytest.raises(DataError) as caught:
        resolve(alone, none)
    assert caught.value.faults[0].code == "FL210"

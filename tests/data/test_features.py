"""Every feature column against a slow plain-Python computation from the definitions."""

import math
import statistics
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.data.features import GROUPS, feature_names, row_features, trailing_level
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import DAY_S, epoch_s
from tests.fleets import MONDAY, series, windows

ALL = tuple(GROUPS)
NAN = float("nan")


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else NAN


def or_else(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def quantile(values: list[float], level: float) -> float:
    """Linear between ranks (type 7 of Hyndman & Fan 1996)."""
    if not values:
        return NAN
    ordered = sorted(values)
    rank = level * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def day_type(second: int, zone: str) -> int:
    weekday = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone)).weekday()
    return max(weekday - 4, 0)


def local_places(one: ClientSeries, issue: int, h: int, zone: str, days: int) -> dict[int, int]:
    """The k-th latest steps before the issue at which the target's wall clock showed its time.

    `days` apart, k from 1 on; of an hour that it showed twice the second, and for one that it
    skipped when the clock before the change would have shown it.
    """
    target_s = one.start_utc_s + (issue + h) * one.resolution_s
    wall = datetime.fromtimestamp(target_s, ZoneInfo(zone))
    places: dict[int, int] = {}
    back = days
    while len(places) < 28:
        there = (wall - timedelta(days=back)).replace(fold=1)
        if there.astimezone(UTC).astimezone(ZoneInfo(zone)).hour != there.hour:
            there = there.replace(fold=0)
        step = (int(there.timestamp()) - one.start_utc_s) // one.resolution_s
        if step < issue:
            places[len(places) + 1] = step
        back += days
    return places


def plain_row(one: ClientSeries, issue: int, h: int, horizon: int, zone: str) -> dict[str, float]:
    """One row, column by column, as the names say; `base` is the day-type mean."""
    energy, step_s = one.energy_kwh.tolist(), one.resolution_s
    per_day, per_hour = DAY_S // step_s, 3600 // step_s

    def at(step: int) -> float:
        assert step < issue
        return energy[step] if 0 <= step < len(energy) else NAN

    def known(values: list[float]) -> list[float]:
        return [value for value in values if not math.isnan(value)]

    four_weeks = known([at(issue - 1 - k) for k in range(28 * per_day)])
    so_far = mean(known([at(step) for step in range(issue)]))
    scale = max(mean(four_weeks), so_far / 4) if len(four_weeks) >= per_day else NAN
    target_s = one.start_utc_s + (issue + h) * step_s
    places = local_places(one, issue, h, zone, 1)
    slots = {k: at(places[k]) / scale for k in range(1, 29)}
    here = day_type(target_s, zone)
    types_of_all = {k: day_type(one.start_utc_s + places[k] * step_s, zone) for k in places}
    same = known([v for k, v in slots.items() if types_of_all[k] == here])
    base = or_else(or_else(mean(same), mean(known(list(slots.values())))), 1.0)

    row = {f"lag_{k}d": or_else(slots[k], base) for k in range(1, 15)}
    week = 7 * per_day
    earlier = local_places(one, issue, h, zone, 7)
    weeks = known([at(earlier[k]) / scale for k in range(1, 5)])
    row["mean_same_weekday_4w"] = or_else(mean(weeks), base)
    row["mean_day_type_28d"] = base
    row["median_day_type_28d"] = statistics.median(same) if same else base
    row["mean_7d"] = or_else(mean(known([slots[k] for k in range(1, 8)])), base)
    weights = {k: 0.8 ** (k - 1) for k, v in slots.items() if not math.isnan(v)}
    ewma = sum(weights[k] * slots[k] for k in weights) / sum(weights.values()) if weights else NAN
    row["ewma_28d"] = or_else(ewma, base)
    row["median_28d"] = or_else(quantile(known(list(slots.values())), 0.5), base)

    def last(steps: int) -> float:
        return or_else(mean(known([at(issue - 1 - k) / scale for k in range(steps)])), 1.0)

    row["last_step"] = last(1)
    row["last_3h"], row["last_6h"] = last(3 * per_hour), last(6 * per_hour)
    row["last_24h"], row["last_7d"] = last(per_day), last(week)
    seven_days = known([at(issue - 1 - k) / scale for k in range(week)])
    row["std_7d"] = statistics.pstdev(seven_days) if seven_days else 0.0
    row["slot_q10_28d"] = or_else(quantile(known(list(slots.values())), 0.1), base)
    row["slot_q90_28d"] = or_else(quantile(known(list(slots.values())), 0.9), base)

    def day_before(days: int) -> list[float]:
        return [at(issue - 1 - k - days * per_day) / scale for k in range(per_day)]

    weekdays = known(day_before(7) + day_before(14) + day_before(21))
    row["last_24h_vs_same_weekday"] = or_else(mean(known(day_before(0))) - mean(weekdays), 0.0)
    row["missing_share"] = 1 - len(four_weeks) / (28 * per_day)

    local = datetime.fromtimestamp(target_s, UTC).astimezone(ZoneInfo(zone))
    angle = 2 * math.pi * (local.hour * 3600 + local.minute * 60 + local.second) / DAY_S
    weekend = float(local.weekday() >= 5)
    for k in (1, 2, 3, 4):
        row[f"sin_day_{k}"], row[f"cos_day_{k}"] = math.sin(k * angle), math.cos(k * angle)
    for k in (1, 2):
        row[f"sin_day_{k}_weekend"] = math.sin(k * angle) * weekend
        row[f"cos_day_{k}_weekend"] = math.cos(k * angle) * weekend
    for day in range(7):
        row[f"weekday_{day}"] = float(local.weekday() == day)
    year = 2 * math.pi * (local.timetuple().tm_yday - 1) / 365.25
    row["sin_year"], row["cos_year"] = math.sin(year), math.cos(year)
    row["lead"] = h / max(horizon - 1, 1)
    row |= plain_distribution(slots, same, base)
    types = {k: types_of_all[k] for k, v in slots.items() if not math.isnan(v)}
    row["no_such_day"] = float(here not in types.values())
    row["log_such_days"] = math.log(1 + sum(t == here for t in types.values()))
    row["log_known_days"] = math.log(1 + len(types))
    row["share_working_days"] = sum(t == 0 for t in types.values()) / max(len(types), 1)
    row["share_sundays"] = sum(t == 2 for t in types.values()) / max(len(types), 1)
    row["yesterday_is_such"] = float(types.get(1) == here)
    row |= plain_memory(one, issue, h, zone, scale, base)
    row |= {f"month_{month}": float(local.month == month) for month in range(1, 13)}
    # A client of which nothing is known beside its readings.
    row |= dict.fromkeys(GROUPS["holidays"] + GROUPS["daylight"] + GROUPS["tariff"], 0.0)
    row |= dict.fromkeys(GROUPS["pv"] + GROUPS["weather"], 0.0)
    row |= {"temperature": 18.0, "temperature_24h": 18.0, "humidity": 60.0}
    row |= {"weather_missing": 1.0, "tariff_missing": 1.0, "pv_missing": 1.0}
    row["lag_7d_same_type"] = float(types_of_all[7] == here)
    row["heating_degrees"] = row["cooling_degrees"] = 0.0
    return {**row, "base": base, "scale": scale}


def plain_distribution(slots: dict[int, float], same: list[float], base: float) -> dict[str, float]:
    row: dict[str, float] = {}
    values = [v for v in slots.values() if not math.isnan(v)]
    for which, held in (("day_type", same), ("all", values)):
        for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95):
            row[f"slot_{which}_q{round(level * 100):02d}"] = or_else(quantile(held, level), base)
    row["slot_std_28d"] = statistics.pstdev(values) if values else 0.0
    week = [slots[k] for k in range(1, 8) if not math.isnan(slots[k])]
    row["slot_iqr_7d"] = or_else(quantile(week, 0.75) - quantile(week, 0.25), 0.0)
    changes = [abs(slots[k] - slots[k + 7]) for k in range(1, 22)]
    row["slot_weekly_change"] = or_else(mean([c for c in changes if not math.isnan(c)]), 0.0)
    return row


def plain_memory(
    one: ClientSeries, issue: int, h: int, zone: str, scale: float, base: float
) -> dict[str, float]:
    energy, step_s = one.energy_kwh.tolist(), one.resolution_s
    per_day = DAY_S // step_s

    def known(steps: list[int]) -> dict[int, float]:
        inside = [step for step in steps if 0 <= step < len(energy)]
        assert all(step < issue for step in inside)
        return {s: energy[s] / scale for s in inside if not math.isnan(energy[s])}

    earlier = local_places(one, issue, h, zone, 7)
    weeks = known([earlier[k] for k in range(1, 9)])
    row = {"mean_same_weekday_8w": or_else(mean(list(weeks.values())), base)}
    month = mean(list(known(list(range(issue - 28 * per_day, issue))).values()))
    week = mean(list(known(list(range(issue - 7 * per_day, issue))).values()))
    row["ratio_7d_28d"] = or_else(week / max(or_else(month, 1.0), 0.25), 1.0)
    row |= plain_lately(known, issue, per_day, max(1, 3600 // step_s))
    day = known(list(range(issue - per_day, issue)))
    row["missing_24h"] = 1 - len(day) / per_day
    row |= {"peak_24h": 1.0, "sin_peak_hour": 0.0, "cos_peak_hour": 0.0}
    if day:
        top = max(day, key=lambda step: (day[step], -step))
        clock = datetime.fromtimestamp(one.start_utc_s + top * step_s, UTC)
        local = clock.astimezone(ZoneInfo(zone))
        angle = 2 * math.pi * (local.hour * 60 + local.minute) / 1440
        row |= {"peak_24h": day[top], "sin_peak_hour": math.sin(angle)}
        row["cos_peak_hour"] = math.cos(angle)
    first = next((k for k in range(issue) if k < len(energy) and not math.isnan(energy[k])), issue)
    since = next((k for k in range(28 * per_day) if known([issue - 1 - k])), 28 * per_day)
    row["no_reading_24h"] = float(since >= per_day)
    row["log_silent_days"] = math.log(1 + since / per_day)
    row["log_history_days"] = math.log(1 + (issue - first) / per_day)
    return row


def plain_lately(known, issue: int, per_day: int, per_hour: int) -> dict[str, float]:
    def last(steps: int) -> dict[int, float]:
        return known(list(range(issue - steps, issue)))

    row = {f"last_{h}h": or_else(mean(list(last(h * per_hour).values())), 1.0) for h in (2, 12, 48)}
    unusual: dict[int, float] = {}
    for step, value in last(per_day).items():
        before = known([step - k * per_day for k in range(1, 28)])
        if before:
            unusual[step] = value - statistics.median(before.values())
    for h, steps in ((1, per_hour), (3, 3 * per_hour), (6, 6 * per_hour), (24, per_day)):
        late = [v for step, v in unusual.items() if step >= issue - steps]
        row[f"unusual_{h}h"] = or_else(mean(late), 0.0)
    day, month = list(last(per_day).values()), list(last(28 * per_day).values())
    row["std_24h"] = float(np.std(day)) if day else 0.0
    for level in (10, 50, 90):
        row[f"day_q{level}"] = or_else(quantile(day, level / 100), 1.0)
    for level in (2, 10, 50, 90):
        row[f"all_q{level:02d}_28d"] = or_else(quantile(month, level / 100), 1.0)
    return row


@pytest.mark.parametrize(
    ("resolution_s", "horizon", "zone", "start", "gaps"),
    [
        (3600, 24, "UTC", MONDAY, 0.0),
        (3600, 48, "America/New_York", MONDAY, 0.3),
        # 2018-02-18: the clock of Brazil goes back within these days.
        (3600, 24, "America/Sao_Paulo", epoch_s(datetime(2018, 1, 21, 3)), 0.2),
        (1800, 60, "Europe/London", MONDAY, 0.9),
        # 2024-03-31, day 30: the clock of London goes forward; at its start 24:00 of the day before
        # is not known yet.
        (3600, 48, "Europe/London", epoch_s(datetime(2024, 3, 1)), 0.1),
        (1800, 48, "Australia/Sydney", epoch_s(datetime(2013, 9, 5, 14)), 0.1),
        (900, 96, "UTC", MONDAY, 0.1),
    ],
)
def test_every_column_equals_the_plain_computation(resolution_s, horizon, zone, start, gaps):
    one = series("g", 36, resolution_s=resolution_s, start_utc_s=start, gaps=gaps)
    part = windows(one, [2, 9, 30, 36], horizon, zone)
    rows = row_features(part, ALL)
    names = feature_names(ALL)
    assert rows.x.shape == (4, horizon, len(names))
    for n, issue in enumerate(part.issue_index.tolist()):
        for h in {0, 1, 7, 23, horizon // 2, horizon - 1}:
            expected = plain_row(one, issue, h, horizon, zone)
            if math.isnan(expected["scale"]):
                # Nine in ten are missing: the first days hold no day of readings.
                assert gaps == 0.9
                assert math.isnan(rows.level.scale_kwh[n])
                continue
            assert rows.level.scale_kwh[n] == pytest.approx(expected["scale"], rel=1e-12)
            assert rows.base[n, h] == pytest.approx(expected["base"], abs=1e-5)
            for column, name in enumerate(names):
                got = rows.x[n, h, column]
                assert got == pytest.approx(expected[name], abs=2e-5), (name, n, h)


def test_names_follow_the_order_of_the_groups_and_not_of_the_question():
    assert feature_names(("calendar", "lags")) == (*GROUPS["lags"], *GROUPS["calendar"])
    part = windows(series("a", 40), [30, 35])
    both = row_features(part, ("calendar", "lags")).x
    lags, calendar = (row_features(part, (group,)).x for group in ("lags", "calendar"))
    np.testing.assert_array_equal(both, np.concatenate([lags, calendar], axis=2))
    for group, names in GROUPS.items():
        assert row_features(part, (group,)).x.shape == (2, 24, len(names))
    assert row_features(part, ()).x.shape == (2, 24, 0)


@given(st.floats(1e-6, 1e9), st.sampled_from([0.0, 0.3]))
def test_a_client_in_other_units_has_the_same_features(factor, gaps):
    """ŷ = scale · (base + f(x)): the factor goes into the scale and nowhere else."""
    one = series("a", 40, gaps=gaps)
    other = ClientSeries("a", one.start_utc_s, one.resolution_s, one.energy_kwh * factor)
    a, b = (row_features(windows(s, [5, 35], 48), ALL) for s in (one, other))
    np.testing.assert_allclose(b.x, a.x, atol=1e-5)
    np.testing.assert_allclose(b.base, a.base, rtol=1e-6)
    np.testing.assert_allclose(b.level.scale_kwh, a.level.scale_kwh * factor, rtol=1e-12)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0, -1.0, 1e9]),
    st.sampled_from([1, 24, 30]),
)
def test_x_and_base_are_never_nan_nor_infinite(seed, gaps, level, horizon):
    rng = np.random.default_rng(seed)
    energy = rng.normal(level, 1, 24 * 31) * rng.choice([0.0, 1.0, 1e-3], 24 * 31)
    energy[rng.random(energy.size) < gaps] = np.nan
    one = ClientSeries("r", MONDAY, 3600, energy)
    rows = row_features(windows(one, [0, 1, 2, 15, 31], horizon), ALL)
    assert np.isfinite(rows.x).all()
    assert np.isfinite(rows.base).all()
    assert not (rows.level.scale_kwh <= 0).any()
    assert not rows.level.trainable[np.isnan(rows.level.scale_kwh)].any()


def test_a_scale_needs_a_day_of_readings_above_zero():
    def scale(energy: np.ndarray) -> float:
        one = ClientSeries("a", MONDAY, 3600, energy)
        return float(trailing_level(Windows(one, np.array([energy.size]), 24)).scale_kwh[0])

    assert math.isnan(scale(np.full(23, 2.0)))
    assert scale(np.full(24, 2.0)) == 2.0
    assert math.isnan(scale(np.zeros(100)))
    assert math.isnan(scale(np.full(100, -1.0)))
    # 28 days and no more: an older day does not count.
    assert scale(np.concatenate([np.full(24, 9.0), np.full(28 * 24, 1.0)])) == 1.0


def test_a_vacant_home_keeps_a_quarter_of_its_usual_mean():
    # 28 days of 8 kWh, 28 of nothing: the mean so far is 4 kWh, a quarter of it 1 kWh. While the
    # trailing mean is more than that, it is the scale: 4 kWh after 14 vacant days.
    energy = np.concatenate([np.full(28 * 24, 8.0), np.zeros(28 * 24)])
    part = windows(ClientSeries("v", MONDAY, 3600, energy), [28, 42, 56])
    assert trailing_level(part).scale_kwh.tolist() == [8.0, 4.0, 1.0]
    # The mean so far counts known readings only, and none after the issue time.
    energy[: 14 * 24] = np.nan
    part = windows(ClientSeries("v", MONDAY, 3600, energy), [14, 42, 56])
    np.testing.assert_array_equal(part.past.mean_so_far(), [np.nan, 4.0, 8 / 3])


def test_a_window_is_trained_on_with_a_week_of_readings_behind_its_scale():
    energy = np.ones(24 * 12)
    energy[24 * 2 : 24 * 4] = np.nan  # two days are missing
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [0, 1, 7, 8, 9, 12])
    level = trailing_level(part)
    assert level.known_days.tolist() == [0, 1, 5, 6, 7, 10]
    assert level.trainable.tolist() == [False, False, False, False, True, True]


def test_the_floor_is_zero_or_the_lowest_net_reading():
    energy = np.ones(24 * 40)
    energy[24 * 5] = -0.5
    part = windows(ClientSeries("a", MONDAY, 3600, energy), [5, 6, 33, 34])
    # Day 33 still sees day 5 (28 days back), day 34 does not.
    assert trailing_level(part).floor_kwh.tolist() == [0, -0.5, -0.5, 0]


def test_hours_are_hours_where_a_step_is_longer():
    """Steps of 3 h with one kWh more in each of the last ones; the scale is the mean of 28 days.

    The last 1, 2 and 3 h are the last step, 6 h the last two, 12 h four, 48 h sixteen.
    """
    energy = np.ones(40 * 8)
    energy[30 * 8 - 16 : 30 * 8] = 1 + np.arange(16)
    one = ClientSeries("a", MONDAY, 3 * 3600, energy)
    windows_ = Windows(one, np.array([30 * 8]), 8)
    names = list(feature_names(("recent", "lately")))
    row = row_features(windows_, ("recent", "lately")).x[0, 0]
    found = dict(zip(names, row.tolist(), strict=True))
    scale = energy[2 * 8 : 30 * 8].mean()
    means = {"last_3h": 16, "last_6h": 15.5, "last_2h": 16, "last_12h": 14.5, "last_48h": 8.5}
    for name, kwh in means.items():
        assert found[name] == pytest.approx(kwh / scale, rel=1e-5), name
    # Against the median of that time of day on the 27 days before: 1 kWh.
    unusual = {"unusual_1h": 15, "unusual_3h": 15, "unusual_6h": 14.5}
    for name, kwh in unusual.items():
        assert found[name] == pytest.approx(kwh / scale, rel=1e-5), name

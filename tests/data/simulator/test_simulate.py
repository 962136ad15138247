from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.simulator.appliances import _queue
from fl_inmetro.data.simulator.atmosphere import sky
from fl_inmetro.data.simulator.build import has_trait, parts
from fl_inmetro.data.simulator.climates import CLIMATES
from fl_inmetro.data.simulator.clock import BIN_MIN, BINS_PER_DAY, SUNDAY_OR_HOLIDAY, clock
from fl_inmetro.data.simulator.intervals import bin_energy_kwh

HOMES = Simulator(
    clients=40, days=120, commercial_share=0.0, pv_share=0.0, ev_share=0.0, resolution_min=15
)


def fleet(config, seed=0):
    """Energy by use, summed over the clients, on the simulator's own bins."""
    axis = clock(config.start, config.days)
    above = sky(axis, CLIMATES[config.climate], seed)
    total = {}
    for number in range(1, config.clients + 1):
        for name, energy in parts(config, seed, number, axis, above).items():
            total[name] = total.get(name, 0.0) + energy
    return axis, above, total


# ------------------------------------------------------------------------------- intervals
def test_a_use_is_shared_among_bins_by_hand():
    # 6 kW from minute 10 for 25 minutes: 5 min in bin 0, 15 in bin 1, 5 in bin 2.
    found = bin_energy_kwh(np.array([10.0]), np.array([25.0]), np.array([6.0]), 4)
    assert found == pytest.approx([0.5, 1.5, 0.5, 0.0])


@given(st.lists(st.tuples(st.floats(-60, 250), st.floats(0, 120), st.floats(0.01, 8)), max_size=12))
@settings(max_examples=80, deadline=None)
def test_bins_equal_a_count_of_seconds(uses):
    start, length, power = (np.array([u[i] for u in uses], dtype=float) for i in range(3))
    found = bin_energy_kwh(start, length, power, 16)
    second = (np.arange(16 * BIN_MIN * 60) + 0.5) / 60
    running = (second >= start[:, None]) & (second < (start + length)[:, None])
    counted = (power[:, None] * running).sum(axis=0).reshape(16, -1).sum(axis=1) / 3600
    assert found == pytest.approx(counted, abs=1e-2)


def test_baths_queue():
    minute = np.array([[600.0, 605.0, 590.0, 601.0]])
    keep = np.array([[True, True, True, False]])
    # 590 for 12 min -> free at 605; 600 -> 605, free at 605 + 10 + 3; 605 -> 618; the last is off.
    queued = _queue(minute, np.array([[10.0, 8.0, 12.0, 50.0]]), keep)
    assert queued.tolist() == [[605.0, 618.0, 590.0, 601.0]]


# ------------------------------------------------------------------------------- the series
def test_says_everywhere_that_it_is_simulated():
    data = simulate(Simulator(clients=3, days=2), 7)
    assert data.manifest.simulated
    assert "SIMULATED" in data.manifest.title
    assert "no meter" in data.manifest.licence
    assert "seed 7" in data.manifest.citation
    assert data.manifest.source == "simulator"
    assert all(name.startswith("sim-") for name in data)


@pytest.mark.parametrize(
    ("start", "midnight_utc_h"),
    [
        (date(2024, 1, 1), 3),
        (date(2018, 11, 1), 3),  # three days before daylight-saving time
        (date(2018, 11, 4), 3),  # the day without a midnight: it begins at 01:00
        (date(2018, 11, 5), 2),
    ],
)
def test_grid_begins_at_local_midnight_and_has_days_times_24_hours(start, midnight_utc_h):
    data = simulate(Simulator(clients=2, days=20, start=start, resolution_min=30), 0)
    wanted = datetime(start.year, start.month, start.day, midnight_utc_h, tzinfo=UTC)
    for series in data.values():
        assert series.start_utc_s == wanted.timestamp()
        assert len(series) == 20 * 48
        assert series.valid.all()
        assert (series.energy_kwh >= 0).all()


def test_coarser_series_are_sums_of_finer():
    fine = simulate(Simulator(clients=8, days=9, resolution_min=15, pv_share=0.5), 1)
    for minutes in (30, 60):
        coarse = simulate(Simulator(clients=8, days=9, resolution_min=minutes, pv_share=0.5), 1)
        assert list(coarse) == list(fine)
        for name, series in coarse.items():
            summed = fine[name].energy_kwh.reshape(-1, minutes // 15).sum(axis=1)
            assert np.array_equal(series.energy_kwh, summed)


def test_same_seed_same_bits_other_seed_other_series():
    config = Simulator(clients=4, days=5)
    one, again, other = simulate(config, 1), simulate(config, 1), simulate(config, 2)
    assert all(np.array_equal(one[n].energy_kwh, again[n].energy_kwh) for n in one)
    common = [n for n in one if n in other]
    assert not any(np.array_equal(one[n].energy_kwh, other[n].energy_kwh) for n in common)


def test_more_clients_and_more_days_change_nothing_before():
    few = simulate(Simulator(clients=6, days=10, pv_share=0.4, ev_share=0.4), 3)
    many = simulate(Simulator(clients=15, days=10, pv_share=0.4, ev_share=0.4), 3)
    long = simulate(Simulator(clients=6, days=31, pv_share=0.4, ev_share=0.4), 3)
    assert set(few) < set(many)
    for name, series in few.items():
        assert np.array_equal(series.energy_kwh, many[name].energy_kwh)
        assert series.energy_kwh == pytest.approx(long[name].energy_kwh[: len(series)], abs=1e-9)


def test_a_share_concerns_only_those_it_adds():
    without = simulate(Simulator(clients=12, days=6, ev_share=0.0), 0)
    with_cars = simulate(Simulator(clients=12, days=6, ev_share=0.5), 0)
    changed = [n for n in without if not np.array_equal(
        without[n].energy_kwh, with_cars[n].energy_kwh)]  # fmt: skip
    assert 0 < len(changed) <= 7
    assert all("home" in name for name in changed)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_shares_are_met_from_few_clients_on(share):
    for trait in ("commercial", "air_conditioning", "pv", "vehicle"):
        for clients in (10, 50, 400):
            having = sum(has_trait(trait, share, 4, number) for number in range(1, clients + 1))
            assert abs(having - share * clients) <= 2.5


def test_traits_are_not_bound_to_each_other():
    both = [has_trait("pv", 0.3, 0, k) and has_trait("vehicle", 0.3, 0, k) for k in range(1, 1001)]
    assert 50 <= sum(both) <= 130  # independent: 90


# ------------------------------------------------------------------------------- behaviour
def test_showers_peak_in_the_evening_and_shrink_when_warm():
    config = HOMES.model_copy(update={"days": 366})
    axis, above, total = fleet(config)
    hour = axis.minute_of_bin // 60
    shower = np.bincount(hour, total["shower"], 24)
    assert 18 <= shower.argmax() <= 20
    assert shower[6:9].max() > 4 * shower[12:15].max()  # a smaller peak in the morning
    assert 0.3 < shower[6:9].max() / shower.max() < 1
    day = np.arange(axis.bins) // BINS_PER_DAY
    warmth = np.bincount(day, above.air_deg_c) / BINS_PER_DAY
    assert np.corrcoef(np.bincount(day, total["shower"]), warmth)[0, 1] < -0.6


def test_air_conditioning_follows_hot_days():
    axis, above, total = fleet(HOMES)
    day = np.arange(axis.bins) // BINS_PER_DAY
    warmth = np.bincount(day, above.air_deg_c) / BINS_PER_DAY
    energy = np.bincount(day, total["air_conditioning"])
    assert np.corrcoef(energy, warmth)[0, 1] > 0.7
    hour = axis.minute_of_bin // 60
    night = np.isin(hour, [22, 23, 0, 1, 2, 3])
    assert total["air_conditioning"][night].sum() > 0.5 * total["air_conditioning"].sum()


def test_shares_of_uses_over_a_year():
    # PROCEL's survey of 2005 (Fedrigo, Ghisi, Lamberts 2009): lighting 7 %, television 12 %,
    # refrigerator and freezer 42 % (older stock), shower 19 % in the country; Tomé 2014 quotes
    # 20 to 30 % for the shower. Cooling is above its 2 % of 2005: here 30 % of homes own it.
    _, _, total = fleet(HOMES.model_copy(update={"days": 366}))
    energy = {name: series.sum() for name, series in total.items()}
    share = {name: value / sum(energy.values()) for name, value in energy.items()}
    assert 0.20 < share["shower"] < 0.30
    assert 0.22 < share["refrigerator"] < 0.42
    assert 0.05 < share["lighting"] < 0.10
    assert 0.07 < share["entertainment"] < 0.14
    assert 0.03 < share["air_conditioning"] < 0.15


def test_lamps_burn_when_the_sun_is_down():
    axis, above, total = fleet(HOMES)
    dark = above.sin_elevation < 0
    evening = (axis.minute_of_bin >= 1080) & (axis.minute_of_bin < 1320)
    assert total["lighting"][dark & evening].mean() > 5 * total["lighting"][~dark].mean()


def test_panels_dent_the_noon_and_never_go_below_zero():
    update = {"commercial_share": 0.0, "ev_share": 0.0, "days": 30, "clients": 20}
    with_panels = simulate(Simulator(**update, pv_share=1.0), 0)
    axis, _, total = fleet(Simulator(**update, pv_share=1.0))
    generated = np.bincount(axis.minute_of_bin // 60, -total["pv"], 24)
    assert generated[10:14].max() == generated.max()
    assert generated[:5].sum() == generated[20:].sum() == 0
    profile = sum(series.energy_kwh for series in with_panels.values()).reshape(-1, 24).mean(0)
    assert profile[10:14].mean() < 0.35 * profile[18:22].mean()
    assert profile.min() >= 0


def test_vehicles_charge_what_they_drove():
    config = Simulator(clients=30, days=90, commercial_share=0.0, ev_share=1.0, pv_share=0.0)
    axis, _, total = fleet(config)
    per_day = total["vehicle"].sum() / 30 / 91
    assert 3.5 < per_day < 8.0  # 30 km x 0.18 kWh/km = 5.5 kWh, fewer on free days and trips
    hour = np.bincount(axis.minute_of_bin // 60, total["vehicle"], 24)
    assert hour[18:24].sum() > 0.6 * hour.sum()
    data = simulate(config.model_copy(update={"resolution_min": 15}), 0)
    highest_kw = np.array([series.energy_kwh.max() * 4 for series in data.values()])
    assert (highest_kw > 3.6).all()


def test_shops_close_on_sundays_and_holidays():
    config = Simulator(clients=15, days=60, commercial_share=1.0)
    data = simulate(config, 0)
    axis = clock(config.start, config.days)
    closed = axis.day_kind[1:-1] == SUNDAY_OR_HOLIDAY  # Carnaval lies in these days
    daily = np.stack([series.energy_kwh.reshape(-1, 24).sum(axis=1) for series in data.values()])
    assert set(data) == {f"sim-shop-{k:03d}" for k in range(1, 16)}
    assert (daily[:, closed].mean(axis=1) < 0.75 * daily[:, ~closed].mean(axis=1)).all()
    noon = sum(series.energy_kwh for series in data.values()).reshape(-1, 24)[~closed].mean(0)
    assert 9 <= noon.argmax() <= 17


def test_daylight_saving_moves_the_evening_on_the_utc_grid():
    # The people live by the wall clock: their evening is one hour earlier in UTC from 2018-11-04.
    config = HOMES.model_copy(update={"start": date(2018, 10, 7), "days": 56})
    axis, _, total = fleet(config)
    sum_by_utc_hour = total["entertainment"].reshape(-1, 4).sum(axis=1)
    utc_hour = (axis.start_utc_s // 3600 + np.arange(sum_by_utc_hour.size)) % 24
    half = 28 * 24 + 24
    angle = [
        np.angle((part * np.exp(2j * np.pi * hours / 24)).sum()) * 24 / (2 * np.pi)
        for part, hours in (
            (sum_by_utc_hour[:half], utc_hour[:half]),
            (sum_by_utc_hour[half:], utc_hour[half:]),
        )
    ]
    assert angle[1] - angle[0] == pytest.approx(-1.0, abs=0.25)

import importlib.util
import os
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.simulator.calibration import RANGES, outside, statistics

SUMMER, WINTER = date(2024, 1, 1), date(2024, 6, 1)


def side_by_side():
    """The script beside this file; the tests are no package that could be imported."""
    spec = importlib.util.spec_from_file_location(
        "side_by_side", Path(__file__).with_name("side_by_side.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_data(loads, timezone="UTC", resolution_s=3600, start_utc_s=0):
    clients = {
        f"c{k}": ClientSeries(f"c{k}", start_utc_s, resolution_s, np.asarray(load, dtype=float))
        for k, load in enumerate(loads)
    }
    return FederatedData(clients, Manifest("test", "", "", "", timezone, resolution_s))


@pytest.fixture(scope="module", params=[(SUMMER, 0), (SUMMER, 1), (WINTER, 0), (WINTER, 1)])
def homes(request):
    start, seed = request.param
    config = Simulator(
        clients=60, days=75, start=start, commercial_share=0.0, pv_share=0.0, ev_share=0.0
    )
    return simulate(config, seed)


def changed(data, change):
    clients = {
        name: ClientSeries(name, series.start_utc_s, series.resolution_s, change(series.energy_kwh))
        for name, series in data.items()
    }
    return FederatedData(clients, data.manifest)


def test_statistics_by_hand():
    # Two clients, two days of 1970 (Thursday, Friday), hourly, UTC.
    # A: 1 kWh each hour of day one (24), 2 kWh each hour of day two (48): mean 36 kWh/day,
    #    standard deviation 24/sqrt(2) = 16.97, variation 0.4714, load factor 1.5/2.
    # B: 0 but for 12 kWh at 19 h on both days: 12 kWh/day, variation 0, load factor 0.5/12.
    a = np.repeat([1.0, 2.0], 24)
    b = np.zeros(48)
    b[[19, 43]] = 12.0
    found = statistics(as_data([a, b]))
    assert (found.clients, found.days, found.peak_hour) == (2, 2.0, 19)
    assert found.mean_daily_kwh == pytest.approx(24.0)
    assert found.daily_variation == pytest.approx((24 / 2**0.5 / 36 + 0) / 2)
    assert found.client_load_factor == pytest.approx((0.75 + 0.5 / 12) / 2)
    assert found.aggregate_load_factor == pytest.approx(2.0 / 14.0)  # mean 1.5 + 0.5, highest 14
    assert found.coincidence_factor == pytest.approx(14.0 / (2 + 12))
    # Profile: 1.5 in all hours, 13.5 at 19 h; 17 to 21 h: 3 x 1.5 + 13.5 = 18 of 48.
    assert found.evening_share == pytest.approx(18 / 48)
    assert found.morning_to_night == pytest.approx(1.0)


def test_weekends_and_local_time():
    # Etc/GMT+3 is UTC-3: a series that begins at 03:00 UTC begins at local midnight.
    load = np.ones(7 * 24)
    load[22::24] = 5.0
    assert statistics(as_data([load], "Etc/GMT+3", start_utc_s=10800)).peak_hour == 22
    assert statistics(as_data([load], "Etc/GMT+3", start_utc_s=0)).peak_hour == 19
    # 1970-01-03 and 04 were Saturday and Sunday.
    free = np.ones(7 * 24)
    free[48:96] = 3.0
    assert statistics(as_data([free])).free_day_ratio == pytest.approx(3.0)


def test_gaps_are_left_out():
    whole, gappy = np.arange(1.0, 49.0), np.arange(1.0, 49.0)
    gappy[3] = np.nan
    found = statistics(as_data([whole, gappy]))
    assert found.coincidence_factor == pytest.approx(1.0)
    # Day one of the second client is incomplete, one complete day has no spread: the first counts.
    assert found.daily_variation == pytest.approx((876 - 300) / 2**0.5 / 588)
    with pytest.raises(ValueError, match="no client has a load"):
        statistics(as_data([np.zeros(48)]))
    with pytest.raises(ValueError, match="cannot sum"):
        statistics(as_data([whole]), 5400)


def test_sums_to_a_coarser_step():
    found = statistics(as_data([np.arange(96.0)], resolution_s=1800), 3600)
    assert found.resolution_s == 3600
    assert found.client_load_factor == pytest.approx(95.0 / 189.0)  # pairs 1, 5, ..., 189


def test_a_fleet_of_homes_lies_in_the_ranges(homes):
    assert outside(statistics(homes)) == {}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda load: 1.5 * load, "mean_daily_kwh"),
        (lambda load: np.roll(load, 3), "peak_hour"),  # the zone forgotten: UTC for local time
        (lambda load: np.full_like(load, load.mean()), "client_load_factor"),
        (lambda load: np.tile(load.reshape(-1, 24).mean(axis=0), load.size // 24),
         "daily_variation"),
        (lambda load: np.minimum(load, 3 * load.mean()), "client_load_factor"),  # no showers
        (lambda load: np.random.default_rng(0).permutation(load), "evening_share"),
    ],
)  # fmt: skip
def test_a_broken_fleet_does_not(homes, change, broken):
    assert broken in outside(statistics(changed(homes, change)))


def test_clones_of_one_home_do_not(homes):
    first = next(iter(homes.values())).energy_kwh
    assert "coincidence_factor" in outside(statistics(changed(homes, lambda load: first)))


def test_every_range_names_its_source():
    assert all(len(entry.source) > 20 and entry.low < entry.high for entry in RANGES.values())


@pytest.mark.data
@pytest.mark.skipif("FL_INMETRO_DATA" not in os.environ, reason="FL_INMETRO_DATA is not set")
def test_measured_homes_give_the_figures_that_the_ranges_quote():
    folder = Path(os.environ["FL_INMETRO_DATA"])
    quarters = [datetime(y, m, 1, tzinfo=UTC) for y, m in
                ((2012, 7), (2012, 10), (2013, 1), (2013, 4), (2013, 7))]  # fmt: skip
    measured_homes = side_by_side().measured_homes
    found = {first: statistics(measured_homes(folder, first, 90), 3600) for first in quarters}
    for name, low, high in [
        ("daily_variation", 0.296, 0.375),
        ("evening_share", 0.210, 0.226),
        ("free_day_ratio", 1.02, 1.10),
        ("client_load_factor", 0.091, 0.107),
        ("aggregate_load_factor", 0.363, 0.469),
        ("coincidence_factor", 0.214, 0.292),
    ]:
        values = [getattr(entry, name) for entry in found.values()]
        assert min(values) == pytest.approx(low, abs=0.006), name
        assert max(values) == pytest.approx(high, abs=0.006), name

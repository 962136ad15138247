"""Logs of trips: each planted fault by name, columns that know the past only, the real cars."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.charging.regression import Rows, mean_fit, quantile_fit
from fl_inmetro.ev.trip_log import COLUMNS, car_rows, judged_log, log_columns, read_trip_log

DATA = os.environ.get("FL_INMETRO_DATA", "")
LOG = Path(DATA or ".") / "ev_spritmonitor" / "trips.parquet"

FIRST = datetime(2016, 1, 1)


def columns(n: int = 60, **changed: list) -> dict[str, list]:
    """A car that needs 12 kWh/100 km and 4 more with winter tyres on; one trip a day."""
    winter = [(k // 15) % 2 == 1 for k in range(n)]
    made = {
        "car": ["a"] * n,
        "date": [FIRST + timedelta(days=k) for k in range(n)],
        "distance_km": [20.0 + k % 3 for k in range(n)],
        "consumption": [12.0 + 4.0 * w + 0.1 * (k % 5) for k, w in enumerate(winter)],
        "speed_km_h": [None if k % 4 == 0 else 40.0 for k in range(n)],
        "tyres": ["Winter tires" if w else "Summer tires" for w in winter],
        "style": ["Normal"] * n,
        **{key: [0] * n for key in ("city", "motorway", "country", "cooling", "preheated")},
    }
    return made | changed


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("car", None, "no car"),
        ("date", None, "no date"),
        ("distance_km", 0.0, "no distance"),
        ("distance_km", None, "no distance"),
        ("consumption", None, "no consumption"),
        ("consumption", float("nan"), "no consumption"),
        ("consumption", 76.0, "typing error"),
        ("consumption", 2.9, "typing error"),
    ],
)
def test_a_bad_trip_is_left_out_by_name(key, value, kind):
    made = columns()
    made[key][7] = value
    found = judged_log(made)
    assert len(found) == 59
    assert found.counts == ((kind, 1),)
    assert [(one.code, one.where) for one in found.excluded] == [("FL226", "row 8 of the log")]


def test_nothing_left_and_files_that_are_no_log(tmp_path):
    with pytest.raises(DataError, match="FL226"):
        judged_log(columns(3, consumption=[None] * 3))
    with pytest.raises(DataError, match="cannot be read"):
        read_trip_log(tmp_path / "none.parquet")
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"vehicle": ["a"]}), path)
    with pytest.raises(DataError, match="`trip_distance"):
        read_trip_log(path)


def test_a_made_file(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({COLUMNS[key]: values for key, values in columns().items()}), path)
    found = read_trip_log(path)
    assert list(found.day[:2]) == [16_801, 16_802]  # 1 January 2016: 46 years, 11 leap days
    assert found.winter_tyres[14:16].tolist() == [0.0, 1.0]
    assert np.isnan(found.speed_km_h[0])
    assert found.flags.shape == (60, 5)


def test_trips_are_put_in_the_order_of_their_dates():
    made = {key: values[::-1] for key, values in columns().items()}
    assert np.all(np.diff(judged_log(made).day) == 1)


def test_columns_know_earlier_days_only():
    made = columns()
    before = log_columns(judged_log(made))
    made["consumption"] = [y if k < 30 else y + 9 for k, y in enumerate(made["consumption"])]
    after = log_columns(judged_log(made))
    assert np.array_equal(before[:31], after[:31])
    assert not np.array_equal(before[31:], after[31:])
    # Two trips of one day do not know each other: the log has no order within a day.
    made["date"][31] = made["date"][30]
    both = log_columns(judged_log(made))
    assert np.array_equal(both[30, -4:], after[30, -4:])
    assert both[31, -1] == pytest.approx(both[30, -1])


def test_recent_means_by_hand():
    """Day 2 after 12.0 and 12.1: their mean counts as two trips. (0.8·12 + 12.1 + 2·12.05)/3.8."""
    row = log_columns(judged_log(columns()))[2]
    assert row[-4] == pytest.approx((0.8 * 12 + 12.1 + 24.1) / 3.8)
    assert row[-3] == pytest.approx((0.95 * 12 + 12.1 + 24.1) / 3.95)
    # 22 km are as long as 21 within a tenth (the newer; weight 0.8), and as 20 (0.64).
    assert row[-2] == pytest.approx((0.8 * 12.1 + 0.64 * 12 + 24.1) / 3.44)
    assert row[-1] == pytest.approx((0.9 * 12.1 + 0.81 * 12 + 24.1) / 3.71)


def test_it_learns_what_the_tyres_take():
    rows = car_rows(judged_log(columns(200)), ["a"])["a"]
    early = Rows(rows.x[:150], rows.y[:150])
    error = np.abs(rows.x[150:] @ mean_fit([early], 1e-3) - rows.y[150:]).mean()
    assert error < 0.3 < np.abs(early.y.mean() - rows.y[150:]).mean()


def test_speed_may_be_unknown():
    log = judged_log(columns())
    plain = log_columns(log, with_speed=False)
    assert log_columns(log).shape[1] == plain.shape[1] + 7
    assert np.all(np.isfinite(plain))


@pytest.mark.data
@pytest.mark.skipif(not LOG.exists(), reason="FL_INMETRO_DATA does not hold the log")
def test_real_cars():
    """README of the data: car mean MAE 2.85, RMSE 3.60 on the last fifth of each car, 2 typos."""
    log = read_trip_log(LOG)
    assert log.counts == (("no consumption", 36), ("typing error", 2))
    mean, told = [], []
    for own in car_rows(log, [str(car) for car in np.unique(log.car)]).values():
        cut = int(0.8 * len(own))
        early = Rows(own.x[:cut], own.y[:cut])
        mean.append(own.y[cut:] - early.y.mean())
        told.append(own.y[cut:] - own.x[cut:] @ quantile_fit([early], 0.5, 1e-3))
    assert np.abs(np.concatenate(mean)).mean() == pytest.approx(2.85, abs=0.02)
    assert np.sqrt((np.concatenate(mean) ** 2).mean()) == pytest.approx(3.60, abs=0.03)
    assert np.abs(np.concatenate(told)).mean() < 2.5

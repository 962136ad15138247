"""The layout of VED on small made files: rates, signs, faults, several weeks and vehicles."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.ved import each_second, read_ved

HEAD = [
    "DayNum", "VehId", "Trip", "Timestamp(ms)", "Latitude[deg]", "Longitude[deg]",
    "Vehicle Speed[km/h]", "MAF[g/sec]", "Engine RPM[RPM]", "Absolute Load[%]", "OAT[DegC]",
    "Fuel Rate[L/hr]", "Air Conditioning Power[kW]", "Air Conditioning Power[Watts]",
    "Heater Power[Watts]", "HV Battery Current[A]", "HV Battery SOC[%]", "HV Battery Voltage[V]",
    "Short Term Fuel Trim Bank 1[%]",
]  # fmt: skip

#: Discharging is negative in these files.
VOLTS, AMPERES, KWH = 380.0, 30.0, 24.0


def trip(vehicle: int = 455, number: int = 10, seconds: int = 600, **changes) -> list[dict]:
    """Speed and current each second, voltage every five, charge every sixty, from noon on."""
    change = {"sign": -1.0, "volts": VOLTS, "drop": True, "heater": True, "start": 0, **changes}
    rows = []
    used = 0.0
    for t in range(seconds):
        speed = 40 + 15 * np.sin(t / 25)
        amperes = AMPERES + 12 * np.cos(t / 25)
        row = dict.fromkeys(HEAD, "")
        row |= {
            "DayNum": "1.5", "VehId": vehicle, "Trip": number, "Timestamp(ms)": 1000 * t,
            "Vehicle Speed[km/h]": speed, "HV Battery Current[A]": change["sign"] * amperes,
        }  # fmt: skip
        if t % 5 == 0:
            row["HV Battery Voltage[V]"] = change["volts"]
        if t % 60 == 0 or t == seconds - 1:
            charge = 80 - 100 * used / KWH if change["drop"] else 80
            row |= {"HV Battery SOC[%]": charge, "OAT[DegC]": 12.5}
            if change["heater"]:
                row |= {"Heater Power[Watts]": 500, "Air Conditioning Power[Watts]": 200}
        used += VOLTS * amperes / 3.6e6
        rows.append(row)
    return rows


def week(folder: Path, *trips: list[dict], name: str = "VED_171101_week.csv") -> Path:
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        for rows in trips:
            writer.writerows(rows)
    return folder


def true_kwh(seconds: int = 600) -> float:
    t = np.arange(seconds)
    return float((VOLTS * (AMPERES + 12 * np.cos(t / 25))).sum() / 3.6e6)


def test_energy_by_hand_whatever_the_sign(tmp_path):
    for sign, said in ((-1.0, "negative"), (1.0, "positive")):
        found = read_ved(week(tmp_path, trip(sign=sign)))
        one = found.trips["455"]
        assert one.names == ("455/10",)
        assert one.terminal_kwh[0] == pytest.approx(true_kwh(), rel=1e-6)
        assert found.notes["455"] == f"{said} current is discharging"
        assert one.level.all()
        assert one.drives.heating_kw[0] == pytest.approx(0.5)
        assert one.drives.cooling_kw[0] == pytest.approx(0.2)
        assert one.drives.ambient_deg_c[0] == pytest.approx(12.5)
        mean = np.mean(40 + 15 * np.sin(np.arange(600) / 25))
        assert one.distance_km[0] == pytest.approx(mean / 6, rel=1e-3)


def test_a_short_trip_takes_its_sign_from_the_car_s_others(tmp_path):
    short = trip(number=11, seconds=120, sign=1.0)
    found = read_ved(week(tmp_path, trip(sign=1.0), short))
    assert found.trips["455"].names == ("455/10", "455/11")
    assert (found.trips["455"].terminal_kwh > 0).all()


def test_a_trip_with_the_other_sign_is_left_out(tmp_path):
    folder = week(tmp_path, trip(), trip(number=11), trip(number=12, sign=1.0))
    found = read_ved(folder)
    assert found.trips["455"].names == ("455/10", "455/11")
    assert "wrong sign" in found.excluded[0].what
    assert "455/12" in found.excluded[0].where


def test_a_sign_that_nobody_can_tell_is_no_sign(tmp_path):
    with pytest.raises(DataError, match="which sign"):
        read_ved(week(tmp_path, trip(drop=False)))


def test_a_trip_over_two_weeks_is_one_and_cars_are_apart(tmp_path):
    whole = trip()
    week(tmp_path, whole[:300], name="VED_171101_week.csv")
    week(tmp_path, whole[300:], trip(vehicle=541), name="VED_171108_week.csv")
    found = read_ved(tmp_path)
    assert set(found.trips) == {"455", "541"}
    assert found.trips["455"].terminal_kwh[0] == pytest.approx(true_kwh(), rel=1e-6)


def test_rows_in_another_order_say_the_same(tmp_path):
    rows = trip()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    found = read_ved(week(tmp_path, shuffled))
    assert found.trips["455"].terminal_kwh[0] == pytest.approx(true_kwh(), rel=1e-6)


def test_cars_with_an_engine_are_no_electric_cars(tmp_path):
    hybrid = trip(vehicle=7)
    hybrid[5]["Engine RPM[RPM]"] = 1500
    found = read_ved(week(tmp_path, trip(), hybrid))
    assert set(found.trips) == {"455"}
    # Who names vehicles knows better.
    assert set(read_ved(tmp_path, vehicles=[7]).trips) == {"7"}


def test_what_a_car_does_not_measure_is_not_zero(tmp_path):
    found = read_ved(week(tmp_path, trip(heater=False)))
    assert found.trips["455"].drives.heating_kw is None


def without(rows: list[dict], column: str, first: int, last: int) -> list[dict]:
    return [row | {column: ""} if first <= i < last else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda r: without(r, "HV Battery Voltage[V]", 0, 600), "Voltage[V]` is missing"),
        (lambda r: without(r, "HV Battery Voltage[V]", 200, 260), "gap of 65 s in `HV Battery V"),
        (lambda r: without(r, "Vehicle Speed[km/h]", 100, 120), "gap of 21 s in `Vehicle Speed"),
        (lambda r: r[:300] + r[360:], "gap of 61 s"),
        (lambda r: [*r[:300], r[300] | {"Vehicle Speed[km/h]": 400}, *r[301:]], "400 km/h"),
        (
            lambda r: [
                row | {"HV Battery Current[A]": -31.0} if 100 <= i < 160 else row
                for i, row in enumerate(r)
            ],
            "stuck",
        ),
        (lambda r: [row | {"HV Battery Voltage[V]": 38.0} for row in r], "battery of"),
        (lambda r: r[:40], "40 samples"),
    ],
)
def test_each_fault_is_named_and_left_out(tmp_path, spoil, why):
    found = read_ved(week(tmp_path, trip(), trip(number=20), spoil(trip(number=11))))
    assert found.trips["455"].names == ("455/10", "455/20")
    assert [fault.code for fault in found.excluded] == ["FL224"]
    assert why in found.excluded[0].what
    assert "455/11" in found.excluded[0].where


def test_no_file_or_another_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match="no weekly file"):
        read_ved(tmp_path)
    (tmp_path / "VED_171101_week.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no `VehId`"):
        read_ved(tmp_path)


def test_signals_between_their_values_by_hand():
    rows = {
        "time_ms": np.array([0.0, 1000, 2000, 3000, 4000, 5000]),
        "speed_km_h": np.array([0.0, 10, np.nan, 30, 40, 50]),
        "current_a": np.array([1.0, np.nan, 3, 4, 5, 6]),
        "voltage_v": np.array([350.0, *[np.nan] * 4, 360]),
        "soc_percent": np.array([80.0, *[np.nan] * 4, 79]),
        "ambient_deg_c": np.array([np.nan, 10, *[np.nan] * 4]),
        "heating_w": np.array([np.nan, np.nan, 100, np.nan, 200, np.nan]),
        "cooling_kw": np.array([0.1, *[np.nan] * 5]),
    }
    one = each_second(rows)
    assert np.allclose(one["speed_km_h"], [0, 10, 20, 30, 40, 50])
    assert np.allclose(one["current_a"], [1, 2, 3, 4, 5, 6])
    assert np.allclose(one["voltage_v"], [350, 352, 354, 356, 358, 360])
    assert np.allclose(one["heating_kw"], [0.1, 0.1, 0.1, 0.1, 0.2, 0.2])
    assert np.allclose(one["cooling_kw"], 0.1)
    assert np.allclose(one["ambient_deg_c"], 10)

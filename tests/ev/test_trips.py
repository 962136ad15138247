"""Measured trips: good ones as they are, bad ones out by name, and the real car's figures."""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.ev.calibration import term_powers
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.residual import prepared
from fl_inmetro.ev.trips import COLUMNS, Limits, judged, longest_run, read_trips
from fl_inmetro.ev.validation import leave_one_trip_out, scores

DATA = os.environ.get("FL_INMETRO_DATA", "")
BMW = Path(DATA or ".") / "ev_bmw_i3" / "signals_1hz.parquet"


def good(n: int = 300) -> dict[str, np.ndarray]:
    """A trip of 12 m/s on the mean with 360 V; charge falls as 21.6 kWh give."""
    t = np.arange(n, dtype=float)
    speed = 12 + 4 * np.sin(t / 20)
    current = -40 - 20 * np.sin(t / 20)
    used = np.cumsum(-360 * current / 3.6e6)
    return {
        "time_s": t,
        "speed_km_h": speed * 3.6,
        "height_m": 500 + 5 * np.sin(t / 50),
        "voltage_v": np.full(n, 360.0),
        "current_a": current,
        "soc_percent": 80 - 100 * used / 21.6,
        "battery_deg_c": np.full(n, 20.0),
        "heating_kw": np.full(n, 0.8),
        "heating_requested_w": np.full(n, 500.0),
        "cooling_kw": np.zeros(n),
        "ambient_deg_c": np.full(n, 15.0),
    }


def spoilt(key: str, at: slice | int, value: float) -> dict[str, np.ndarray]:
    one = good()
    one[key] = one[key].copy()
    one[key][at] = value
    return one


def table_of(*trips: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    names = np.concatenate([np.full(len(one["time_s"]), f"T{i}") for i, one in enumerate(trips)])
    return names, {key: np.concatenate([one[key] for one in trips]) for key in good()}


def gap(missing_s: float = 7.0) -> dict[str, np.ndarray]:
    one = good()
    one["time_s"] = np.where(one["time_s"] > 100, one["time_s"] + missing_s, one["time_s"])
    return one


def scaled(key: str, factor: float) -> dict[str, np.ndarray]:
    one = good()
    one[key] = one[key] * factor
    return one


BAD = {
    "a gap of 8 s": gap(),
    "a gap of 2 s": gap(1.0),
    "samples 0.1 s apart": {**good(), "time_s": np.arange(300) / 10},
    "time does not go forward": spoilt("time_s", 50, 49.0),
    "`Battery Voltage [V]` is missing in 3 of 300": spoilt("voltage_v", slice(5, 8), np.nan),
    "`Ambient Temperature [°C]` is missing in 1": spoilt("ambient_deg_c", 5, np.nan),
    "no voltage in 2 samples": spoilt("voltage_v", slice(5, 7), 0.0),
    "a speed of 260 km/h": spoilt("speed_km_h", 9, 260.0),
    "a speed of -30 km/h": spoilt("speed_km_h", 9, -30.0),
    "the speed jumps by 20 m/s": spoilt("speed_km_h", 9, 120.0),
    "`Velocity [km/h]` is stuck for 59 s": spoilt("speed_km_h", slice(100, 160), 50.0),
    "`Battery Current [A]` is stuck for 59 s": spoilt("current_a", slice(100, 160), -40.0),
    "the current has the wrong sign": scaled("current_a", -1.0),
    "for 5.9 % of charge are a battery of 43 kWh": scaled("current_a", 2.0),
    "59 samples, 60 are needed": {key: value[:59] for key, value in good().items()},
    "0.04 km, 0.5 are needed": scaled("speed_km_h", 0.01),
}


@pytest.mark.parametrize("says", BAD)
def test_a_bad_trip_is_left_out_by_name(says):
    names, signals = table_of(good(), BAD[says], good())
    trips = judged(names, signals, Limits())
    assert trips.names == ("T0", "T2")
    (fault,) = trips.excluded
    assert fault.code == "FL224"
    assert fault.where == "trip T1"
    assert says in fault.what
    assert len(trips.drives) == 2


def test_good_trips_by_hand():
    """Mean current −40 − 20·mean(sin): the energy is 360 V times it, over 300 s."""
    one = good()
    trips = judged(*table_of(one, one), Limits())
    assert trips.excluded == ()
    kwh = 360 * -one["current_a"].mean() * 300 / 3.6e6
    assert trips.terminal_kwh == pytest.approx([kwh, kwh])
    assert trips.distance_km == pytest.approx([one["speed_km_h"].sum() / 3600] * 2)
    # 0.8 kW reported, 0.5 kW asked for: half a kilowatt.
    assert trips.drives.heating_kw == pytest.approx(0.5)
    assert trips.interval_kw[:-1].max() > 20
    assert trips.interval_kw[[299, 599]].tolist() == [0, 0]
    assert trips.level.tolist() == [False, False]


def test_heights_that_stand_still_are_said():
    trips = judged(*table_of(good(), scaled("height_m", 0.0)), Limits())
    assert trips.level.tolist() == [False, True]
    assert np.all(trips.drives.climb_m_s[300:] == 0)


def test_standing_at_a_light_is_not_stuck():
    one = spoilt("speed_km_h", slice(100, 200), 0.0)
    one["speed_km_h"] = np.minimum(one["speed_km_h"], 40.0)
    one["speed_km_h"][:100] += np.linspace(0, 1, 100)
    one["speed_km_h"][200:] += np.linspace(0, 1, 100)
    assert judged(*table_of(one), Limits()).names == ("T0",)


def test_a_short_hop_without_charge_falling_is_no_fault():
    one = good()
    one["soc_percent"] = np.full(300, np.nan)
    assert judged(*table_of(one), Limits()).names == ("T0",)


def test_no_trip_left_is_an_error():
    with pytest.raises(DataError, match="gap") as caught:
        judged(*table_of(gap(), spoilt("voltage_v", 0, 0.0)), Limits())
    assert [fault.where for fault in caught.value.faults] == ["trip T0", "trip T1"]


def test_the_longest_run():
    flags = [np.array(x, dtype=bool) for x in ([], [0], [1], [1, 1, 0, 1], [0, 1, 1, 1])]
    assert [longest_run(one) for one in flags] == [0, 0, 1, 2, 3]


def written(tmp_path: Path, without: str | None = None) -> Path:
    names, signals = table_of(good(), gap())
    columns = {COLUMNS["trip"]: names}
    columns |= {COLUMNS[key]: values for key, values in signals.items() if key != without}
    pq.write_table(pa.table(columns), tmp_path / "trips.parquet")
    return tmp_path / "trips.parquet"


def test_a_file_is_read(tmp_path):
    trips = read_trips(written(tmp_path))
    assert trips.names == ("T0",)
    assert trips.drives.speed_m_s == pytest.approx(good()["speed_km_h"] / 3.6)
    assert trips.terminal_kw == pytest.approx(-0.36 * good()["current_a"])
    assert trips.excluded[0].what == "a gap of 8 s"


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(DataError, match="has no `SoC"):
        read_trips(written(tmp_path, without="soc_percent"))
    with pytest.raises(DataError, match="FL224"):
        read_trips(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("no table", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_trips(tmp_path / "text.parquet")


@pytest.fixture(scope="module")
def trips():
    return read_trips(BMW)


@pytest.mark.data
@pytest.mark.skipif(not BMW.is_file(), reason="FL_INMETRO_DATA does not lead to ev_bmw_i3")
class TestTheRealCar:
    def test_the_one_bad_trip_is_found(self, trips):
        """B34: speed, voltage and current keep one value for seven minutes."""
        assert len(trips.names) == 47
        assert [fault.where for fault in trips.excluded] == ["trip B34"]
        assert "stuck for 440 s" in trips.excluded[0].what
        level = [name for name, flat in zip(trips.names, trips.level, strict=True) if flat]
        assert level == ["A04"]

    def test_energies_are_those_of_the_trip_table(self, trips):
        """That table was integrated from the 10 Hz original."""
        table = pq.read_table(BMW.parent / "trips.parquet").to_pandas().set_index("trip_id")
        rows = table.loc[list(trips.names)]
        assert trips.terminal_kwh == pytest.approx(rows["energy_net_kWh"].to_numpy(), abs=0.006)
        assert trips.distance_km == pytest.approx(rows["distance_km"].to_numpy(), rel=0.005)

    @pytest.mark.parametrize("learned", [False, True])
    def test_trips_left_out(self, trips, learned):
        physical = term_powers(trips.drives, Vehicle())
        ready = prepared(physical, trips.interval_kw, trips.drives, trips.battery_deg_c)
        left = leave_one_trip_out(ready, learned)
        found = scores(
            left.predicted_kwh, trips.terminal_kwh, trips.distance_km, left.half_width_kwh
        )
        assert found.mae_kwh_per_100km.value < 1.0
        assert found.mae_kwh.value < 0.13
        assert 0.65 < found.coverage_80 < 0.95

    def test_the_battery_has_no_say(self, trips):
        """What a car's battery sensors say of a trip left out does not reach its prediction."""
        physical = term_powers(trips.drives, Vehicle())
        wrong = trips.interval_kw.copy()
        wrong[: trips.drives.offsets[1]] = 99.0
        first, second = (
            leave_one_trip_out(prepared(physical, one, trips.drives, trips.battery_deg_c), False)
            for one in (trips.interval_kw, wrong)
        )
        assert first.predicted_kwh[0] == second.predicted_kwh[0]


def test_the_benchmark_runs_on_a_small_table(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    many = []
    for i in range(6):
        one = good(400 + 40 * i)
        one["current_a"] = one["current_a"] * rng.uniform(0.8, 1.2)
        many.append({**one, "ambient_deg_c": one["ambient_deg_c"] + 3 * i})
    names, signals = table_of(*many)
    columns = {COLUMNS["trip"]: names, **{COLUMNS[key]: signals[key] for key in signals}}
    (tmp_path / "ev_bmw_i3").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "ev_bmw_i3" / "signals_1hz.parquet")
    monkeypatch.setenv("FL_INMETRO_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["ev_bmw.py"])
    import ev_bmw

    ev_bmw.main()
    said = capsys.readouterr().out
    assert "| calibrated physics | 6 |" in said
    assert "heating by weather" in said

"""One client and one source through the whole of cleaning, each finding made by hand."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.schema import Cleaning
from fl_inmetro.data.cleaning.client import clean_client
from fl_inmetro.data.cleaning.findings import CleaningReport, Finding, Ledger
from fl_inmetro.data.cleaning.source import clean_source
from fl_inmetro.data.readings import About, Clock, Opened, Readings, by_client
from fl_inmetro.errors import DataError

ABOUT = About("made", "made for a test", "none", "none")
H = 3600
RULES = Cleaning()


def readings(clock_s, value, client: str = "x") -> Readings:
    stamps = np.asarray(clock_s, dtype=np.int64)
    line = np.arange(stamps.size, dtype=np.int64) + 2
    return Readings(client, stamps, np.asarray(value, dtype=float), line, "m.csv")


def source(**keys: object) -> Opened:
    return Opened(ABOUT, {}, **{"clock": Clock("UTC"), **keys})


def clean(clock_s, value, rules: Cleaning = RULES, **keys: object):
    ledger = Ledger()
    series = clean_client(readings(clock_s, value), source(**keys), rules, ledger)
    return series, {finding.kind: finding for finding in ledger.findings}


def hours(count: int) -> np.ndarray:
    return np.arange(count) * H


def test_clean_readings_pass_untouched() -> None:
    value = 1 + np.random.default_rng(0).random(24 * 40)
    series, found = clean(hours(value.size), value)
    np.testing.assert_array_equal(series.energy_kwh, value)
    assert (series.start_utc_s, series.resolution_s, found) == (0, H, {})


def test_every_finding_names_its_lines() -> None:
    value = 1 + np.random.default_rng(0).random(200)
    value[[10, 20, 30]] = [-1.0, np.nan, 500.0]
    clock = hours(200)
    clock[40] += 20  # jitter
    clock, value = np.delete(clock, [50, 51]), np.delete(value, [50, 51])
    clock, value = np.append(clock, [60 * H, 70 * H]), np.append(value, [value[58], 9.0])
    series, found = clean(clock, value)
    assert found["negative"].places == ("m.csv:12 (1970-01-01 10:00)",)
    assert found["missing_value"].places == ("m.csv:22 (1970-01-01 20:00)",)
    assert found["outlier"].places == ("m.csv:32 (1970-01-02 06:00)",)
    assert found["jitter"].count == 1
    assert found["duplicate"].places == ("m.csv:200 (1970-01-03 12:00)",)
    assert found["conflicting_duplicate"].count == 2
    # 10, 20, 30, the two deleted ones and hour 70 are missing.
    assert (found["gap"].count, found["gap"].detail) == (6, "5 gaps, longest 2 h")
    assert sorted(np.flatnonzero(~series.valid)) == [10, 20, 30, 50, 51, 70]
    assert {f.action for f in found.values()} <= {"repaired", "marked missing", "reported"}


def test_what_the_rules_say_is_done() -> None:
    value = 1 + np.random.default_rng(0).random(200)
    value[5], value[7], value[100:160] = -2.0, 500.0, 1.25
    keep = Cleaning(negatives="keep", outliers="report", flat="report")
    series, found = clean(hours(200), value, keep)
    np.testing.assert_array_equal(series.energy_kwh, value)
    assert {kind: f.action for kind, f in found.items()} == dict.fromkeys(
        ("negative", "flat", "outlier"), "reported"
    )
    assert found["flat"].count == 60
    # Masked from the hour on in which the line has lasted: before that nobody could know.
    mask = Cleaning(flat="mask", flat_hours=50)
    series, found = clean(hours(200), value, mask)
    assert np.flatnonzero(~series.valid).tolist() == [5, *range(149, 160)]
    assert found["flat"].count == 11
    # The spike of the first day has no past to be judged by: it is told, and left.
    assert (found["outlier"].action, found["outlier"].places) == (
        "reported",
        ("m.csv:9 (1970-01-01 07:00)",),
    )
    assert "flat" not in clean(hours(200), value, Cleaning(flat_hours=61))[1]


def test_zeros_mean_missing_only_where_the_source_says_so() -> None:
    value = [0.0, 1.0, 0.0, 2.0]
    series, found = clean(hours(4), value)
    assert series.valid.all()
    assert not found
    series, found = clean(hours(4), value, zeros_mean_missing=True)
    np.testing.assert_array_equal(series.energy_kwh, [1.0, np.nan, 2.0])  # the first is cut off
    assert series.start_utc_s == H
    assert found["zero_missing"].count == 2


def test_impossible_lows_are_in_the_unit_of_the_source() -> None:
    series, found = clean(hours(4), [700.0, 385.7, 900.0, 800.0], unit="MW", impossible_below=500.0)
    assert found["impossible_low"].count == 1
    np.testing.assert_array_equal(series.energy_kwh, [700e3, np.nan, 900e3, 800e3])


def test_gaps_are_filled_from_the_day_before_when_asked() -> None:
    gone = [3, 30, 40, 41]
    clock, value = np.delete(hours(60), gone), np.delete(np.arange(60.0), gone)
    series, found = clean(clock, value, Cleaning(max_gap_fill_h=1))
    assert (found["gap_filled"].count, found["gap_filled"].action) == (2, "repaired")
    assert (series.energy_kwh[30], series.energy_kwh[40]) == (6.0, 16.0)
    assert np.flatnonzero(~series.valid).tolist() == [3, 41]


ALL_RULES = Cleaning(flat="mask", flat_hours=5, max_gap_fill_h=3, outlier_factor=3)
GARBAGE = (np.nan, 0.0, -5.0, 1e9, 1.0, 1e-9)


@given(
    cut=st.integers(1, 50 * 24 - 1),
    garbage=st.sampled_from(GARBAGE),
    seed=st.integers(0, 10**6),
    keep=st.booleans(),
)
def test_no_step_depends_on_a_later_reading(
    cut: int, garbage: float, seed: int, keep: bool
) -> None:
    size = 50 * 24
    rng = np.random.default_rng(seed)
    value = rng.lognormal(0, 1, size)
    value[rng.random(size) < 0.1] = np.nan
    value[rng.random(size) < 0.05] = -1
    starts = rng.integers(0, size - 20, 20)
    for start in starts:
        value[start : start + 8] = value[start]
    value[[100, 500, 700, 900]] = 1e4
    value[600] = 0.01
    value[[0, -1]] = 1.0  # so that neither series is cut short
    other = value.copy()
    other[cut:] = garbage if keep else rng.choice(GARBAGE, size - cut)
    other[-1] = 1.0
    options = {"zeros_mean_missing": True, "impossible_below": 0.05}
    one, found = clean(hours(size), value, ALL_RULES, **options)
    two, _ = clean(hours(size), other, ALL_RULES, **options)
    np.testing.assert_array_equal(one.energy_kwh[:cut], two.energy_kwh[:cut])
    # The series is one on which every rule has something to do.
    assert {"outlier", "flat", "gap_filled", "negative", "impossible_low"} <= set(found)


def test_step_that_changes_is_summed_to_the_longer() -> None:
    clock = np.concatenate((np.arange(96 * 3) * 900, 96 * 3 * 900 + hours(72)))
    energy = np.concatenate((np.full(96 * 3, 0.25), np.full(72, 1.0)))
    series, found = clean(clock, energy)
    np.testing.assert_array_equal(series.energy_kwh, np.ones(144))
    assert found["changing_resolution"].places[0] == "m.csv:290 (1970-01-04 00:00)"
    # The same house in kW: 1 kW all the time.
    power, _ = clean(clock, np.ones(clock.size), unit="kW")
    np.testing.assert_allclose(power.energy_kwh, 1.0)
    odd = np.concatenate((np.arange(96 * 3) * 900, 96 * 3 * 900 + np.arange(100) * 1200))
    with pytest.raises(DataError, match="FL207"):
        clean(odd, np.ones(odd.size))


def test_stamps_off_the_grid_are_refused_with_their_lines() -> None:
    clock = hours(50)
    clock[7] += 600
    with pytest.raises(DataError) as caught:
        clean(clock, np.ones(50))
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("FL207", "m.csv:9 (1970-01-01 07:10)")
    # India is half an hour off: its hours are not hours of UTC.
    with pytest.raises(DataError, match="FL207"):
        clean(hours(50), np.ones(50), clock=Clock("Asia/Kolkata"))
    with pytest.raises(DataError, match="shorter than a minute"):
        clean(np.arange(100) * 10, np.ones(100))


def test_register_to_energy_with_reset() -> None:
    total = 100 + np.cumsum(np.r_[0, np.ones(99)]) * 2.0
    total[60:] -= total[60]
    series, found = clean(hours(100), total, quantity="register")
    assert found["register_reset"].places == ("m.csv:61 (1970-01-03 11:00)",)
    assert np.flatnonzero(~series.valid).tolist() == [59]
    assert np.nanmax(series.energy_kwh) == np.nanmin(series.energy_kwh) == 2.0
    assert len(series) == 99


def test_a_file_that_runs_backwards_keeps_the_autumn_hours_apart() -> None:
    # London, 2019-10-27, newest first: 02:00, 01:00 (GMT), 01:00 (BST), 00:00.
    base = 1_572_134_400  # 2019-10-27 00:00 on the clock
    forwards, _ = clean(
        [base, base + H, base + H, base + 2 * H], [1, 2, 3, 4], clock=Clock("Europe/London")
    )
    backwards, _ = clean(
        [base + 2 * H, base + H, base + H, base], [4, 3, 2, 1], clock=Clock("Europe/London")
    )
    assert forwards.energy_kwh.tolist() == backwards.energy_kwh.tolist() == [1, 2, 3, 4]
    assert forwards.start_utc_s == base - H


def test_a_lone_autumn_hour_leaves_a_gap_or_is_split() -> None:
    base = 1_572_134_400
    stamps, value = [base, base + H, base + 2 * H], [1.0, 6.0, 3.0]
    first, found = clean(stamps, value, clock=Clock("Europe/London"))
    np.testing.assert_array_equal(first.energy_kwh, [1, 6, np.nan, 3])
    assert found["repeated_hour"].action == "reported"
    both, found = clean(stamps, value, clock=Clock("Europe/London", repeated_hour="both"))
    np.testing.assert_array_equal(both.energy_kwh, [1, 3, 3, 3])
    assert found["repeated_hour"].action == "repaired"


def test_infinite_is_missing_and_all_missing_is_empty() -> None:
    series, _ = clean(hours(4), [1.0, np.inf, 2.0, -np.inf])
    np.testing.assert_array_equal(series.energy_kwh, [1.0, np.nan, 2.0])
    for value in ([np.nan] * 3, [-1.0, -2.0, -1.0]):
        with pytest.raises(DataError, match="FL205"):
            clean(hours(3), value)
    with pytest.raises(DataError, match="FL206"):
        clean([0], [1.0])


def test_source_collects_faults_and_suspects_units() -> None:
    def part(name: str, factor: float) -> Readings:
        value = factor * (1 + np.random.default_rng(len(name)).random(100))
        return readings(hours(100), value, name)

    clients = {f"c{k}": partial(part, f"c{k}", 1.0) for k in range(5)}
    clients["wh"] = partial(part, "wh", 1000.0)
    clients["bad"] = partial(readings, hours(3), [np.nan] * 3, "bad")
    clients["odd"] = partial(readings, [0, H, 2 * H, 2 * H + 999], [1.0] * 4, "odd")
    opened = Opened(ABOUT, clients, Clock("UTC"))
    cleaned = clean_source(opened, list(clients), RULES)
    assert [fault.code for fault in cleaned.ledger.faults] == ["FL205", "FL207"]
    (suspect,) = [f for f in cleaned.ledger.findings if f.kind == "unit_suspicion"]
    assert suspect.client_id == "wh"
    assert "1000 times" in suspect.detail
    assert cleaned.series["wh"].energy_kwh.max() > 1000  # never rescaled
    dropped = clean_source(opened, list(clients), Cleaning(drop_short=True))
    assert set(dropped.excluded) == {"bad"}
    assert [fault.code for fault in dropped.ledger.faults] == ["FL207"]


def test_long_table_is_split_in_file_order_either_way() -> None:
    codes = np.array([0, 0, 1, 1, 0], dtype=np.int32)
    clock, value = np.arange(5), np.arange(5.0)
    parts = by_client(codes, ["a", "b"], clock, value, "f", 2)
    assert parts["a"]().line.tolist() == [2, 3, 6]
    assert parts["b"]().clock_s.tolist() == [2, 3]
    grouped = by_client(codes[:4], ["a", "b"], clock[:4], value[:4], "f", 2)
    assert np.shares_memory(grouped["b"]().value, value)
    assert grouped["b"]().line.tolist() == [4, 5]


def test_report_is_plain_json_and_counts_add_up() -> None:
    findings = (
        Finding("a", "gap", 3, "reported"),
        Finding("b", "gap", 4, "reported"),
        Finding("b", "negative", 1, "marked missing", ("f:3",)),
    )
    report = CleaningReport("s", 10, (), findings, {"c": "why"})
    assert report.counts() == {"negative": 1, "gap": 7}
    again = json.loads(json.dumps(report.to_json()))
    assert again["findings"][2]["places"] == ["f:3"]
    assert again["refused"] is False
    with pytest.raises(ValueError, match="unknown kind"):
        Ledger().note("a", "nonsense", 1, "reported")

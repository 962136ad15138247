"""Long tables: formats of dates, columns, decimal marks, broken lines, and every refusal."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fl_inmetro.config.schema import Cleaning, Columns, Data, FileFormat
from fl_inmetro.data.load import load, load_with_report
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import iso_utc


def faults(path: Path, source: str = "long", **keys: object) -> tuple[Fault, ...]:
    with pytest.raises(DataError) as caught:
        load(Data(source=source, path=str(path), **keys))
    return caught.value.faults


def same_values(path: Path, **format_keys: object) -> None:
    """Loading gives what pandas reads in file order, starting 2024-01-01 00:00 UTC."""
    data = load(Data(source="long", path=str(path), format=FileFormat(**format_keys)))
    expected = pd.read_csv(path)
    for name, rows in expected.groupby("client_id"):
        assert iso_utc(data[str(name)].start_utc_s) == "2024-01-01T00:00:00Z"
        np.testing.assert_array_equal(data[str(name)].energy_kwh, rows.energy_kwh.to_numpy())


@pytest.mark.parametrize(
    "stamp",
    [
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%d/%m/%Y %H:%M",
        "%d.%m.%Y %H:%M:%S",
        "%m/%d/%Y %H:%M",
        "%m/%d/%Y %I:%M %p",
        "%Y/%m/%d %H:%M:%S.000",
        lambda moment: f"{moment.day}/{moment.month}/{moment.year} {moment.hour}:{moment:%M}",
    ],
)
def test_formats_of_stamps(long_csv, stamp) -> None:
    same_values(long_csv(stamp))


def test_offset_in_the_stamp_beats_the_setting(long_csv) -> None:
    path = long_csv("%Y-%m-%dT%H:%M:%S-03:00")
    data = load(
        Data(source="long", path=str(path), format=FileFormat(timezone="America/Sao_Paulo"))
    )
    assert iso_utc(data["a"].start_utc_s) == "2024-01-01T03:00:00Z"
    assert data.manifest.timezone == "UTC"


def test_gzip_and_parquet_give_the_same(long_csv, tmp_path) -> None:
    path = long_csv()
    packed = tmp_path / "meters.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    table = pd.read_csv(path, parse_dates=["timestamp"])
    table.to_parquet(tmp_path / "meters.parquet")
    plain = load(Data(source="long", path=str(path)))
    for other in (packed, tmp_path / "meters.parquet"):
        again = load(Data(source="long", path=str(other)))
        for name in plain:
            np.testing.assert_array_equal(again[name].energy_kwh, plain[name].energy_kwh)
            assert again[name].start_utc_s == plain[name].start_utc_s


def test_rows_ordered_by_time_give_the_same(long_csv, tmp_path) -> None:
    path = long_csv(name="by_client.csv")
    shuffled = pd.read_csv(path).sort_values(["timestamp", "client_id"])
    shuffled.to_csv(tmp_path / "by_time.csv", index=False)
    one = load(Data(source="long", path=str(path)))
    two = load(Data(source="long", path=str(tmp_path / "by_time.csv")))
    for name in one:
        np.testing.assert_array_equal(one[name].energy_kwh, two[name].energy_kwh)


# ------------------------------------------------------------------ day and month
def exchanged(moment: datetime) -> str:
    if moment.day <= 12:
        return f"{moment:%Y-%d-%m %H:%M}"
    return f"{moment:%Y-%m-%d %H:%M}"


def test_iso_dates_with_day_and_month_exchanged_are_refused_then_repaired(long_csv) -> None:
    path = long_csv(exchanged)
    (fault,) = faults(path)
    assert fault.code == "FL204"
    # Line 26 is the first of the second day: written 2024-02-01 for 2 January.
    assert fault.where == "meters.csv:26"
    assert "`format.day-first = true`" in fault.hint
    repaired = load(Data(source="long", path=str(path), format=FileFormat(day_first=True)))
    right = load(Data(source="long", path=str(long_csv(name="right.csv"))))
    np.testing.assert_array_equal(repaired["b"].energy_kwh, right["b"].energy_kwh)
    assert repaired["b"].start_utc_s == right["b"].start_utc_s


def test_day_first_on_iso_dates_in_order_is_refused(long_csv) -> None:
    (fault,) = faults(long_csv(), format=FileFormat(day_first=True))
    assert fault.code == "FL204"
    assert "remove `format.day-first`" in fault.hint


def test_exchanged_parquet_timestamps_are_found_too(long_csv, tmp_path) -> None:
    table = pd.read_csv(long_csv(exchanged), parse_dates=["timestamp"])
    table.to_parquet(tmp_path / "m.parquet")
    (fault,) = faults(tmp_path / "m.parquet")
    assert fault.code == "FL204"
    assert fault.where == "m.parquet:25"


def test_short_file_of_small_days_is_decided_by_its_order(long_csv) -> None:
    same_values(long_csv("%d/%m/%Y %H:%M", days=12))
    same_values(long_csv("%m/%d/%Y %H:%M", days=12))


def test_dates_that_fit_both_ways_are_refused(long_csv) -> None:
    # Two days: 01/02 and 02/02, or 2 January and 2 February. Order says too little.
    path = long_csv("%d/%m/%Y %H:%M", days=2, start=datetime(2024, 2, 1))
    (fault,) = faults(path)
    assert fault.code == "FL204"
    assert "`format.day-first = true`" in fault.hint
    data = load(Data(source="long", path=str(path), format=FileFormat(day_first=True)))
    assert iso_utc(data["a"].start_utc_s) == "2024-02-01T00:00:00Z"
    # One day that is the same either way needs no decision.
    load(Data(source="long", path=str(long_csv("%d/%m/%Y %H:%M", days=1, name="same.csv"))))


def test_wrong_day_first_makes_a_thirteenth_month(long_csv) -> None:
    (fault,) = faults(long_csv("%d/%m/%Y %H:%M"), format=FileFormat(day_first=False))
    assert (fault.code, fault.hint) == ("FL204", "set `format.day-first = true`")
    assert fault.where == f"meters.csv:{2 + 12 * 24}"


def test_dates_partly_day_first_and_partly_month_first_are_refused(long_csv) -> None:
    def mixed(moment: datetime) -> str:
        return moment.strftime("%m/%d/%Y %H:%M" if moment.month == 2 else "%d/%m/%Y %H:%M")

    (fault,) = faults(long_csv(mixed, days=50))
    assert fault.code == "FL204"
    assert fault.where.count("\n") == 1

    def small_days_exchanged(moment: datetime) -> str:
        return moment.strftime("%m/%d/%Y %H:%M" if moment.day <= 12 else "%d/%m/%Y %H:%M")

    (fault,) = faults(long_csv(small_days_exchanged, name="small.csv"))
    assert fault.code == "FL204"
    assert "export it again" in fault.hint


def test_year_day_month_is_refused_with_its_line(long_csv) -> None:
    (fault,) = faults(long_csv("%Y-%d-%m %H:%M"))
    assert (fault.code, fault.where) == ("FL204", f"meters.csv:{2 + 12 * 24}")


# --------------------------------------------------------------------- other refusals
def test_missing_columns_are_all_named_with_the_closest(tmp_path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("meter,time_stamp,kwh\na,2024-01-01 00:00,1\n")
    found = faults(path)
    assert [fault.code for fault in found] == ["FL202"] * 3
    assert "`time_stamp`" in found[1].hint
    assert 'columns.timestamp = "time_stamp"' in found[1].hint
    assert found[0].where == "m.csv:1"
    assert "`meter`, `time_stamp`, `kwh`" in found[2].hint


def test_decimal_comma_is_named_and_read(tmp_path, long_csv) -> None:
    rows = long_csv().read_text().replace(",", ";").replace(".", ",")
    path = tmp_path / "comma.csv"
    path.write_text(rows)
    (fault,) = faults(path)
    assert fault.code == "FL203"
    assert fault.hint == 'set `format.decimal = ","` (`data check` takes `--decimal ","`)'
    assert fault.where.splitlines()[0].startswith("comma.csv:2  energy_kwh = `1,")
    data = load(Data(source="long", path=str(path), format=FileFormat(decimal=",")))
    right = load(Data(source="long", path=str(long_csv())))
    np.testing.assert_array_equal(data["a"].energy_kwh, right["a"].energy_kwh)


def test_bad_stamps_values_and_lines_name_their_lines(long_csv) -> None:
    def stamps(rows: list[str]) -> list[str]:
        for k, text in ((3, "soon"), (4, "2024-01-01 25:00"), (9, ""), (11, "2024-02-30 00:00")):
            client, _, value = rows[k].split(",")
            rows[k] = f"{client},{text},{value}"
        return rows

    (fault,) = faults(long_csv(edit=stamps))
    assert fault.code == "FL211"
    assert fault.what.startswith("3 timestamps")  # 30 February is a date, of no calendar
    assert [line.split()[0] for line in fault.where.splitlines()] == [
        "meters.csv:5",
        "meters.csv:6",
        "meters.csv:11",
    ]

    def february(rows: list[str]) -> list[str]:
        return [*rows[:5], rows[5].replace("2024-01-01", "2024-02-30"), *rows[6:]]

    (fault,) = faults(long_csv(edit=february))
    assert (fault.code, fault.where) == ("FL211", "meters.csv:7")

    def broken(rows: list[str]) -> list[str]:
        return [*rows[:5], rows[5] + ",1", rows[6].rsplit(",", 1)[0], "a,2024-01-02 00:00,abc"]

    found = faults(long_csv(edit=broken))
    assert [fault.code for fault in found] == ["FL203", "FL203"]
    assert found[0].where == "meters.csv:7  4 fields\nmeters.csv:8  2 fields"
    assert found[1].where == "meters.csv:9  energy_kwh = `abc`"


def test_missing_values_are_no_error(long_csv) -> None:
    def holes(rows: list[str]) -> list[str]:
        return [
            r.rsplit(",", 1)[0] + "," + t for r, t in zip(rows, ["", "NA", "-"], strict=False)
        ] + rows[3:]

    data, report = load_with_report(Data(source="long", path=str(long_csv(edit=holes))))
    assert report.counts() == {"missing_value": 3}
    assert len(data["a"]) == 40 * 24 - 3  # the ends are cut


def test_rows_without_client_are_refused(long_csv) -> None:
    path = long_csv(edit=lambda rows: [*rows[:5], "," + rows[5].split(",", 1)[1], *rows[6:]])
    (fault,) = faults(path)
    assert (fault.code, fault.where) == ("FL203", "meters.csv:7")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"PAR1broken", "damaged Parquet"),
        (b"\x1f\x8bbroken", "cannot be unpacked"),
        (b"a\x00b", "not a text file"),
        (b"1,2,3\n4,5,6\n", "holds numbers, not names"),
        (b"a,a,b\n1,2,3\n", "named twice"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, what) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    (fault,) = faults(path)
    assert fault.code == "FL203"
    assert what in fault.what


def test_file_that_is_not_there_proposes_its_neighbour(long_csv) -> None:
    path = long_csv()
    (fault,) = faults(path.with_name("meter.csv"))
    assert fault.code == "FL203"
    assert "meters.csv" in fault.hint
    (fault,) = faults(path.parent)
    assert "folder" in fault.what


def test_latin_1_and_strange_names(tmp_path) -> None:
    path = tmp_path / "m.csv"
    rows = "".join(
        f"Padaria São João|{h:02d}/01/2024 0{k}:00|1\n" for h in (20, 21) for k in (0, 1)
    )
    path.write_bytes(("medidor|instante|consumo médio\n" + rows).encode("latin-1"))
    names = Columns(client="medidor", timestamp="instante", value="consumo médio")
    data, report = load_with_report(
        Data(source="long", path=str(path), format=FileFormat(columns=names))
    )
    assert list(data) == ["Padaria São João"]
    assert any("Latin-1" in said for said in report.assumed)


# ------------------------------------------------------------------ clients and history
def test_empty_and_short_clients(long_csv) -> None:
    def edit(rows: list[str]) -> list[str]:
        extra = [f"void,2024-01-01 {h:02d}:00," for h in range(5)]
        return [*rows, *extra, *(r.replace("a,", "brief,", 1) for r in rows[:72])]

    path = long_csv(edit=edit)
    found = faults(path, cleaning=Cleaning(min_days=28))
    assert [fault.code for fault in found] == ["FL206", "FL205"]
    assert "client brief has 3.0 days" in found[0].what
    assert "meters.csv:1927 (2024-01-01 00:00)" in found[0].where
    assert "meters.csv:1922 (2024-01-01 00:00)" in found[1].where
    assert all("drop-short" in fault.hint for fault in found)
    dropped = load(
        Data(source="long", path=str(path), cleaning=Cleaning(min_days=28, drop_short=True))
    )
    assert list(dropped) == ["a", "b"]
    assert set(dropped.manifest.excluded) == {"brief", "void"}


def test_filters_and_resolution(long_csv) -> None:
    path = str(long_csv(clients=("a", "b", "c", "d")))
    data = load(Data(source="long", path=path, exclude=("a",), max_clients=2, resolution_min=120))
    assert list(data) == ["b", "c"]
    assert set(data.manifest.excluded) == {"a", "d"}
    full = load(Data(source="long", path=path))
    np.testing.assert_allclose(
        data["b"].energy_kwh, full["b"].energy_kwh.reshape(-1, 2).sum(axis=1), rtol=1e-12
    )
    (fault,) = faults(Path(path), clients=("B",))
    assert fault.code == "FL209"
    (fault,) = faults(Path(path), resolution_min=90)
    assert fault.code == "FL207"
    (fault,) = faults(Path(path), exclude=("a", "b", "c", "d"))
    assert fault.code == "FL205"
    (fault,) = faults(Path(path), source="lnog")
    assert (fault.code, fault.hint) == ("FL208", "did you mean `long`?")


def test_units_give_the_same_energy(long_csv) -> None:
    path = str(long_csv())
    kwh = load(Data(source="long", path=path))["a"].energy_kwh
    for unit, factor in (("Wh", 1e-3), ("MWh", 1e3), ("kW", 1.0), ("W", 1e-3), ("MW", 1e3)):
        other = load(Data(source="long", path=path, format=FileFormat(unit=unit)))
        np.testing.assert_allclose(other["a"].energy_kwh, kwh * factor, rtol=1e-12)
    (fault,) = faults(Path(path), format=FileFormat(unit="kW", quantity="register"))
    assert fault.code == "FL203"

"""Wide tables (UCI LD2011_2014 layout, header-less numbers) and folders with a file per meter."""

from __future__ import annotations

import gzip
from datetime import datetime, timedelta

import numpy as np
import pytest

from fl_inmetro.config.schema import Data, FileFormat
from fl_inmetro.data.load import load, load_with_report
from fl_inmetro.errors import DataError
from fl_inmetro.units import iso_utc

UCI = FileFormat(
    decimal=",",
    unit="kW",
    timezone="Europe/Lisbon",
    timestamp_marks="end",
    repeated_hour="both",
)


def ld2011(first: datetime, days: int) -> str:
    """Text in the layout of LD2011_2014.txt; MT_001 counts the rows from 4, MT_002 by twos."""
    lines = ['"";"MT_001";"MT_002"']
    for row in range(96 * days):
        stamp = first + timedelta(minutes=15 * (row + 1))
        value = 4 + row
        # Spring: the four quarters that the clock skips are written as 0.
        if stamp.month == 3 and "01:15" <= f"{stamp:%H:%M}" <= "02:00" and stamp.day == 27:
            value = 0
        lines.append(f'"{stamp:%Y-%m-%d %H:%M:%S}";{value},5;{2 * value},0')
    return "\n".join(lines) + "\n"


def test_uci_layout_on_a_plain_day(tmp_path) -> None:
    path = tmp_path / "LD2011_2014.txt"
    path.write_text(ld2011(datetime(2011, 1, 5), 1))
    data = load(Data(source="wide", path=str(path), format=UCI))
    one = data["MT_001"]
    # The first stamp 00:15 ENDS the quarter that begins 00:00 (Lisbon = UTC in winter), and
    # 4.5 kW over 15 min are 1.125 kWh.
    assert iso_utc(one.start_utc_s) == "2011-01-05T00:00:00Z"
    assert (one.resolution_s, len(one)) == (900, 96)
    np.testing.assert_allclose(one.energy_kwh[:2], [1.125, 1.375])
    np.testing.assert_allclose(data["MT_002"].energy_kwh[0], 2.0)


def test_uci_layout_on_the_spring_day(tmp_path) -> None:
    path = tmp_path / "LD2011_2014.txt"
    path.write_text(ld2011(datetime(2011, 3, 27), 1))
    data, report = load_with_report(Data(source="wide", path=str(path), format=UCI))
    # 23 hours: the quarters 01:00 to 01:45 do not exist, and nothing is missing in UTC.
    assert len(data["MT_001"]) == 92
    assert data["MT_001"].valid.all()
    assert report.counts() == {"nonexistent_hour": 8}
    # 02:00 summer time = 01:00 UTC: row 8 (4 + 8 + 0.5 kW).
    np.testing.assert_allclose(data["MT_001"].energy_kwh[4], 12.5 / 4)


def test_uci_layout_on_the_autumn_day(tmp_path) -> None:
    path = tmp_path / "LD2011_2014.txt"
    path.write_text(ld2011(datetime(2011, 10, 30), 1))
    data = load(Data(source="wide", path=str(path), format=UCI))
    one = data["MT_001"]
    # 25 hours; the local hour 01:00-02:00 (rows 4 to 7) was written once, for both passings.
    assert len(one) == 100
    np.testing.assert_allclose(one.energy_kwh[4:8], one.energy_kwh[8:12])
    np.testing.assert_allclose(one.energy_kwh.sum(), (np.arange(96) + 4.5).sum() / 4)
    first = load(
        Data(
            source="wide", path=str(path), format=UCI.model_copy(update={"repeated_hour": "first"})
        )
    )
    assert np.isnan(first["MT_001"].energy_kwh[8:12]).all()


def test_headerless_numbers_with_321_columns(tmp_path) -> None:
    values = np.arange(50 * 321).reshape(50, 321)
    text = "\n".join(",".join(map(str, row)) for row in values) + "\n"
    path = tmp_path / "electricity.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    settings = FileFormat(header=False, start="2012-01-01 00:00", resolution_min=60)
    data = load(Data(source="wide", path=str(path), format=settings))
    assert len(data) == 321
    assert iso_utc(data["c000"].start_utc_s) == "2012-01-01T00:00:00Z"
    np.testing.assert_array_equal(data["c320"].energy_kwh, values[:, 320])
    with pytest.raises(DataError, match=r"FL203.*no timestamps") as caught:
        load(Data(source="wide", path=str(path), format=FileFormat(header=False)))
    assert "format.start" in caught.value.faults[0].hint
    bad = settings.model_copy(update={"start": "soon"})
    with pytest.raises(DataError, match="FL211"):
        load(Data(source="wide", path=str(path), format=bad))


def test_wide_needs_its_timestamp_column(tmp_path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("time,m1\n2024-01-01 00:00,1\n2024-01-01 01:00,1\n")
    with pytest.raises(DataError, match="FL202"):
        load(Data(source="wide", path=str(path)))


def test_an_empty_column_is_an_empty_client(tmp_path) -> None:
    path = tmp_path / "w.csv"
    rows = "".join(f"2024-01-01 {h:02d}:00,1,\n" for h in range(24))
    path.write_text("timestamp,m1,m2\n" + rows)
    with pytest.raises(DataError) as caught:
        load(Data(source="wide", path=str(path)))
    assert [fault.code for fault in caught.value.faults] == ["FL205"]
    assert "client m2" in caught.value.faults[0].what


def test_folder_gives_one_client_per_file_and_all_faults(tmp_path) -> None:
    rows = "".join(f"2024-01-01 {h:02d}:00,{h}\n" for h in range(24))
    for name in ("b1.csv", "b2.csv"):
        (tmp_path / name).write_text("timestamp,energy_kwh\n" + rows)
    (tmp_path / "b3.csv.gz").write_bytes(gzip.compress(("timestamp,energy_kwh\n" + rows).encode()))
    (tmp_path / "readme.md").write_text("not a meter")
    data = load(Data(source="folder", path=str(tmp_path)))
    assert list(data) == ["b1", "b2", "b3"]
    np.testing.assert_array_equal(data["b3"].energy_kwh, np.arange(24.0))
    assert set(data.manifest.files) == {"b1.csv", "b2.csv", "b3.csv.gz"}

    (tmp_path / "b4.csv").write_text("time,energy_kwh\n" + rows)
    (tmp_path / "b5.csv").write_text("timestamp,energy_kwh\n" + rows.replace("00:00", "0x:00"))
    with pytest.raises(DataError) as caught:
        load(Data(source="folder", path=str(tmp_path)))
    assert [fault.code for fault in caught.value.faults] == ["FL202", "FL211"]
    (tmp_path / "b1.txt").write_text("timestamp,energy_kwh\n" + rows)
    with pytest.raises(DataError, match="two files for client `b1`"):
        load(Data(source="folder", path=str(tmp_path)))


def test_folder_without_tables_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no CSV"):
        load(Data(source="folder", path=str(tmp_path)))

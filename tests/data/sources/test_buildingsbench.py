"""A folder in the layout of BuildingsBench: sites and homes, year by year."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.config.schema import Data, FileFormat
from fl_inmetro.data.load import load
from fl_inmetro.data.sources.buildingsbench import open_buildings
from fl_inmetro.errors import DataError


def year(folder: Path, name: str, number: int, columns: list[str], first: float) -> None:
    """Write a week around New Year of a year's file: each column counts its hours."""
    start = datetime(number, 1, 1) if number == 2017 else datetime(number, 12, 25)
    lines = ["timestamp," + ",".join(columns)]
    for k in range(7 * 24):
        values = ",".join(f"{first + k + 1000 * c:.1f}" for c in range(len(columns)))
        lines.append(f"{start + timedelta(hours=k):%Y-%m-%d %H:%M:%S},{values}")
    (folder / f"{name}_clean={number}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path) -> Path:
    # The later year is written first: the order of the folder is not the order in time.
    year(tmp_path, "bear", 2017, ["Bear_office_A", "Bear_lodging_B"], first=169.0)
    year(tmp_path, "bear", 2016, ["Bear_office_A", "Bear_lodging_B"], first=1.0)
    year(tmp_path, "home1", 2016, ["power"], first=5.0)
    (tmp_path / "weather_2016.csv").write_text("timestamp,temperature\n")
    return tmp_path


def test_years_are_joined_and_a_lone_column_is_named_after_its_file(folder):
    data = load(Data(source="buildingsbench", path=str(folder)))
    assert sorted(data) == ["Bear_lodging_B", "Bear_office_A", "home1"]
    # Christmas 2016 and the first week of 2017 meet at midnight: 1, 2, 3, … without a gap.
    np.testing.assert_array_equal(data["Bear_office_A"].energy_kwh, np.arange(1.0, 337.0))
    np.testing.assert_array_equal(data["Bear_lodging_B"].energy_kwh, np.arange(1001.0, 1337.0))
    np.testing.assert_array_equal(data["home1"].energy_kwh, np.arange(5.0, 173.0))
    assert sorted(data.manifest.files) == [
        "bear_clean=2016.csv",
        "bear_clean=2017.csv",
        "home1_clean=2016.csv",
    ]


def test_a_folder_without_such_a_file_is_an_error(tmp_path):
    (tmp_path / "b1.csv").write_text("timestamp,energy_kwh\n2016-01-01 00:00:00,1\n")
    with pytest.raises(DataError) as caught:
        open_buildings(tmp_path, FileFormat())
    assert caught.value.faults[0].code == "FL203"

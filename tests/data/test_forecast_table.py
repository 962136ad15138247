"""The table of forecasts: one row per step that has one, exact instants, written whole."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fl_inmetro.data.forecast_table import forecast_rows, observed_rows, write_forecasts
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.metrics import Forecast
from tests.fleets import MONDAY

#: Energy 0 … 5, step 3 unknown; issued at steps 2 and 4 for two steps.
ONE = ClientSeries("a", MONDAY, 3600, np.array([0.0, 1, 2, np.nan, 4, 5]))
WINDOWS = Windows(ONE, np.array([2, 4]), 2)
MEAN = np.array([[2.5, 3.5], [np.nan, 5.5]])
FORECAST = Forecast(MEAN)


def test_rows_by_hand():
    rows = forecast_rows("a", WINDOWS, FORECAST).to_pylist()
    hours = [(row["issue_time_utc"].hour, row["target_time_utc"].hour, row["mean"]) for row in rows]
    # Step 4 has no forecast and no row.
    assert hours == [(2, 2, 2.5), (2, 3, 3.5), (4, 5, 5.5)]
    assert rows[0]["issue_time_utc"] == datetime(2024, 1, 1, 2, tzinfo=UTC)
    assert {row["client_id"] for row in rows} == {"a"}


def test_observed_rows_say_what_was_measured_and_nan_where_nothing_was():
    table = observed_rows("a", WINDOWS, FORECAST, {"model": "m", "training": "t"})
    np.testing.assert_array_equal(table["observed_kwh"].to_numpy(), [2, np.nan, 5])
    assert set(table["model"].to_pylist()) == {"m"}
    assert table.column_names[-3:] == ["observed_kwh", "model", "training"]


def test_quantiles_have_columns_of_their_own():
    quantiles = np.stack([MEAN - 1, MEAN + 1], axis=-1)
    rows = forecast_rows("a", WINDOWS, Forecast(MEAN, (0.025, 0.9), quantiles))
    assert rows.column_names[-3:] == ["mean", "q2_5", "q90"]
    assert rows["q2_5"].to_pylist() == [1.5, 2.5, 4.5]
    assert rows["q90"].to_pylist() == [3.5, 4.5, 6.5]


def test_no_forecast_no_rows():
    table = forecast_rows("a", WINDOWS, Forecast(np.full((2, 2), np.nan)))
    assert table.num_rows == 0
    assert table.column_names == ["client_id", "issue_time_utc", "target_time_utc", "mean"]


def test_a_file_of_two_clients_comes_back_with_its_metadata(tmp_path):
    path = tmp_path / "f.parquet"
    path.write_bytes(b"an older file")
    tables = [forecast_rows(name, WINDOWS, Forecast(MEAN + k)) for k, name in enumerate(("a", "b"))]
    write_forecasts(tables, path, {"fl_inmetro.run": "r1"})
    back = pq.read_table(path)
    assert back.schema.metadata[b"fl_inmetro.run"] == b"r1"
    assert back["client_id"].cast(pa.string()).to_pylist() == ["a"] * 3 + ["b"] * 3
    assert back["mean"].to_pylist() == [2.5, 3.5, 5.5, 3.5, 4.5, 6.5]
    at = back["target_time_utc"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64()).to_pylist()
    assert at[:3] == [MONDAY + 3600 * hour for hour in (2, 3, 5)]
    assert list(tmp_path.iterdir()) == [path]  # no partial file is left

"""The days that are drawn are cut out of a long test before they are read."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from fl_inmetro.report.view import Line
from fl_inmetro.report.weeks import _first_days, _forecasts

START = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp())
DAY_S = 86_400


def table(unit: str) -> pa.Table:
    """Issues each 12 h for the 36 h after them, ten days long, of two clients in turn."""
    rows = [
        (client, START + 43_200 * k, START + 43_200 * k + 3600 * hour)
        for k in range(20)
        for client in ("b", "a")
        for hour in range(36)
    ]
    client, issue, target = (list(column) for column in zip(*rows, strict=True))
    instants = pa.timestamp("s", tz="UTC")
    written = pa.timestamp(unit, tz="UTC")
    return pa.table(
        {
            "client_id": client,
            "issue_time_utc": pa.array(issue, pa.int64()).cast(instants).cast(written),
            "target_time_utc": pa.array(target, pa.int64()).cast(instants).cast(written),
            "mean": [float(t - i + k) for k, (_, i, t) in enumerate(rows)],
            "observed_kwh": [float(k) for k in range(len(rows))],
        }
    )


@pytest.mark.parametrize("unit", ["s", "us"])
def test_the_first_days_are_those_of_a_plain_loop(unit: str) -> None:
    whole = table(unit)
    kept = _first_days(whole, 7)
    # 168 hours of targets; issue k of 14 begins in them, the last two run beyond their end.
    assert kept.num_rows == 2 * (12 * 36 + 24 + 12)
    wanted: dict[str, dict[int, tuple[float, float]]] = {}
    for row in whole.to_pylist():  # in the order of the issues: a later one overwrites
        at = int(row["target_time_utc"].timestamp())
        if at < START + 7 * DAY_S:
            pair = (row["mean"], row["observed_kwh"])
            wanted.setdefault(row["client_id"], {})[at] = pair
    record: Any = SimpleNamespace(forecasts=lambda *_: whole)
    found = _forecasts(record, Line("mlp", "federated"), ["a", "b"], 7)
    assert sorted(found) == ["a", "b"]
    for client, meters in found.items():
        own = {int(t.astype("int64")): pair for t, pair in meters[client].items()}
        assert own == wanted[client]
        assert len(own) == 168


def test_times_written_as_text_are_left_to_the_reader() -> None:
    plain = table("s")
    as_text = pa.array(
        [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in plain["target_time_utc"].to_pylist()]
    )
    text = plain.set_column(2, "target_time_utc", as_text)
    assert _first_days(text, 7).num_rows == plain.num_rows
    record: Any = SimpleNamespace(forecasts=lambda *_: text)
    other: Any = SimpleNamespace(forecasts=lambda *_: plain)
    line = Line("mlp", "federated")
    assert _forecasts(record, line, ["a"], 7) == _forecasts(other, line, ["a"], 7)

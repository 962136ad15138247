"""`fl-inmetro forecast` and `fl-inmetro score`: own clients, new clients, anybody's files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import (
    BEGIN,
    Answer,
    call,
    documented,
    fleet,
    long_file,
    readings,
    wide_file,
)

COLUMNS = ["client_id", "issue_time_utc", "target_time_utc", "mean"]
INSTANT = pa.timestamp("s", tz="UTC")


def forecast(folder: Path, source: object, first: str, last: str, *words: object) -> Answer:
    return call(
        *("forecast", "--run", "latest", "--runs", folder / "runs", "--data", source),
        *("--from", first, "--to", last, *words),
    )


def rows_of(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def test_forecasts_of_the_runs_own_clients(metered, tmp_path):
    file = tmp_path / "f.parquet"
    source = metered / "meters.csv"
    answer = forecast(metered, source, "2024-02-22", "2024-02-24", "-o", file, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert sorted(found) == documented("forecast")
    assert (found["clients"], found["rows"], found["skipped"]) == (3, 3 * 3 * 24, {})
    assert (found["model"], found["training"], found["simulated"]) == ("mlp", "federated", False)
    table = pq.read_table(file)
    assert table.column_names == [*COLUMNS, "method", "reason"]
    assert (found["methods"], found["reasons"]) == ({"mlp/federated": 9}, {})
    for name in COLUMNS[1:3]:
        assert table.schema.field(name).type.tz == "UTC"
    rows = rows_of(file)
    keys = [(r["client_id"], r["issue_time_utc"], r["target_time_utc"]) for r in rows]
    assert keys == sorted(keys)
    issue = [datetime(2024, 2, day, tzinfo=UTC) for day in (22, 23, 24)]
    assert keys == [
        (client, at, at + timedelta(hours=step))
        for client in "abc"
        for at in issue
        for step in range(24)
    ]
    assert all(np.isfinite(r["mean"]) for r in rows)


def test_they_are_those_that_the_run_itself_scored(metered, tmp_path):
    (path,) = (metered / "runs").iterdir()
    record = RunRecord.open(path)
    window = record.manifest["window"]["test"]
    first, last = window["first_issue_utc"][:10], window["last_issue_utc"][:10]
    assert (first, last, window["issues"]) == ("2024-02-23", "2024-02-29", 7)
    file = tmp_path / "f.parquet"
    source = metered / "meters.csv"
    assert forecast(metered, source, first, last, "-o", file).code == 0
    kept = record.forecasts("mlp", "federated")
    assert kept is not None
    in_run = {
        (r["client_id"], r["issue_time_utc"], r["target_time_utc"]): r["mean"]
        for r in kept.to_pylist()
    }
    made = {
        (r["client_id"], r["issue_time_utc"], r["target_time_utc"]): r["mean"]
        for r in rows_of(file)
    }
    assert made.keys() == in_run.keys()
    assert list(made.values()) == pytest.approx([in_run[key] for key in made], rel=1e-6)
    answer = call("score", file, "--data", source, "--json")
    scores = json.loads(answer.out)["scores"]
    (row,) = [row for row in record.scores() if row["training"] == "federated"]
    missing = {name for name in scores if row[name] is None}  # of quantiles: there are none
    assert {name for name, value in scores.items() if value is None} == missing
    known = {name: value for name, value in scores.items() if name not in missing}
    assert known == pytest.approx({name: row[name] for name in known}, rel=1e-6)


@pytest.mark.parametrize("layout", ["long", "wide"])
def test_clients_never_seen_are_forecast_from_their_own_past(metered, tmp_path, layout):
    """The meter `c` under a new name, beside the old ones or alone, gets the forecast of `c`."""
    source = tmp_path / "others.csv"
    if layout == "long":
        long_file(source, [("new", at, kwh) for client, at, kwh in fleet() if client == "c"])
    else:
        wide_file(source, fleet(), {"b": "b", "c": "new"})
    new, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    days = ("2024-02-25", "2024-02-26")
    assert forecast(metered, source, *days, "-o", new).code == 0
    assert forecast(metered, metered / "meters.csv", *days, "-o", old).code == 0
    unseen = [r["mean"] for r in rows_of(new) if r["client_id"] == "new"]
    assert len(unseen) == 48
    assert unseen == pytest.approx([r["mean"] for r in rows_of(old) if r["client_id"] == "c"])


def test_the_day_after_the_last_reading_can_be_forecast(metered, tmp_path):
    file = tmp_path / "tomorrow.parquet"
    day = "2024-03-01"  # sixty days from 1 January 2024 end at its midnight
    answer = forecast(metered, metered / "meters.csv", day, day, "-o", file)
    assert answer.code == 0
    assert "3 forecasts (72 points) of 3 clients by mlp (federated)" in answer.out
    assert "behind the last reading" not in answer.err
    assert len(rows_of(file)) == 72
    # Five months later the fleet's profile at each client's own size is left, and it is said.
    late = ("2024-08-01", "2024-08-02", "-o", file)
    answer = forecast(metered, metered / "meters.csv", *late)
    assert answer.code == 0
    assert (
        "6 of 6 forecasts are not by mlp/federated: no_readings (readings too old): 6 forecasts"
        in answer.err
    )
    assert "made by fleet_profile: 6 forecasts" in answer.err
    off = ("--set", "fallback.enabled=false")
    answer = forecast(metered, metered / "meters.csv", *late, *off)
    (fault,) = answer.faults
    assert (answer.code, fault["code"]) == (4, "FL206")
    assert "readings go from 2024-01-01T00:00:00Z to 2024-03-01T00:00:00Z" in fault["hint"]


def test_an_issue_a_day_behind_the_readings_is_told_in_days(metered, tmp_path):
    """Readings end with 1 March, 0 h: an issue of 2 March lies 1 day behind, of 3 March 2 days."""
    file = tmp_path / "late.parquet"
    source = metered / "meters.csv"
    for last, days in (("2024-03-02", "1 day"), ("2024-03-03", "2 days")):
        answer = forecast(metered, source, "2024-02-28", last, "-o", file, "--lang", "en")
        told = f"a, b, c (clients: 3): the last issue time lies {days} behind the last reading"
        assert told in answer.err
    rows = {r["reason"] for r in rows_of(file) if r["method"] == "day_type_mean"}
    for reason in rows:  # the terminal says what the file says
        assert f"{reason} (" in answer.err
    assert rows
    answer = forecast(metered, source, "2024-02-28", "2024-03-02", "-o", file, "--lang", "pt")
    assert "a, b, c (clientes: 3): a última emissão está 1 dia depois da última" in answer.err


def test_a_client_without_a_past_is_named_and_the_others_are_forecast(metered, tmp_path):
    source = long_file(tmp_path / "m.csv", [*fleet(), *readings("late", 3, first_day=57)])
    words = ("2024-02-20", "2024-02-21", "-o", tmp_path / "f.parquet")
    answer = forecast(metered, source, *words)
    assert answer.code == 0
    assert answer.err.startswith("client late left out: FL206")
    found = json.loads(forecast(metered, source, *words, "--json").out)
    assert (found["clients"], list(found["skipped"])) == (3, ["late"])


def test_another_step_is_refused_and_the_hint_works(metered, tmp_path):
    rows = [
        (client, at + timedelta(minutes=half * 30), kwh / 2)
        for client, at, kwh in fleet()
        for half in (0, 1)
    ]
    source = long_file(tmp_path / "half.csv", rows)
    words = ("2024-02-22", "2024-02-22", "-o", tmp_path / "f.parquet")
    answer = forecast(metered, source, *words)
    (fault,) = answer.faults
    assert (answer.code, answer.out, fault["code"]) == (4, "", "FL207")
    assert not (tmp_path / "f.parquet").exists()
    cure = fault["hint"].partition(": ")[2].split()
    assert cure == ["--set", "data.resolution-min=60"]
    assert forecast(metered, source, *words, *cure).code == 0
    made = [r["mean"] for r in rows_of(tmp_path / "f.parquet")]
    forecast(metered, metered / "meters.csv", *words[:2], "-o", tmp_path / "hour.parquet")
    # Two equal halves sum to the hour they were cut from.
    assert made == pytest.approx([r["mean"] for r in rows_of(tmp_path / "hour.parquet")])


def test_days_in_the_wrong_order_and_days_that_are_none(metered, tmp_path):
    words = ("-o", tmp_path / "f.parquet")
    answer = forecast(metered, metered / "meters.csv", "2024-02-22", "2024-02-21", *words)
    (fault,) = answer.faults
    assert (answer.code, fault["code"]) == (3, "FL107")
    assert fault["hint"] == "exchange them: --from 2024-02-21 --to 2024-02-22"
    answer = forecast(metered, metered / "meters.csv", "2024-02-30", "2024-03-01", *words)
    assert answer.code == 2
    assert "2024-02-30" in answer.err


# --------------------------------------------------------------- models of a comparison
def test_model_and_training_choose(compared, tmp_path):
    root, _ = compared
    source = ("simulator", "--config", root.parent / "tiny.toml")
    made = {}
    for training in ("local", "federated", "centralised"):
        file = tmp_path / f"{training}.parquet"
        words = ("--model", "mlp", "--training", training, "-o", file, "--json")
        answer = forecast(root.parent, *source[:1], "2024-02-25", "2024-02-25", *source[1:], *words)
        found = json.loads(answer.out)
        assert (found["model"], found["training"], found["simulated"]) == ("mlp", training, True)
        made[training] = tuple(r["mean"] for r in rows_of(file))
    assert len(set(made.values())) == 3
    words = ("--model", "ridge", "-o", tmp_path / "f.parquet")
    answer = forecast(root.parent, *source[:1], "2024-02-25", "2024-02-25", *words)
    (fault,) = answer.faults
    assert (answer.code, fault["code"]) == (6, "FL707")
    assert "mlp (local), mlp (federated), mlp (centralised)" in fault["where"]


def test_local_models_serve_only_their_own_clients(compared, metered, tmp_path):
    root, _ = compared
    words = ("2024-02-20", "2024-02-20", "-o", tmp_path / "f.parquet", "--training", "local")
    answer = forecast(root.parent, metered / "meters.csv", *words)
    assert (
        "3 of 3 forecasts are not by mlp/local: no_model (no model for the client): 3 forecasts"
        in answer.err
    )
    assert "made by mlp/federated: 3 forecasts" in answer.err
    words = (*words, "--set", "fallback.enabled=false")
    answer = forecast(root.parent, metered / "meters.csv", *words)
    (fault,) = answer.faults
    assert (answer.code, fault["code"]) == (4, "FL212")
    assert "client a" in fault["where"]
    assert "--training federated" in fault["hint"]


# ------------------------------------------------------------------------ known by its year
def test_a_client_of_whom_only_the_year_is_known(metered, tmp_path):
    file = tmp_path / "f.parquet"
    words = ("2024-02-22", "2024-02-22", "-o", file)
    source = metered / "meters.csv"
    one = ("--new", "x=y=8760", "--json")
    found = json.loads(forecast(metered, source, *words, *one).out)
    assert (found["clients"], found["methods"]) == (
        4,
        {"mlp/federated": 3, "mlp/federated on fleet_profile": 1},
    )
    assert found["reasons"] == {"too_few_readings": 1}
    rows = [row for row in rows_of(file) if row["client_id"] == "x=y"]
    assert len(rows) == 24
    small = np.array([row["mean"] for row in rows])
    # A year of 8760 kWh is 1 kWh an hour, and twice the year is twice the forecast.
    assert 0.4 < small.mean() < 2.5
    assert forecast(metered, source, *words, "--new", "x=y=17520").code == 0
    large = np.array([row["mean"] for row in rows_of(file) if row["client_id"] == "x=y"])
    np.testing.assert_allclose(large, 2 * small, rtol=1e-5)


def test_what_is_no_client_and_its_year_is_fl222(metered, tmp_path):
    bad = ("a", "a=", "=3", "a=-1", "a=0", "a=nan", "a=inf")
    words = [word for pair in (*bad, "b=3", "b=4") for word in ("--new", pair)]
    answer = forecast(
        metered, "simulator", "2024-02-22", "2024-02-22", "-o", tmp_path / "f.pq", *words
    )
    assert answer.code == 3
    assert [fault["code"] for fault in answer.faults] == ["FL222"] * 8
    assert answer.faults[-1]["where"] == "--new b=4"


# ---------------------------------------------------------------------------- scoring
def forecasts(path: Path, rows: list[tuple[str, datetime, datetime, float]], **rename: str) -> Path:
    names = [rename.get(name, name) for name in COLUMNS]
    columns = list(zip(*rows, strict=True))
    arrays = [
        pa.array(columns[0]),
        *(pa.array(c, INSTANT) for c in columns[1:3]),
        pa.array(columns[3]),
    ]
    pq.write_table(pa.table(dict(zip(names, arrays, strict=True))), path)
    return path


def test_scores_by_hand(tmp_path):
    """Meter x reads 2 kWh always, forecast 2.5; y reads 4 kWh, forecast 3 (one step: 5).

    MAE x = 0.5, y = 1; nMAE = (0.5/2 + 1/4) / 2 = 0.25; wMAPE = (24·0.5 + 24·1) / (24·2 + 24·4) =
    36/144 = 0.25; MAE = 36/48 = 0.75; RMSE = √((24·0.25 + 24·1)/48) = √0.625;
    bias = (24·0.5 − 23 + 1)/144 = −10/144. A constant past has no naive error: MASE is null.
    """
    hours = [BEGIN + timedelta(hours=h) for h in range(30 * 24)]
    source = long_file(
        tmp_path / "flat.csv",
        [(name, at, kwh) for name, kwh in (("x", 2.0), ("y", 4.0)) for at in hours],
    )
    issue = BEGIN + timedelta(days=20)
    rows = [
        (name, issue, issue + timedelta(hours=h), 5.0 if (name, h) == ("y", 7) else kwh)
        for name, kwh in (("x", 2.5), ("y", 3.0))
        for h in range(24)
    ]
    file = forecasts(tmp_path / "f.parquet", rows)
    answer = call("score", file, "--data", source, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert sorted(found) == documented("score")
    scores = found["scores"]
    assert scores["mase"] is None
    expected = {"nmae": 0.25, "wmape": 0.25, "mae_kwh": 0.75, "rmse_kwh": 0.625**0.5}
    expected |= {"bias": -10 / 144, "clients": 2, "points": 48}
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert found["clients"]["y"]["mae_kwh"] == pytest.approx(1.0)
    printed = call("score", file, "--data", source).out
    assert "nMAE" in printed
    assert "0.2500" in printed
    assert "–" in printed  # MASE


@pytest.mark.parametrize("missing", ["client_id", "issue_time_utc", "mean"])
def test_a_file_without_a_column(metered, tmp_path, missing):
    rows = [("a", BEGIN + timedelta(days=30), BEGIN + timedelta(days=30), 1.0)]
    file = forecasts(tmp_path / "f.parquet", rows, **{missing: "other"})
    answer = call("score", file, "--data", metered / "meters.csv")
    (fault,) = answer.faults
    assert (answer.code, answer.out, fault["code"]) == (6, "", "FL708")
    assert fault["what"] == f"the file lacks `{missing}`"
    assert "other" in fault["where"]
    assert fault["hint"] == f"a file of forecasts has {', '.join(COLUMNS)}"


def test_files_that_are_no_forecasts(metered, tmp_path):
    source = metered / "meters.csv"
    answer = call("score", tmp_path / "none.parquet", "--data", source)
    (fault,) = answer.faults
    assert (answer.code, fault["code"]) == (6, "FL708")
    assert "no such file" in fault["what"]
    assert fault["where"] == str(tmp_path / "none.parquet")
    assert call("score", source, "--data", source).faults[0]["code"] == "FL708"
    stranger = forecasts(tmp_path / "f.parquet", [("q", BEGIN, BEGIN, 1.0)])
    (fault,) = call("score", stranger, "--data", source).faults
    assert fault["code"] == "FL709"
    assert "clients q; data: clients a, b, c" in fault["where"]

"""Forecasts from a run: known and unknown clients, the future, and scoring any file."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fl_inmetro import session
from fl_inmetro.config.fallback import Fallback
from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.forecast_table import write_forecasts
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.windows import windows_at
from fl_inmetro.errors import DataError, RunError
from fl_inmetro.forecasting import forecast, score_file
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from tests.fleets import MONDAY, federated, series, tiny_config

#: The test window of the tiny run: the last seven whole days of 2024-01-01 + 60 days.
FIRST, LAST = date(2024, 2, 23), date(2024, 2, 29)


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    config = tiny_config(compare={"models": ["sn24", "ridge", "mlp"]})
    path = session.start(config, "compare", root, lambda event: None, lambda: False)
    return RunRecord.open(path)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return simulate(Simulator(clients=4, days=60), 3)


def written(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# -------------------------------------------------------------------------------- choosing
def test_the_federated_model_with_the_lowest_error_is_the_default(record):
    rows = [r for r in record.scores() if r["training"] == "federated"]
    best = min(rows, key=lambda r: r["nmae"])["model"]
    chosen = trained_model(record)
    assert (chosen.job.model, chosen.job.training) == (best, "federated")
    named = trained_model(record, "ridge", "centralised")
    assert (named.job.model, named.job.training) == ("ridge", "centralised")


def test_a_model_the_run_does_not_have_is_fl707(record):
    with pytest.raises(RunError) as caught:
        trained_model(record, "nlinear")
    (fault,) = caught.value.faults
    assert fault.code == "FL707"
    assert "ridge (federated)" in fault.where
    assert "--model" in fault.hint


def test_a_network_made_once_gives_each_client_the_bits_of_one_made_anew(record, data):
    trained = trained_model(record, "mlp", "federated")
    issues = issue_times_utc_s(FIRST, LAST, "00:00", "America/Sao_Paulo")
    for name, one in data.items():
        windows = windows_at(one, issues, 24, "America/Sao_Paulo", known=False)
        design = trained.learner.design(windows, targets=False)
        anew = trained.learner.forecast(trained.state_for(name), design)
        np.testing.assert_array_equal(trained.forecast(name, windows).mean_kwh, anew.mean_kwh)


def test_a_client_with_parameters_of_its_own_is_served_by_them(record, data):
    trained = trained_model(record, "mlp", "federated")
    name, other = list(data)[:2]
    bias = next(key for key in trained.shared if key.endswith("bias"))
    own = {bias: trained.shared[bias] + 0.5}
    moved = replace(trained, private={name: own})
    issues = issue_times_utc_s(FIRST, LAST, "00:00", "America/Sao_Paulo")
    for client in (name, other):
        windows = windows_at(data[client], issues, 24, "America/Sao_Paulo", known=False)
        before = trained.forecast(client, windows).mean_kwh
        same = np.array_equal(before, moved.forecast(client, windows).mean_kwh)
        assert same == (client == other)


# ----------------------------------------------------------------------- the run's own window
@pytest.mark.parametrize("model", ["ridge", "mlp"])
@pytest.mark.parametrize("training", ["local", "federated", "centralised"])
def test_forecasting_the_test_window_and_scoring_it_gives_the_scores_of_the_run(
    record, data, tmp_path, model, training
):
    made = forecast(record, trained_model(record, model, training), data, FIRST, LAST)
    table, skipped = made.table, made.skipped
    assert skipped == {}
    assert table.num_rows == 4 * 7 * 24
    columns = ["client_id", "issue_time_utc", "target_time_utc", "mean", "method", "reason"]
    assert table.column_names == columns
    assert made.methods == {f"{model}/{training}": 4 * 7}
    assert made.reasons == {}
    assert table["reason"].null_count == table.num_rows
    own = record.forecasts(model, training)
    assert own is not None
    np.testing.assert_allclose(table["mean"].to_numpy(), own["mean"].to_numpy(), rtol=1e-12)
    path = tmp_path / "f.parquet"
    write_forecasts([table], path, {})
    scores, per_client = score_file(path, data)
    (expected,) = [r for r in record.scores() if (r["model"], r["training"]) == (model, training)]
    for key, value in scores.items():
        kept = np.nan if expected[key] is None else expected[key]
        assert value == pytest.approx(kept, rel=1e-9, nan_ok=True), key
    rows = {r["client_id"]: r for r in record.client_scores(model, training)}
    for name, sums in per_client.items():
        assert sums.mase == pytest.approx(rows[name]["mase"], rel=1e-9)


def test_a_known_client_is_forecast_with_the_parameters_that_stayed_with_it(data, tmp_path):
    private = {"mlp": {"private": ["layers.2.*"], "hidden": [5]}}
    config = tiny_config(models=private)
    path = session.start(config, "run", tmp_path, lambda event: None, lambda: False)
    record = RunRecord.open(path)
    trained = trained_model(record)
    assert set(trained.private) == set(data)
    heads = {values["layers.2.weight"].tobytes() for values in trained.private.values()}
    assert len(heads) == 4
    made = forecast(record, trained, data, FIRST, LAST)
    own = record.forecasts("mlp", "federated")
    assert own is not None
    np.testing.assert_allclose(made.table["mean"].to_numpy(), own["mean"].to_numpy(), rtol=1e-12)
    # A client that the run has not seen has the drawn values there.
    assert trained.shared is not None
    unseen = trained.state_for("somebody else")
    assert unseen is not None
    assert unseen["layers.2.weight"].tobytes() == trained.shared["layers.2.weight"].tobytes()


def test_a_file_with_the_forecasts_of_several_models_is_fl708(record, data):
    """The run's own file holds all of them: scored together they would be a mixture of nothing."""
    with pytest.raises(RunError) as caught:
        score_file(record.path / "forecasts.parquet", data)
    (fault,) = caught.value.faults
    assert fault.code == "FL708"
    assert "more than once" in fault.what
    assert "one model" in fault.hint


# ------------------------------------------------------------------------- other clients
def test_a_client_the_run_has_never_seen_is_forecast_from_its_own_past(record):
    """The scale comes from the client: ten times the load, ten times the forecast."""
    one = series("new", 40)
    ten = ClientSeries("ten", one.start_utc_s, 3600, one.energy_kwh * 10)
    trained = trained_model(record, "mlp", "federated")
    day = date(2024, 2, 5)
    table = forecast(record, trained, federated([one, ten]), day, day).table
    small, large = (
        table.filter(pa.compute.equal(table["client_id"].cast(pa.string()), name))[
            "mean"
        ].to_numpy()
        for name in ("new", "ten")
    )
    assert small.size == 24
    np.testing.assert_allclose(large, small * 10, rtol=1e-5)
    assert 0.2 < small.mean() / np.nanmean(one.energy_kwh) < 5


def test_a_forecast_may_begin_right_after_the_last_reading(record):
    # 40 days from 2024-01-01 00:00 UTC end on 2024-02-10; 00:00 in Brasília is 03:00 UTC, so the
    # readings are cut there.
    full = series("new", 41)
    known = full.cut(end_utc_s=MONDAY + 40 * 86_400 + 3 * 3600)
    trained = trained_model(record, "mlp", "federated")
    made = forecast(record, trained, federated([known]), date(2024, 2, 10), date(2024, 2, 12))
    issues = sorted(set(made.table["issue_time_utc"].to_pylist()))
    # Two days later the last two days are unknown: a poorer forecast, and it is said.
    assert issues == [datetime(2024, 2, d, 3, tzinfo=UTC) for d in (10, 11, 12)]
    assert (made.issues, made.incomplete, made.stale_h) == (3, {}, {"new": 48})
    table = made.table.slice(0, 24)
    targets = table["target_time_utc"].to_pylist()
    assert targets == [datetime(2024, 2, 10, 3, tzinfo=UTC) + timedelta(hours=k) for k in range(24)]
    # What comes after the issue time changes nothing.
    day = date(2024, 2, 10)
    later = forecast(record, trained, federated([full]), day, day).table
    np.testing.assert_array_equal(table["mean"].to_numpy(), later["mean"].to_numpy())


def test_a_client_without_a_model_of_its_own_is_named(record, data):
    trained = trained_model(record, "mlp", "local")
    known = next(iter(data.values()))
    clients = federated([known, series("new", 60)])
    made = forecast(record, trained, clients, FIRST, LAST, Fallback(enabled=False))
    assert set(made.table["client_id"].to_pylist()) == {known.client_id}
    assert made.skipped["new"].startswith("FL212")
    # The ladder's next rung is the run's federated model.
    made = forecast(record, trained, clients, FIRST, LAST)
    assert made.methods == {"mlp/local": 7, "mlp/federated": 7}
    assert made.reasons == {"no_model": 7}
    other = forecast(record, trained_model(record, "mlp", "federated"), clients, FIRST, LAST)
    own, expected = (
        one.table.filter(pa.compute.equal(one.table["client_id"], "new"))["mean"].to_numpy()
        for one in (made, other)
    )
    np.testing.assert_array_equal(own, expected)


def test_nobody_to_forecast_is_fl206_with_the_reasons(record):
    trained = trained_model(record, "mlp", "federated")
    with pytest.raises(DataError) as caught:
        forecast(record, trained, federated([series("new", 3)]), date(2026, 1, 1), date(2026, 1, 2))
    (fault,) = caught.value.faults
    assert fault.code == "FL206"
    assert "client new" in fault.where
    assert "2024-01-04T00:00:00Z" in fault.hint


def test_another_resolution_is_fl207(record):
    trained = trained_model(record, "mlp", "federated")
    with pytest.raises(DataError) as caught:
        forecast(record, trained, federated([series("q", 40, resolution_s=900)]), FIRST, LAST)
    (fault,) = caught.value.faults
    assert fault.code == "FL207"
    assert "data.resolution-min=60" in fault.hint


# --------------------------------------------------------------------------- any file
#: Eight days of 1 kWh, then 2 kWh: the weekly change of the first eight days is 0.
ONE = ClientSeries("a", MONDAY, 3600, np.concatenate([np.ones(192), np.full(24, 2.0)]))
AT = datetime(2024, 1, 9, tzinfo=UTC)


def rows(**change: Any) -> dict[str, Any]:
    """Two forecasts of the day after: 2.5 and 1 kWh where 2 kWh came."""
    columns = {
        "client_id": ["a", "a"],
        "issue_time_utc": [AT, AT],
        "target_time_utc": [AT, AT + timedelta(hours=1)],
        "mean": [2.5, 1.0],
    }
    return {**columns, **change}


def test_scores_of_a_file_by_hand(tmp_path):
    scores, sums = score_file(written(tmp_path / "f.parquet", rows()), federated([ONE]))
    assert sums["a"].abs_kwh == 1.5
    assert scores["mae_kwh"] == 0.75
    assert scores["nmae"] == pytest.approx(0.375)
    assert scores["bias"] == pytest.approx(-0.125)
    assert scores["points"] == 2


def test_absolute_errors_are_the_medians_and_squared_ones_the_means(tmp_path):
    columns = rows(q90=[4.0, 3.0], q50=[2.0, 1.5], q10=[1.0, None])
    scores, sums = score_file(written(tmp_path / "f.parquet", columns), federated([ONE]))
    # |2 − 2| + |1.5 − 2|, beside (2.5 − 2)² + (1 − 2)².
    assert sums["a"].abs_kwh == 0.5
    assert sums["a"].sq_kwh2 == 1.25
    assert scores["mae_kwh"] == 0.25
    assert sums["a"].n_q == 1  # the second lacks one of its quantiles
    # A median that is empty is no other quantile's.
    lacking = rows(q90=[4.0, 3.0], q50=[2.0, None], q10=[1.0, 0.5])
    _, sums = score_file(written(tmp_path / "g.parquet", lacking), federated([ONE]))
    assert (sums["a"].n, sums["a"].abs_kwh) == (1, 0)


def test_crossing_quantiles_are_fl708(tmp_path):
    path = written(tmp_path / "f.parquet", rows(q10=[1.0, 2.0], q90=[3.0, 1.5]))
    with pytest.raises(RunError) as caught:
        score_file(path, federated([ONE]))
    (fault,) = caught.value.faults
    assert fault.code == "FL708"
    assert "row 1" in fault.where


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/Sao_Paulo"])
def test_instants_of_any_unit_and_zone(tmp_path, unit, zone):
    columns = rows()
    for name in ("issue_time_utc", "target_time_utc"):
        seconds = [int(moment.timestamp()) for moment in columns[name]]
        column = pa.array(seconds).cast(pa.timestamp("s", tz=zone))
        columns[name] = column.cast(pa.timestamp(unit, tz=zone))
    scores, _ = score_file(written(tmp_path / "f.parquet", columns), federated([ONE]))
    assert scores["mae_kwh"] == 0.75


def test_more_columns_missing_means_and_unknown_clients_do_no_harm(tmp_path):
    columns = rows(mean=[2.5, None], note=["x", "y"])
    columns = {name: [*values, values[0]] for name, values in columns.items()}
    columns["client_id"][2] = "stranger"
    scores, sums = score_file(written(tmp_path / "f.parquet", columns), federated([ONE]))
    assert list(sums) == ["a", "stranger"]
    assert sums["stranger"].n == 0
    assert (scores["points"], scores["clients"]) == (1, 1)


BROKEN = {
    "no number": ({"mean": ["two", "one"]}, "`mean`"),
    "no instant": ({"issue_time_utc": ["now", "then"]}, "`issue_time_utc`"),
    "half a second": (
        {"target_time_utc": [AT + timedelta(milliseconds=500), AT]},
        "`target_time_utc`",
    ),
    "no client": ({"client_id": ["a", None]}, "`client_id`"),
    "no target": ({"target_time_utc": [AT, None]}, "`target_time_utc`"),
    "a list": ({"client_id": [["a"], ["b"]]}, "`client_id`"),
    "exchanged times": (
        {"issue_time_utc": [AT + timedelta(hours=2)] * 2},
        "after the time it is for",
    ),
    "twice": ({"target_time_utc": [AT, AT]}, "more than once"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_columns_are_fl708(tmp_path, case):
    change, word = BROKEN[case]
    path = written(tmp_path / "f.parquet", rows(**change))
    with pytest.raises(RunError) as caught:
        score_file(path, federated([ONE]))
    (fault,) = caught.value.faults
    assert fault.code == "FL708"
    assert word in fault.what
    assert str(path) in fault.where
    assert fault.hint


def test_all_broken_columns_are_named_at_once(tmp_path):
    path = written(tmp_path / "f.parquet", rows(mean=["x", "y"], client_id=["a", None]))
    with pytest.raises(RunError) as caught:
        score_file(path, federated([ONE]))
    assert [fault.code for fault in caught.value.faults] == ["FL708", "FL708"]


def test_files_that_are_no_forecasts_are_fl708(tmp_path):
    text = tmp_path / "f.csv"
    text.write_text("client_id,mean\na,1\n", encoding="utf-8")
    lacking = written(tmp_path / "g.parquet", {"client_id": ["a"], "mean": [1.0]})
    for path, word in (
        (text, "cannot read"),
        (tmp_path / "absent.parquet", "cannot read"),
        (lacking, "`issue_time_utc`, `target_time_utc`"),
    ):
        with pytest.raises(RunError) as caught:
            score_file(path, federated([ONE]))
        (fault,) = caught.value.faults
        assert fault.code == "FL708"
        assert word in fault.what
        assert str(path) in fault.where


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": ["b", "b"]},
        {"issue_time_utc": [AT + timedelta(days=99)] * 2,
         "target_time_utc": [AT + timedelta(days=99), AT + timedelta(days=100)]},
        {"target_time_utc": [AT + timedelta(minutes=30), AT + timedelta(minutes=90)]},
        {"mean": [None, None]},
    ],
)  # fmt: skip
def test_a_file_that_meets_no_reading_is_fl709(tmp_path, change):
    columns = rows(**change)
    if change.get("mean"):
        columns["mean"] = pa.array(change["mean"], type=pa.float64())
    with pytest.raises(RunError) as caught:
        score_file(written(tmp_path / "f.parquet", columns), federated([ONE]))
    (fault,) = caught.value.faults
    assert fault.code == "FL709"
    assert "data: clients a" in fault.where


def test_an_empty_file_is_fl709(tmp_path):
    table = pa.table(rows()).slice(0, 0)
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(RunError, match="FL709"):
        score_file(tmp_path / "f.parquet", federated([ONE]))

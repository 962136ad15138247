"""Runs and comparisons on a partition: like with like, both engines, interruption."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_inmetro import events, session
from fl_inmetro.config import RunConfig
from fl_inmetro.errors import FederationError
from fl_inmetro.explain.study import study
from fl_inmetro.explain.terms import explain
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.forecasting import forecast, score_file
from fl_inmetro.i18n import text
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.plan import prepare
from fl_inmetro.report.html import render
from fl_inmetro.report.view import Line
from fl_inmetro.report.weeks import weeks
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from tests.fleets import tiny_config

DIRICHLET = {"kind": "dirichlet", "clients": 5, "alpha": 0.5, "classes": 4, "min_windows": 5}


def ignore(event: events.Event) -> None:
    """No display."""


def config(**values: Any) -> RunConfig:
    return tiny_config(**{"partition": DIRICHLET, **values})


def started(root: Path, kind: Any = "run", **values: Any) -> RunRecord:
    path = session.start(config(**values), kind, root, ignore, lambda: False)
    return RunRecord.open(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> RunRecord:
    return started(tmp_path_factory.mktemp("runs"), "compare")


def scores(record: RunRecord) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["training"]): row for row in record.scores()}


def best(record: RunRecord, key: str) -> dict[str, Any]:
    arrays, _ = weights.load(record.path, key) or ({}, {})
    return {name: array for name, array in arrays.items() if name.startswith("best.")}


# ------------------------------------------------------------------------------- the table
def test_every_row_is_scored_on_the_same_clients_and_points(compared):
    """Baselines, local-only, federated and centralised: the clients of the partition.

    SN-168 has a forecast wherever last week's reading is there, as all simulated ones are.
    """
    rows = scores(compared)
    assert set(rows) == {
        ("sn168", "baseline"),
        *(("mlp", training) for training in ("local", "federated", "centralised")),
    }
    names = {
        key: {row["client_id"]: row["points"] for row in compared.client_scores(*key)}
        for key in rows
    }
    assert set(names["mlp", "federated"]) <= {f"part-{k:04d}" for k in range(1, 6)}
    assert all(own == names["mlp", "federated"] for own in names.values())
    assert {row["points"] for row in rows.values()} == {4 * 7 * 24}


@pytest.mark.parametrize(
    ("model", "training"),
    [("sn168", "baseline"), ("mlp", "local"), ("mlp", "federated"), ("mlp", "centralised")],
)
def test_scores_are_those_of_the_forecasts_in_the_file(compared, model, training):
    """The file has each meter's forecasts once, and the client that holds the window beside."""
    frame = compared.forecasts(model, training).to_pandas()
    keys = ["client_id", "issue_time_utc", "target_time_utc"]
    assert not frame.duplicated(keys).any()
    assert frame.client_id.nunique() == 4
    by_part = {
        str(name): ErrorSums.of(part["mean"].to_numpy(), part["observed_kwh"].to_numpy())
        for name, part in frame.groupby("part", observed=True)
    }
    kept = {row["client_id"]: row for row in compared.client_scores(model, training)}
    assert kept.keys() == by_part.keys()
    for name, sums in by_part.items():
        assert kept[name]["nmae"] == pytest.approx(sums.nmae, rel=1e-9)
        assert kept[name]["points"] == sums.n
    nmae = [sums.nmae for sums in by_part.values()]
    assert scores(compared)[model, training]["nmae"] == pytest.approx(np.mean(nmae), rel=1e-9)


def test_the_scale_of_mase_is_added_up_over_meters(compared):
    """By hand for SN-168: all weekly changes of each meter before the client's first test day."""
    prepared = prepare(config())
    kept = {row["client_id"]: row for row in compared.client_scores("sn168", "baseline")}
    several = 0
    for name, client in prepared.clients.items():
        changes, errors = [], []
        for windows in client.test:
            if not len(windows):
                continue
            energy = windows.series.energy_kwh
            past = energy[: windows.issue_index[0]]
            changes.append(np.abs(past[168:] - past[:-168]))
            steps = (windows.issue_index[:, None] + np.arange(24)).ravel()
            errors.append(np.abs(energy[steps] - energy[steps - 168]))
        several += len(changes) > 1
        if changes:
            scale = np.concatenate(changes).mean()
            assert kept[name]["mase"] == pytest.approx(np.concatenate(errors).mean() / scale)
    assert several


def test_bytes_of_centralised_training_are_the_meters_readings(compared):
    prepared = prepare(config())
    first = int(prepared.splits.test[0])
    readings = sum(int(one.cut(end_utc_s=first).valid.sum()) for one in prepared.data.values())
    assert scores(compared)["mlp", "centralised"]["bytes"] == 8 * readings


def test_the_manifest_says_what_each_client_holds(compared):
    data = compared.manifest["data"]
    assert len(data["clients"]) == 4  # meters
    held = data["partition"]
    assert list(held) == [f"part-{k:04d}" for k in range(1, 6)]
    prepared = prepare(config())
    for name, one in held.items():
        assert one["windows"] == sum(map(len, prepared.clients[name].train))
        assert 1 <= one["meters"] <= 4
        assert 0 <= one["js_distance"] <= 1


# ------------------------------------------------------------------------ engines, resume
def test_the_loop_and_the_cohort_train_the_same_model(tmp_path, compared):
    key = "mlp-federated-g0000"
    loop = started(tmp_path, engine="loop")
    ours, theirs = best(compared, key), best(loop, key)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-5)
    rows = [scores(record)["mlp", "federated"] for record in (compared, loop)]
    assert rows[0]["nmae"] == pytest.approx(rows[1]["nmae"], rel=1e-4)
    assert rows[0]["points"] == rows[1]["points"]


@pytest.mark.parametrize("engine", ["loop", "cohort"])
def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, engine):
    settings = {"engine": engine, "execution": {"chunk": 1, "workers": 2}}
    whole = started(tmp_path / "whole", **settings)
    left = [11]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    made = config(**settings)
    with pytest.raises(Interrupted):
        session.start(made, "run", tmp_path / "stopped", ignore, stop)
    path = session.find_unfinished(made, "run", tmp_path / "stopped")
    session.resume(path, ignore, lambda: False)
    again = RunRecord.open(path)
    key = "mlp-federated-g0000"
    for name, array in best(whole, key).items():
        assert best(again, key)[name].tobytes() == array.tobytes()
    assert again.forecasts().equals(whole.forecasts())


def test_federated_ridge_is_the_same_whatever_the_partition(tmp_path):
    """Sums over all windows do not depend on who holds them (to rounding)."""
    found = []
    for kind in (DIRICHLET, {"kind": "time", "clients": 3}, {"kind": "natural"}):
        record = started(tmp_path / kind["kind"], model="ridge", partition=kind)
        found.append(best(record, "ridge-federated-g0000")["best.coefficients"])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-6, atol=1e-9)


def test_a_natural_partition_changes_nothing(tmp_path):
    """The table may be there or not: the same clients, bits and forecasts, and no other column."""
    records = [
        started(tmp_path / name, partition=table)
        for name, table in (("absent", {}), ("there", {"kind": "natural", "by": "weekday"}))
    ]
    one, other = (record.forecasts() for record in records)
    assert one.equals(other)
    assert "part" not in one.column_names
    assert "partition" not in records[0].manifest["data"]


# ------------------------------------------------------------------------ after the run
def test_a_meter_is_forecast_by_the_shared_model_and_the_file_can_be_scored(compared, tmp_path):
    prepared = prepare(config())
    trained = trained_model(compared)
    day = np.datetime64(int(prepared.splits.test[0]), "s").astype("datetime64[D]").item()
    made = forecast(compared, trained, prepared.data, day, day)
    assert sorted(set(made.table["client_id"].to_pylist())) == sorted(prepared.data)
    import pyarrow.parquet as pq

    table = compared.forecasts("mlp", "federated")
    pq.write_table(table, tmp_path / "f.parquet")
    fleet, by_meter = score_file(tmp_path / "f.parquet", prepared.data)
    assert set(by_meter) == set(prepared.data)
    assert fleet["mae_kwh"] == pytest.approx(scores(compared)["mlp", "federated"]["mae_kwh"])


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_the_report_says_that_clients_are_made_and_shows_one_meter_of_each(compared, lang):
    html = render(compared, lang)
    assert text("report.item.partition", lang) in html
    assert text("report.limits.partition", lang) in html
    assert "dirichlet" in html
    found = weeks(compared, Line("mlp", "federated"))
    assert [week.role for week in found] == ["median", "worst", "best"]
    for week in found:
        name, _, meter = week.client_id.partition(" (")
        table = compared.forecasts("mlp", "federated", [name]).to_pandas()
        own = table[table.client_id == meter.rstrip(")")]
        known = np.isfinite(week.mean_kwh)
        assert set(week.mean_kwh[known]) <= set(own["mean"])
        assert (np.diff(week.target_time_utc) == np.timedelta64(1, "h")).all()


def test_who_names_a_meter_for_a_client_or_a_client_for_a_meter_is_told_so(compared):
    """FL360: `importance` asks the clients of the partition, `explain` takes meters apart."""
    model, prepared = trained_model(compared), prepare(compared.config)
    made, meter = next(iter(prepared.clients)), prepared.meters[0]
    with pytest.raises(FederationError) as caught:
        explain(compared, model, prepared.data, made, date(2024, 2, 25))
    (fault,) = caught.value.faults
    assert (fault.code, "made by [partition]" in fault.what) == ("FL360", True)
    assert meter in fault.where
    with pytest.raises(FederationError) as caught:
        study(compared, model, (meter,), "group", 1)
    (fault,) = caught.value.faults
    assert fault.code == "FL360"
    assert fault.where.startswith("the run has 5 clients, made by [partition] of the windows")

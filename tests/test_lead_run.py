"""A whole run with a lead: what its files hold; its models are used as they were scored."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro import events, session
from fl_inmetro.config import RunConfig
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.exported import metadata
from fl_inmetro.forecasting import forecast, score_file
from fl_inmetro.hierarchy.base import node_forecasts
from fl_inmetro.hierarchy.reconcile import Request, reconcile
from fl_inmetro.metrics.fleet import peaks
from fl_inmetro.plan import Job, cut
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.versus import Entry
from fl_inmetro.trained import TrainedModel, model_of, trained_model
from tests.fleets import fleet, tiny_config

HOUR = 3600
DATA = fleet(3, 60)


def config() -> RunConfig:
    return tiny_config(
        window={
            "validation_days": 14, "timezone": "UTC", "train_days": 0, "issue_time": "06:00",
            "lead_h": 18, "test_start": "2024-02-20", "test_end": "2024-02-26",
        },
        models={"mlp": {"hidden": [4], "loss": "quantile"}},
        conformal={"enabled": True},
        federation={"num_server_rounds": 2},
        compare={"models": ["ha4", "mlp"], "training": ["federated"]},
    )  # fmt: skip


def quiet(event: events.Event) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    settings = config()
    path = session.start(
        settings,
        "compare",
        tmp_path_factory.mktemp("lead"),
        quiet,
        lambda: False,
        prepared=cut(settings, DATA),
    )
    return RunRecord.open(path)


def test_exactly_the_next_day_is_scored(record: RunRecord) -> None:
    for model, training in (("ha4", "baseline"), ("mlp", "federated")):
        points = points_of(record.forecasts(model, training))
        ahead = (points.target_utc_s - points.issue_utc_s) // HOUR
        assert set(ahead.tolist()) <= set(range(18, 42))
        assert set((points.target_utc_s // HOUR % 24).tolist()) == set(range(24))
        scored = points.take(points.scored)
        known = sum(
            int(np.isfinite(one.energy_kwh[51 * 24 : 58 * 24]).sum()) for one in DATA.values()
        )
        # Issued 02-20 … 02-26 for 02-21 … 02-27: days 51 … 57.
        assert len(scored) == known
        (row,) = (r for r in record.scores() if (r["model"], r["training"]) == (model, training))
        assert row["points"] == known
        whole = sum(
            int(np.isfinite(one.energy_kwh[day * 24 : day * 24 + 24]).all())
            for one in DATA.values()
            for day in range(51, 58)
        )
        assert peaks(points, HOUR, 18 * HOUR).days == whole > 0
        # Counted from the issue, 6 hours are of one day and 18 of the next: none is whole.
        assert peaks(points, HOUR, 0).days == 0
    assert record.manifest["window"]["lead_steps"] == 18


def test_a_forecast_of_the_run_is_that_of_its_test(record: RunRecord, tmp_path: Path) -> None:
    """Calibrated and followed, from the run's own directory."""
    made = forecast(
        record,
        trained_model(record, "mlp", "federated"),
        DATA,
        date(2024, 2, 20),
        date(2024, 2, 26),
    )
    kept = record.forecasts("mlp", "federated")
    assert kept is not None
    for name in DATA:
        own, other = (
            {
                (i, t): (m, q)
                for c, i, t, m, q in zip(
                    *(table[k].to_pylist() for k in
                      ("client_id", "issue_time_utc", "target_time_utc", "mean", "q90")),
                    strict=True,
                )
                if c == name
            }
            for table in (made.table, kept)
        )  # fmt: skip
        both = own.keys() & other.keys()
        assert len(both) == len(other)
        for key in both:
            assert own[key] == pytest.approx(other[key], rel=1e-5)


def test_no_reading_after_the_issue_is_in_a_forecast(record: RunRecord) -> None:
    issue = 51 * 24 - 18  # 2024-02-20 06:00
    spoilt = {}
    for name, one in DATA.items():
        energy = one.energy_kwh.copy()
        energy[issue:] = 77.0
        spoilt[name] = ClientSeries(name, one.start_utc_s, one.resolution_s, energy)
    model, day = trained_model(record, "mlp", "federated"), date(2024, 2, 20)
    a = forecast(record, model, DATA, day, day).table
    b = forecast(record, model, FederatedData(spoilt, DATA.manifest), day, day).table
    assert a.num_rows == b.num_rows == 3 * 24
    for column in ("target_time_utc", "mean", "q10", "q90"):
        assert a[column].to_pylist() == b[column].to_pylist()


def test_exports_and_nodes_know_the_lead(record: RunRecord) -> None:
    model = model_of(record, Job("mlp", "federated"))
    assert isinstance(model, TrainedModel)
    assert metadata(record, model)["fl_inmetro.lead_steps"] == 18
    settings = config()
    splits = cut(settings, DATA).splits
    (own,) = node_forecasts("sn168", settings.models.ridge, (DATA["c1"],), splits, splits.test[:1])
    # Delivered is 02-21; a week before is 02-14, day 44.
    np.testing.assert_array_equal(own.mean_kwh[0], DATA["c1"].energy_kwh[44 * 24 : 45 * 24])


def test_its_file_is_scored_as_any_other(record: RunRecord, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    kept = record.forecasts("ha4", "baseline")
    assert kept is not None
    file = tmp_path / "ha4.parquet"
    pq.write_table(kept.select(["client_id", "issue_time_utc", "target_time_utc", "mean"]), file)
    scores, _ = score_file(file, DATA)
    (row,) = (r for r in record.scores() if r["model"] == "ha4")
    assert scores["nmae"] == pytest.approx(row["nmae"])


def test_sums_are_reconciled_on_the_delivered_hours(tmp_path: Path) -> None:
    """The nodes' forecasts are of the same hours as the clients'."""
    window = {
        "validation_days": 5, "test_days": 20, "train_days": 0, "issue_time": "06:00", "lead_h": 18,
        "timezone": "America/Sao_Paulo",
    }  # fmt: skip
    settings = tiny_config(window=window, compare={"models": ["ha4"], "training": []})
    path = session.start(settings, "compare", tmp_path, quiet, lambda: False)
    record = RunRecord.open(path)
    points = points_of(record.forecasts("ha4", "baseline"))
    groups = tmp_path / "groups.csv"
    lines = [f"{name},{'a' if k < 2 else 'b'}" for k, name in enumerate(points.names)]
    groups.write_text("\n".join(["client_id,feeder", *lines]) + "\n", encoding="utf-8")
    made = reconcile(
        record, Request(Entry(record.id, "ha4", "baseline"), groups, ("bottom-up",), 7, None, "ha4")
    )
    ahead = (made.grid.target_utc_s - made.grid.issue_utc_s) // HOUR
    assert set(ahead.tolist()) == set(range(18, 42))
    assert len(ahead) == 20 * 24

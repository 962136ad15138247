"""Linear quantiles the whole way: every training, calibrated, forecast from the run, exported."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.config import check
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.load import load
from fl_inmetro.errors import FederationError
from fl_inmetro.exported import export
from fl_inmetro.forecasting import forecast
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model

LINEAR = ("ridge", "quantile_linear")
TRAININGS = ["local", "federated", "personalised", "centralised"]


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    config = check(
        {
            "data": {"source": "simulator", "simulator": {"clients": 4, "days": 60}},
            "window": {"test_days": 7, "validation_days": 7},
            "models": {name: {"features": ["day_profiles", "calendar"]} for name in LINEAR},
            "compare": {"models": ["ha4", "ridge", "quantile_linear"], "training": TRAININGS},
            "conformal": {"enabled": True},
        }
    )
    path = session.start(
        config, "compare", tmp_path_factory.mktemp("runs"), lambda event: None, lambda: False
    )
    return RunRecord.open(path)


def test_every_training_is_scored_and_federated_is_centralised(record):
    rows = {(row["model"], row["training"]): row for row in record.scores()}
    own = {training: rows["quantile_linear", training] for training in TRAININGS}
    for row in own.values():
        assert 0.6 < row["coverage_80"] < 0.95
        assert 0 < row["pinball"] < row["nmae"] / 2
    # Calibration counts errors in bins, so that rounding could move a level by a bin.
    assert own["federated"]["nmae"] == pytest.approx(own["centralised"]["nmae"], rel=1e-9)
    assert own["federated"]["nrmse"] == pytest.approx(own["centralised"]["nrmse"], rel=1e-9)
    ridge = rows["ridge", "federated"]  # it has the same mean
    assert own["federated"]["nrmse"] == pytest.approx(ridge["nrmse"], rel=1e-9)


@pytest.mark.parametrize("training", ["federated", "personalised"])
def test_it_forecasts_clients_it_knows(record, training):
    model = trained_model(record, "quantile_linear", training)
    data = load(record.config.data, 0)
    table = forecast(record, model, data, date(2024, 2, 23), date(2024, 2, 24)).table
    quantiles = np.stack([table[name].to_numpy() for name in ("q10", "q50", "q90")])
    assert len(set(table["client_id"].to_pylist())) == 4
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert np.ptp(quantiles[1]) > 0


def test_its_export_names_its_features(record, tmp_path):
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    made = export(
        record, trained_model(record, "quantile_linear", "federated"), tmp_path / "q.onnx"
    )
    (file,) = made.files
    seen = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    meta = seen.get_modelmeta().custom_metadata_map
    groups = record.config.models.quantile_linear.features
    assert json.loads(meta["fl_inmetro.features"]) == list(feature_names(groups))
    assert [output.name for output in seen.get_outputs()] == ["mean", "quantiles"]
    levels = json.loads(meta["fl_inmetro.levels"])
    assert levels == list(record.config.models.quantile_linear.levels)
    assert len(levels) == seen.get_outputs()[1].shape[-1]


def test_sums_of_a_part_of_the_clients_are_refused_before_anything_is_trained(tmp_path):
    config = check(
        {
            "data": {"source": "simulator", "simulator": {"clients": 4, "days": 60}},
            "window": {"test_days": 7, "validation_days": 7},
            "model": "quantile_linear",
            "federation": {"fraction_fit": 0.5},
        }
    )
    seen: list[str] = []
    with pytest.raises(FederationError, match="FL370"):
        session.start(
            config, "run", tmp_path, lambda event: seen.append(type(event).__name__), lambda: False
        )
    assert "ModelScored" not in seen

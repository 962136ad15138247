"""Exported models give what the run forecasts: single ones, blends, and a client's own."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.windows import Windows, windows_at
from fl_inmetro.errors import RunError
from fl_inmetro.exported import export
from fl_inmetro.learning.table import learner
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from tests.cli.command_line import call
from tests.fleets import tiny_config

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

LEVELS = [0.1, 0.5, 0.9]


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    quantiles = {"loss": "quantile", "levels": LEVELS}
    config = tiny_config(
        compare={
            "models": ["ridge", "mlp", "nlinear", "ensemble"],
            "training": ["local", "federated", "personalised"],
        },
        ensemble={"members": ["ridge", "mlp", "nlinear"]},
        personalisation={"components": ["federated", "local"], "weights": "validation"},
        models={"mlp": {"hidden": [4], **quantiles}, "nlinear": {"context_h": 24, **quantiles}},
    )
    path = session.start(config, "compare", root, lambda event: None, lambda: False)
    return RunRecord.open(path)


@pytest.fixture(scope="module")
def seen() -> Windows:
    one = next(iter(simulate(Simulator(clients=4, days=60), 3).values()))
    issues = issue_times_utc_s(date(2024, 2, 23), date(2024, 2, 27), "00:00", "America/Sao_Paulo")
    return windows_at(one, issues, 24, "America/Sao_Paulo", known=False)


def kwh(record: RunRecord, file: Path, windows: Windows) -> list[np.ndarray]:
    """What a program makes of a file, by its metadata and the formula of docs/serving.md."""
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    one = learner(meta["fl_inmetro.model"], record.config.models)
    design = one.design(windows, targets=False)
    assert meta["fl_inmetro.energy_kwh"] == "max((base + output) * scale_kwh, floor_kwh)"
    found = []
    for output in session.run(None, {"x": design.x}):
        extra = (1,) * (output.ndim - 2)
        base = design.base.reshape(*design.base.shape, *extra)
        scale, floor = (a.reshape(-1, 1, *extra) for a in (design.scale_kwh, design.floor_kwh))
        found.append(np.maximum((base + output) * scale, floor))
    return found


@pytest.mark.parametrize("model", ["ridge", "mlp", "nlinear"])
def test_a_file_forecasts_what_the_run_forecasts(record, seen, tmp_path, model):
    trained = trained_model(record, model, "federated")
    made = export(record, trained, tmp_path / "m.onnx")
    assert made.files == (tmp_path / "m.onnx",)
    assert (made.weights, made.recipe, made.calibrated) == ((1.0,), None, False)
    assert made.largest_gap <= 1e-5
    wanted = trained.forecast("new", seen)
    given = kwh(record, made.files[0], seen)
    np.testing.assert_allclose(given[0], wanted.mean_kwh, rtol=1e-4, atol=1e-6)
    assert len(given) == 1 + bool(wanted.levels)
    if wanted.levels:
        np.testing.assert_allclose(given[1], wanted.quantiles_kwh, rtol=1e-4, atol=1e-6)


def test_a_file_says_what_it_is(record, tmp_path):
    export(record, trained_model(record, "mlp", "federated"), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    said = {p.key.removeprefix("fl_inmetro."): p.value for p in proto.metadata_props}
    assert said["run"] == record.id
    assert said["config_hash"] == record.manifest["config_hash"]
    assert json.loads(said["levels"]) == LEVELS
    assert (said["resolution_s"], said["horizon_steps"]) == ("3600", "24")
    assert json.loads(said["features"]) == list(feature_names(record.config.models.mlp.features))
    assert (said["input"], said["base"]) == ("rows", "day-type profile")
    free = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert free.dim_param  # the number of windows


@pytest.mark.parametrize(
    ("model", "training"), [("ensemble", "federated"), ("mlp", "personalised")]
)
def test_a_blend_is_the_weighted_mean_of_its_files(record, seen, tmp_path, model, training):
    trained = trained_model(record, model, training)
    client = seen.series.client_id
    made = export(record, trained, tmp_path / "b.onnx", client)
    wanted = trained.forecast(client, seen).mean_kwh
    parts = [kwh(record, file, seen)[0] for file in made.files]
    assert sum(made.weights) == pytest.approx(1.0)
    mixed = sum(w * part for w, part in zip(made.weights, parts, strict=True))
    np.testing.assert_allclose(mixed, wanted, rtol=1e-4, atol=1e-6)
    if len(made.files) > 1:
        assert made.recipe is not None
        recipe = json.loads(made.recipe.read_text())
        told = [(c["file"], c["weight"]) for c in recipe["components"]]
        names = [file.name for file in made.files]
        assert told == list(zip(names, made.weights, strict=True))


def test_the_ensemble_has_a_file_for_every_member(record, tmp_path):
    made = export(record, trained_model(record, "ensemble", "federated"), tmp_path / "e.onnx")
    names = [file.name for file in made.files]
    assert names == ["e.1-ridge.onnx", "e.2-mlp.onnx", "e.3-nlinear.onnx"]
    assert made.weights == pytest.approx([1 / 3] * 3)
    assert all(file.is_file() for file in made.files)


def test_local_models_are_of_clients(record, tmp_path):
    trained = trained_model(record, "ridge", "local")
    with pytest.raises(RunError) as caught:
        export(record, trained, tmp_path / "l.onnx")
    (fault,) = caught.value.faults
    assert fault.code == "FL719"
    assert "--client" in fault.hint
    assert not list(tmp_path.iterdir())
    name = next(iter(trained.own))
    assert export(record, trained, tmp_path / "l.onnx", name).files[0].is_file()


def test_another_ending_is_fl108(record, tmp_path):
    answer = call("export", record.path, "-o", tmp_path / "m.pt")
    assert answer.code != 0
    assert [fault["code"] for fault in answer.faults] == ["FL108"]
    assert not list(tmp_path.iterdir())


def test_the_command_writes_and_says_so(record, tmp_path):
    words = ("export", record.path, "--model", "ridge", "--training", "federated")
    answer = call(*words, "-o", tmp_path / "m.onnx", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["files"] == [str(tmp_path / "m.onnx")]
    assert told["weights"] == [1.0]
    plain = call(*words, "-o", tmp_path / "m.onnx", FL_INMETRO_LANG="pt-BR")
    assert "leituras inventadas" in plain.out

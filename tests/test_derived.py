"""Ensembles and personalised models: made on the client, kept with the run, served again."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.config import RunConfig, check
from fl_inmetro.data.load import load
from fl_inmetro.derived import Blend
from fl_inmetro.errors import ConfigError, DataError
from fl_inmetro.forecasting import forecast
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import BlendedModel, trained_model

ORDER = [(name, "ascending") for name in ("client_id", "issue_time_utc", "target_time_utc")]
FIRST, LAST = date(2024, 2, 23), date(2024, 2, 29)


def tiny(**tables: Any) -> RunConfig:
    return check(
        {
            "data": {
                "source": "simulator",
                "simulator": {"clients": 4, "days": 60, "commercial_share": 0.5},
            },
            "window": {"test_days": 7, "validation_days": 7},
            "federation": {"num_server_rounds": 2},
            "models": {"mlp": {"hidden": [8], "loss": "quantile"}},
            **tables,
        }
    )


def ignore(event: object) -> None:
    del event


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> RunRecord:
    config = tiny(
        compare={
            "models": ["ha4", "ridge", "mlp", "ensemble"],
            "training": ["local", "federated", "personalised", "centralised"],
        },
        ensemble={"members": ["ridge", "mlp"]},
        personalisation={"components": ["federated", "local", "tuned"], "weights": "validation"},
    )
    path = session.start(config, "compare", tmp_path_factory.mktemp("runs"), ignore, never)
    return RunRecord.open(path)


def table(record: RunRecord, model: str, training: str) -> Any:
    found = record.forecasts(model, training)
    assert found is not None
    names = found["client_id"].cast("string")
    return found.set_column(found.column_names.index("client_id"), "client_id", names).sort_by(
        ORDER
    )


def test_every_training_of_every_model_is_a_row_in_order(compared):
    rows = [(row["model"], row["training"]) for row in compared.scores()]
    trainings = ["local", "federated", "personalised", "centralised"]
    expected = [(m, t) for m in ("ridge", "mlp", "ensemble") for t in trainings]
    assert rows == [("ha4", "baseline"), *expected]


@pytest.mark.parametrize("training", ["local", "federated", "personalised", "centralised"])
def test_an_ensemble_is_the_mean_of_its_members(compared, training):
    ridge, mlp, both = (
        table(compared, name, training)["mean"].to_numpy() for name in ("ridge", "mlp", "ensemble")
    )
    np.testing.assert_allclose(both, (ridge + mlp) / 2, rtol=1e-12)


def test_a_personalised_model_is_each_clients_blend_of_its_components(compared):
    kept = Blend.unpacked(*compared_weights(compared, "mlp-personalised-blend"))
    assert kept.components == ("federated", "local", "tuned")
    assert len(kept.clients) == 4
    np.testing.assert_allclose(kept.weights.sum(axis=1), 1)
    parts = {name: table(compared, "mlp", name) for name in ("federated", "local")}
    own = table(compared, "mlp", "personalised")
    for client, weights in zip(kept.clients, kept.weights, strict=True):
        rows = np.array(own["client_id"].to_pylist()) == client
        if weights[2] == 0:  # what it is made of stands in the table
            expected = sum(
                w * parts[name]["q90"].to_numpy()[rows]
                for w, name in zip(weights[:2], ("federated", "local"), strict=True)
            )
            np.testing.assert_allclose(own["q90"].to_numpy()[rows], expected, rtol=1e-9)
    # Tuning moved the federation's model.
    tuned = next(iter(kept.tuned.values()))
    shared, _ = compared_weights(compared, "mlp-federated-g0000")
    assert any((tuned[name] != shared["best." + name]).any() for name in tuned)


def compared_weights(record: RunRecord, name: str) -> Any:
    from fl_inmetro.runs import weights

    found = weights.load(record.path, name)
    assert found is not None
    return found


def test_ridge_has_no_tuned_component(compared):
    kept = Blend.unpacked(*compared_weights(compared, "ridge-personalised-blend"))
    assert kept.components == ("federated", "local")
    assert not kept.tuned


@pytest.mark.parametrize("model", ["ridge", "mlp", "ensemble"])
@pytest.mark.parametrize("training", ["federated", "personalised"])
def test_what_is_served_is_what_was_scored(compared, model, training):
    data = load(compared.config.data, compared.config.seed)
    served = trained_model(compared, model, training)
    made = forecast(compared, served, data, FIRST, LAST)
    assert not made.skipped
    own = table(compared, model, training)
    found = made.table.sort_by(ORDER)
    for name in (n for n in own.column_names if n == "mean" or n.startswith("q")):
        if name in found.column_names:
            np.testing.assert_allclose(found[name].to_numpy(), own[name].to_numpy(), rtol=1e-9)
        else:  # another row of the comparison has it
            assert own[name].null_count == own.num_rows


def test_a_client_that_was_never_seen_gets_the_federations_model(compared):
    data = load(compared.config.data, compared.config.seed)
    kept = Blend.unpacked(*compared_weights(compared, "mlp-personalised-blend"))
    name = kept.clients[int(kept.weights[:, 0].argmin())]
    assert kept.weights[:, 0].min() < 1
    series = data[name]
    from fl_inmetro.data.calendar import issue_times_utc_s
    from fl_inmetro.data.windows import windows_at

    zone = compared.manifest["window"]["timezone"]
    issues = issue_times_utc_s(FIRST, LAST, compared.manifest["window"]["issue_time"], zone)
    windows = windows_at(series, issues, 24, zone, known=False)
    federated = trained_model(compared, "mlp", "federated").forecast("nobody", windows)
    personal = trained_model(compared, "mlp", "personalised")
    assert isinstance(personal, BlendedModel)
    found = personal.forecast("nobody", windows)
    np.testing.assert_array_equal(found.mean_kwh, federated.mean_kwh)
    known = personal.forecast(name, windows)
    assert (known.mean_kwh != federated.mean_kwh).any()


def test_the_best_for_everybody_is_personalised(compared):
    assert trained_model(compared).job.training == "personalised"


def test_a_run_makes_what_it_needs(tmp_path):
    config = tiny(model="mlp", training="personalised")
    record = RunRecord.open(session.start(config, "run", tmp_path, ignore, never))
    rows = [(r["model"], r["training"]) for r in record.scores() if r["training"] != "baseline"]
    assert rows == [("mlp", "local"), ("mlp", "federated"), ("mlp", "personalised")]
    kept = Blend.unpacked(*compared_weights(record, "mlp-personalised-blend"))
    assert kept.components == ("federated", "local", "tuned")
    np.testing.assert_allclose(kept.weights, 1 / 3)


def test_a_run_trains_each_component(tmp_path):
    settings = {"components": ["federated", "local"]}
    config = tiny(model="ridge", training="personalised", personalisation=settings)
    record = RunRecord.open(session.start(config, "run", tmp_path, ignore, never))
    rows = [(r["model"], r["training"]) for r in record.scores() if r["training"] != "baseline"]
    assert rows == [("ridge", "local"), ("ridge", "federated"), ("ridge", "personalised")]
    (own,) = [r for r in record.scores() if r["training"] == "personalised"]
    assert {"better_than_local", "harmed"} <= own.keys()


def test_an_interrupted_comparison_ends_in_the_same_rows(compared, tmp_path):
    config = compared.config
    seen = 0

    def soon() -> bool:
        nonlocal seen
        seen += 1
        return seen > 60

    from fl_inmetro.federation.grids import Interrupted

    with pytest.raises(Interrupted):
        session.start(config, "compare", tmp_path, ignore, soon)
    (path,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    record = RunRecord.open(session.resume(path, ignore, never))
    for before, after in zip(compared.scores(), record.scores(), strict=True):
        assert (before["model"], before["training"]) == (after["model"], after["training"])
        assert after["nmae"] == before["nmae"]


@pytest.mark.parametrize(
    ("tables", "word"),
    [
        ({"model": "ensemble"}, "at least two"),
        ({"model": "ensemble", "ensemble": {"members": ["mlp", "nobody"]}}, "nobody"),
        ({"compare": {"models": ["ensemble", "mlp", "ridge"]},
          "ensemble": {"members": ["mlp", "ridge"]}}, "before its members"),
        ({"compare": {"models": ["mlp"], "training": ["personalised"]}}, "personalised"),
        ({"personalisation": {"components": ["local"]}}, "federated"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(tables, word):
    with pytest.raises(ConfigError, match=word):
        tiny(**tables)


@pytest.mark.parametrize(
    "strategy", [{"average": 0.9}, {"eta_schedule": "cosine"}, {"bias_correction": True}]
)
def test_a_strategy_of_ones_own_makes_the_model_itself(strategy):
    with pytest.raises(ConfigError, match="of your own"):
        tiny(strategy={"name": "flwr.serverapp.strategy:FedAvg", **strategy})


def test_an_ensemble_does_not_run_on_flowers_engine(tmp_path):
    config = tiny(model="ensemble", ensemble={"members": ["mlp", "ridge"]}, engine="flower")
    with pytest.raises(ConfigError, match="FL306"):
        session.start_on_flower(config, "run", tmp_path, print)


def test_calibration_without_validation_days_ends_before_it_begins(tmp_path):
    window = {"test_days": 7, "validation_days": 1, "horizon_h": 48}
    config = tiny(conformal={"enabled": True}, window=window)
    with pytest.raises(DataError, match="FL218"):
        session.start(config, "run", tmp_path, ignore, never)
    (path,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert RunRecord.open(path).status == "failed"

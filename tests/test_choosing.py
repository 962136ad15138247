"""Which model of a run is served, and what a derived row does not hide."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fl_inmetro import session, trained
from fl_inmetro.data.calendar import issue_times_utc_s, local_date
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import windows_at
from fl_inmetro.derived import Done, doubts_of
from fl_inmetro.metrics import Forecast
from fl_inmetro.plan import Job
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import trained_model
from fl_inmetro.units import epoch_s
from tests.fleets import clients_of, federated, fleet, series, tiny_config


def row(model: str, training: str, nmae: float, validation: float | None) -> dict[str, Any]:
    scores = {"nmae": nmae} if validation is None else {"nmae": nmae, "validation_nmae": validation}
    return {"model": model, "training": training, **scores}


def chosen(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> tuple[str, str]:
    off = SimpleNamespace(conformal=SimpleNamespace(enabled=False))
    record = SimpleNamespace(id="made", scores=lambda: rows, config=off)
    monkeypatch.setattr(trained, "model_of", lambda record, job: job)
    job = cast(Job, trained_model(cast(RunRecord, record)))
    return job.model, job.training


def test_the_validation_days_choose_and_not_the_test_days(monkeypatch):
    rows = [
        row("ridge", "federated", 0.10, 0.30),
        row("mlp", "federated", 0.20, 0.25),
        row("nlinear", "centralised", 0.01, 0.01),
    ]
    assert chosen(monkeypatch, rows) == ("mlp", "federated")


def test_rows_without_a_score_on_them_are_chosen_by_the_test_days(monkeypatch):
    """One that lacks it (None: not finite, or a run of before) cannot be compared with the rest."""
    rows = [row("ridge", "federated", 0.10, None), row("mlp", "federated", 0.20, 0.05)]
    assert chosen(monkeypatch, rows) == ("ridge", "federated")
    # What trainings that come later lack is no reason.
    rows = [*rows[1:], row("ridge", "federated", 0.3, 0.01), row("mlp", "local", 0.1, None)]
    assert chosen(monkeypatch, rows) == ("ridge", "federated")


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    """Ridge gives a mean, the MLP quantiles: their ensemble has none."""
    config = tiny_config(
        models={"mlp": {"hidden": [4], "loss": "quantile"}},
        compare={
            "models": ["sn168", "ridge", "mlp", "ensemble"],
            "training": ["local", "federated", "personalised", "centralised"],
        },
        ensemble={"members": ["ridge", "mlp"]},
    )
    root = tmp_path_factory.mktemp("runs")
    return RunRecord.open(session.start(config, "compare", root, lambda event: None, lambda: False))


@pytest.mark.parametrize("training", ["local", "federated", "personalised", "centralised"])
@pytest.mark.parametrize("model", ["ridge", "mlp", "ensemble"])
def test_a_rows_score_on_the_validation_days_is_that_of_what_is_served(record, model, training):
    """Forecast the validation days anew with the served model; nMAE by a plain loop."""
    data = load(record.config.data, record.config.seed)
    model_ = trained_model(record, model, training)
    window = record.manifest["window"]
    zone, part = window["timezone"], window["validation"]
    first, last = (part[key] for key in ("first_issue_utc", "last_issue_utc"))
    days = [local_date(epoch_of(instant), zone) for instant in (first, last)]
    issues = issue_times_utc_s(days[0], days[1], window["issue_time"], zone)
    nmae = []
    for name, one in data.items():
        windows = windows_at(one, issues, 24, zone)
        made = model_.forecast(name, windows)
        assert made is not None
        load_kwh, error_kwh = [], []
        for forecast, read in zip(
            made.point_kwh.ravel().tolist(), windows.target_kwh().ravel().tolist(), strict=True
        ):
            if np.isfinite(forecast) and np.isfinite(read):
                load_kwh.append(read)
                error_kwh.append(abs(forecast - read))
        nmae.append(sum(error_kwh) / sum(load_kwh))
    (found,) = [r for r in record.scores() if (r["model"], r["training"]) == (model, training)]
    assert found["validation_nmae"] == pytest.approx(sum(nmae) / len(nmae), rel=1e-5)


def epoch_of(instant: str) -> int:
    from datetime import datetime

    return epoch_s(datetime.fromisoformat(instant))


def test_quantiles_that_an_ensemble_loses_are_told(record):
    told = [note for note in record.notes() if "no quantiles at" in note["text"]]
    assert len(told) == 4  # one for each training
    assert told[0]["level"] == "warning"
    assert "ensemble (local): no quantiles at 0.1, 0.5, 0.9, as ridge has none" in told[0]["text"]


def forecasts(levels: tuple[float, ...]) -> Done:
    quantiles = np.zeros((1, 24, len(levels))) if levels else None
    return Done(test={"c0": (Forecast(np.zeros((1, 24)), levels, quantiles),)})


def test_an_ensemble_of_alike_levels_has_nothing_to_tell():
    members, _ = clients_of(fleet(2))
    clients = {member.client_id: member for member in members}
    config = tiny_config(ensemble={"members": ["ridge", "mlp"]})
    jobs = [Job(name, "federated") for name in ("ridge", "mlp", "ensemble")]

    def doubts(*levels: tuple[float, ...], **tables: Any) -> list[str]:
        done = {job: forecasts(own) for job, own in zip(jobs, levels, strict=True)}
        own = config if not tables else config.model_copy(update=tables)
        return doubts_of(jobs[2], own, clients, done)

    assert doubts((0.1, 0.9), (0.1, 0.9), (0.1, 0.9)) == []
    assert doubts((), (), ()) == []
    assert "at 0.5, as mlp has none" in doubts((0.1, 0.5), (0.1,), (0.1,))[0]
    # Calibration gives every row quantiles of its own.
    calibrated = config.conformal.model_copy(update={"enabled": True})
    assert doubts((), (0.5,), (), conformal=calibrated) == []


def test_clients_whose_validation_days_cannot_choose_are_told():
    """The validation days are 2 to 4 February 2024: days 32 to 34 of the series."""
    energy = series("blind", 40).energy_kwh.copy()
    energy[32 * 24 : 35 * 24] = np.nan
    blind = ClientSeries("blind", series("blind", 40).start_utc_s, 3600, energy)
    members, _ = clients_of(federated([series("a", 40), blind]))
    clients = {member.client_id: member for member in members}
    job = Job("mlp", "personalised")

    def doubts(weights: str) -> list[str]:
        return doubts_of(job, tiny_config(personalisation={"weights": weights}), clients, {})

    (told,) = doubts("validation")
    assert "1 of 2 clients have no reading on the validation days" in told
    assert told.endswith("blind")
    assert doubts("even") == []

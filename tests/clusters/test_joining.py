"""Which cluster a client joins that took no part: its own readings decide, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.data.calendar import issue_times_utc_s
from fl_inmetro.data.load import load
from fl_inmetro.explain.terms import explain
from fl_inmetro.forecasting import forecast
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import ClusteredModel, FollowedModel, trained_model
from fl_inmetro.units import DAY_S
from tests.fleets import federated, tiny_config

#: Simulated readings: 60 days from 2024-01-01. The stranger is another kind of client since CHANGE.
CHANGE, FIRST, LAST = date(2024, 2, 19), date(2024, 2, 27), date(2024, 2, 29)
COLUMNS = ("mean", "q10", "q90")


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    simulator = {"clients": 6, "days": 60, "commercial_share": 0.5, "pv_share": 0.0}
    config = tiny_config(
        data={"simulator": simulator},
        training="clustered",
        clusters={"number": 2},
        # Eight memories are 16 days: those of before the change are learnt from, too.
        conformal={"enabled": True, "gamma": 0.1, "memory_days": 2.0, "levels": [0.1, 0.9]},
        window={"validation_days": 8, "test_start": "2024-02-05", "test_end": "2024-02-14"},
    )
    folder = tmp_path_factory.mktemp("runs")
    return RunRecord.open(session.start(config, "run", folder, lambda e: None, lambda: False))


@pytest.fixture(scope="module")
def fleet(record):
    """The clients of the run, and one that goes over from one cluster's ways to the other's."""
    data = load(record.config.data, record.config.seed)
    clusters = clustered(trained_model(record)).clustering.of
    one = next(data[name] for name, k in clusters.items() if k == 0)
    other = next(data[name] for name, k in clusters.items() if k == 1)
    day = (CHANGE - date(2024, 1, 1)).days * DAY_S // one.resolution_s
    energy = np.concatenate([one.energy_kwh[:day], 30 * other.energy_kwh[day:]])
    return data, replace(one, client_id="stranger", energy_kwh=energy)


def clustered(model) -> ClusteredModel:
    while not isinstance(model, ClusteredModel):
        model = model.plain
    return model


def served(record, model, clients, first=FIRST, last=LAST) -> np.ndarray:
    """Forecasts of the stranger, shape (columns, rows)."""
    table = forecast(record, model, federated(clients), first, last).table
    own = np.asarray(table["client_id"].to_pylist()) == "stranger"
    return np.stack([table[name].to_numpy()[own] for name in COLUMNS if name in table.column_names])


def cluster_at(record, model, series, day: date) -> int:
    window = record.manifest["window"]
    (issue,) = issue_times_utc_s(day, day, window["issue_time"], window["timezone"])
    return clustered(model).clustering.nearest(series, int(issue), window["timezone"])


@pytest.fixture(params=["followed", "plain"])
def model(request, record):
    found = trained_model(record)
    assert isinstance(found, FollowedModel)
    return found if request.param == "followed" else found.plain


def test_the_readings_of_the_days_on_the_way_would_choose_otherwise(record, fleet, model):
    """Else the tests below could not fail."""
    _, stranger = fleet
    then = cluster_at(record, model, stranger, FIRST - timedelta(days=12))
    assert then != cluster_at(record, model, stranger, FIRST)


@pytest.mark.parametrize("others", ["earlier", "later", "both", "nobody known"])
def test_who_else_is_in_the_file_changes_nothing(record, fleet, model, others):
    data, stranger = fleet
    names = list(data)
    # The stranger begins in the middle; whoever begins later has a shorter way to the first day.
    own = stranger.cut(start_utc_s=stranger.start_utc_s + 20 * DAY_S)
    early = [data[name] for name in names[:2]]
    late = [data[n].cut(start_utc_s=data[n].start_utc_s + 40 * DAY_S) for n in names[2:4]]
    unknown = [replace(one, client_id=f"new {one.client_id}") for one in (*early, *late)]
    beside = {"earlier": early, "later": late, "both": early + late, "nobody known": unknown}
    alone = served(record, model, [own])
    assert alone.shape[1] == 3 * 24
    found = served(record, model, [own, *beside[others]])
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_the_first_day_that_is_asked_for_chooses_for_all(record, fleet, model):
    """Since before the change: of the old ways. From after it on: of the new ones."""
    _, stranger = fleet
    plain = clustered(model)
    before = FIRST - timedelta(days=12)
    for first in (before, FIRST):
        state = plain.models[cluster_at(record, model, stranger, first)]
        told = replace(plain, own={**plain.own, "stranger": state})
        expected = served(record, told, [stranger], first)[0]
        np.testing.assert_allclose(served(record, model, [stranger], first)[0], expected, rtol=1e-5)


def test_the_explanation_is_of_the_forecast(record, fleet, model):
    data, stranger = fleet
    everybody = federated([*(data[name] for name in data), stranger])
    found = explain(record, model, everybody, "stranger", FIRST, level=None)
    made = served(record, model, [stranger], FIRST, FIRST)[0]
    np.testing.assert_allclose(found.made.forecast_kwh, made, rtol=1e-5)
    np.testing.assert_allclose(sum(found.made.terms.values()), made, rtol=1e-5)
    assert found.made.residual_share <= 1e-3


def test_a_grid_that_begins_before_the_readings_changes_nothing(record, fleet, model):
    """A file with a common grid: the first day that is asked for lies before the first reading."""
    _, stranger = fleet
    begin = stranger.start_utc_s + 48 * DAY_S
    short = stranger.cut(start_utc_s=begin)
    energy = np.where(np.arange(len(stranger)) < len(stranger) - len(short), np.nan, 1.0)
    padded = replace(stranger, energy_kwh=energy * stranger.energy_kwh)
    first = date(2024, 2, 10)
    expected = served(record, model, [short], first)
    np.testing.assert_allclose(served(record, model, [padded], first), expected, rtol=1e-5)

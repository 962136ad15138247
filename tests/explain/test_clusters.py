"""Runs with clusters: a client is explained by the model of the cluster that serves it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.explain.importance import importance
from fl_inmetro.explain.terms import explain
from fl_inmetro.plan import prepare
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import ClusteredModel, trained_model
from tests.fleets import tiny_config

DAY = date(2024, 2, 25)


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    simulator = {"clients": 6, "days": 60, "commercial_share": 0.5, "pv_share": 0.0}
    config = tiny_config(
        data={"simulator": simulator}, training="clustered", clusters={"number": 2}
    )
    path = session.start(
        config, "run", tmp_path_factory.mktemp("runs"), lambda event: None, lambda: False
    )
    record = RunRecord.open(path)
    return record, prepare(record.config), trained_model(record)


def test_with_the_input_as_it_is_it_has_the_scores_of_the_run(parted):
    record, prepared, model = parted
    assert isinstance(model, ClusteredModel)
    clients = {name: one.test for name, one in prepared.clients.items()}
    found = importance(model, clients, "group", 1, 3)
    (row,) = [r for r in record.scores() if r["training"] == "clustered"]
    assert found.scores()["nmae"] == pytest.approx(row["nmae"], rel=1e-9)


def test_whoever_took_no_part_is_explained_by_the_cluster_that_it_joins(parted):
    """Each client in turn is a stranger: some join the smaller cluster, not the largest."""
    record, prepared, model = parted
    joined = set()
    for client in prepared.clients:
        stranger = replace(model, own={k: v for k, v in model.own.items() if k != client})
        found = explain(record, stranger, prepared.data, client, DAY)
        windows = prepared.clients[client].test[0]
        one = windows.take(windows.issue_utc_s == found.issue_utc_s)
        made = stranger.forecast(client, one).mean_kwh[0]
        np.testing.assert_allclose(found.made.forecast_kwh, made, rtol=1e-5)
        np.testing.assert_allclose(sum(found.made.terms.values()), made, rtol=1e-5)
        assert found.made.residual_share <= 1e-3
        first = int(one.issue_utc_s[0])
        joined.add(model.clustering.nearest(one.series, first, one.timezone))
    assert joined == {0, 1}

"""Training windows with a part of their past hidden, from the configuration to the gate."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from fl_inmetro import session
from fl_inmetro.data.short_history import shortened, silenced
from fl_inmetro.learning.table import learner
from fl_inmetro.plan import prepare
from fl_inmetro.runs.record import RunRecord
from tests.fleets import tiny_config

SETTINGS = {"mlp": {"hidden": [4], "short_histories": 0.9, "hidden_endings": 0.9}}


def config(engine: str = "loop", **values):
    compare = {"models": ["mlp"], "training": ["federated"]}
    return tiny_config(models=SETTINGS, compare=compare, engine=engine, **values)


def test_a_design_to_train_on_has_the_windows_and_one_to_forecast_with_has_not():
    settings = config()
    part = next(iter(prepare(settings).clients.values())).train[0]
    model = learner("mlp", settings.models)
    expected = silenced(shortened(part, 0.9), 0.9)
    assert len(expected) > 2.5 * len(part.take(np.arange(7, len(part))))
    assert len(model.design(part).x) == len(expected)
    assert len(model.design(part, targets=False).x) == len(part)


@pytest.mark.parametrize("engine", ["loop", "cohort"])
def test_the_gate_knows_that_clients_have_more_windows(tmp_path, engine):
    """Nobody claims too much: a client with nearly four times its issues is taken at its word."""
    path = session.start(config(engine), "compare", tmp_path, lambda e: None, lambda: False)
    with sqlite3.connect(path / "run.sqlite") as database:
        refused = database.execute("select count(*) from rejection").fetchone()[0]
        heard = database.execute("select count(distinct client_id) from client_round").fetchone()[0]
    assert refused == 0
    assert heard == 4
    (row,) = (r for r in RunRecord.open(path).scores() if r["model"] == "mlp")
    assert np.isfinite(row["nmae"])

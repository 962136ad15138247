"""A run with a model of every kind, made once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fl_inmetro import session
from fl_inmetro.plan import Prepared, prepare
from fl_inmetro.runs.record import RunRecord
from tests.fleets import tiny_config

LEVELS = [0.1, 0.5, 0.9]


@dataclass(frozen=True, eq=False)
class Made:
    record: RunRecord
    prepared: Prepared


def _made(root, **values) -> Made:
    quantiles = {"loss": "quantile", "levels": LEVELS}
    config = tiny_config(
        compare={
            "models": ["ridge", "mlp", "nlinear", "gru", "tide", "cyclenet", "ensemble"],
            "training": ["local", "federated", "personalised"],
        },
        ensemble={"members": ["ridge", "mlp", "nlinear"]},
        personalisation={"components": ["federated", "local"], "weights": "validation"},
        models={
            "mlp": {"hidden": [6], **quantiles},
            "nlinear": {"context_h": 48, **quantiles},
            "gru": {"context_h": 48, "hidden": 3, **quantiles},
            "tide": {"context_h": 72, "width": 8},
            "cyclenet": {"context_h": 48},
        },
        **values,
    )
    path = session.start(config, "compare", root, lambda event: None, lambda: False)
    record = RunRecord.open(path)
    return Made(record, prepare(record.config))


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """Ridge, networks on rows and on contexts, ensembles and models of each client's own."""
    return _made(tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="session", params=[False, True], ids=["calibrated", "followed"])
def calibrated(request, tmp_path_factory) -> Made:
    """The same with calibrated quantiles, by validation days alone or followed day by day."""
    conformal = {"enabled": True, "follow": request.param}
    return _made(tmp_path_factory.mktemp("calibrated"), conformal=conformal)

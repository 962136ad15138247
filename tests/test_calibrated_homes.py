"""Calibration of real homes: what it promises on days that it has not seen."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fl_inmetro.config import check
from fl_inmetro.config.conformal import Conformal
from fl_inmetro.learning.adaptive_conformal import Adaptive, follow
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.conformal import FleetCalibration, Scores, calibrated
from fl_inmetro.learning.table import learner
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.models import ridge
from fl_inmetro.plan import prepare

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not os.environ.get("FL_INMETRO_DATA"), reason="FL_INMETRO_DATA names no folder of data sets"
    ),
]

SETTINGS = Conformal(blocks=8, fleet_days=7)

Fleet = tuple[list[ClientWorker], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def homes() -> Fleet:
    """The fleet, and the pooled ridge; 28 days before the test window are not trained on."""
    config = check(
        {"data": {"source": "citylearn_fontana"}, "window": {"validation_days": 28}},
    )
    made = learner("ridge", config.models)
    workers = [ClientWorker(client, made) for client in prepare(config).clients.values()]
    sums = [ridge.sufficient_statistics(worker.train_design) for worker in workers]
    total = {name: np.sum([one[name] for one in sums], axis=0) for name in sums[0]}
    return workers, ridge.solve(total, config.models.ridge.alpha)


def shares(sums: list[ErrorSums]) -> tuple[float, float]:
    """Coverage of all points, and the share of clients whose own lies in 70 … 90 %."""
    own = np.array([one.coverage_80 for one in sums])
    return (
        sum(one.inside_80 for one in sums) / sum(one.n_q for one in sums),
        float(((own >= 0.7) & (own <= 0.9)).mean()),
    )


def test_fixed_and_followed(homes: Fleet) -> None:
    workers, state = homes
    errors: dict[str, Scores] = {}
    for worker in workers:
        found = worker.calibrate(state, SETTINGS.blocks)
        assert found is not None
        errors[worker.client_id] = found
    fleet: FleetCalibration = calibrated(
        {name: (lambda one=one: one) for name, one in errors.items()},  # type: ignore[misc]
        SETTINGS,
    )
    first, *rest = errors.values()
    total = sum(rest, start=first)
    fixed, followed = [], []
    for worker in workers:
        ((windows, forecast),) = worker.test_forecasts(state)
        own = fleet.of(worker.client_id)
        assert own is not None
        fixed.append(ErrorSums.of(own.of(windows, forecast), windows.target_kwh()))
        begun = Adaptive.start(errors[worker.client_id], total, SETTINGS, 0.02, 1 / 28)
        made, _ = follow(begun, windows, forecast)
        followed.append(ErrorSums.of(made, windows.target_kwh()))
    coverage, near = shares(followed)
    assert 0.78 <= coverage <= 0.82
    assert near >= 0.9
    # A fixed calibration suffers from the spring; it stays within five points.
    assert abs(shares(fixed)[0] - 0.8) <= 0.05

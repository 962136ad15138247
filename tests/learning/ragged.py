"""A fleet of unequal clients, and small forecasters of every kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any

import numpy as np

from fl_inmetro.config import RunConfig, check
from fl_inmetro.config.models import Models
from fl_inmetro.config.schema import Window
from fl_inmetro.learning.client import ClientData, ClientWorker
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.table import learner as learner_for
from fl_inmetro.learning.update import Arrays
from fl_inmetro.seeds import derive
from tests.fleets import clients_of, federated, series

#: A dozen steps of context and six of horizon: a network of a few dozen parameters.
SIZES: dict[str, dict[str, Any]] = {
    "nlinear": {"context_h": 12},
    "mlp": {"hidden": [5], "features": ["day_profiles", "recent"]},
    "window_mlp": {"context_h": 12, "hidden": [6, 5]},
    "gru": {"context_h": 8, "hidden": 3},
    "lstm": {"context_h": 12, "hidden": 4},
    "patchtst": {
        "context_h": 12, "patch": 6, "stride": 3, "width": 8, "heads": 2, "layers": 1,
        "feed_forward": 8,
    },
    "dlinear": {"context_h": 12, "average": 5},
    "sparsetsf": {"context_h": 12, "period_h": 6},
    "cyclenet": {"context_h": 12, "cycle_h": 24},
    "tide": {"context_h": 12, "width": 6, "projected": 2, "decoded": 3},
    "nhits": {"context_h": 12, "pools": [4, 1], "hidden": [6]},
    "segrnn": {"context_h": 12, "segment": 3, "width": 5},
    "tsmixer": {"context_h": 12, "width": 3, "layers": 1, "feed_forward": 5},
    "own": {"context_h": 24, "network": "examples.own_network:DayFilters"},
}  # fmt: skip
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "eta_l": 0.1},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "eta_l": 0.02},
    "adam": {"optimizer": "adam", "eta_l": 1e-3},
    "adamw": {"optimizer": "adamw", "eta_l": 1e-3},
}
WINDOW = Window(
    train_start=date(2024, 1, 9),
    test_start=date(2024, 1, 31),
    test_end=date(2024, 2, 1),
    validation_days=1,
    train_days=0,
    horizon_h=6,
)
#: Windows of each client: less than a batch, exactly one, and several with a rest.
COUNTS = {"c0": 20, "c1": 14, "c2": 3, "c3": 21, "c4": 8, "c5": 1, "c6": 16}


@cache
def clients() -> tuple[ClientData, ...]:
    """Seven clients of different numbers of windows, with gaps in their readings."""
    fleet = federated([series(f"c{k}", 32, gaps=0.04, level_kwh=1.0 + k) for k in range(7)])
    return tuple(
        replace(one, train=(one.train[0].take(np.arange(COUNTS[one.client_id])),))
        for one in clients_of(fleet, WINDOW)[0]
    )


def learner(model: str, **settings: Any) -> GradientLearner:
    made = learner_for(model, Models.model_validate({model: {**SIZES[model], **settings}}))
    assert isinstance(made, GradientLearner)
    return made


def workers(made: GradientLearner) -> list[ClientWorker]:
    return [ClientWorker(one, made) for one in clients()]


def state_of(made: GradientLearner, seed: int = 4) -> Arrays:
    """A first state of the fleet, moved a little, so that no layer stands at zero."""
    enrolments = [worker.enrol() for worker in workers(made)]
    names = enrolments[0].sums
    sums = {name: np.sum([e.sums[name] for e in enrolments], axis=0) for name in names}
    state = made.initial(sums, seed, enrolments[0].x_shape, enrolments[0].horizon)
    trained = dict(made.module(state).named_parameters())
    return {
        name: (value + derive(seed, "moved", name).normal(0, 0.1, value.shape)).astype(np.float32)
        if name in trained
        else value
        for name, value in state.items()
    }


def config(model: str, settings: dict[str, Any], **tables: Any) -> RunConfig:
    return check({"model": model, "models": {model: {**SIZES[model], **settings}}, **tables})

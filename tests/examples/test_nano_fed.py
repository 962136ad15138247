"""The example in plain Python and the library are the same arithmetic, number by number."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from fl_inmetro.config.models import NLinear as Settings
from fl_inmetro.config.schema import Federation
from fl_inmetro.config.schema import Strategy as StrategySettings
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows, windows_at
from fl_inmetro.federation import messages
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy, Progress, begin, merge_for
from fl_inmetro.learning.client import ClientData, ClientWorker
from fl_inmetro.learning.neural import NLinearLearner
from fl_inmetro.models.baselines import seasonal_naive_24h
from fl_inmetro.units import DAY_S, HOUR_S

EXAMPLE = Path(__file__).parents[2] / "examples" / "nano_fed.py"
ROUNDS = 6

#: The library works in float32, the example in float64.
TOLERANCE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def nano() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nano_fed", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nano_fed"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loads(nano: ModuleType) -> list[Any]:
    return [nano.simulate_load_kwh(meter) for meter in range(5)]


def library_windows(series: ClientSeries, first_day: int, last_day: int) -> Windows:
    issues = series.start_utc_s + DAY_S * np.arange(first_day, last_day, dtype=np.int64)
    return windows_at(series, issues, 24, "UTC")


def library_client(name: str, load_kwh: Any, test_days: int) -> ClientData:
    series = ClientSeries(name, 0, HOUR_S, load_kwh)
    days = len(series) // 24
    test = library_windows(series, days - test_days, days)
    train = library_windows(series, 28, days - test_days)
    return ClientData(name, (train,), (test,), (test,))


def library_learner(nano: ModuleType) -> NLinearLearner:
    return NLinearLearner(
        Settings(
            context_h=24,
            loss="mse",
            optimizer="sgd",
            eta_l=nano.LEARNING_RATE,
            batch_size=0,
        )
    )


def library_rounds(
    nano: ModuleType, clients: Sequence[ClientData], rounds: int
) -> tuple[list[Progress], list[ClientWorker]]:
    """Train the same fleet through Flower's messages; returns the progress after each round."""
    learner = library_learner(nano)
    workers = [ClientWorker(client, learner) for client in clients]
    grid = LoopGrid(workers, debug=True)
    roster, initial = enrol(grid, learner, seed=0, timeout=60.0)
    seen: list[Progress] = []
    strategy = FederatedStrategy(
        roster,
        merge_for(learner, StrategySettings()),
        closed_form=False,
        settings=Federation(num_server_rounds=rounds, local_epochs=nano.LOCAL_STEPS),
        seed=0,
        after_round=seen.append,
    )
    strategy.run(grid, begin(initial), rounds, 60.0)
    return seen, workers


def test_every_round_ends_in_the_same_weights_and_the_last_in_the_same_forecasts(
    nano: ModuleType, loads: list[Any]
) -> None:
    clients = [library_client(f"m{k}", load, nano.TEST_DAYS) for k, load in enumerate(loads)]
    seen, workers = library_rounds(nano, clients, ROUNDS)
    models = nano.federate([nano.train_windows(load) for load in loads], ROUNDS)

    assert len(seen) == ROUNDS
    for model, progress in zip(models[1:], seen, strict=True):
        np.testing.assert_allclose(progress.state["linear.weight"], model.w, **TOLERANCE)
        np.testing.assert_allclose(progress.state["linear.bias"], model.b, **TOLERANCE)
    assert np.abs(models[-1].w).max() > 0.1  # training moved the weights: zeros would agree too

    for worker, load in zip(workers, loads, strict=True):
        ((windows, forecast),) = worker.test_forecasts(seen[-1].state)
        rows = nano.test_windows(load)
        np.testing.assert_allclose(
            forecast.mean_kwh, nano.forecast_kwh(models[-1], rows), rtol=1e-5
        )
        np.testing.assert_array_equal(windows.target_kwh(), rows.target_kwh)
        np.testing.assert_array_equal(seasonal_naive_24h(windows), rows.yesterday_kwh)


def test_flower_s_own_fedavg_reaches_the_same_weights_with_our_clients(
    nano: ModuleType, loads: list[Any]
) -> None:
    """A third witness: neither the averaging of the library nor that of the example."""
    learner = library_learner(nano)
    clients = [library_client(f"m{k}", load, nano.TEST_DAYS) for k, load in enumerate(loads)]
    grid = LoopGrid([ClientWorker(client, learner) for client in clients], debug=True)
    _, initial = enrol(grid, learner, seed=0, timeout=60.0)
    result = FedAvg(min_available_nodes=len(clients)).start(
        grid,
        messages.pack(initial),
        num_rounds=3,
        train_config=ConfigRecord({"local-epochs": nano.LOCAL_STEPS}),
    )
    state = messages.unpack(result.arrays)
    model = nano.federate([nano.train_windows(load) for load in loads], 3)[-1]
    np.testing.assert_allclose(state["linear.weight"], model.w, **TOLERANCE)
    np.testing.assert_allclose(state["linear.bias"], model.b, **TOLERANCE)


def test_the_scores_are_the_library_s(nano: ModuleType, loads: list[Any]) -> None:
    load = loads[0]
    client = library_client("m0", load, nano.TEST_DAYS)
    worker = ClientWorker(client, library_learner(nano))
    model = nano.federate([nano.train_windows(load)], 1)[-1]
    state = {
        "linear.weight": model.w.astype(np.float32),
        "linear.bias": model.b.astype(np.float32),
    }
    rows = nano.test_windows(load)
    sums = worker.evaluate(state, "test")["m0"]
    assert sums.nmae == pytest.approx(nano.nmae(nano.forecast_kwh(model, rows), rows), rel=1e-5)


def test_one_step_of_one_meter_by_hand(nano: ModuleType, monkeypatch: Any) -> None:
    """Two windows, one of them with x = 0, so every number can be followed with a pencil.

    x = (e_1, 0) with e_1 the first unit vector, y = (2·1, 4·1). The model is zero, so the errors
    are −2 and −4 for each of the 24 hours. The mean runs over 2 · 24 = 48 points:
    dL/db = 2 · (−2 − 4) / 48 = −1/4 per hour, dL/dW = 2 · (−2) · 1 / 48 = −1/12 in column 1.
    """
    monkeypatch.setattr(nano, "LOCAL_STEPS", 1)
    monkeypatch.setattr(nano, "LEARNING_RATE", 1.0)
    x = np.zeros((2, 24))
    x[0, 0] = 1.0
    y = np.array([[2.0] * 24, [4.0] * 24])
    rows = nano.Windows(x, y, np.zeros((2, 1)), np.ones((2, 1)), y, y)
    change = nano.client_update(nano.Model(np.zeros((24, 24)), np.zeros(24)), rows)
    np.testing.assert_allclose(change.b, 1 / 4)
    np.testing.assert_allclose(change.w[:, 0], 1 / 12)
    np.testing.assert_array_equal(change.w[:, 1:], 0.0)


def test_the_merge_weighs_meters_by_their_windows(nano: ModuleType, loads: list[Any]) -> None:
    fleet = [nano.train_windows(load) for load in loads[:2]]
    assert [len(rows.x) for rows in fleet] == [10, 13]
    start = nano.federate(fleet, 0)[0]
    first, second = (nano.client_update(start, rows) for rows in fleet)
    merged = nano.server_round(start, fleet)
    np.testing.assert_allclose(merged.b, (10 * first.b + 13 * second.b) / 23)


def test_the_story_is_told(nano: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    nano.main()
    told = capsys.readouterr().out
    assert "SIMULATED" in told
    assert "round 30" in told
    *_, mean_line, _, sent = told.splitlines()
    naive, alone, together = (float(cell) for cell in mean_line.split()[1:])
    # The example exists to show this; the numbers themselves are printed, not promised.
    assert together < min(naive, alone)
    assert sent == "Each meter sent 30 × 600 numbers, and not one reading."


def test_the_example_needs_nothing_of_the_library() -> None:
    imported = [
        line.split()[1].partition(".")[0]
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert set(imported) <= set(sys.stdlib_module_names) | {"numpy"}

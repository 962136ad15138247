"""The cohort's grid: faults stay with their client, and neither threads nor files change a bit."""

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fl_inmetro.config.schema import Execution
from fl_inmetro.federation import messages
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.federation.grids import Interrupted, LoopGrid
from fl_inmetro.federation.roster import enrol
from fl_inmetro.learning.neural import WindowMlpLearner
from fl_inmetro.learning.rows import Rows, RowStore
from fl_inmetro.learning.trainer import in_order
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import DpSgd, LocalWork, NoiseShare
from fl_inmetro.privacy.secret import Secret
from tests.engines import ENGINES, apart, federated, grid_of, same_bits
from tests.federation.cohorts import ALL, NETWORK, ONCE, ask, started, updates_of
from tests.learning.ragged import OPTIMIZERS, clients, config, learner, workers


# ------------------------------------------------------------------- nothing changes a bit
@pytest.mark.parametrize("model", ["window_mlp", "lstm"])
def test_threads_and_files_change_no_bit_and_chunks_only_rounding(model):
    settings = OPTIMIZERS["adamw"] | {"batch_size": 8, "loss": "huber"}

    def end(**execution: Any) -> Arrays:
        asked = config(
            model, settings,
            federation={"num_server_rounds": 3, "fraction_fit": 0.6}, execution=execution,
        )  # fmt: skip
        return federated("cohort", asked, clients())[0].state

    one = end(chunk=2, workers=1)
    for workers_ in (2, 5):
        assert same_bits(end(chunk=2, workers=workers_), one)
    for chunk in (1, 3, 64):
        assert apart(end(chunk=chunk, workers=2), one) < 1e-5


def test_windows_in_a_file_change_no_bit(monkeypatch):
    """The windows of seven clients are far below a megabyte: the unit is made small."""
    in_file: list[bool] = []
    finish = RowStore.finish

    def watched(store: RowStore):
        in_file.append(store.in_file)
        return finish(store)

    monkeypatch.setattr(RowStore, "finish", watched)
    whole, state, _ = started()
    monkeypatch.setattr("fl_inmetro.federation.cohort_grid._MEGABYTE", 1000)
    spilled, _, _ = started(memory_mb=1)
    assert in_file == [False, True]
    in_memory, from_file = (updates_of(grid, state, ALL) for grid in (whole, spilled))
    for name in ALL:
        assert same_bits(from_file[name], in_memory[name])


def test_slow_chunks_change_no_bit_and_no_order(monkeypatch):
    grid, state, _ = started(workers=3, chunk=1)
    plain = updates_of(grid, state, ALL)
    assert list(plain) == ALL
    delays = iter([0.05, 0.0, 0.03, 0.0, 0.02, 0.0, 0.0])
    rows = type(grid._trainer._population).rows

    def slow(self: Any, members: Any) -> Rows:
        time.sleep(next(delays))
        return rows(self, members)

    monkeypatch.setattr(type(grid._trainer._population), "rows", slow)
    again = updates_of(grid, state, ALL)
    assert list(again) == ALL
    for name in ALL:
        assert same_bits(again[name], plain[name])


@pytest.mark.parametrize("workers_", [1, 2, 4])
def test_results_come_in_the_order_of_the_items(workers_):
    rng = random.Random(3)
    waits = [rng.uniform(0, 0.004) for _ in range(30)]
    began: list[int] = []

    def work(k: int) -> int:
        began.append(k)
        time.sleep(waits[k])
        return k * k

    results = in_order(work, range(30), workers_)
    assert next(results) == 0
    assert len(began) < 30  # few results wait: memory does not grow with the items
    assert list(results) == [k * k for k in range(1, 30)]


def test_an_exception_of_an_item_comes_out_and_cancels_the_rest():
    done: list[int] = []
    lock = threading.Lock()

    def work(k: int) -> int:
        if k == 2:
            raise ValueError("two")
        with lock:
            done.append(k)
        return k

    with pytest.raises(ValueError, match="two"):
        list(in_order(work, range(1000), 2))
    assert len(done) < 1000


# ---------------------------------------------------------------------- Flower's messages
class Asking(FedAvg):
    """Flower's own strategy; every node is asked for other local epochs."""

    def configure_train(self, server_round, arrays, config, grid):
        for k, message in enumerate(super().configure_train(server_round, arrays, config, grid)):
            content = message.content.copy()
            asked = ConfigRecord({**content.config_records["config"], "local-epochs": 1 + k % 3})
            content["config"] = asked
            yield Message(content, message.metadata.dst_node_id, "train", group_id="1")


@pytest.mark.parametrize("strategy", [FedAvg, Asking])
def test_a_foreign_strategy_ends_where_it_ends_on_the_loop(strategy):
    made = learner("mlp", batch_size=8, eta_l=0.05, optimizer="sgd", loss="mse")
    ends = []
    for engine in ENGINES:
        grid = grid_of(engine, workers(made))
        _, state = enrol(grid, made, 0, 60)
        random.seed(4)  # Flower draws and orders its nodes by the global generator
        result = strategy().start(grid, messages.pack(state), num_rounds=2)
        ends.append(messages.unpack(result.arrays))
        assert 0 < result.evaluate_metrics_clientapp[2]["wmape"] < 10
    assert apart(ends[1], ends[0]) < 1e-5
    assert apart(ends[0], state) > 1e-3


def test_messages_that_ask_for_other_things_get_what_each_asked_for():
    grid, state, roster = started()
    other = {name: value * np.float32(1.1) for name, value in state.items()}
    packed = [messages.pack(state), messages.pack(other)]
    requests = [
        messages.TrainRequest(
            1 + k % 2, work=LocalWork(1 + k // 4, mu=0.1 * (k % 3)), delta=k % 4 > 0
        )
        for k in range(7)
    ]
    asked = [
        Message(messages.train_request(packed[k % 2], one), roster.nodes[ALL[k]], messages.TRAIN)
        for k, one in enumerate(requests)
    ]
    loop = LoopGrid(workers(NETWORK))
    enrol(loop, NETWORK, 0, 60)
    for ours, theirs, name in zip(
        grid.send_and_receive(asked[::-1]),
        loop.send_and_receive(asked[::-1]),
        ALL[::-1],
        strict=True,
    ):
        for reply in (ours, theirs):
            assert reply.content.config_records["config"]["client-id"] == name
        a, b = (messages.unpack(r.content.array_records["arrays"]) for r in (ours, theirs))
        assert apart(a, b) < 1e-3
        metrics = [r.content.metric_records["metrics"] for r in (ours, theirs)]
        assert metrics[0]["num-examples"] == metrics[1]["num-examples"]
        assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], rel=1e-4)


# --------------------------------------------------- what a request may ask of any network
class Norm(nn.Module):
    """Holds a parameter itself: it has no batched form."""

    def __init__(self, context: int, horizon: int) -> None:
        super().__init__()
        self.head = nn.Linear(context, horizon)
        self.scale = nn.Parameter(torch.ones(context))

    def forward(self, x):
        return self.head(x * self.scale)


class RawLearner(WindowMlpLearner):
    """A learner with such a network."""

    def network(self, context, horizon):
        return Norm(context, horizon)

    def sizes(self, state):
        return state["head.weight"].shape[::-1]

    def initial(self, sums, seed, shape, horizon):
        rng = np.random.default_rng(seed)
        return {
            "head.weight": rng.normal(0, 0.1, (horizon, shape[0])).astype(np.float32),
            "head.bias": np.zeros(horizon, np.float32),
            "scale": np.ones(shape[0], np.float32),
        }


@pytest.mark.parametrize("private", [(), ("scale",)])
def test_a_network_without_a_batched_form_is_trained_one_by_one_as_by_the_loop(private):
    how = config(
        "window_mlp", {"batch_size": 8, "private": list(private)},
        federation={"num_server_rounds": 3, "fraction_fit": 0.6},
        execution={"workers": 2},
    )  # fmt: skip
    made = RawLearner(how.models.window_mlp)
    (loop, _, a), (cohort, _, b) = (
        federated(engine, how, clients(), learner=made) for engine in ENGINES
    )
    assert apart(cohort.state, loop.state) < 1e-6
    assert same_bits(a.private_arrays(loop.state), b.private_arrays(loop.state)) or private
    if private:
        assert apart(b.private_arrays(loop.state), a.private_arrays(loop.state)) < 1e-5


@pytest.mark.parametrize("model", ["mlp", "gru", "patchtst"])
@pytest.mark.parametrize("noise", [{"dp": DpSgd(0.1, 0.5)}, {"share": NoiseShare(0.1, 0.01)}])
def test_noise_travels_and_the_engines_agree(model, noise):
    made = learner(model, batch_size=8, eta_l=1e-3)
    request = messages.TrainRequest(1, work=LocalWork(2, **noise))
    assert messages.TrainRequest.of(request.to_config()) == request
    ends, plain = [], messages.TrainRequest(1, work=LocalWork(2))
    for engine in ENGINES:
        grid = grid_of(engine, workers(made), secret=Secret(bytes(32)))
        _, state = enrol(grid, made, 0, 60)
        replies = ask(grid, state, request)
        ends.append([messages.unpack(r.content.array_records["arrays"]) for r in replies])
        losses = [
            [r.content.metric_records["metrics"]["loss"] for r in answers]
            for answers in (replies, ask(grid, state, plain))
        ]
        assert np.isnan(losses[0]).all()  # it would have no noise
        assert np.isfinite(losses[1]).all()
    for one, other in zip(*ends, strict=True):
        assert apart(add(state, one), add(state, other)) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("noise", [{"dp": DpSgd(0.1, 0.5)}, {"share": NoiseShare(0.1, 0.01)}])
def test_the_same_secret_gives_the_same_bits_and_no_secret_gives_others(engine, noise):
    """A resumed run is the uninterrupted one; two runs have nothing in common."""
    made = learner("mlp", batch_size=8)
    secret = Secret(bytes(range(32)))

    def deltas(round_: int, secret: Secret | None) -> list[Arrays]:
        grid = grid_of(engine, workers(made), secret=secret)
        _, state = enrol(grid, made, 0, 60)
        request = messages.TrainRequest(round_, work=LocalWork(**noise))
        replies = ask(grid, state, request)
        return [messages.unpack(r.content.array_records["arrays"]) for r in replies]

    first = deltas(1, secret)
    assert all(same_bits(a, b) for a, b in zip(first, deltas(1, secret), strict=True))
    for others in (deltas(2, secret), deltas(1, secret.child("x")), deltas(1, None)):
        assert not any(same_bits(a, b) for a, b in zip(first, others, strict=True))


def add(state: Arrays, delta: Arrays) -> Arrays:
    return {name: state[name] + value for name, value in delta.items()}


def test_epochs_of_each_client_replace_those_of_the_request():
    grid, state, _ = started()
    each = updates_of(grid, state, ALL, epochs=np.array([1, 2, 3, 1, 2, 3, 1]))
    for k, name in enumerate(ALL):
        request = messages.TrainRequest(1, work=LocalWork(1 + k % 3))
        alone = updates_of(grid, state, [name], request)
        assert apart(each[name], alone[name]) < 1e-4


@pytest.mark.parametrize(
    ("chunk", "sizes"),
    # An even number of chunks of at most so many, all about as large.
    [(64, [3, 4]), (7, [3, 4]), (3, [1, 2, 2, 2]), (2, [1, 2, 2, 2]), (1, [1] * 7)],
)
def test_chunks_by_hand(chunk, sizes):
    grid, state, _ = started(chunk=chunk)
    found: list[int] = []
    list(grid.train_blocks(state, ALL, ONCE, lambda block: found.append(len(block))))
    assert sorted(found) == sizes  # digested where they were made, in any order


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stop_ends_a_chunk_at_its_next_step_and_the_round_has_no_result(threads):
    """A million epochs in one chunk: nobody waits for their end."""
    began = time.monotonic()
    grid = CohortGrid(
        workers(NETWORK),
        Execution(chunk=64, workers=threads),
        lambda: time.monotonic() > began + 2,
    )
    _, state = enrol(grid, NETWORK, 0, 60)
    request = messages.TrainRequest(1, work=LocalWork(epochs=1_000_000))
    with pytest.raises(Interrupted):
        updates_of(grid, state, ALL, request)

"""The server's step: by hand, against Flower's own strategies and PyTorch's, and continued."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.config.strategy import ServerOptimizerName
from fl_inmetro.config.strategy import Strategy as Settings
from fl_inmetro.federation import flower_compat
from fl_inmetro.federation.server_optimizers import (
    SERVER_OPTIMIZERS,
    SETTINGS_OF,
    Adagrad,
    Adam,
    Falling,
    Momentum,
    Sgd,
    Yogi,
)

EVERY_OPTIMIZER = [
    Sgd(0.7),
    Momentum(0.7, 0.9),
    Adagrad(0.1, 0.3, 0.01),
    Adagrad(0.1, 0.0, 0.01, form="flower"),
    Adam(0.1, 0.9, 0.99, 0.01),
    Adam(0.1, 0.9, 0.99, 0.01, form="flower"),
    Adam(0.1, 0.9, 0.99, 0.01, form="corrected"),
    Falling(Adam(0.1, 0.9, 0.99, 0.01), 5),
    Yogi(0.1, 0.9, 0.99, 0.01),
    Yogi(0.1, 0.9, 0.99, 0.01, form="flower"),
]
every_optimizer = pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=str)


def steps(optimizer, *deltas: float) -> list[float]:
    """What is added to a single weight, step by step."""
    memory = optimizer.begin({"w": np.zeros(1, dtype=np.float32)})
    moves = []
    for delta in deltas:
        move, memory = optimizer.step({"w": np.array([delta])}, memory)
        moves.append(float(move["w"][0]))
    return moves


# -------------------------------------------------------------------------------- by hand
def test_sgd_by_hand():
    assert steps(Sgd(0.5), 4, -2) == [2, -1]


def test_momentum_by_hand():
    # m = 4; 0.5·4 − 2 = 0; 0.5·0 + 6 = 6. Half of each is added.
    assert steps(Momentum(0.5, 0.5), 4, -2, 6) == [2, 0, 3]


def test_momentum_of_a_steady_change_is_its_geometric_series():
    # 1 + β + β² + … = 1/(1 − 0.9) = 10.
    assert steps(Momentum(1.0, 0.9), *[1.0] * 200)[-1] == pytest.approx(10, abs=1e-8)


def test_adagrad_by_hand():
    # τ = 3, so v begins at 9. Δ = 4: v = 25, 4/(5 + 3). Δ = 12: v = 169, 12/(13 + 3).
    assert steps(Adagrad(1.0, 0.0, 3.0), 4, 12) == [0.5, 0.75]
    # β₁ = 1/2: m = 2, then 1 + 6 = 7; η = 2.
    assert steps(Adagrad(2.0, 0.5, 3.0), 4, 12) == [2 * 2 / 8, 2 * 7 / 16]
    # Flower's v begins at 0; τ = 1. Δ = 3: 3/(3 + 1). Δ = 4: v = 25, 4/(5 + 1).
    assert steps(Adagrad(1.0, 0.0, 1.0, form="flower"), 3, 4) == pytest.approx([3 / 4, 4 / 6])


def test_adam_by_hand():
    # β₁ = 1/2, β₂ = 3/4, τ = 2, v begins at 4.
    # Δ = 2:   m = 1,                v = 3 + 1 = 4 = 2²,            1/(2 + 2)
    # Δ = 5.5: m = 0.5 + 2.75 = 3.25, v = 3 + 7.5625 = 10.5625 = 3.25², 3.25/(3.25 + 2)
    assert steps(Adam(1.0, 0.5, 0.75, 2.0), 2, 5.5) == pytest.approx([0.25, 13 / 21], rel=1e-14)


def test_adam_in_flowers_form_by_hand():
    # v begins at 0, τ = 1. In step 1 η is √(1 − (3/4)²)/(1 − (1/2)²) = (√7/4)/(3/4) = √7/3; in
    # step 2 √(1 − 27/64)/(1 − 1/8) = √37/7.
    # Δ = 4: m = 2,         v = 4,         2/(2 + 1)
    # Δ = 2: m = 1 + 1 = 2, v = 3 + 1 = 4, 2/(2 + 1)
    got = steps(Adam(1.0, 0.5, 0.75, 1.0, form="flower"), 4, 2)
    assert got == pytest.approx([math.sqrt(7) / 3 * 2 / 3, math.sqrt(37) / 7 * 2 / 3], rel=1e-14)


def test_yogi_by_hand():
    # β₁ = 1/2, β₂ = 3/4, τ = 2, v begins at 4.
    # Δ = 3:   Δ² = 9 > 4:       v = 4 + 2.25 = 6.25 = 2.5²,    m = 1.5,                 1.5/4.5
    # Δ = 1.4: Δ² = 1.96 < 6.25: v = 6.25 − 0.49 = 5.76 = 2.4², m = 0.75 + 0.7 = 1.45,   1.45/4.4
    # Δ = 0:   nothing to forget by: v = 5.76,                  m = 0.725,              0.725/4.4
    got = steps(Yogi(1.0, 0.5, 0.75, 2.0), 3, 1.4, 0)
    assert got == pytest.approx([1 / 3, 1.45 / 4.4, 0.725 / 4.4], rel=1e-14)
    # Adam would have v = 3 + 2.25 = 5.25, then 3.9375 + 0.49.
    adam = steps(Adam(1.0, 0.5, 0.75, 2.0), 3, 1.4)
    assert adam[1] == pytest.approx(1.45 / (math.sqrt(4.4275) + 2), rel=1e-14)


def test_yogi_stands_still_where_the_square_is_v():
    # sign(0) = 0: with τ = 2 and Δ = 2, v stays 4.
    optimizer = Yogi(1.0, 0.0, 0.5, 2.0)
    _, memory = optimizer.step({"w": np.array([2.0])}, optimizer.begin({"w": np.zeros(1)}))
    assert memory["v.w"].tolist() == [4.0]


# ----------------------------------------------------------------- independent references
changes = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8)


@given(changes, st.floats(0.01, 2), st.floats(0, 0.99))
def test_momentum_is_pytorchs_sgd(deltas, eta, beta_1):
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.SGD([weight], lr=eta, momentum=beta_1)
    for delta in deltas:
        weight.grad = torch.tensor([-delta], dtype=torch.float64)
        theirs.step()
    assert sum(steps(Momentum(eta, beta_1), *deltas)) == pytest.approx(weight.item(), abs=1e-9)


@given(changes, st.floats(0.01, 2), st.floats(1e-3, 1))
def test_adagrad_is_pytorchs_with_a_first_accumulator_of_tau_squared(deltas, eta, tau):
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adagrad([weight], lr=eta, initial_accumulator_value=tau**2, eps=tau)
    for delta in deltas:
        weight.grad = torch.tensor([-delta], dtype=torch.float64)
        theirs.step()
    assert sum(steps(Adagrad(eta, 0.0, tau), *deltas)) == pytest.approx(weight.item(), abs=1e-9)


@given(changes, st.floats(0, 0.99), st.floats(0, 0.999), st.floats(1e-3, 1))
def test_adam_and_yogi_are_the_papers_lines_in_plain_numbers(deltas, beta_1, beta_2, tau):
    """Reddi et al. (2021), Algorithm 2, number by number."""
    m, v_adam, v_yogi = 0.0, tau * tau, tau * tau
    adam, yogi = [], []
    for delta in deltas:
        m = beta_1 * m + (1 - beta_1) * delta
        v_adam = beta_2 * v_adam + (1 - beta_2) * delta * delta
        side = (v_yogi > delta * delta) - (v_yogi < delta * delta)
        v_yogi = v_yogi - (1 - beta_2) * delta * delta * side
        assert v_yogi >= 0
        adam.append(0.3 * m / (math.sqrt(v_adam) + tau))
        yogi.append(0.3 * m / (math.sqrt(v_yogi) + tau))
    assert steps(Adam(0.3, beta_1, beta_2, tau), *deltas) == pytest.approx(adam, rel=1e-9, abs=1e-9)
    assert steps(Yogi(0.3, beta_1, beta_2, tau), *deltas) == pytest.approx(yogi, rel=1e-9, abs=1e-9)


# ------------------------------------------------------------------- Flower's own, by messages
SHAPES = {"a": (2, 3), "b": (4,)}
POINTS = (10, 30, 25)
ROUNDS = 3

#: Flower works in float32, we add in float64: some roundings of weights of size 1.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


class ThreeNodes:
    """All of a grid that Flower's strategies ask for to make their requests."""

    def get_node_ids(self):
        return [101, 102, 103]


def replies_of_rounds() -> list[list[dict[str, np.ndarray]]]:
    """The weights that three clients reply in each of three rounds, float32."""
    rng = np.random.default_rng(4)

    def weights():
        return {n: rng.normal(scale=0.5, size=s).astype(np.float32) for n, s in SHAPES.items()}

    return [[weights() for _ in POINTS] for _ in range(ROUNDS)]


def packed(arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def flowers(strategy) -> list[dict[str, np.ndarray]]:
    """The models after each round of a strategy of Flower's, on its own messages."""
    flower_compat.enter_run()
    arrays = packed({n: np.full(s, 0.25, dtype=np.float32) for n, s in SHAPES.items()})
    models = []
    for number, replied in enumerate(replies_of_rounds(), start=1):
        requests = list(strategy.configure_train(number, arrays, ConfigRecord(), ThreeNodes()))
        # Which of the nodes it wrote to first is chance; the replies come in our order.
        requests.sort(key=lambda request: request.metadata.dst_node_id)
        replies = [
            Message(
                RecordDict({"arrays": packed(w), "metrics": MetricRecord({"num-examples": n})}),
                reply_to=request,
            )
            for request, w, n in zip(requests, replied, POINTS, strict=True)
        ]
        arrays, _ = strategy.aggregate_train(number, replies)
        models.append({name: array.numpy() for name, array in arrays.items()})
    return models


def ours(optimizer) -> list[dict[str, np.ndarray]]:
    """The models after each round: float32 weights, Δ = Σ n_k (w_k − w) / Σ n_k in float64."""
    state = {n: np.full(s, 0.25, dtype=np.float32) for n, s in SHAPES.items()}
    memory = optimizer.begin(state)
    models = []
    for replied in replies_of_rounds():
        delta = {
            name: sum(
                n * (w[name].astype(np.float64) - state[name])
                for n, w in zip(POINTS, replied, strict=True)
            )
            / sum(POINTS)
            for name in SHAPES
        }
        move, memory = optimizer.step(delta, memory)
        state = {name: (state[name] + move[name]).astype(np.float32) for name in SHAPES}
        models.append(state)
    return models


PAIRS = [
    (Sgd(), FedAvg()),
    (Momentum(0.7, 0.8), FedAvgM(server_learning_rate=0.7, server_momentum=0.8)),
    (Momentum(1.0, 0.9), FedAvgM(server_momentum=0.9)),
    (Sgd(0.7), FedAvgM(server_learning_rate=0.7)),
    (Adagrad(0.2, 0.0, 0.1, form="flower"), FedAdagrad(eta=0.2, tau=0.1)),
    (Adam(0.2, 0.9, 0.99, 0.1, form="flower"),
     FedAdam(eta=0.2, beta_1=0.9, beta_2=0.99, tau=0.1)),
    (Adam(0.2, 0.0, 0.5, 1e-3, form="flower"),
     FedAdam(eta=0.2, beta_1=0.0, beta_2=0.5, tau=1e-3)),
    (Yogi(0.2, 0.9, 0.99, 0.1, form="flower"),
     FedYogi(eta=0.2, beta_1=0.9, beta_2=0.99, tau=0.1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "strategy"), PAIRS, ids=[f"{o} {type(s).__name__}" for o, s in PAIRS]
)
def test_equal_to_flowers_own_on_the_same_replies(optimizer, strategy):
    theirs, mine = flowers(strategy), ours(optimizer)
    assert len(theirs) == len(mine) == ROUNDS
    for model, other in zip(mine, theirs, strict=True):
        assert model.keys() == other.keys()
        for name in SHAPES:
            np.testing.assert_allclose(model[name], other[name], **TOLERANCE)
    assert np.abs(mine[-1]["a"] - 0.25).min() > 1e-3  # every weight has moved


@pytest.mark.parametrize(
    ("optimizer", "strategy"),
    [
        (Adagrad(0.2, 0.0, 0.1), FedAdagrad(eta=0.2, tau=0.1)),
        (Adam(0.2, 0.9, 0.99, 0.1), FedAdam(eta=0.2, beta_1=0.9, beta_2=0.99, tau=0.1)),
        (Yogi(0.2, 0.9, 0.99, 0.1), FedYogi(eta=0.2, beta_1=0.9, beta_2=0.99, tau=0.1)),
    ],
    ids=["adagrad", "adam", "yogi"],
)
def test_the_papers_form_is_another(optimizer, strategy):
    """What docs/aggregation.md says of the difference; fails when Flower takes the paper's form."""
    theirs, mine = flowers(strategy), ours(optimizer)
    assert np.abs(theirs[0]["a"] - mine[0]["a"]).max() > 1e-3


# ------------------------------------------------------------------------------- its memory
def drawn(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{n: rng.normal(size=s) for n, s in SHAPES.items()} for _ in range(count)]


@every_optimizer
def test_continued_from_saved_memory_ends_in_the_same_bits(optimizer):
    deltas = drawn(6)
    like = {n: np.zeros(s, dtype=np.float32) for n, s in SHAPES.items()}

    def run(memory, part):
        moves = []
        for delta in part:
            move, memory = optimizer.step(delta, memory)
            moves.append(move)
        return moves, memory

    whole, at_the_end = run(optimizer.begin(like), deltas)
    first, halfway = run(optimizer.begin(like), deltas[:2])
    restored = safetensors.numpy.load(safetensors.numpy.save(halfway))
    second, resumed = run(restored, deltas[2:])
    for one, other in zip(whole, first + second, strict=True):
        for name in SHAPES:
            np.testing.assert_array_equal(one[name], other[name])
    assert at_the_end.keys() == resumed.keys()
    for name, array in at_the_end.items():
        np.testing.assert_array_equal(array, resumed[name])


@every_optimizer
def test_a_step_changes_neither_the_update_nor_the_old_memory(optimizer):
    (delta,) = drawn(1)
    like = {n: np.zeros(s, dtype=np.float32) for n, s in SHAPES.items()}
    memory = optimizer.begin(like)
    _, memory = optimizer.step(delta, memory)
    before = [{n: a.copy() for n, a in arrays.items()} for arrays in (delta, memory)]
    move, after = optimizer.step(delta, memory)
    for arrays, copies in zip((delta, memory), before, strict=True):
        assert arrays.keys() == copies.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, copies[name])
    assert memory.keys() == after.keys()
    assert {n: a.shape for n, a in move.items()} == SHAPES
    assert {a.dtype for a in (*move.values(), *after.values())} == {np.dtype(np.float64)}


def test_the_memory_has_the_names_of_the_weights():
    like = {"w": np.zeros((2, 2), dtype=np.float32)}
    names = {type(o).__name__: set(o.begin(like)) for o in (Sgd(), Momentum(), Adagrad(), Yogi())}
    assert names == {
        "Sgd": set(), "Momentum": {"m.w"}, "Adagrad": {"m.w", "v.w"}, "Yogi": {"m.w", "v.w"}
    }  # fmt: skip
    assert set(Adam().begin(like)) == {"m.w", "v.w"}
    assert set(Adam(form="flower").begin(like)) == {"m.w", "v.w", "t"}
    assert Adam(tau=0.5).begin(like)["v.w"].tolist() == [[0.25, 0.25], [0.25, 0.25]]


# ------------------------------------------------------------------------ the configuration
def test_every_name_of_the_configuration_has_its_optimizer():
    assert set(SERVER_OPTIMIZERS) == set(SETTINGS_OF) == set(get_args(ServerOptimizerName))
    plain = {name: make(Settings()) for name, make in SERVER_OPTIMIZERS.items()}
    assert plain == {
        "sgd": Sgd(), "momentum": Momentum(), "adagrad": Adagrad(), "adam": Adam(), "yogi": Yogi()
    }  # fmt: skip


def test_settings_reach_the_optimizer_that_reads_them():
    settings = Settings(eta=0.5, beta_1=0.25, beta_2=0.75, tau=0.125)
    made = {name: make(settings) for name, make in SERVER_OPTIMIZERS.items()}
    assert made == {
        "sgd": Sgd(0.5),
        "momentum": Momentum(0.5, 0.25),
        "adagrad": Adagrad(0.5, 0.25, 0.125),
        "adam": Adam(0.5, 0.25, 0.75, 0.125),
        "yogi": Yogi(0.5, 0.25, 0.75, 0.125),
    }
    assert SETTINGS_OF["momentum"] == ("eta", "beta_1")
    assert SETTINGS_OF["yogi"] == ("eta", "beta_1", "beta_2", "tau")


def test_adam_with_bias_correction_is_torchs():
    """Δ is the negative gradient; τ is torch's ε."""
    deltas = np.random.default_rng(2).normal(0, 0.1, 30)
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([weight], lr=0.03, betas=(0.8, 0.95), eps=1e-4)
    optimizer = Adam(eta=0.03, beta_1=0.8, beta_2=0.95, tau=1e-4, form="corrected")
    memory, position = optimizer.begin({"w": np.zeros(1)}), 0.0
    for delta in deltas:
        weight.grad = torch.tensor([-delta], dtype=torch.float64)
        reference.step()
        move, memory = optimizer.step({"w": np.array([delta])}, memory)
        position += float(move["w"][0])
        assert position == pytest.approx(float(weight.detach()), rel=1e-12)


def test_falling_steps_by_hand():
    """Four rounds: (1 + cos 0)/2 = 1, (1 + cos π/4)/2, 1/2, (1 + cos 3π/4)/2."""
    root = math.sqrt(0.5)
    falling = Falling(Sgd(2.0), 4)
    memory, moves = falling.begin({"w": np.zeros(1)}), []
    for _ in range(4):
        move, memory = falling.step({"w": np.ones(1)}, memory)
        moves.append(float(move["w"][0]))
    assert moves == pytest.approx([2, 1 + root, 1, 1 - root])


def test_the_settings_ask_for_correction_and_fall():
    made = SERVER_OPTIMIZERS["adam"](Settings(name="fedadam", bias_correction=True))
    assert made.form == "corrected"
    assert SERVER_OPTIMIZERS["adam"](Settings(name="fedadam")).form == "paper"

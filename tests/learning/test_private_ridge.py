"""Private ridge: exact without noise, sensitivity by trial, nothing learned from noise alone."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from fl_inmetro.config.models import Ridge
from fl_inmetro.config.schema import Federation
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.public_scales import public_scales
from fl_inmetro.federation.private_statistics import NoisyStatisticsMerge
from fl_inmetro.federation.progress import begin
from fl_inmetro.federation.roster import enrol
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.learning import private_ridge
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.private_ridge import (
    DEVIATION,
    NAME,
    PrivateRidgeLearner,
    solve_noisy,
    window_statistics,
)
from fl_inmetro.learning.update import Layout, Update, UpdateBlock
from fl_inmetro.learning.work import DpSgd, LocalWork
from fl_inmetro.models.design import Design
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateSums
from tests.engines import ENGINES, grid_of, same_bits
from tests.fleets import clients_of, fleet

SETTINGS = Ridge(features=("lags", "day_profiles"), alpha=1e-3)
SCALES = public_scales(feature_names(SETTINGS.features))
CLIENTS = clients_of(fleet(4))[0]
SECRET = Secret(bytes(range(32)))
LEARNER = PrivateRidgeLearner(SETTINGS, by_client=False)
DESIGNS = [LEARNER.design(client.train[0]).trainable() for client in CLIENTS]
BARE = LocalWork(dp=DpSgd(1.0, 0.0))


def sent(learner: PrivateRidgeLearner, design: Design, z: float = 0.0, name: str = "a") -> Any:
    work = LocalWork(dp=DpSgd(1.0, z))
    arrays, loss = learner.update({}, design, work, 0, secret=SECRET.child(name))
    assert math.isnan(loss)
    return arrays[NAME]


def without(design: Design, rows: slice) -> Design:
    kept = np.ones(len(design.x), dtype=bool)
    kept[rows] = False
    return Design(*(getattr(design, field.name)[kept] for field in fields(design)))


def test_without_noise_and_clipping_it_is_ridge_by_a_plain_loop(monkeypatch):
    monkeypatch.setattr(private_ridge, "WINDOW_NORMS", (1e6, 1e6))
    total = sum(sent(LEARNER, design) for design in DESIGNS)
    count = sum(len(design.x) for design in DESIGNS)
    found = LEARNER.finish({}, {NAME: total / count, DEVIATION: np.zeros(1)})
    gram, moment = 0.0, 0.0
    for design in DESIGNS:
        for x, r, known in zip(design.x, design.residual, design.known, strict=True):
            for row, y, k in zip(x, r, known, strict=True):
                if k:
                    z = np.append((row - SCALES.mean) / SCALES.std, 1.0)
                    gram = gram + np.outer(z, z) / known.sum() / count
                    moment = moment + z * max(-1.0, min(1.0, float(y))) / known.sum() / count
    beta = np.linalg.solve(gram + 1e-3 * np.eye(len(gram)), moment)
    assert found["coefficients"][:-1] == pytest.approx(beta[:-1] / SCALES.std, rel=1e-6, abs=1e-9)
    intercept = beta[-1] - (beta[:-1] / SCALES.std) @ SCALES.mean
    assert found["coefficients"][-1] == pytest.approx(intercept, rel=1e-6)


def test_a_window_by_hand():
    # One feature of public mean 1 and deviation 0.5; rows 1.5 and 2 are u = 1 and 2. E[uu] = 2.5,
    # E[u] = 1.5, and without the identity (1.5, 1.5 √2, 0). Residuals 0.5 and 3, which is cut to
    # 1: E[ur] = (0.5 + 2)/2, E[r] = 0.75.
    x = np.array([[[1.5], [2.0]]], dtype=np.float32)
    r, ones = np.array([[0.5, 3.0]], dtype=np.float32), np.ones((1, 2), dtype=np.float32)
    design = Design(x, ones, np.ones(1), np.zeros(1), r, ones)
    found = window_statistics(design, public_scales(["lag_1d"]))
    assert found[0] == pytest.approx([1.5, 1.5 * math.sqrt(2), 0.0, 1.25, 0.75])


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_windows_that_go_move_a_reply_by_at_most_their_number(group, wild):
    design = DESIGNS[1]
    if wild:
        design = replace(design, x=np.full_like(design.x, 1e6))
    whole = sent(LEARNER, design)
    moved = [
        np.linalg.norm(whole - sent(LEARNER, without(design, slice(first, first + group))))
        for first in range(0, len(design.x) - group, 4)
    ]
    assert max(moved) <= group * (1 + 1e-9)
    if wild and group == 1:
        assert max(moved) > 0.7  # the matrix is as long as it may be


def test_a_client_moves_the_sum_by_at_most_one():
    learner = PrivateRidgeLearner(SETTINGS, by_client=True)
    for design in DESIGNS:
        for x in (design.x, np.full_like(design.x, 1e6)):
            assert np.linalg.norm(sent(learner, replace(design, x=x))) <= 1 + 1e-9
    # A client of no window is like none at all.
    assert not sent(learner, without(DESIGNS[0], slice(None))).any()


def test_noise_of_the_clients_has_the_deviation_it_says():
    bare = sent(LEARNER, DESIGNS[0])
    drawn = np.concatenate([sent(LEARNER, DESIGNS[0], 3.0, f"c{k}") - bare for k in range(30)])
    assert drawn.std() == pytest.approx(3.0, rel=5 / math.sqrt(2 * len(drawn)))
    with pytest.raises(ValueError, match="needs `dp` and a secret"):
        LEARNER.update({}, DESIGNS[0], LocalWork(), 0, secret=SECRET)
    with pytest.raises(ValueError, match="needs `dp` and a secret"):
        LEARNER.update({}, DESIGNS[0], BARE, 0)


def test_noise_alone_solves_to_nearly_nothing():
    size = len(SCALES.mean) + 1
    numbers = size * (size + 1) // 2 + size
    for seed in range(20):
        noise = 5.0 * SECRET.generator("noise", seed).standard_normal(numbers)
        state = LEARNER.finish({}, {NAME: noise, DEVIATION: np.array([5.0])})
        u = state["coefficients"][:-1] * SCALES.std
        # σ√(2d) under the moments: with σ_m / σ_g = 1/16 no coefficient is beyond some percent.
        assert np.abs(u).max() < 0.05


def test_a_matrix_that_noise_has_spoilt_is_solved():
    rng = SECRET.generator("spoilt")
    size = 5
    scales = public_scales([f"lag_{k}d" for k in range(1, size)])
    for deviation in (0.0, 0.1, 10.0):
        matrix = -3.0 + deviation * rng.standard_normal(size * (size + 1) // 2)
        state = solve_noisy(matrix, rng.standard_normal(size), deviation, scales, 0.0)
        assert np.isfinite(state["coefficients"]).all()


def solved(engine: str, protect: Any, z: float) -> tuple[Any, list[Any]]:
    learner = PrivateRidgeLearner(SETTINGS, by_client=protect == "client")
    noted: list[Any] = []
    private = PrivateSums(protect, z, SECRET, lambda *what: noted.append(what))
    workers = [ClientWorker(client, learner) for client in CLIENTS]
    grid = grid_of(engine, workers, secret=SECRET)
    roster, state = enrol(grid, learner, 0, 60, private=private)
    strategy = FederatedStrategy(
        roster,
        NoisyStatisticsMerge(learner, private, roster.windows),
        closed_form=True,
        settings=Federation(num_server_rounds=1, min_clients=1),
        seed=0,
        work=LocalWork(dp=DpSgd(1.0, 0.0 if private.by_client else z)),
    )
    return strategy.run(grid, begin(state), 1, 60.0).state, noted


@pytest.mark.parametrize("z", [0.0, 2.0])
@pytest.mark.parametrize("protect", ["client", "window", "client-day"])
def test_a_round_on_both_engines(protect, z):
    (one, noted), (other, _) = (solved(engine, protect, z) for engine in ENGINES)
    assert same_bits(one, other)
    assert np.isfinite(one["coefficients"]).all()
    assert [what[:2] for what in noted] == [(1, 1.0)]


def test_the_server_divides_by_all_who_enrolled_and_clips_once_more():
    learner = PrivateRidgeLearner(SETTINGS, by_client=True)
    numbers = len(sent(learner, DESIGNS[0]))
    lie = Update("a", {NAME: np.full(numbers, 1e9)}, 1.0, math.nan)
    block = UpdateBlock.stack([lie], Layout.of(lie.arrays))
    private = PrivateSums("client", 0.0, SECRET, lambda *what: None)
    seen: dict[str, Any] = {}

    class Shown(PrivateRidgeLearner):
        def finish(self, state: Any, merged: Any) -> Any:
            seen.update(merged)
            return {}

    shown = Shown(SETTINGS, by_client=True)
    merge = NoisyStatisticsMerge(shown, private, {"a": 3, "b": 4, "c": 5, "d": 6})
    merge({}, [merge.digest(block)], {})
    # One reply of norm 1, of four who enrolled.
    assert np.linalg.norm(seen[NAME]) == pytest.approx(0.25)

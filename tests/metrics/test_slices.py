"""Errors by slices: by hand, and against error sums client by client."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.metrics import Forecast, score_fleet
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.slices import nmae_by


def points(client: list[int], observed: list[float], forecast: list[float]) -> Points:
    count = len(client)
    names = tuple(f"c{k}" for k in range(max(client) + 1))
    return Points(
        names,
        np.array(client, dtype=np.int64),
        np.zeros(count, dtype=np.int64),
        np.arange(count, dtype=np.int64) * 3600,
        Forecast(np.array(forecast)),
        np.array(observed),
    )


def test_by_hand() -> None:
    # c0 has a mean load of 2 kWh: errors 1 and 0 in slice 0, 3 in slice 1. c1 has a mean load of
    # 10 and errors 1 (slice 0) and 5 (slice 1). One point of c0 is unknown.
    #   slice 0: c0 (1 + 0)/2 / 2 = 0.25, c1 1/10 = 0.1; mean 0.175, three points
    #   slice 1: c0 3/1 / 2 = 1.5, c1 5/10 = 0.5; mean 1.0, two points
    own = points([0, 0, 0, 0, 1, 1], [1, 2, 3, np.nan, 5, 15], [2, 2, 6, 9, 4, 10])
    nmae, count = nmae_by(own, np.array([0, 0, 1, 1, 0, 1]), 3)
    assert nmae[:2] == pytest.approx([0.175, 1.0])
    assert np.isnan(nmae[2])
    assert count.tolist() == [3, 2, 0]


def test_a_client_without_load_has_no_share() -> None:
    own = points([0, 0, 1], [0, 0, 2], [1, 1, 1])
    nmae, count = nmae_by(own, np.zeros(3, dtype=np.int64), 1)
    assert nmae == pytest.approx([0.5])
    assert count.tolist() == [3]


@given(st.integers(0, 10_000))
def test_one_slice_is_the_nmae_and_slices_of_a_client_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 60
    client = np.sort(rng.integers(0, 3, size)).tolist()
    observed = rng.gamma(2.0, 1.0, size)
    observed[rng.random(size) < 0.2] = np.nan
    own = points(client, observed.tolist(), rng.gamma(2.0, 1.0, size).tolist())
    if not np.isfinite(observed).any():
        return
    whole, _ = nmae_by(own, np.zeros(size, dtype=np.int64), 1)
    assert whole[0] == pytest.approx(score_fleet(own.sums())["nmae"])
    group = rng.integers(0, 4, size)
    for k, name in enumerate(own.names):
        alone = own.take(own.client == k)
        if not alone.scored.any():
            continue
        parts, count = nmae_by(alone, group[own.client == k], 4)
        there = count > 0
        mean = (parts[there] * count[there]).sum() / count.sum()
        assert mean == pytest.approx(alone.sums()[name].nmae)

"""What the clients of a run follow from: kept whole, begun alike, apart where nothing is shared."""

from __future__ import annotations

import numpy as np
import pytest

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.errors import DataError
from fl_inmetro.learning.adaptive_conformal import Adaptive
from fl_inmetro.learning.conformal import Scores, collect
from fl_inmetro.learning.followed import FollowedFleet, Kept, followed
from fl_inmetro.metrics import Forecast

SETTINGS = Conformal(gamma=0.05, memory_days=10, fleet_days=3.0, levels=(0.1, 0.5, 0.9))
BLOCK = np.broadcast_to(np.arange(24) // 6, (10, 24))


def client(seed: int) -> Scores:
    """Ten days of errors of a client, some far out."""
    errors = np.random.default_rng(seed).standard_t(2, (10, 24))
    return collect(Forecast(np.zeros((10, 24))), errors, np.ones(10), BLOCK, 4, 6.0)


def nobody() -> Scores:
    """Errors of a client without readings."""
    nan = np.full((10, 24), np.nan)
    return collect(Forecast(np.zeros((10, 24))), nan, np.ones(10), BLOCK, 4, 6.0)


CLIENTS = {name: client(seed) for seed, name in enumerate("abc")}


def fleet(*, alone: bool = False) -> FollowedFleet:
    ask = {name: (lambda scores=scores: scores) for name, scores in CLIENTS.items()}
    return followed(ask | {"d": nobody, "e": lambda: None}, SETTINGS, 7200, alone=alone)


def same(one: Adaptive | None, other: Adaptive) -> bool:
    assert one is not None
    alike = (one.mass == other.mass).all() and (one.asked == other.asked).all()
    return bool(alike) and (one.gamma, one.forget) == (other.gamma, other.forget) == (0.05, 0.1)


@pytest.mark.parametrize("again", [False, True])
def test_a_client_begins_with_its_own_errors_and_the_fleets(again: bool) -> None:
    found = fleet()
    if again:
        found = FollowedFleet.unpacked(*found.packed(), SETTINGS)
    total = CLIENTS["a"] + CLIENTS["b"] + CLIENTS["c"]
    for name, own in CLIENTS.items():
        assert same(found.of(name), Adaptive.start(own, total, SETTINGS, 0.05, 0.1))
    for name in ("d", "e", "never seen"):
        assert same(found.of(name), Adaptive.start(None, total, SETTINGS, 0.05, 0.1))
    assert found.since_utc_s == 7200


@pytest.mark.parametrize("again", [False, True])
def test_alone_a_client_has_its_own_errors_or_none(again: bool) -> None:
    found = fleet(alone=True)
    if again:
        found = FollowedFleet.unpacked(*found.packed(), SETTINGS)
    for name, own in CLIENTS.items():
        assert same(found.of(name), Adaptive.start(own, own, SETTINGS, 0.05, 0.1))
    assert found.of("d") is None
    assert found.of("never seen") is None
    assert not found.fleet.n


def test_counts_are_kept_to_the_last_one() -> None:
    scores = CLIENTS["a"]
    kept = Kept.of(scores)
    assert kept.place.size == np.count_nonzero(scores.counts)
    assert (kept.scores(nobody()).counts == scores.counts).all()


def test_a_fleet_of_new_clients_is_kept() -> None:
    plain = FollowedFleet(SETTINGS, 0, CLIENTS["a"], {})
    again = FollowedFleet.unpacked(*plain.packed(), SETTINGS)
    assert again.own == {}
    assert (again.fleet.counts == CLIENTS["a"].counts).all()


@pytest.mark.parametrize("asked", [{}, {"d": nobody}, {"e": lambda: None}])
def test_nothing_to_begin_with_is_an_error(asked: dict) -> None:
    with pytest.raises(DataError, match="FL218"):
        followed(asked, SETTINGS, 0)

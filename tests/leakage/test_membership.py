"""Membership by hand, on planted sums, and under noise against what theory allows."""

import math

import numpy as np
import pytest

from fl_inmetro.leakage.membership import (
    apart,
    clients_told,
    coefficients,
    cosines,
    loss_of_windows,
    told,
    windows_told,
)


def test_losses_by_hand():
    made = np.array([[1.0, 2.0], [1.0, 1.0], [5.0, 5.0], [1.0, 1.0]])
    used = np.array([[2.0, 2.0], [np.nan, 4.0], [np.nan, np.nan], [0.0, 0.0]])
    # (1 + 0)/4; 3/4; nothing known; nothing used.
    np.testing.assert_allclose(loss_of_windows(made, used), [0.25, 0.75, np.nan, np.nan])


def test_a_low_loss_speaks_for_membership():
    found = windows_told([np.array([0.1]), np.array([0.2])], [np.array([0.3, 0.15])], "later", 0)
    # 0.1 is below both, 0.2 below one of two: 3 of 4 pairs.
    assert (found.auc, found.positives, found.negatives) == (0.75, 2, 2)
    assert (found.attack, found.what, found.prior) == ("window-membership", "later", 0.5)


def test_cosines_by_hand():
    found = cosines(np.array([3.0, 4.0]), np.array([[1.0, 0.0], [0.0, -2.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [0.6, -0.8, 0.0])


def test_what_sets_clients_apart_is_across_their_mean():
    references = np.array([[3.0, 1.0], [1.0, -1.0]])
    # Mean (2, 0); off it (1, 1) and (-1, -1); without the part along it (0, 1) and (0, -1).
    np.testing.assert_allclose(apart(references), [[0.0, 1.0], [0.0, -1.0]])
    still = np.array([[1.0], [-1.0]])
    np.testing.assert_allclose(apart(still), still)  # a mean of nothing has no direction


def test_coefficients_by_hand():
    # Orthogonal and of length 1: each coefficient is the product over 1 + 0.1.
    own = np.eye(3)
    np.testing.assert_allclose(coefficients(np.array([1.1, 0.0, 2.2]), own), [1.0, 0.0, 2.0])
    assert not coefficients(np.ones(3), np.zeros((2, 3))).any()


def rounds_of(noise, rounds=200, clients=8, size=64, seed=0):
    """Sums of half of orthonormal updates, and noise; and the updates."""
    rng = np.random.default_rng(seed)
    references = np.linalg.qr(rng.normal(size=(size, clients)))[0].T
    found = []
    for _ in range(rounds):
        drawn = np.zeros(clients, dtype=bool)
        drawn[rng.permutation(clients)[: clients // 2]] = True
        found.append((references[drawn].sum(axis=0) + noise * rng.normal(size=size), drawn))
    return found, references


@pytest.mark.parametrize("all_known", [False, True])
def test_who_is_in_a_sum_without_noise_is_known(all_known):
    rounds, references = rounds_of(0.0, rounds=3)
    found = clients_told(rounds, references, "not-drawn", 0, all_known=all_known)
    assert (found.auc, found.tpr) == (1.0, 1.0)
    assert found.works


@pytest.mark.parametrize("all_known", [False, True])
def test_noise_holds_them_down_to_what_a_gaussian_mechanism_allows(all_known):
    """With noise of z times the length, no test of one client does better than Φ(1/(z√2)).

    That is the area under the trade-off curve of 1/z-Gaussian differential privacy (Dong, Roth
    and Su 2022): N(1/z, 1) against N(0, 1).
    """
    z = 1.0
    rounds, references = rounds_of(z)
    bound = 0.5 * (1 + math.erf(1 / (z * 2)))
    found = clients_told(rounds, references, "not-drawn", 0, all_known=all_known)
    assert 0.6 < found.auc < bound + 0.05  # 1600 scores: a standard error of 0.012
    louder, references = rounds_of(30.0)
    found = clients_told(louder, references, "not-drawn", 0, all_known=all_known)
    assert found.low < 0.5 < found.high + 0.05


def test_rounds_of_other_lengths_are_ranked_apart():
    rounds, references = rounds_of(0.3, rounds=4)
    long = [
        (1e6 * released if k % 2 else released, took) for k, (released, took) in enumerate(rounds)
    ]
    one, other = (clients_told(r, references, "x", 0, all_known=True) for r in (rounds, long))
    assert one.auc == other.auc


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no round"):
        clients_told([], np.eye(2), "x", 0)
    with pytest.raises(ValueError, match="two groups"):
        clients_told([(np.ones(2), np.array([True, True]))], np.eye(2), "x", 0)


def test_the_interval_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=20), rng.normal(size=20)
    assert told("a", "b", up, down, 4) == told("a", "b", up, down, 4)
    assert told("a", "b", up, down, 4) != told("a", "b", up, down, 5)

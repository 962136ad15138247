"""Sums of closed-form replies: what rows can have, and who contradicts all others."""

from __future__ import annotations

import numpy as np
import pytest

from fl_inmetro.learning.sums import Sums, against_all, contradiction, far_off
from fl_inmetro.seeds import derive

TRUE = np.array([1.0, -0.5, 0.2])


def honest(seed, n=400, beta=TRUE, noise=0.5):
    """A client's A, m, s, by a plain loop over its rows."""
    rng = derive(seed, "client")
    gram, moment, square = np.zeros((4, 4)), np.zeros(4), 0.0
    for _ in range(n):
        x = rng.normal(size=3)
        z, r = np.append(x, 1.0), float(x @ beta + noise * rng.normal())
        gram += np.outer(z, z)
        moment += r * z
        square += r * r
    return gram, moment, square


def cohort(*parts):
    return Sums(*(np.array(column) for column in zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def clients():
    return [honest(k) for k in range(10)]


def test_sums_of_rows_contradict_nothing(clients):
    for gram, moment, square in clients:
        assert contradiction(gram, moment, square, 400) == ""
    # One row z = (2, 1), r = 3: A = [[4, 2], [2, 1]], m = (6, 3), s = 9, of rank one.
    gram, moment = np.array([[4.0, 2.0], [2.0, 1.0]]), np.array([6.0, 3.0])
    assert contradiction(gram, moment, 9.0, 1) == ""
    # A moment twice as large breaks Cauchy and Schwarz: 12² > 4 · 9.
    assert "smallest eigenvalue" in contradiction(gram, 2 * moment, 9.0, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, m, s: (g, -1000 * m, s), "smallest eigenvalue"),
        (lambda g, m, s: (g, m, 0.0), "products where all values are zero"),
        (lambda g, m, s: (g, m, -s), "below zero"),
        (lambda g, m, s: (-g, m, s), "it sums -400 points and claims 400"),
        (lambda g, m, s: (2 * g, m, s), "it sums 800 points"),
        (lambda g, m, s: (g + np.triu(np.ones((4, 4)), 1), m, s), "not symmetric"),
        # The last row is n times a mean that the diagonal does not bear.
        (lambda g, m, s: (g + 500 * (np.eye(4)[[3]].T @ np.eye(4)[[0]] + np.eye(4)[[0]].T
                                     @ np.eye(4)[[3]]), m, s), "smallest eigenvalue"),
    ],
)  # fmt: skip
def test_sums_of_no_rows(clients, change, said):
    assert said in contradiction(*change(*clients[0]), 400)


def test_residuals_a_thousand_times_as_large_lie_far_off(clients):
    gram, moment, square = clients[0]
    found = cohort((gram, 1000 * moment, 1e6 * square), *clients[1:])
    far, refused = far_off(found, 100.0)
    assert list(refused) == [0]
    assert "residual" in refused[0]
    assert far[1:].max() < 3
    assert far_off(cohort(*clients), 100.0)[1] == {}


def test_an_honest_cohort_loses_nobody(clients):
    found = cohort(*clients, honest(11, beta=0.5 * TRUE), honest(12, beta=1.6 * TRUE))
    assert against_all(found, far_off(found, 100.0)[0]) == {}


@pytest.mark.parametrize("factor", [-1.0, -3.0, -50.0, 5.0])
@pytest.mark.parametrize("bad", [1, 2, 4])
def test_up_to_four_of_ten_that_turn_their_residuals_are_found(clients, factor, bad):
    """They pass every check of a client by itself, for rows of that kind can be."""
    turned = [(g, factor * m, factor**2 * s) for g, m, s in clients[:bad]]
    for gram, moment, square in turned:
        assert contradiction(gram, moment, square, 400) == ""
    found = cohort(*turned, *clients[bad:])
    assert sorted(against_all(found, far_off(found, 1e9)[0])) == list(range(bad))


def test_rows_that_are_fifty_times_as_long_are_found(clients):
    """Sums as of features 50 times as large would own the matrix of all."""
    long = np.array([50.0, 50.0, 50.0, 1.0])
    gram, moment, square = clients[0]
    found = cohort((gram * np.outer(long, long), moment * long, square), *clients[1:])
    assert list(against_all(found, far_off(found, 1e9)[0])) == [0]


def test_of_two_nobody_can_tell(clients):
    gram, moment, square = clients[0]
    assert against_all(cohort((gram, -moment, square), clients[1]), np.ones(2)) == {}

"""The loss of a group is that of the library's mixture, inverted all at once."""

import math

import numpy as np
import pytest

from fl_inmetro.privacy.group_size import Pair, loss_distribution

pytest.importorskip("dp_accounting")


def mixture(z, q, group, step):
    from dp_accounting.pld import privacy_loss_distribution as pld

    shares = [math.comb(group, i) * q**i * (1 - q) ** (group - i) for i in range(group + 1)]
    places = list(range(group + 1))
    return pld.from_mixture_gaussian_mechanism(
        z, places, shares, value_discretization_interval=step
    )


@pytest.mark.parametrize(
    ("z", "q", "group", "times"),
    [(2.0, 0.1, 5, 20), (10.0, 0.1, 30, 40), (4.0, 0.3, 30, 5), (5.0, 0.9, 3, 5)],
)
def test_epsilon_is_that_of_the_mixture(z, q, group, times):
    ours, theirs = (
        made(z, q, group, 1e-2).self_compose(times).get_epsilon_for_delta(1e-5)
        for made in (loss_distribution, mixture)
    )
    assert ours == pytest.approx(theirs, rel=1e-8)


def test_a_group_of_one_is_a_drawn_record():
    from dp_accounting.pld import privacy_loss_distribution as pld

    one = pld.from_gaussian_mechanism(1.3, sampling_prob=0.05, value_discretization_interval=1e-3)
    for delta in (1e-3, 1e-6):
        ours = loss_distribution(1.3, 0.05, 1, 1e-3).self_compose(30).get_epsilon_for_delta(delta)
        assert ours == pytest.approx(one.self_compose(30).get_epsilon_for_delta(delta), rel=1e-8)


@pytest.mark.parametrize("removed", [True, False])
def test_the_hockey_stick_is_the_integral(removed):
    # sup_S P(S) - e^eps Q(S) is the integral of the positive part of the difference of densities.
    z, q, group = 1.5, 0.2, 4
    x = np.linspace(-25, 30, 400_001)

    def density(k):
        return np.exp(-((x - k) ** 2) / (2 * z * z)) / (z * math.sqrt(2 * math.pi))

    p = sum(
        math.comb(group, k) * q**k * (1 - q) ** (group - k) * density(k) for k in range(group + 1)
    )
    upper, lower = (p, density(0)) if removed else (density(0), p)
    epsilon = np.array([-1.2, -0.5, 0.0, 0.3, 0.7, 2.0])
    by_hand = [np.maximum(upper - math.exp(e) * lower, 0).sum() * (x[1] - x[0]) for e in epsilon]
    found = Pair(z, q, group).hockey_stick(epsilon, removed=removed)
    assert found == pytest.approx(by_hand, abs=1e-9)


def test_the_loss_and_where_it_is_are_inverse():
    pair = Pair(3.0, 0.1, 20)
    losses = np.linspace(-1.9, 12.0, 500)
    assert pair.loss(pair._inverse(losses)) == pytest.approx(losses, abs=1e-12)

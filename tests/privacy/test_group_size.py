"""The loss of a group is that of the library's mixture, inverted all at once."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.privacy.accountant import account, epsilon_rdp
from fl_inmetro.privacy.group_size import Pair, loss_distribution
from fl_inmetro.privacy.mechanism import Gaussian

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


def replaced(z: float, q: float, group: int, times: int) -> float:
    return account((Gaussian(z, q, times, "poisson", group, "replace"),), 1e-5).epsilon_pld


@pytest.mark.parametrize(
    ("z", "q", "group"), [(1.0, 0.1, 1), (8.0, 0.3, 9), (2.0, 0.9, 3), (5.0, 0.02, 30)]
)
def test_the_hockey_stick_of_replaced_records_is_the_integral(z, q, group):
    x = np.linspace(-group - 12 * z, group + 12 * z, 400_001)

    def mixture_at(sign):
        shares = [math.comb(group, k) * q**k * (1 - q) ** (group - k) for k in range(group + 1)]
        parts = (s * np.exp(-((x - sign * k) ** 2) / (2 * z * z)) for k, s in enumerate(shares))
        return sum(parts) / (z * math.sqrt(2 * math.pi))

    old, new = mixture_at(1), mixture_at(-1)
    epsilon = np.array([-2.0, 0.0, 0.5, 1.0, 3.0])
    by_hand = [np.maximum(old - math.exp(e) * new, 0).sum() * (x[1] - x[0]) for e in epsilon]
    found = Pair(z, q, group, replaced=True).hockey_stick(epsilon, removed=True)
    assert found == pytest.approx(by_hand, abs=1e-9)


def test_records_that_are_always_drawn_and_replaced_move_the_sum_by_twice_their_number():
    # Without draws it is one Gaussian, of which the account is exact: 2 g C under noise of z C.
    whole = account((Gaussian(30.0, 1.0, 3, "all", 10),), 1e-5).epsilon_pld
    twice = account((Gaussian(30.0, 1.0, 3, "all", 10, "replace"),), 1e-5).epsilon_pld
    assert twice == account((Gaussian(15.0, 1.0, 3, "all", 10),), 1e-5).epsilon_pld
    assert twice > 2 * whole
    assert replaced(30.0, 1 - 1e-9, 10, 3) == pytest.approx(twice, rel=1e-4)


@pytest.mark.parametrize(("z", "q", "group"), [(1.5, 0.2, 1), (20.0, 0.1, 30), (6.0, 0.6, 5)])
def test_to_replace_costs_more_than_to_leave_out_and_at_most_as_if_noise_were_half(z, q, group):
    left_out = account((Gaussian(z, q, 10, "poisson", group),), 1e-5).epsilon_pld
    half = account((Gaussian(z / 2, q, 10, "poisson", group),), 1e-5).epsilon_pld
    assert left_out < replaced(z, q, group, 10) <= half * 1.0001


def test_the_bound_without_draws_is_above():
    for event in (
        Gaussian(5.0, 0.3, 10, "poisson", 4, "replace"),
        Gaussian(40.0, 0.1, 50, "poisson", 30, "replace"),
    ):
        found = account((event,), 1e-5)
        assert found.relation == "replace"
        assert found.epsilon_pld < found.epsilon_rdp
        everybody = replace(event, sampling="all", sampling_rate=1.0)
        assert found.epsilon_rdp == pytest.approx(epsilon_rdp((everybody,), 1e-5), rel=1e-6)


@pytest.mark.parametrize(("z", "q", "group"), [(0.97, 0.3, 30), (1.0, 0.5, 30), (4.3, 1e-4, 100)])
def test_a_loss_beyond_what_a_double_holds_is_a_number_still(z, q, group):
    found = account((Gaussian(z, q, 1, "poisson", group),), 1e-5)
    assert 0 < found.epsilon_pld < math.inf

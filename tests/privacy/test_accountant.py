"""Epsilon against formulas, plain loops and other libraries; laws of every account."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.accountant import (
    ORDERS,
    account,
    delta_pld,
    delta_rdp,
    epsilon_pld,
    epsilon_rdp,
)
from fl_inmetro.privacy.mechanism import Gaussian

LAWS = settings(max_examples=3, deadline=None)
RATES = st.sampled_from([0.01, 0.05, 0.3, 1.0])
NOISES = st.floats(0.8, 4.0)


def exact_delta(epsilon: float, mu: float) -> float:
    """Balle and Wang 2018, theorem 5: δ of Gaussian noise with sensitivity/deviation μ."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def test_the_example_of_the_issue():
    # Recorded once with dp-accounting 0.6.0 and Opacus 1.6.0: RDP 6.1506, PRV 5.6261 (+ 0.01).
    found = account((Gaussian(1, 0.02, 2000),), 1e-5)
    assert found.epsilon_rdp == pytest.approx(6.15, abs=0.01)
    assert found.epsilon_pld == pytest.approx(5.62, abs=0.01)
    assert found.epsilon == found.epsilon_pld


def test_plain_noise_has_the_exact_loss():
    # μ = 1, ε = 1: Φ(−0.5) − e·Φ(−1.5) = 0.308538 − 2.718282 · 0.066807 = 0.126937.
    assert exact_delta(1, 1) == pytest.approx(0.126937, abs=1e-6)
    # 4 releases with z = 2 are one with z = 1.
    for events in ((Gaussian(1, 1),), (Gaussian(2, 1, 4, "all"),)):
        assert delta_pld(events, 1.0) == pytest.approx(0.126937, rel=1e-3)
        epsilon = epsilon_pld(events, 1e-5)
        assert exact_delta(epsilon, 1) <= 1e-5
        assert exact_delta(epsilon * 0.999, 1) > 1e-5


@pytest.mark.parametrize("z", [0.7, 1.0, 3.0])
def test_rdp_of_plain_noise_by_a_plain_loop(z):
    # Divergence of order α: α/(2 z²); ε as in Canonne, Kamath, Steinke 2020, proposition 12.
    best = min(
        a / (2 * z * z) + math.log1p(-1 / a) - math.log(1e-5 * a) / (a - 1)
        for a in ORDERS
        if a > 1.01
    )
    assert epsilon_rdp((Gaussian(z, 1),), 1e-5) == pytest.approx(best, rel=1e-9)


def test_rdp_of_poisson_draws_by_a_plain_loop():
    q, z, times = 0.01, 2.0, 500

    def divergence(a: int) -> float:
        # E (1 − q + q·L)^α under the null, L log-normal: Σ C(α,k) (1−q)^(α−k) q^k e^(k(k−1)/2z²).
        terms = [
            math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp(k * (k - 1) / (2 * z * z))
            for k in range(a + 1)
        ]
        return math.log(math.fsum(terms)) / (a - 1)

    # By hand for α = 2: 1 + q²·(e^(1/z²) − 1).
    assert divergence(2) == pytest.approx(math.log1p(q * q * math.expm1(1 / (z * z))), rel=1e-6)
    epsilons = {
        a: times * divergence(a) + math.log1p(-1 / a) - math.log(1e-5 * a) / (a - 1)
        for a in range(2, 60)
    }
    assert min(epsilons, key=epsilons.__getitem__) > 11  # whole orders only, from there on
    assert epsilon_rdp((Gaussian(z, q, times),), 1e-5) == pytest.approx(
        min(epsilons.values()), rel=1e-6
    )


@pytest.mark.parametrize(("q", "z"), [(0.02, 1.0), (0.3, 0.7), (0.01, 4.0)])
def test_divergences_by_integration_are_the_binomial_sums(q, z):
    from fl_inmetro.privacy.renyi import poisson_divergence

    for a in (2, 3, 7):
        terms = [
            math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp(k * (k - 1) / (2 * z * z))
            for k in range(a + 1)
        ]
        by_sum = math.log1p(math.fsum(terms) - 1) / (a - 1)
        assert poisson_divergence(a, z, q) == pytest.approx(by_sum, rel=1e-8, abs=1e-12)
    # Between whole orders (α − 1)·D is convex.
    middle = [(a - 1) * poisson_divergence(a, z, q) for a in (1.5, 2.0, 2.5)]
    assert middle[1] < (middle[0] + middle[2]) / 2


#: q, z, rounds, δ; ε of Opacus 1.6.0's RDP accountant (at our orders) and of its PRV accountant
#: (error 0.2 %; None where e^ε is beyond a float of its). Recorded, because that package also
#: installs a top-level `examples`, which would hide this repository's.
OPACUS = [
    (0.01, 0.5, 1, 1e-05, 4.39518, 3.02524),
    (0.01, 1.0, 100, 1e-06, 1.50739, 0.954217),
    (0.01, 2.0, 5000, 1e-05, 1.61313, 1.47738),
    (0.01, 5.0, 1, 1e-06, 0.0400103, 0.0082159),
    (0.02, 0.5, 100, 1e-06, 13.506, 11.5577),
    (0.02, 1.0, 5000, 1e-05, 10.1849, 9.40185),
    (0.02, 2.0, 1, 1e-06, 0.315977, 0.0952542),
    (0.02, 5.0, 100, 1e-05, 0.147497, 0.131168),
    (0.1, 0.5, 5000, 1e-05, 459.458, 434.89),
    (0.1, 1.0, 1, 1e-06, 2.58259, 2.18169),
    (0.1, 2.0, 100, 1e-05, 2.58057, 2.3374),
    (0.1, 5.0, 5000, 1e-06, 7.89846, 7.40485),
    (0.3, 0.5, 1, 1e-06, 9.99285, 9.28315),
    (0.3, 1.0, 100, 1e-05, 24.506, 22.5235),
    (0.3, 2.0, 5000, 1e-06, 117.678, 112.689),
    (0.3, 5.0, 1, 1e-05, 0.287807, 0.248571),
    (0.5, 0.5, 100, 1e-05, 146.716, 137.161),
    (0.5, 1.0, 5000, 1e-06, 915.456, None),
    (0.5, 2.0, 1, 1e-05, 1.5228, 1.35357),
    (0.5, 5.0, 100, 1e-06, 5.38129, 5.02212),
]


@pytest.mark.parametrize(("q", "z", "times", "delta", "rdp", "prv"), OPACUS)
def test_two_other_accountants_agree(q, z, times, delta, rdp, prv):
    found = account((Gaussian(z, q, times),), delta)
    assert found.epsilon_rdp == pytest.approx(rdp, rel=1e-4)
    if prv is not None:
        assert found.epsilon_pld == pytest.approx(prv, rel=0.01, abs=2e-4)


# ------------------------------------------------------------------------ draws of a fixed number
def test_one_draw_of_a_fixed_number_has_the_closed_form():
    # Balle, Barthe, Gaboardi 2018, theorem 9: δ = q·H at e^ε' = 1 + (e^ε − 1)/q. With z = 2 the
    # ratio is μ = 2/2 = 1; q = 0.5, ε = ln 2: e^ε' = 3; δ = 0.5·[Φ(0.5 − ln 3) − 3·Φ(−0.5 − ln 3)]
    # = 0.5·[Φ(−0.598612) − 3·Φ(−1.598612)] = 0.5·[0.274716 − 3·0.054953] = 0.054928.
    event = (Gaussian(2, 0.5, 1, "without-replacement"),)
    by_hand = 0.5 * exact_delta(math.log(3), 1)
    assert by_hand == pytest.approx(0.054928, abs=2e-6)
    assert delta_pld(event, math.log(2)) == pytest.approx(by_hand, rel=1e-3)
    # With everybody in it, it is plain noise over 2 C.
    whole = (Gaussian(2, 1, 3, "without-replacement"),)
    plain = epsilon_pld((Gaussian(1, 1, 3),), 1e-5)
    assert epsilon_pld(whole, 1e-5) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(("q", "z", "times"), [(0.1, 2.0, 50), (0.3, 4.0, 20), (0.05, 1.0, 5)])
def test_no_federation_exceeds_the_bound_of_draws_of_a_fixed_number(q, z, times):
    """Losses of two real pairs of neighbours lie below it, and Rényi's looser bound above."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    found = account((Gaussian(z, q, times, "without-replacement"),), 1e-5)
    # All others send −C; one sends C or −C. Drawn or not, the sum moves by 2 C or stays: the same
    # pair as of one record more or less under Poisson draws with z/2.
    others_against = epsilon_pld((Gaussian(z / 2, q, times),), 1e-5)
    # All others send 0; one sends C or −C.
    pair = from_gaussian_mechanism(
        z,
        value_discretization_interval=1e-3,
        sampling_prob=q,
        neighboring_relation=NeighboringRelation.REPLACE_ONE,
    )
    others_nothing = pair.self_compose(times).get_epsilon_for_delta(1e-5)
    assert max(others_against, others_nothing) <= found.epsilon_pld * 1.0005
    assert found.epsilon_pld < found.epsilon_rdp
    # And it is no bound of nothing: the worst pair comes near.
    assert found.epsilon_pld < 1.2 * max(others_against, others_nothing)
    # To call it Poisson would promise far more.
    assert epsilon_pld((Gaussian(z, q, times),), 1e-5) < 0.7 * found.epsilon_pld


# ------------------------------------------------------------------------------- groups of records
def test_a_day_of_windows_is_a_mixture():
    """One release, three windows of a day, each drawn with q: δ by numerical integration."""
    q, z, k, epsilon = 0.2, 1.5, 3, 0.5
    shares = [math.comb(k, i) * q**i * (1 - q) ** (k - i) for i in range(k + 1)]

    def excess(x: float, more: bool) -> float:
        mixed = sum(p * norm.pdf(x, i, z) for i, p in enumerate(shares))
        plain = norm.pdf(x, 0, z)
        first, second = (mixed, plain) if more else (plain, mixed)
        return max(0.0, first - math.exp(epsilon) * second)

    delta = max(quad(excess, -20, 25, (more,), limit=400)[0] for more in (True, False))
    event = (Gaussian(z, q, 1, group=k),)
    assert delta_pld(event, epsilon) == pytest.approx(delta, rel=2e-3)
    assert delta_rdp(event, epsilon) > delta
    # Without draws a group of three is one record that weighs three times as much.
    assert account((Gaussian(6, 1, 9, group=3),), 1e-5) == account((Gaussian(2, 1, 9),), 1e-5)


def test_a_group_costs_more_than_one_and_less_than_its_plain_bound():
    one = account((Gaussian(4, 0.02, 300),), 1e-5)
    day = account((Gaussian(4, 0.02, 300, group=8),), 1e-5)
    assert one.epsilon < day.epsilon_pld < day.epsilon_rdp


# -------------------------------------------------------------------------------------------- laws
@LAWS
@given(NOISES, RATES, st.integers(1, 300), st.floats(1.05, 3))
def test_less_noise_more_rounds_and_higher_rates_cost_more(z, q, times, factor):
    base = account((Gaussian(z, q, times),), 1e-5)
    dearer = (
        Gaussian(z / factor, q, times),
        Gaussian(z, q, math.ceil(times * factor)),
        Gaussian(z, min(1.0, q * factor), times),
    )
    for event in dearer:
        other = account((event,), 1e-5)
        assert other.epsilon_rdp >= base.epsilon_rdp * (1 - 1e-6)
        assert other.epsilon_pld >= base.epsilon_pld * (1 - 2e-3)
    assert epsilon_rdp((Gaussian(z, q, times),), 1e-6) > base.epsilon_rdp


@LAWS
@given(NOISES, RATES, st.integers(1, 100), st.integers(1, 100))
def test_rounds_add_up_however_they_are_told(z, q, first, second):
    apart = (Gaussian(z, q, first), Gaussian(z, q, second))
    whole = account((Gaussian(z, q, first + second),), 1e-5)
    for events in (apart, apart[::-1]):
        found = account(events, 1e-5)
        assert found.epsilon_rdp == pytest.approx(whole.epsilon_rdp, rel=1e-9)
        assert found.epsilon_pld == pytest.approx(whole.epsilon_pld, rel=1e-6)


@LAWS
@given(NOISES, st.integers(1, 200))
def test_a_rate_of_one_is_no_draw(z, times):
    poisson, everybody = (
        account((Gaussian(z, 1, times, how),), 1e-5) for how in ("poisson", "all")
    )
    assert poisson == everybody


@LAWS
@given(st.floats(0.8, 3), st.sampled_from([0.02, 0.2, 1.0]), st.integers(1, 100))
def test_delta_turns_epsilon_back(z, q, times):
    events = (Gaussian(z, q, times),)
    assert delta_rdp(events, epsilon_rdp(events, 1e-5)) <= 1e-5 * (1 + 1e-6)
    # PLD uses another grid for another question: both are bounds.
    assert delta_pld(events, epsilon_pld(events, 1e-5)) == pytest.approx(1e-5, rel=0.02)


def test_unlike_rounds_cost_more_than_the_cheapest_and_less_than_the_dearest():
    rounds = tuple(Gaussian(1.0 + r / 10, 0.05 + r / 100) for r in range(10))
    total = account(rounds, 1e-5)
    cheap = account((Gaussian(1.9, 0.05, 10),), 1e-5)
    dear = account((Gaussian(1.0, 0.14, 10),), 1e-5)
    assert cheap.epsilon_pld < total.epsilon_pld < dear.epsilon_pld
    assert cheap.epsilon_rdp < total.epsilon_rdp < dear.epsilon_rdp


def test_nothing_costs_nothing_and_no_noise_costs_all():
    for events in ((), (Gaussian(1, 0.0, 10),), (Gaussian(0, 0.1, 0),)):
        assert account(events, 1e-5).epsilon == 0
        assert (delta_rdp(events, 0.5), delta_pld(events, 0.5)) == (0, 0)
    for events in ((Gaussian(0, 0.1),), (Gaussian(5, 1, 1), Gaussian(0, 1, 1, "all"))):
        assert account(events, 1e-5).epsilon == math.inf
        assert (delta_rdp(events, 0.5), delta_pld(events, 0.5)) == (1, 1)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_lies_between_zero_and_one(delta):
    with pytest.raises(PrivacyError, match="FL401"):
        account((Gaussian(1, 0.1),), delta)


def test_epsilon_is_no_negative_number():
    for epsilon in (-1.0, math.inf, math.nan):
        for function in (delta_rdp, delta_pld):
            with pytest.raises(PrivacyError, match="FL401"):
                function((Gaussian(1, 0.1),), epsilon)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(PrivacyError, match=r"FL403.*(?s:.)*pip install \"fl-inmetro\[privacy\]\""):
        account((Gaussian(1, 0.1),), 1e-5)


def test_the_bound_of_fixed_draws_is_convex_and_falls():
    """Only then is it the loss of some pair of distributions, and composes."""
    from fl_inmetro.privacy.fixed_size import hockey_stick

    ratio = np.linspace(0.01, 5, 4001)
    bound = hockey_stick(np.log(ratio), 1.3, 0.2)
    assert (np.diff(bound) <= 1e-12).all()
    assert (np.diff(bound, 2) >= -1e-12).all()
    assert (bound >= np.maximum(1 - ratio, 0) - 1e-12).all()

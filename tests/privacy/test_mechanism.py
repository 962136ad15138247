"""Spending as values: what adds up, which relation it has, what a short round really had."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.mechanism import (
    Gaussian,
    noise_of_round,
    parts,
    relation_of,
    windows_touching,
)

DRAWN = st.builds(
    Gaussian,
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.01, 0.2, 1.0]),
    st.integers(0, 5),
)


@given(st.lists(DRAWN, max_size=6), st.randoms())
def test_the_order_of_rounds_and_their_splitting_change_nothing(events, random):
    shuffled = [
        g for e in events for g in [Gaussian(e.noise_multiplier, e.sampling_rate)] * e.times
    ]
    random.shuffle(shuffled)
    assert parts(shuffled).drawn == parts(events).drawn
    assert parts(shuffled).precision == pytest.approx(parts(events).precision)


def test_rounds_of_all_clients_are_one_gaussian():
    # (1/2)² · 3 + (1/4)² · 4 = 0.75 + 0.25 = 1: as one release with z = 1.
    found = parts([Gaussian(2, 1, 3, "all"), Gaussian(4, 1, 4, "all")])
    assert (found.precision, found.drawn, found.relation) == (1.0, (), "add-remove")
    # Replacing one record moves the sum by 2 C: four times the squared ratio.
    assert parts([Gaussian(2, 1, 1, "without-replacement")]).precision == 1.0
    # A group of 3 moves it by 3 C.
    assert parts([Gaussian(3, 1, 1, "all", group=3)]).precision == 1.0


def test_the_relation_follows_the_draws():
    assert relation_of([]) == "add-remove"
    assert relation_of([Gaussian(1, 0.1), Gaussian(1, 1, 1, "all")]) == "add-remove"
    fixed = Gaussian(1, 0.1, 1, "without-replacement")
    assert relation_of([fixed, Gaussian(1, 1, 1, "all")]) == "replace"
    with pytest.raises(PrivacyError, match="FL402"):
        relation_of([fixed, Gaussian(1, 0.1)])
    # A day's windows are replaced; what is beside them counts as replaced too, but not by draws.
    day = Gaussian(1, 0.1, 1, "poisson", 5, "replace")
    assert relation_of([day, Gaussian(1, 1, 1, "all")]) == "replace"
    with pytest.raises(PrivacyError, match="FL402"):
        relation_of([day, Gaussian(1, 0.1)])
    with pytest.raises(PrivacyError, match="FL402"):
        relation_of([day, fixed])
    # 5 windows in every sum, moved by 2 C each, under noise of 2 C: (2 * 5 / 2)^2.
    assert parts([Gaussian(2, 1, 1, "all", 5, "replace")]).precision == 25.0
    # A round that never was has no relation.
    assert relation_of([fixed, Gaussian(1, 0.1, 0)]) == "replace"


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        # z C on the sum, divided by 10 whoever answers.
        ("sum", 1.0),
        # One of ten shares: variance C²/10 over a change of C.
        ("shares", math.sqrt(0.1)),
        # C/10 of noise in a mean of one, which that one changes by C.
        ("mean", 0.1),
    ],
)
def test_a_round_that_one_of_ten_answered(noise, expected):
    assert noise_of_round(1.0, 10, 1, noise) == pytest.approx(expected)
    assert noise_of_round(1.0, 10, 10, noise) == 1.0


@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_windows_of_a_day_are_the_most_over_all_places_of_the_day(span, stride, day):
    def touching(first: int) -> int:
        begins = range(-20 * stride - span, first + day + span, 1)
        return sum(s % stride == 0 and s < first + day and s + span > first for s in begins)

    assert windows_touching(span, stride, day) == max(touching(first) for first in range(stride))


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ((-1, 0.1), 1),
        ((math.nan, 2.0), 2),
        ((1, 0.1, -1), 1),
        ((1, 0.1, 1, "all"), 1),
        ((1, 0.1, 1, "shuffled"), 1),
        ((1, 0.1, 1, "without-replacement", 2), 1),
        ((1, 0.1, 1, "poisson", 0), 1),
    ],
)
def test_values_without_meaning_are_all_named_at_once(values, faults):
    with pytest.raises(PrivacyError) as caught:
        Gaussian(*values)
    assert [fault.code for fault in caught.value.faults] == ["FL401"] * faults


@pytest.mark.parametrize("values", [(1, 0, 0, "sum"), (-1, 1, 1, "sum"), (1, 1, 1, "none")])
def test_no_such_round(values):
    with pytest.raises(PrivacyError, match="FL401"):
        noise_of_round(*values)


def test_no_such_windows():
    with pytest.raises(PrivacyError, match="FL401"):
        windows_touching(0, 1, 24)

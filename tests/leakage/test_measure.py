"""Errors and areas by hand, beside plain loops and scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fl_inmetro.leakage.measure import (
    auc,
    auc_interval,
    auc_interval_of_clients,
    nrmse,
    smape,
    tpr_at_fpr,
)

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=8)


def test_errors_by_hand():
    # Errors 1, -1, 2, 0 of true values of mean 2: sqrt(6/4)/2.
    true = [1.0, 2.0, 3.0, 2.0]
    guess = [2.0, 1.0, 5.0, 2.0]
    assert nrmse(guess, true) == pytest.approx(1.5**0.5 / 2)
    # 2·1/3, 2·1/3, 2·2/8 and 0: (2/3 + 2/3 + 1/2)/4.
    assert smape(guess, true) == pytest.approx((4 / 3 + 0.5) / 4)


def test_smape_at_its_ends():
    assert smape([0.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)  # 0 where both are 0, else 2
    assert smape([-1.0], [1.0]) == 2.0
    assert smape([3.0], [3.0]) == 0.0


def test_the_interval_of_clients_is_of_clients():
    rng = np.random.default_rng(0)
    # Two clients a side; windows within a client are copies. By windows the AUC of 1/2 would look
    # certain; by clients every value from 0 to 1 is drawn: (1,1) against (0,0) or (2,2).
    up, down = [np.full(50, 1.0), np.full(50, 1.0)], [np.full(50, 0.0), np.full(50, 2.0)]
    assert auc_interval(np.concatenate(up), np.concatenate(down), rng)[0] > 0.3
    assert auc_interval_of_clients(up, [*down, np.full(50, 2.0)], rng) == (0.0, 1.0)
    # The same clients on both sides are drawn together: each against itself and the others.
    alike = [np.arange(4.0), np.arange(4.0)]
    assert auc_interval_of_clients(alike, alike, rng) == (0.5, 0.5)
    # One client says nothing.
    assert auc_interval_of_clients(up[:1], down, rng) == (0.0, 1.0)


def test_what_is_not_known_is_left_out():
    assert nrmse([2.0, 5.0], [1.0, np.nan]) == 1.0
    # A guess that is no number is no guess: half of one must not look like a good one.
    assert nrmse([2.0, np.nan], [1.0, 9.0]) == np.inf
    assert smape([1.0, np.nan], [1.0, 9.0]) == 2.0
    with pytest.raises(ValueError, match="no value"):
        smape([1.0], [np.nan])
    with pytest.raises(ValueError, match="shape"):
        nrmse([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="above 0"):
        nrmse([1.0, 1.0], [-1.0, 1.0])


def test_area_of_five_numbers_by_hand():
    # Pairs: 3 > 1, 3 > 2; 2 > 1, 2 = 2; 0 < 1, 0 < 2: 3.5 of 6.
    assert auc([3, 2, 0], [1, 2]) == pytest.approx(3.5 / 6)


def test_share_found_of_five_numbers_by_hand():
    # None of two negatives may pass: above 2 lies one positive of three.
    assert tpr_at_fpr([3, 2, 0], [1, 2], 0.01) == pytest.approx(1 / 3)
    # One of two may: above 1 lie two.
    assert tpr_at_fpr([3, 2, 0], [1, 2], 0.5) == pytest.approx(2 / 3)


def test_a_hundredth_of_a_hundred_is_one():
    negatives = np.arange(100.0)
    # One may pass the threshold: it is the second largest, 98.
    assert tpr_at_fpr([98.0, 98.5, 99.5, 1.0], negatives, 0.01) == pytest.approx(0.5)
    # .29·100 is 28.999… in doubles; 29 may pass, so 70 is the threshold.
    assert tpr_at_fpr([70.5, 70.0], negatives, 0.29) == pytest.approx(0.5)


@given(SCORES, SCORES)
def test_area_is_that_of_a_loop_over_pairs(up, down):
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(up, down)]
    assert auc(up, down) == pytest.approx(sum(pairs) / len(pairs))
    labels = [1] * len(up) + [0] * len(down)
    assert auc(up, down) == pytest.approx(roc_auc_score(labels, [*up, *down]))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.99]))
def test_no_more_than_allowed_pass(up, down, fpr):
    # The largest share of positives over all thresholds at which few enough negatives pass.
    allowed = [
        (np.array(up) > t).mean() for t in [-9, *up, *down] if (np.array(down) > t).mean() <= fpr
    ]
    assert tpr_at_fpr(up, down, fpr) == pytest.approx(max(allowed))


def test_area_over_all_orders_of_five_scores_is_one_half():
    """Scores that mean nothing: over all 120 orders the mean is one half exactly."""
    found = [auc(order[:2], order[2:]) for order in itertools.permutations(range(5))]
    assert np.mean(found) == pytest.approx(0.5, abs=1e-12)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    # N(1, 1) against N(0, 1): the area is Φ(1/√2) = 0.7602.
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        low, high = auc_interval(rng.normal(1, 1, 40), rng.normal(0, 1, 40), rng, draws=300)
        held += low <= 0.7602 <= high
    # 60 of chance .95: fewer than 51 have a chance of 2e-3, and of chance .6 more than 50 of 1e-4.
    assert held >= 51


def test_a_few_scores_on_one_side_do_not_prove_much():
    # Wilson's lower end for 5 of 5: 5/(5 + 1.96²).
    rng = np.random.default_rng(0)
    low, high = auc_interval(np.arange(5) + 10.0, np.arange(7.0), rng)
    assert (low, high) == (pytest.approx(5 / (5 + 1.959964**2)), 1.0)
    low, high = auc_interval(np.arange(7.0), np.arange(5) + 10.0, rng)
    assert (low, high) == (0.0, pytest.approx(1 - 5 / (5 + 1.959964**2)))


def test_groups_that_cannot_be_compared():
    with pytest.raises(ValueError, match="two groups"):
        auc([], [1.0])
    with pytest.raises(ValueError, match="finite"):
        auc([np.nan], [1.0])
    with pytest.raises(ValueError, match="false positive rate"):
        tpr_at_fpr([1.0], [0.0], 1.0)

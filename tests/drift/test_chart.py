"""CUSUM by hand, its run lengths against tables and simulation, and the limit that is chosen."""

import numpy as np
import pytest
from scipy import stats

from fl_inmetro.drift.chart import Signal, cusum, limit_for, normal_scores, run_length, usable_days
from fl_inmetro.errors import FederationError
from fl_inmetro.seeds import derive

MANY = 20_000
#: Scores of a reference so long that they are normal.
NORMAL = normal_scores(MANY)
ALIKE = np.full((1, MANY + 1), 1 / (MANY + 1))


def test_ten_numbers_by_hand():
    """k = 0.5, limit 3.

    Up: 0.2 − 0.5 < 0 → 0; 0.7; 0.7 − 0.9 < 0 → 0; 1.5; 2.5; 2.1; 3.8 > 3, told, again from 0; 0;
    0; 0. It was last zero on the third day: since the fourth (place 3).
    Down: 0 up to the seventh; 3 − 0.5 = 2.5; 2.5 + 1.5 = 4 > 3, told, again from 0; 1.5.
    """
    scores = np.array([0.2, 1.2, -0.4, 2.0, 1.5, 0.1, 2.2, -3.0, -2.0, -2.0])
    path = cusum(scores, 0.5, 3.0)
    assert path.up == pytest.approx([0, 0.7, 0, 1.5, 2.5, 2.1, 3.8, 0, 0, 0])
    assert path.down == pytest.approx([0, 0, 0, 0, 0, 0, 0, 2.5, 4.0, 1.5])
    assert path.signals == (Signal(6, 3, up=True), Signal(8, 7, up=False))


def test_a_day_without_a_score_changes_nothing():
    scores = np.array([2.0, 2.0, 0.1, 2.0])
    with_gaps = np.array([np.nan, 2.0, np.nan, np.nan, 2.0, 0.1, np.nan, 2.0])
    plain, gapped = cusum(scores, 0.5, 4.0), cusum(with_gaps, 0.5, 4.0)
    assert gapped.up[np.isfinite(with_gaps)] == pytest.approx(plain.up)
    # The first score is on the second day; 1.5, 3.0, 2.6, 4.1 > 4.
    assert gapped.signals == (Signal(7, 1, up=True),)


def test_scores_of_ranks():
    # Ranks 0, 1, 2 among two: Φ⁻¹ of 1/6, 3/6, 5/6.
    assert normal_scores(2) == pytest.approx(stats.norm.ppf([1 / 6, 1 / 2, 5 / 6]))


@pytest.mark.parametrize(
    ("k", "limit", "two_sided"),
    [(0.5, 4.0, 168.0), (0.5, 5.0, 465.0)],
)
def test_run_lengths_are_those_of_the_tables(k, limit, two_sided):
    """Montgomery, Introduction to Statistical Quality Control, table of the tabular CUSUM.

    Two sides of the same law halve the run length (1/ARL adds up).
    """
    found = float(run_length(NORMAL, ALIKE, k, limit)[0]) / 2
    assert found == pytest.approx(two_sided, rel=0.005)


@pytest.mark.parametrize(("shift", "delay"), [(0.5, 38.0), (1.0, 10.4), (2.0, 4.01)])
def test_delays_are_those_of_the_tables(shift, delay):
    """The same table, limit 5, k = 0.5: mean days to an alarm after a shift."""
    found = float(run_length(NORMAL + shift, ALIKE, 0.5, 5.0)[0])
    assert found == pytest.approx(delay, rel=0.005)


def simulated_rates(n: int, k: float, limit: float, paths: int, days: int) -> np.ndarray:
    """Alarms per day of one sum on each path; every path has a reference of its own."""
    rng = derive(3, "simulated", n)
    reference = np.sort(rng.exponential(size=(paths, n)), axis=1)  # any law: only ranks count
    total, alarms = np.zeros(paths), np.zeros(paths)
    for _ in range(days):
        value = rng.exponential(size=paths)
        rank = (reference < value[:, None]).sum(axis=1)
        total = np.maximum(0.0, total + stats.norm.ppf((rank + 0.5) / (n + 1)) - k)
        told = total > limit
        alarms += told
        total[told] = 0.0
    return alarms / days


def test_the_chosen_time_between_false_alarms_is_kept():
    """Exponential readings, references of 353 days, one alarm in 200 days.

    The promise itself is an average over 256 drawn references; both errors are in the band.
    """
    limit = limit_for(353, 0.5, 200.0)
    rates = simulated_rates(353, 0.5, limit, paths=300, days=600)
    error = rates.std(ddof=1) / np.sqrt(rates.size)
    drawn = 0.05 / 200  # error of the promise: 256 draws whose rates differ by some 50 %
    assert abs(rates.mean() - 1 / 200) < 3 * np.hypot(error, drawn)
    # A limit for independent normal scores, which knows no reference, would be too low.
    assert limit > 3.5


def test_a_short_reference_has_a_higher_limit():
    assert limit_for(28, 0.75, 20_000.0) > limit_for(353, 0.75, 20_000.0) + 1


def test_a_planted_shift_is_found_as_fast_as_theory_says():
    """Two deviations up, on a reference of 353 days that is itself drawn.

    The law of a score after the shift: P(rank r) = Φ(q_{r+1} − 2) − Φ(q_r − 2), with q at r / n.
    """
    n, k, limit, shift = 353, 0.75, 5.0, 2.0
    edges = stats.norm.ppf(np.arange(n + 2) / (n + 1))
    weights = np.diff(stats.norm.cdf(edges - shift))[None, :]
    theory = float(run_length(normal_scores(n), weights, k, limit)[0])
    delays = []
    for number in range(400):
        rng = derive(4, "delay", number)
        reference = np.sort(rng.normal(size=n))
        rank = np.searchsorted(reference, rng.normal(shift, 1, 60))
        path = cusum(normal_scores(n)[rank], k, limit)
        delays.append(path.signals[0].day + 1)
        assert path.signals[0].up
    error = float(np.std(delays, ddof=1)) / np.sqrt(len(delays))
    assert abs(np.mean(delays) - theory) < 3 * error
    assert 4 < theory < 6


def test_limits_are_shared_and_never_lower():
    assert [usable_days(n) for n in (28, 29, 30, 365)] == [28, 28, 29, 353]
    assert all(usable_days(n) <= n for n in range(28, 800))


def test_what_cannot_be_promised_is_refused():
    with pytest.raises(FederationError) as caught:
        limit_for(28, 0.1, 1e9)
    assert caught.value.faults[0].code == "FL357"


def test_the_highest_limits_are_tried_before_giving_up():
    """32 is too low here and 64 beyond the highest, 60; what is right lies between."""
    assert 32 < limit_for(30, 0.5, 182_500) < 60

"""What is usual, learnt from reference days: memory, ranks, livelier times."""

import numpy as np
import pytest
from scipy import stats

from fl_inmetro.drift.yardstick import Yardstick
from fl_inmetro.seeds import derive


def ar1(weight: float, days: int, *name: str | int) -> np.ndarray:
    noise = derive(2, "ar1", *name).normal(size=days)
    values = np.zeros(days)
    for day in range(1, days):
        values[day] = weight * values[day - 1] + noise[day]
    return values


def test_a_score_is_that_of_the_rank():
    """29 days are too few to learn a memory from: deviations alone are ranked.

    A value between the 20th and the 21st of 29 has rank 20: Φ⁻¹(20.5 / 30); one that equals the
    median (rank 14 or 15) is between the two scores, which are alike around zero.
    """
    reference = derive(2, "reference").permutation(np.arange(29.0))
    yardstick = Yardstick.of(reference)
    assert yardstick is not None
    assert yardstick.memory.size == 0
    scores = yardstick.scores(np.array([19.5, 14.0, 1e9, -1e9]))
    wanted = [*stats.norm.ppf([20.5 / 30]), 0.0, *stats.norm.ppf([29.5 / 30, 0.5 / 30])]
    assert scores == pytest.approx(wanted, abs=1e-12)


def test_the_memory_is_that_of_the_reference():
    values = ar1(0.6, 3000, "memory")
    yardstick = Yardstick.of(values)
    assert yardstick is not None
    # Standard error of the first weight: √((1 − 0.36) / 3000) = 0.015.
    assert yardstick.memory[0] == pytest.approx(0.6, abs=0.05)
    assert np.abs(yardstick.memory[1:]).max() < 0.08
    scores = yardstick.scores(ar1(0.6, 3000, "new"))
    known = scores[np.isfinite(scores)]
    assert np.corrcoef(known[1:], known[:-1])[0, 1] == pytest.approx(0, abs=0.08)


def test_the_memory_solves_the_equations_of_yule_and_walker():
    """The Toeplitz system of the biased autocovariances, each a plain loop, by SciPy's solver."""
    from scipy.linalg import solve_toeplitz

    values = ar1(0.4, 400, "peer")
    yardstick = Yardstick.of(values)
    assert yardstick is not None
    cut = np.clip(values - np.median(values), -yardstick.farthest, yardstick.farthest)
    covariance = [sum(cut[i] * cut[i + lag] for i in range(400 - lag)) / 400 for lag in range(8)]
    wanted = solve_toeplitz(covariance[:7], covariance[1:])
    assert yardstick.memory == pytest.approx(wanted, abs=1e-10)
    # 4 robust deviations: 1.4826 times the median absolute deviation each.
    mad = np.median(np.abs(values - np.median(values)))
    assert yardstick.farthest == pytest.approx(4 * 1.4826 * mad)


def test_livelier_weeks_are_no_change_of_their_own():
    rng = derive(2, "lively")
    reference, calm, lively = rng.normal(size=300), rng.normal(size=200), 3 * rng.normal(size=200)
    yardstick = Yardstick.of(reference)
    assert yardstick is not None
    scores = yardstick.scores(np.concatenate([reference, calm, lively]))
    # After 63 days of them the last 56 have the root mean square of the scores themselves: about 1.
    assert np.sqrt(np.mean(scores[570:] ** 2)) == pytest.approx(1, abs=0.2)
    # Scores are cut where the reference ends, so that the first of them are larger, not endless.
    assert np.sqrt(np.mean(scores[500:507] ** 2)) > 1.2


def test_unknown_days_have_no_score_and_do_no_harm():
    values = ar1(0.5, 200, "gaps")
    values[50:60] = np.nan
    yardstick = Yardstick.of(values)
    assert yardstick is not None
    assert yardstick.usual.size == 190
    scores = yardstick.scores(values)
    assert np.isnan(scores[50:60]).all()
    assert np.isfinite(np.delete(scores, range(50, 60))).all()


def test_a_number_that_never_changes_has_scores_of_zero_until_it_does():
    yardstick = Yardstick.of(np.zeros(40))
    assert yardstick is not None
    # Equal to all of them: in the middle; above all of them: the highest score there is.
    assert yardstick.scores(np.array([0.0, 1.0])) == pytest.approx([0, stats.norm.ppf(40.5 / 41)])


def test_too_few_days_give_none():
    assert Yardstick.of(np.append(np.arange(27.0), [np.nan] * 30)) is None
    assert Yardstick.of(np.arange(28.0)) is not None

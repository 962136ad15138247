"""The step of a series and its grid; numbers by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fl_inmetro.data.cleaning.steps import find_steps, place_on_grid, resample, snap

H = 3600


def test_step_is_found_among_gaps_jitter_and_disorder() -> None:
    stamps = np.delete(np.arange(0, 200) * 900, [5, 6, 7, 80]) + 100_000 * 900
    rng = np.random.default_rng(0)
    jittered = rng.permutation(stamps + rng.integers(-5, 6, stamps.size))
    steps = find_steps(jittered, False)
    assert (steps.fine_s, steps.coarse_s) == (900, 900)
    assert set(steps.own_s.tolist()) == {900}


def test_step_that_changes_is_seen_and_a_row_of_gaps_is_not() -> None:
    fine = np.arange(0, 96 * 5) * 900
    coarse = 96 * 5 * 900 + np.arange(0, 24 * 10) * H
    steps = find_steps(np.concatenate((fine, coarse)), False)
    assert (steps.fine_s, steps.coarse_s) == (900, H)
    assert steps.own_s.tolist() == [900] * fine.size + [H] * coarse.size
    # 23 lone hours among a month of quarter hours: one too few, and far too small a share.
    gappy = np.concatenate((np.arange(0, 96 * 30) * 900, 96 * 30 * 900 + np.arange(0, 23) * H))
    assert find_steps(gappy, False).coarse_s == 900
    # Thirty of them are a run, but still only 30 of 750 hours.
    gappy = np.concatenate((np.arange(0, 96 * 30) * 900, 96 * 30 * 900 + np.arange(0, 31) * H))
    assert find_steps(gappy, False).coarse_s == 900


def test_end_stamps_take_the_distance_to_the_stamp_before() -> None:
    fine = np.arange(1, 96 * 5 + 1) * 900
    coarse = 96 * 5 * 900 + np.arange(1, 24 * 10 + 1) * H
    steps = find_steps(np.concatenate((fine, coarse)), True)
    assert steps.own_s.tolist() == [900] * fine.size + [H] * coarse.size


def test_one_stamp_has_no_step() -> None:
    assert find_steps(np.array([5, 5]), False).fine_s == 0


def test_snap_moves_seconds_and_leaves_minutes() -> None:
    onto, moved, off = snap(np.array([0, 903, 1797, 2700, 3600 + 420]), 900)
    assert onto.tolist() == [0, 900, 1800, 2700, 4020]
    assert moved.tolist() == [False, True, True, False, False]
    assert off.tolist() == [False, False, False, False, True]


def test_grid_sums_only_whole_steps() -> None:
    # Quarters 0, 15, 30, 45 make the hour 0; the hour 1 lacks one quarter; hour 2 is one reading.
    utc = np.array([0, 900, 1800, 2700, 3600, 4500, 5400, 7200])
    own = np.array([900] * 7 + [3600])
    energy = np.array([1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 9.0])
    start, grid = place_on_grid(utc, own, energy, H)
    assert start == 0
    np.testing.assert_array_equal(grid, [10.0, np.nan, 9.0])


def test_resample_agrees_with_pandas() -> None:
    rng = np.random.default_rng(1)
    energy = rng.random(4 * 50 + 3)
    energy[rng.integers(0, energy.size, 20)] = np.nan
    start = 3 * 900
    index = pd.to_datetime(start + np.arange(energy.size) * 900, unit="s")
    series = pd.Series(energy, index)
    bins = series.resample("h")
    expected = bins.sum().where(bins.count() == 4)
    first, summed = resample(start, energy, 900, H)
    assert first == 0
    np.testing.assert_allclose(summed, expected.to_numpy(), rtol=1e-12)
    assert np.isnan(summed).sum() > 5

"""Scores by hand, the monoid of error sums, and an independent MASE."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_inmetro.metrics import (
    SUM_NAMES,
    ErrorSums,
    client_scores,
    naive_scale,
    score_fleet,
    share_better,
    share_harmed,
)
from fl_inmetro.metrics.sums import COUNTS

NAN = float("nan")
LOADS = st.floats(0, 1e4)


def test_scores_by_hand():
    # forecast 2 5 2 6, target 1 3 4 4: errors +1 +2 −2 +2.
    sums = ErrorSums.of(np.array([2.0, 5, 2, 6]), np.array([1.0, 3, 4, 4]))
    assert (sums.n, sums.n_load) == (4, 4)
    assert sums.abs_kwh == 7  # 1+2+2+2
    assert sums.sq_kwh2 == 13  # 1+4+4+4
    assert sums.err_kwh == 3  # 1+2−2+2
    assert sums.y_kwh == sums.load_kwh == 12
    assert sums.mae_kwh == 7 / 4
    assert sums.rmse_kwh == pytest.approx(math.sqrt(13 / 4))
    assert sums.mean_kwh == 3
    assert sums.nmae == pytest.approx(7 / 12)  # (7/4)/3
    assert sums.nrmse == pytest.approx(math.sqrt(13 / 4) / 3)
    assert sums.wmape == pytest.approx(7 / 12)
    assert sums.bias == pytest.approx(3 / 12)


def test_a_missing_forecast_counts_in_the_mean_load_and_a_missing_target_in_nothing():
    # Scored: points 0 and 3 (errors 1, −2). Point 1 has a load of 9 but no forecast; point 2 has a
    # forecast but no load. MAE = 3/2; mean load of the window = (1 + 9 + 2)/3 = 4; nMAE = 3/8.
    # wMAPE has the scored load only: 3/(1 + 2) = 1.
    sums = ErrorSums.of(np.array([2.0, NAN, 7, 0]), np.array([1.0, 9, NAN, 2]))
    assert (sums.n, sums.n_load) == (2, 3)
    assert sums.nmae == pytest.approx(3 / 8)
    assert sums.wmape == pytest.approx(1.0)
    assert sums.bias == pytest.approx(-1 / 3)


def test_mase_by_hand():
    # Season of 2 steps; past 1 2 4 NaN 5 7: |4−1| = 3, (NaN−2), |5−4| = 1, (7−NaN): scale 4/2 = 2.
    scale = naive_scale(np.array([1.0, 2, 4, NAN, 5, 7]), 2)
    assert (scale.n_naive, scale.naive_abs_kwh) == (2, 4)
    sums = ErrorSums.of(np.array([3.0]), np.array([6.0]), scale)
    assert sums.mase == pytest.approx(3 / 2)


def test_no_scale_without_a_season_of_past():
    assert naive_scale(np.arange(2.0), 2) == ErrorSums()
    assert math.isnan(ErrorSums.of(np.array([1.0]), np.array([2.0])).mase)


def test_mase_equals_pandas_week_difference():
    rng = np.random.default_rng(5)
    past = rng.uniform(0, 3, 400)
    past[rng.random(400) < 0.1] = NAN
    target, forecast = rng.uniform(0, 3, 24), rng.uniform(0, 3, 24)
    hours = pd.date_range("2024-01-01", periods=400, freq="h")
    frame = pd.Series(past, index=hours)
    scale = (frame - frame.shift(freq="168h").reindex(hours)).abs().mean()
    expected = (pd.Series(forecast) - pd.Series(target)).abs().mean() / scale
    sums = ErrorSums.of(forecast, target, naive_scale(past, 168))
    assert sums.mase == pytest.approx(expected, rel=1e-12)


def test_nothing_scored_gives_nan_and_not_an_error():
    for value in client_scores(ErrorSums()).values():
        assert math.isnan(value) or value == 0
    assert score_fleet({})["clients"] == 0
    assert math.isnan(score_fleet({})["nmae"])


# -------------------------------------------------------------------------------- monoid
SUMS = st.builds(
    lambda numbers, counts: ErrorSums(
        **{n: counts.pop() if n in COUNTS else numbers.pop() for n in SUM_NAMES}
    ),
    st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=10),
    st.lists(st.integers(0, 10**6), min_size=5, max_size=5),
)


def close(a: ErrorSums, b: ErrorSums) -> bool:
    # Values up to 1e6, three additions: rounding stays below 1e-8.
    return all(getattr(a, n) == pytest.approx(getattr(b, n), rel=1e-9, abs=1e-8) for n in SUM_NAMES)


@given(SUMS, SUMS, SUMS)
def test_sums_are_a_commutative_monoid(a, b, c):
    assert close(a + b, b + a)
    assert close((a + b) + c, a + (b + c))
    assert a + ErrorSums() == a == ErrorSums() + a


@given(
    arrays(np.float64, 12, elements=LOADS | st.just(NAN)),
    arrays(np.float64, 12, elements=LOADS | st.just(NAN)),
    st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
def test_any_partition_merges_to_the_whole(forecast, target, parts):
    part_of = np.array(parts)
    pieces = [ErrorSums.of(forecast[part_of == k], target[part_of == k]) for k in range(4)]
    assert close(sum(pieces, start=ErrorSums()), ErrorSums.of(forecast, target))


# --------------------------------------------------------------------------------- fleet
def client(errors: float, load: float, points: int = 1) -> ErrorSums:
    return ErrorSums(
        n=points, abs_kwh=errors, sq_kwh2=errors**2, y_kwh=load, n_load=points, load_kwh=load
    )


def test_fleet_means_weigh_clients_or_points():
    # nMAE 1/10 and (8/2)/(8/2) = 1, mean 0.55: each client once. wMAPE (1+8)/(10+8) = 0.5 and
    # MAE 9/3 = 3: each point once. RMSE = √((1 + 64)/3).
    scores = score_fleet({"a": client(1, 10), "b": client(8, 8, points=2)})
    assert scores["nmae"] == pytest.approx(0.55)
    assert scores["wmape"] == pytest.approx(0.5)
    assert scores["mae_kwh"] == pytest.approx(3)
    assert scores["rmse_kwh"] == pytest.approx(math.sqrt(65 / 3))
    assert scores["nrmse"] == pytest.approx((1 / 10 + math.sqrt(32) / 4) / 2)
    assert (scores["clients"], scores["points"]) == (2, 3)


def test_worst_decile():
    # Twenty clients of nMAE 0.01 … 0.20: the worst two are 0.19 and 0.20.
    fleet = {f"c{k:02d}": client(k, 100) for k in range(1, 21)}
    assert score_fleet(fleet)["worst_decile_nmae"] == pytest.approx(0.195)
    # Of three clients the worst one counts: at least one always does.
    few = {name: fleet[name] for name in ("c01", "c07", "c13")}
    assert score_fleet(few)["worst_decile_nmae"] == pytest.approx(0.13)


def test_clients_that_cannot_be_scaled_count_in_the_point_scores_only():
    # A client with no load, and one that sends more to the grid than it takes (mean −1 kWh).
    fleet = {"a": client(1, 10), "dark": client(1, 0), "solar": client(1, -1)}
    scores = score_fleet(fleet)
    assert scores["nmae"] == pytest.approx(0.1)
    assert scores["mae_kwh"] == pytest.approx(1)
    assert scores["wmape"] == pytest.approx(3 / 9)
    assert math.isnan(fleet["solar"].nmae)
    assert math.isnan(fleet["solar"].nrmse)


def test_share_better_counts_strict_wins_of_clients_scored_by_both():
    ours = {"a": client(1, 9), "b": client(2, 9), "c": client(3, 9), "only": client(1, 9)}
    theirs = {"a": client(2, 9), "b": client(2, 9), "c": client(2, 9), "none": ErrorSums()}
    assert share_better(ours, theirs) == pytest.approx(1 / 3)  # a wins, b ties, c loses
    # A margin of 60 % asks a for less than 0.8.
    assert share_better(ours, theirs, margin=0.6) == 0
    assert math.isnan(share_better(ours, {}))


@st.composite
def segments(draw):
    """Forecasts and targets of several meters behind each other, with holes in both."""
    counts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    shape = (sum(counts), draw(st.integers(1, 3)))
    values = st.one_of(LOADS, st.just(NAN))
    forecast, target = (draw(arrays(np.float64, shape, elements=values)) for _ in range(2))
    scaled = [draw(st.booleans()) for _ in counts]
    scales = [naive_scale(np.arange(12.0) ** 2, 3) if one else None for one in scaled]
    return forecast, target, np.array(counts, dtype=np.int64), scales


@given(segments())
def test_segments_at_once_are_segments_one_by_one(made):
    forecast, target, counts, scales = made
    together = ErrorSums.of_segments(forecast, target, counts, scales)
    ends = np.cumsum(counts)
    assert len(together) == len(counts)
    for sums, end, count, scale in zip(together, ends, counts, scales, strict=True):
        own = slice(end - count, end)
        alone = ErrorSums.of(forecast[own], target[own], scale)
        for name in SUM_NAMES:
            value, expected = getattr(sums, name), getattr(alone, name)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-9), name
            assert type(value) is type(expected)


def test_segments_by_hand():
    # Errors 1, −2 | none | 3 (its other target is unknown, and no error counts there).
    forecast = np.array([[2.0, 1], [4, 7]])
    target = np.array([[1.0, 3], [1, NAN]])
    first, empty, last = ErrorSums.of_segments(
        forecast, target, np.array([1, 0, 1]), [None, None, None]
    )
    assert (first.n, first.abs_kwh, first.sq_kwh2, first.err_kwh, first.y_kwh) == (2, 3, 5, -1, 4)
    assert empty == ErrorSums()
    assert (last.n, last.abs_kwh, last.n_load, last.load_kwh) == (1, 3, 1, 1)


def test_share_harmed_counts_losses_beyond_the_margin():
    # MAE 1.005, 1.02, 0.5 against 1, 1, 1: only b loses more than 1 %; at a margin of 0, a too.
    ours = {"a": client(1.005, 9), "b": client(1.02, 9), "c": client(0.5, 9), "d": client(9, 9)}
    theirs = {name: client(1, 9) for name in "abc"}
    assert share_harmed(ours, theirs) == pytest.approx(1 / 3)
    assert share_harmed(ours, theirs, margin=0) == pytest.approx(2 / 3)
    assert math.isnan(share_harmed(ours, {}))

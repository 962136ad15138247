"""Sums by fold against all the points at once: the same scores, slices and tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.backtest.cells import Cells, FoldCells, common_cells
from fl_inmetro.backtest.chance import paired_by_seed
from fl_inmetro.backtest.scores import scores_of, slices_of
from fl_inmetro.backtest.sums import Clock, RowSums
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.points import Points
from fl_inmetro.units import DAY_S, HOUR_S
from tests.backtest import points_oracle

#: 2024-02-12 00:00 UTC; the folds end in March.
START = 19_765 * DAY_S
LEVELS = (0.1, 0.5, 0.9)
CLOCK = Clock(HOUR_S, 18 * HOUR_S, "America/Sao_Paulo")


def fold(seed: int, first_day: int, *, missing: float, levels: bool = True) -> Points:
    """Seven days of some of 12 clients, rows in any order; some loads and forecasts are unknown.

    The loads of a client and an instant are the same with every seed.
    """
    rng = np.random.default_rng([seed, first_day])
    names = tuple(f"c{k:02d}" for k in range(first_day % 3, 12))
    grid = np.meshgrid(np.arange(len(names)), np.arange(7), np.arange(24), indexing="ij")
    client, day, hour = (axis.reshape(-1) for axis in grid)
    issue = START + (first_day + day) * DAY_S
    target = issue + (18 + hour) * HOUR_S
    own = np.array([int(name[1:]) for name in names])[client]
    load = 1.0 + own + np.abs(np.sin(target / 7e4 + own)) + (target // HOUR_S * 37 % 11) / 11
    load[(target // HOUR_S + own) % 41 == 0] = np.nan
    # The last client measures what it feeds in: no scale.
    load[own == 11] *= -1
    quantiles = np.sort(load[:, None] + rng.normal(0.1, 0.7, (load.size, 3)), axis=1)
    quantiles[rng.random(load.size) < missing] = np.nan
    mean = np.where(np.isnan(quantiles[:, 1]), np.nan, load + rng.normal(0, 0.7, load.size))
    forecast = Forecast(mean, LEVELS, quantiles) if levels else Forecast(mean)
    found = Points(names, client, issue, target, forecast, load)
    return found.take(rng.permutation(load.size))


def row(seed: int, missing: float = 0.05, levels: tuple[bool, ...] = (True,) * 3) -> list[Points]:
    return [
        fold(seed, 7 * k, missing=missing, levels=with_levels)
        for k, with_levels in enumerate(levels)
    ]


def summed(parts: list[Points]) -> RowSums:
    found = RowSums.of(range(len(parts)), parts.__getitem__, CLOCK, 3)
    assert found is not None
    return found


def cells(parts: list[Points]) -> Cells:
    return summed(parts).cells


@pytest.mark.parametrize("levels", [(True,) * 3, (False,) * 3, (True, False, True)])
def test_scores_and_slices_are_those_of_all_points(levels: tuple[bool, ...]) -> None:
    parts = row(1, levels=levels)
    plain = points_oracle.row(parts)
    alone = points_oracle.row(row(2)).points.sums()
    found, wanted = summed(parts), points_oracle.scores_of(plain, CLOCK, alone)
    own = scores_of(found, alone)
    assert own.keys() == wanted.keys()
    for name, value in wanted.items():
        assert own[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name
    assert np.isnan(own["pinball"]) == (not all(levels))
    # Not one score is idle: another row has others.
    assert own["nmae"] != scores_of(summed(row(3, levels=levels)), alone)["nmae"]
    slices, every = slices_of(found), points_oracle.slices_of(plain, CLOCK, 3)
    assert list(slices) == list(every)
    for by, groups in every.items():
        assert list(slices[by]) == list(groups)
        for key, (nmae, count) in groups.items():
            assert slices[by][key] == (pytest.approx(nmae, rel=1e-12, nan_ok=True), count)
    assert len(every["age"]) == 3
    assert len(every["month"]) == 2


@pytest.mark.parametrize("missing", [0.0, 0.002, 0.4])
def test_losses_are_those_of_a_loop_over_the_points(missing: float) -> None:
    """Without a gap every cell is summed once; with many each one is read again."""
    rows = {
        name: {seed: row(10 * place + seed, missing) for seed in (0, 1)}
        for place, name in enumerate(("ours", "theirs"))
    }
    found = paired_by_seed(*({s: cells(p) for s, p in own.items()} for own in rows.values()))
    joined = [{s: points_oracle.joined(p) for s, p in own.items()} for own in rows.values()]
    for seed, losses in enumerate(found):
        plain = points_oracle.daily_losses(joined[0], joined[1], seed)
        load = {}
        for (name, _), (_, _, kwh, _) in plain.items():
            load[name] = load.get(name, 0.0) + kwh
        names = sorted(name for name, kwh in load.items() if kwh > 0)
        days = sorted({issue for _, issue in plain})
        assert losses.clients == tuple(names)
        assert losses.days.tolist() == days
        excess = np.zeros((len(names), len(days)))
        pairs = 0
        for (name, issue), (ours, theirs, _, count) in plain.items():
            if name in names:
                excess[names.index(name), days.index(issue)] = (ours - theirs) / load[name]
                pairs += count
        np.testing.assert_allclose(losses.excess, excess * len(days), rtol=1e-12, atol=1e-12)
        assert losses.points == pairs
        assert losses.overlap == 1  # 41 h from the issue to the last step
    assert len(found) == 2
    assert "c11" not in found[0].clients


def test_only_cells_that_differ_are_read_again() -> None:
    parts = row(1, 0.0)
    first = parts[1].names[0]
    gap = parts[1].take(~((parts[1].client == 0) & (parts[1].target_utc_s % DAY_S == 15 * HOUR_S)))
    reads: list[int] = []

    def read(number: int) -> Points:
        reads.append(number)
        return (parts[0], gap, parts[2])[number]

    other = RowSums.of(range(3), read, CLOCK)
    assert other is not None
    reads.clear()
    ours, theirs = common_cells([cells(parts), other.cells])
    assert reads == [1]
    np.testing.assert_array_equal(ours.count, theirs.count)
    place = ours.names.index(first)
    fewer = (ours.client == place) & (ours.issue_utc_s >= START + 7 * DAY_S)
    fewer &= ours.issue_utc_s < START + 14 * DAY_S
    # 24 hours, 15:00 not among them; some loads are not known.
    assert ours.count[fewer].max() == 23
    assert ours.count.max() == 24
    assert paired_by_seed({0: cells(parts)}, {0: other.cells})[0].difference == 0


def test_a_step_that_comes_twice_counts_once() -> None:
    one = fold(1, 0, missing=0.0)
    twice = one.take(np.r_[np.arange(len(one)), np.arange(50)])
    for name in ("count", "error_kwh", "mark"):
        own, plain = (getattr(FoldCells.of(points), name) for points in (twice, one))
        np.testing.assert_array_equal(own, plain)


def test_a_mark_tells_which_steps_are_scored() -> None:
    """Of as many steps, one of them another: other marks; in any order the same."""
    one = fold(1, 0, missing=0.0)
    one = one.take(np.isfinite(one.observed_kwh) & (one.client == 2))
    hour = (one.target_utc_s - one.issue_utc_s) // HOUR_S
    early, late = (FoldCells.of(one.take(hour != k)) for k in (20, 21))
    both = np.isin(early.issue_utc_s, late.issue_utc_s)
    same = early.count[both] == late.count
    assert same.sum() > 3
    assert not (early.mark[both] == late.mark)[same].any()
    mixed = one.take(np.random.default_rng(0).permutation(len(one)))
    np.testing.assert_array_equal(FoldCells.of(mixed).mark, FoldCells.of(one).mark)


def test_a_row_without_forecasts_is_none() -> None:
    one = fold(1, 0, missing=0.0)
    assert RowSums.of([0, 1], lambda _: None, CLOCK) is None
    found = RowSums.of([0, 1], lambda k: one if k else None, CLOCK)
    assert found is not None
    assert list(found.cells.folds) == [1]
    nothing = replace(one, observed_kwh=np.full(len(one), np.nan))
    empty = RowSums.of([0], lambda _: nothing, CLOCK)
    assert empty is not None
    assert np.isnan(scores_of(empty)["nmae"])
    assert paired_by_seed({0: empty.cells}, {0: found.cells}) == []

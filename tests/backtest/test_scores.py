"""Scores over folds and seeds: by hand, and what is more than chance against the plain test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fl_inmetro.backtest.cells import Cells, FoldCells
from fl_inmetro.backtest.chance import paired_by_seed, pairs_of
from fl_inmetro.backtest.chance import tested as held_against
from fl_inmetro.backtest.scores import (
    _with_ratios,
    age_days_of,
    mean_and_spread,
    scores_of,
    slices_of,
)
from fl_inmetro.backtest.sums import Clock, RowSums
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.points import Points
from fl_inmetro.metrics.significance import (
    bootstrap_bounds,
    mean_losses,
    paired_losses,
    panel_test,
)
from fl_inmetro.runs.points import points_of
from fl_inmetro.seeds import derive
from fl_inmetro.units import DAY_S, HOUR_S
from tests.backtest.points_oracle import joined

#: 2024-02-26 00:00 UTC, a Monday, three days before the end of February.
MONDAY = int(datetime(2024, 2, 26, tzinfo=UTC).timestamp())


def made(
    names: Sequence[str],
    days: Sequence[int],
    errors: dict[str, float],
    *,
    lead_h: int = 0,
    noise: int | None = None,
) -> Points:
    """24 hours for each client and day; the load is 1 … 24 kWh, the error a constant (+ noise)."""
    rows = [(k, d, h) for k in range(len(names)) for d in days for h in range(24)]
    client, day, hour = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    begin = MONDAY + day * DAY_S
    load = 1.0 + hour
    error = np.array([errors[names[k]] for k in client])
    if noise is not None:
        error = error + np.random.default_rng(noise).normal(0.0, 1.0, error.size)
    issue = begin - lead_h * HOUR_S
    return Points(tuple(names), client, issue, begin + hour * HOUR_S, Forecast(load + error), load)


def row(parts: list[Points], clock: Clock, age_days: int = 7) -> RowSums:
    found = RowSums.of(range(len(parts)), parts.__getitem__, clock, age_days)
    assert found is not None
    return found


def by_seed(rows: dict[int, Points]) -> dict[int, Cells]:
    return {seed: cells(points) for seed, points in rows.items()}


def cells(*parts: Points) -> Cells:
    return Cells({k: FoldCells.of(part) for k, part in enumerate(parts)}, parts.__getitem__)


def test_mean_and_spread_by_hand() -> None:
    # 2, 4, 9: mean 5; squares 9 + 1 + 16 = 26, over two degrees of freedom 13.
    mean, spread = mean_and_spread([2.0, 4.0, 9.0])
    assert (mean, spread) == (5.0, pytest.approx(13**0.5))
    assert np.std([2.0, 4.0, 9.0], ddof=1) == pytest.approx(spread)
    mean, spread = mean_and_spread([2.0])
    assert mean == 2.0
    assert np.isnan(spread)
    assert np.isnan(mean_and_spread([float("nan")])[0])
    assert mean_and_spread([1.0, float("nan"), 3.0])[0] == 2.0


def test_scores_over_two_folds_by_hand() -> None:
    # The mean load is 12.5 kWh. Client a errs by 1 in the first fold and by 3 in the second, of
    # the same length: 2 / 12.5 = 0.16. b is there in the second alone, by 5: 0.4. Mean 0.28, worst
    # tenth (one client) 0.4. The fleet is a in the first fold, by 1 of 12.5 kWh, and a + b in the
    # second, by 8 of 25: (1 + 8) / (12.5 + 25) = 0.24. All peaks are at 23:00, too high by the
    # error, of 24 kWh: a (1/24 + 3/24)/2, b 5/24; the mean of the two.
    found = scores_of(
        row(
            [made(["a"], [0, 1], {"a": 1.0}), made(["a", "b"], [2, 3], {"a": 3.0, "b": 5.0})],
            Clock(HOUR_S, 0, "UTC"),
        )
    )
    assert found["nmae"] == pytest.approx(0.28)
    assert found["worst_decile_nmae"] == pytest.approx(0.4)
    assert found["fleet_nmae"] == pytest.approx(0.24)
    assert found["peak_hit"] == found["fleet_peak_hit"] == 1.0
    assert found["peak_size"] == pytest.approx((2 / 24 + 5 / 24) / 2)
    assert found["fleet_peak_size"] == pytest.approx((1 / 24 * 24 + 8 / 48 * 48) / 2 / 36)
    assert (found["clients"], found["points"]) == (2, 6 * 24)
    assert np.isnan(found["pinball"])
    assert np.isnan(found["harmed"])
    # Alone a would err by 1.99 on average, b by 4.9: 2 is within 1 % of the one, 5 is not of the
    # other.
    alone = joined([made(["a"], [0], {"a": 1.99}), made(["b"], [0], {"b": 4.9})]).sums()
    parts = [made(["a", "b"], [0], {"a": 2.0, "b": 5.0})]
    assert scores_of(row(parts, Clock(HOUR_S, 0, "UTC")), alone)["harmed"] == 0.5


def test_slices_by_hand() -> None:
    # Issued at 06:00 of the day before for a day. Delivered are Mon 26 … Wed 28 February and, after
    # another training, Thu 29 and Fri 1 March; the error is 1 in the first fold, 2 in the second.
    parts = [
        made(["a"], [0, 1, 2], {"a": 1.0}, lead_h=18),
        made(["a"], [3, 4], {"a": 2.0}, lead_h=18),
    ]
    found = slices_of(row(parts, Clock(HOUR_S, 18 * HOUR_S, "UTC")))
    assert {k: (pytest.approx(v[0] * 12.5), v[1]) for k, v in found["month"].items()} == {
        "2024-02": ((3 * 1 + 2) / 4, 4 * 24),
        "2024-03": (2.0, 24),
    }
    assert list(found["lead"]) == ["19-24", "25-30", "31-36", "37-42"]
    assert all(v == (pytest.approx(7 / 5 / 12.5), 30) for v in found["lead"].values())
    assert {k: v[0] * 12.5 for k, v in found["weekday"].items()} == pytest.approx(
        {"0": 1.0, "1": 1.0, "2": 1.0, "3": 2.0, "4": 2.0}
    )
    assert found["age"] == {"0-6": (pytest.approx(7 / 5 / 12.5), 120)}
    # A training that is used for nine days: two of them are of the second week.
    old = slices_of(row([made(["a"], list(range(9)), {"a": 1.0})], Clock(HOUR_S, 0, "UTC")))
    assert {k: v[1] for k, v in old["age"].items()} == {"0-6": 7 * 24, "7-13": 2 * 24}
    assert (age_days_of(56), age_days_of(57)) == (7, 28)
    long = row([made(["a"], list(range(30)), {"a": 1.0})], Clock(HOUR_S, 0, "UTC"), 28)
    found_28 = slices_of(long)["age"]
    assert {k: v[1] for k, v in found_28.items()} == {"0-27": 28 * 24, "28-55": 2 * 24}


def test_months_and_weekdays_are_those_of_the_local_clock() -> None:
    # 2024-02-26 00:00 UTC is Sunday evening in São Paulo.
    found = slices_of(row([made(["a"], [0], {"a": 1.0})], Clock(HOUR_S, 0, "America/Sao_Paulo")))
    assert {k: v[1] for k, v in found["weekday"].items()} == {"0": 21, "6": 3}


def test_ratios_are_to_the_best_baseline_of_the_slice() -> None:
    base = {"by": "age", "slice": "0-6", "points": 1, "nmae_sd": None}
    slices = [
        {**base, "model": "sn24", "training": "baseline", "nmae": 0.5},
        {**base, "model": "ha4", "training": "baseline", "nmae": 0.4},
        {**base, "model": "mlp", "training": "local", "nmae": 0.3},
    ]
    rows = [
        {"model": one["model"], "training": one["training"], "nmae": one["nmae"]} for one in slices
    ]
    # The best over the whole backtest is ha4.
    found = _with_ratios([dict(one) for one in slices], rows)
    assert [one["ratio"] for one in found] == pytest.approx([1.25, 1.0, 0.75])
    alone = _with_ratios([dict(slices[2])], rows[2:])
    assert alone[0]["ratio"] is None


def test_joined_points_keep_their_clients() -> None:
    both = joined([made(["b"], [0], {"b": 1.0}), made(["a", "b"], [1], {"a": 2.0, "b": 3.0})])
    assert both.names == ("a", "b")
    errors = both.forecast.mean_kwh - both.observed_kwh
    assert errors[both.client == 0].tolist() == pytest.approx([2.0] * 24)
    assert errors[both.client == 1].tolist() == pytest.approx([1.0] * 24 + [3.0] * 24)


# --------------------------------------------------------------------------------- chance
def noisy(seed: int, level: float) -> Points:
    return made(["a", "b"], list(range(30)), {"a": level, "b": level}, noise=seed)


def test_one_seed_is_the_plain_test() -> None:
    one, other = noisy(1, 1.0), noisy(2, 1.3)
    (losses,) = paired_by_seed({0: cells(one)}, {0: cells(other)})
    plain = paired_losses(one, other)
    np.testing.assert_allclose(losses.excess, plain.excess)
    found = held_against(
        ("m", "x"), ("n", "y"), {("m", "x"): {0: cells(one)}, ("n", "y"): {0: cells(other)}}
    )
    assert found["difference"] == pytest.approx(plain.difference)
    assert found["p_value"] == pytest.approx(panel_test(plain).p_value)
    bounds = bootstrap_bounds(plain, derive(0, "backtest", "m", "x", "n", "y"))
    assert (found["low"], found["high"]) == pytest.approx((bounds.low, bounds.high))
    assert found["clear"]
    assert (found["days"], found["clients"], found["points"]) == (30, 2, 30 * 48)
    # It says that nothing is known of another training.
    assert found["seeds"] == 1
    assert found["by_seed"] == [found["difference"]]


def test_losses_are_those_of_the_seeds_that_both_have() -> None:
    ours = {seed: noisy(seed, 1.0) for seed in (0, 1, 5)}
    theirs = {seed: noisy(10 + seed, 1.3) for seed in (0, 1, 7)}
    found = paired_by_seed(by_seed(ours), by_seed(theirs))
    each = [paired_losses(ours[seed], theirs[seed]) for seed in (0, 1)]
    for own, plain in zip(found, each, strict=True):
        np.testing.assert_allclose(own.excess, plain.excess)
    assert paired_by_seed({0: cells(noisy(0, 1.0))}, {1: cells(noisy(1, 1.0))}) == []
    said = held_against(
        ("m", "x"), ("n", "y"), {("m", "x"): by_seed(ours), ("n", "y"): by_seed(theirs)}
    )
    assert said["seeds"] == 2
    assert said["by_seed"] == pytest.approx([one.difference for one in each])
    assert said["difference"] == pytest.approx(np.mean(said["by_seed"]))


def test_what_the_next_training_may_turn_round_is_not_clear() -> None:
    """Every day agrees with the mean of the seeds; the seeds do not agree with one another."""
    days = list(range(60))
    theirs = {seed: made(["a", "b"], days, {"a": 2.0, "b": 2.0}, noise=99) for seed in range(3)}

    def against(levels: list[float]) -> dict[str, Any]:
        ours = dict(enumerate(_at(levels, days)))
        return held_against(
            ("m", "x"), ("n", "y"), {("m", "x"): by_seed(ours), ("n", "y"): by_seed(theirs)}
        )

    spread, alike = against([1.95, 2.15, 2.6]), against([2.2, 2.22, 2.24])
    every = [
        paired_losses(*p) for p in zip(_at([1.95, 2.15, 2.6], days), theirs.values(), strict=True)
    ]
    assert panel_test(mean_losses(every)).p_value < 0.001  # the days alone are sure of it
    assert spread["p_value"] > 0.05
    assert spread["low"] < 0 < spread["high"]
    assert not spread["clear"]
    assert alike["clear"]


def _at(levels: list[float], days: list[int]) -> list[Points]:
    return [
        made(["a", "b"], days, {"a": level, "b": level}, noise=seed)
        for seed, level in enumerate(levels)
    ]


def test_points_are_paired_whatever_their_order_and_clients() -> None:
    one, other = noisy(1, 1.0), noisy(2, 1.3)
    plain = paired_losses(one, other)
    # Other rows order, another client beside them, and three points that are not forecast.
    rng = np.random.default_rng(3)
    beside = joined([other, made(["aa"], [0, 1], {"aa": 9.0})])
    mixed = beside.take(rng.permutation(len(beside)))
    (losses,) = paired_by_seed({0: cells(one)}, {0: cells(mixed)})
    assert losses.difference == pytest.approx(plain.difference)
    assert losses.clients == ("a", "b")
    fewer = joined([mixed.take(np.arange(3, len(mixed)))])
    (cut,) = paired_by_seed({0: cells(one)}, {0: cells(fewer)})
    assert cut.points >= plain.points - 3
    away = made(["a"], [99], {"a": 1.0})
    assert paired_by_seed({0: cells(one)}, {0: cells(away)}) == []
    empty = held_against(
        ("m", "x"), ("n", "y"), {("m", "x"): {0: cells(one)}, ("n", "y"): {0: cells(away)}}
    )
    assert (empty["difference"], empty["clear"], empty["points"]) == (None, False, 0)


def test_a_tie_is_no_difference() -> None:
    one = noisy(1, 1.0)
    found = held_against(
        ("m", "x"), ("n", "y"), {("m", "x"): {0: cells(one)}, ("n", "y"): {0: cells(one)}}
    )
    assert found["difference"] == 0
    assert found["p_value"] is None
    assert not found["clear"]


def test_rounding_is_no_difference() -> None:
    """A closed form solved from other sums: the same to eleven digits, on every day."""
    one = noisy(1, 1.0)
    shifted = replace(one, forecast=Forecast(one.forecast.mean_kwh * (1 + 1e-11)))
    found = held_against(
        ("m", "x"), ("n", "y"), {("m", "x"): {0: cells(shifted)}, ("n", "y"): {0: cells(one)}}
    )
    assert found["p_value"] < 0.05
    assert not found["clear"]


def test_which_rows_are_held_against_which() -> None:
    rows = [
        {"model": model, "training": training, "nmae": nmae}
        for model, training, nmae in (
            ("ha4", "baseline", 0.5),
            ("mlp", "local", 0.4),
            ("mlp", "federated", 0.3),
            ("mlp", "centralised", 0.2),
            ("ridge", "federated", 0.35),
            ("ridge", "local", 0.36),
            ("odd", "local", None),
        )
    ]
    top = ("mlp", "centralised")
    assert pairs_of(rows) == [
        (("ha4", "baseline"), top),
        (("mlp", "local"), top),
        (("mlp", "federated"), top),
        (("ridge", "federated"), top),
        (("ridge", "local"), top),
        (("mlp", "federated"), ("mlp", "local")),
        (("ridge", "federated"), ("ridge", "local")),
    ]
    assert pairs_of([]) == []


def test_levels_of_other_models_of_the_file_are_no_levels_of_a_row() -> None:
    """A column without a number made every point one without all quantiles: no pinball at all."""
    instants = pa.array([MONDAY, MONDAY], pa.int64()).cast(pa.timestamp("s", tz="UTC"))
    table = pa.table(
        {
            "client_id": ["a", "a"],
            "issue_time_utc": instants,
            "target_time_utc": instants,
            "mean": [2.0, 2.0],
            "q10": [1.0, 1.0],
            "q20": pa.array([None, None], pa.float64()),
            "q50": [2.0, 2.0],
            "q90": [3.0, 3.0],
            "observed_kwh": [1.5, 9.0],
        }
    )
    found = points_of(table)
    assert found.forecast.levels == (0.1, 0.5, 0.9)
    assert found.sums()["a"].n_q == 2
    assert found.sums()["a"].coverage_80 == 0.5

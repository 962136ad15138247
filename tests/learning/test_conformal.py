"""Calibration: by hand, against a plain loop, and its coverage on made loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.errors import DataError
from fl_inmetro.learning.conformal import Calibration, Scores, calibrated, collect, fit
from fl_inmetro.metrics import Forecast
from fl_inmetro.metrics.sketch import Bins

Floats = NDArray[np.float64]

#: Fine enough that a bin's width never matters beside 1e-3.
FINE = Bins(1e-4, 1e-6, 1e4)

OWN_ONLY = Conformal(fleet_days=0.0, levels=(0.1, 0.5, 0.9))


def flat(windows: int, horizon: int = 24) -> NDArray[np.int64]:
    """All steps in one block."""
    return np.zeros((windows, horizon), dtype=np.int64)


def of_zero(errors: Floats, block: NDArray[np.int64] | None = None, blocks: int = 1) -> Scores:
    """Errors of a forecast of zero by a client whose level is 1 kWh."""
    windows, horizon = errors.shape
    block = flat(windows, horizon) if block is None else block
    forecast = Forecast(np.zeros_like(errors))
    return collect(forecast, errors, np.ones(windows), block, blocks, horizon / blocks, FINE)


def applied(calibration: Calibration, windows: int, horizon: int = 24) -> Floats:
    """Quantiles of a forecast of zero, without a floor; shape (windows, horizon, Q)."""
    made = calibration.apply(
        Forecast(np.zeros((windows, horizon))),
        np.ones(windows),
        flat(windows, horizon),
        np.full(windows, -np.inf),
    ).quantiles_kwh
    assert made is not None
    return made


def binomial_band(points: int, level: float) -> float:
    """Five standard errors of a share."""
    return 5 * math.sqrt(level * (1 - level) / points)


def test_a_point_forecast_by_hand() -> None:
    # Errors of nine points are 1 … 9 in kWh; the level is 2 kWh, so the scores are 0.5 … 4.5.
    # Ranks of ten: 1, 5 and 9 (tests/metrics/test_sketch.py), that is 0.5, 2.5 and 4.5 of the
    # level. A new forecast of 10 kWh at a level of 4 kWh has 10 + 4 · (0.5, 2.5, 4.5).
    scores = collect(
        Forecast(np.full((1, 9), 3.0)),
        3.0 + np.arange(1.0, 10.0)[None],
        np.array([2.0]),
        flat(1, 9),
        1,
        9.0,
        FINE,
    )
    calibration = fit(scores, scores, OWN_ONLY)
    made = calibration.apply(
        Forecast(np.full((1, 1), 10.0)), np.array([4.0]), flat(1, 1), np.zeros(1)
    )
    assert made.levels == (0.1, 0.5, 0.9)
    assert made.quantiles_kwh is not None
    assert made.quantiles_kwh[0, 0] == pytest.approx([12.0, 20.0, 28.0], rel=1e-3)
    assert made.mean_kwh.tolist() == [[10.0]]


def test_quantiles_are_moved_sorted_and_cut() -> None:
    # Own quantiles (1, 2) kWh at 0.1 and 0.9 miss by: y − q of nine points, 1 … 9 less 1 and 2.
    # Rank 1 of 0 … 8 is 0, rank 9 of −1 … 7 is 7: offsets (0, 7). A forecast (9, 1) is no
    # forecast that a model may give, but (8, 1.5) + (0, 7) crosses nothing: (8, 8.5).
    target = np.arange(1.0, 10.0)[None]
    quantiles = np.broadcast_to(np.array([1.0, 2.0]), (1, 9, 2)).copy()
    forecast = Forecast(np.ones((1, 9)), (0.1, 0.9), quantiles)
    scores = collect(forecast, target, np.ones(1), flat(1, 9), 1, 9.0, FINE)
    calibration = fit(scores, scores, OWN_ONLY)
    assert calibration.offsets[0] == pytest.approx([0.0, 7.0], abs=1e-3)

    def moved(low: float, high: float, offsets: tuple[float, float]) -> list[float]:
        by = Calibration((0.1, 0.9), of_mean=False, offsets=np.array([offsets]))
        new = Forecast(np.ones((1, 1)), (0.1, 0.9), np.array([[[low, high]]]))
        made = by.apply(new, np.ones(1), flat(1, 1), np.zeros(1)).quantiles_kwh
        assert made is not None
        return [float(q) for q in made[0, 0]]

    assert moved(8.0, 8.5, (0.0, 7.0)) == [8.0, 15.5]
    assert moved(3.0, 4.0, (2.0, 0.0)) == [4.0, 5.0]  # 5 and 4, sorted
    assert moved(3.0, 4.0, (-9.0, 0.0)) == [0.0, 4.0]  # −6, cut at the floor


def test_own_and_fleet_by_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    own, others = rng.normal(size=(5, 24)), rng.normal(1.0, 2.0, size=(200, 24))
    scores, fleet = of_zero(own), of_zero(others)
    settings = Conformal(fleet_days=3.0, levels=(0.1, 0.25, 0.5, 0.8, 0.9))
    found = fit(scores, fleet + scores, settings).offsets[0]

    def weighted(level: float) -> float:
        # Own errors weigh 1, all others together 3 days · 24; the error to come weighs 1, too.
        sample = sorted(
            [(float(e), 1.0) for e in own.ravel()]
            + [(float(e), 72.0 / others.size) for e in others.ravel()],
            reverse=level < 0.5,
        )
        needed, mass = max(level, 1 - level) * (120 + 72 + 1), 0.0
        for error, weight in sample:
            mass += weight
            if mass >= needed:
                return error
        raise AssertionError

    expected = [weighted(level) for level in settings.levels]
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_fleet_weighs_no_more_than_it_has() -> None:
    # 24 own errors and 24 of another: asked for 1,000 days of the fleet, there is one. Own are
    # all 1, the other's all 5: the median of weights 24 and 24 needs 24.5, which only 5 has.
    one, other = of_zero(np.full((1, 24), 1.0)), of_zero(np.full((1, 24), 5.0))
    settings = Conformal(fleet_days=1000.0, levels=(0.4, 0.5))
    assert fit(one, one + other, settings).offsets[0] == pytest.approx([1.0, 5.0], rel=1e-3)


def test_a_block_without_errors_takes_the_day() -> None:
    block = np.repeat([[0, 1]], 4, axis=0)
    errors = np.column_stack([np.arange(4.0), np.full(4, np.nan)])
    scores = of_zero(errors, block, blocks=2)
    offsets = fit(scores, scores, OWN_ONLY).offsets
    assert offsets[1] == pytest.approx(offsets[0])


def test_exchangeable_days_are_covered_at_every_level() -> None:
    # Errors without any dependence: with 28 · 24 of them and 4,000 days to come the share at or
    # below level τ is within five standard errors of both samples, and the rank adds at most
    # 1/673 outwards.
    rng = np.random.default_rng(17)
    past, new = rng.gamma(2.0, size=(28, 24)), rng.gamma(2.0, size=(4000, 24))
    settings = Conformal(fleet_days=0.0)
    scores = of_zero(past)
    quantiles = applied(fit(scores, scores, settings), 4000)
    for k, level in enumerate(settings.levels):
        share = (new <= quantiles[..., k]).mean()
        assert abs(share - level) <= binomial_band(28 * 24, level) + 1 / 673


def test_hours_of_different_spread_are_covered_each() -> None:
    # Evenings are five times as uncertain. Calibrated by the hour, each block is covered; over the
    # whole day, nights are covered nearly always and evenings far too rarely.
    rng = np.random.default_rng(23)
    spread = np.where(np.arange(24) < 12, 1.0, 5.0)
    past, new = (rng.normal(size=(days, 24)) * spread for days in (200, 2000))
    block = np.broadcast_to(np.arange(24) // 12, (200, 24))
    scores = of_zero(past, block, blocks=2)
    offsets = fit(scores, scores, OWN_ONLY).offsets
    whole = fit(of_zero(past), of_zero(past), OWN_ONLY).offsets[0]

    def inside(low: float, high: float, hours: slice) -> float:
        return float(((low <= new[:, hours]) & (new[:, hours] <= high)).mean())

    for part, hours in enumerate((slice(0, 12), slice(12, 24))):
        covered = inside(offsets[part, 0], offsets[part, 2], hours)
        assert abs(covered - 0.8) <= binomial_band(200 * 12, 0.8) + 0.002
    assert inside(whole[0], whole[2], slice(0, 12)) > 0.95
    assert inside(whole[0], whole[2], slice(12, 24)) < 0.7


def fleet_of(clients: int, days: int, seed: int) -> list[Floats]:
    """Errors of clients whose spread differs by a factor of up to four."""
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=scale, size=(days, 24)) for scale in rng.uniform(0.5, 2.0, clients)]


def covered(calibration: Calibration, errors: Floats) -> float:
    q = applied(calibration, len(errors))
    return float(((q[..., 0] <= errors) & (errors <= q[..., -1])).mean())


def test_a_new_client_is_covered_on_average() -> None:
    fleet = [of_zero(errors) for errors in fleet_of(200, 28, 1)]
    result = calibrated({str(k): partial(replace, s) for k, s in enumerate(fleet)}, OWN_ONLY)
    shared = result.of("never seen")
    assert shared is not None
    new = [covered(shared, errors) for errors in fleet_of(400, 10, 2)]
    # The share of a client of spread s is far from 0.8 (0.62 … 0.99), its mean over clients near:
    # their standard deviation is about 0.12, so five standard errors of 400 and of the 200 that
    # calibrated are under 0.06.
    assert abs(np.mean(new) - 0.8) < 0.06
    assert np.std(new) > 0.05


@pytest.mark.parametrize(("days", "better"), [(2, "fleet"), (200, "own")])
def test_shrinkage_lies_between_own_and_fleet(days: int, better: str) -> None:
    truth = np.random.default_rng(8).normal(scale=2.0, size=(3000, 24))
    own = of_zero(np.random.default_rng(9).normal(scale=2.0, size=(days, 24)))
    fleet = own
    for errors in fleet_of(50, 28, 4):
        fleet = fleet + of_zero(errors)
    mixed = fit(own, fleet, Conformal(fleet_days=14, levels=(0.1, 0.5, 0.9)))
    alone, shared = fit(own, fleet, OWN_ONLY), fit(None, fleet, OWN_ONLY)
    width = {name: c.offsets[0, 2] for name, c in (("own", alone), ("fleet", shared))}
    other = "own" if better == "fleet" else "fleet"
    assert min(width.values()) <= mixed.offsets[0, 2] <= max(width.values())
    assert abs(mixed.offsets[0, 2] - width[better]) < abs(mixed.offsets[0, 2] - width[other])
    if better == "own":
        # Barber et al.: short by at most n0 / (n + n0 + 1) = 14/214 of the distance between the
        # distributions, which is below 1; with 4,800 own errors, five standard errors are 0.03.
        assert covered(mixed, truth) > 0.8 - 14 / 214 - 0.03


def test_zeros_are_covered_more_often_than_said_never_less() -> None:
    # 60 % exact zeros: every level up to 0.6 is at the floor, at or below which 60 % lie.
    rng = np.random.default_rng(31)

    def load(days: int) -> Floats:
        return np.where(rng.random((days, 24)) < 0.6, 0.0, rng.gamma(2.0, size=(days, 24)))

    settings = Conformal(fleet_days=0.0)
    forecast = Forecast(np.full((100, 24), 0.4))
    scores = collect(forecast, load(100), np.ones(100), flat(100), 1, 24.0, FINE)
    new = load(2000)
    made = fit(scores, scores, settings).apply(
        Forecast(np.full((2000, 24), 0.4)), np.ones(2000), flat(2000), np.zeros(2000)
    )
    for level in settings.levels:
        quantile = made.at(level)
        assert quantile is not None
        # A bin answers with its middle: a zero may lie 1e-4 above the quantile that stands for it.
        share = (new <= quantile + 1e-4).mean()
        assert share >= level - binomial_band(2400, level)
        if level <= 0.5:
            assert share == pytest.approx(0.6, abs=binomial_band(2400, 0.6))


def test_sums_do_not_depend_on_order_or_grouping() -> None:
    scores = [of_zero(errors) for errors in fleet_of(7, 3, 12)]

    def total(parts: Sequence[Scores]) -> Scores:
        result = parts[0]
        for part in parts[1:]:
            result = result + part
        return result

    grouped = total(scores[:3]) + total(scores[3:])
    assert (total(scores[::-1]).counts == grouped.counts).all()
    assert (grouped - total(scores[:3])).n == 4 * 3 * 24


def test_counts_travel_and_are_looked_at() -> None:
    scores = of_zero(np.arange(48.0).reshape(2, 24))
    sent = scores.to_arrays()
    back = Scores.from_arrays(sent, like=scores)
    assert (back.counts == scores.counts).all()
    assert ((back + scores).counts == 2 * scores.counts).all()
    forged: list[dict[str, NDArray[Any]]] = [
        {"counts": -scores.counts},
        {"counts": scores.counts.astype(np.float64)},
        {"counts": scores.counts[..., 1:]},
        {"counts": np.full_like(scores.counts, 1 << 54)},
        {"levels": np.array([0.1, 0.9])},
    ]
    for change in forged:
        with pytest.raises(ValueError, match="count"):
            Scores.from_arrays({**sent, **change})
    uneven = np.concatenate([scores.counts, 2 * scores.counts], axis=1)
    with pytest.raises(ValueError, match="same points"):
        Scores.from_arrays({**sent, "counts": uneven, "levels": np.array([0.1, 0.9])})
    with pytest.raises(ValueError, match="cannot be added"):
        Scores.from_arrays({**sent, "per-day": np.array(1.0)}, like=scores)


def test_unknown_points_are_not_counted_and_stay_unknown() -> None:
    errors = np.full((2, 24), np.nan)
    errors[0, :5] = 1.0
    scores = of_zero(errors)
    assert scores.n == 5
    calibration = fit(scores, scores, OWN_ONLY)
    made = calibration.apply(
        Forecast(np.full((1, 24), np.nan)), np.array([np.nan]), flat(1), np.zeros(1)
    )
    assert made.quantiles_kwh is not None
    assert np.isnan(made.quantiles_kwh).all()


def test_nothing_to_calibrate_by_is_an_error() -> None:
    scores = of_zero(np.full((2, 24), np.nan))
    with pytest.raises(DataError, match="FL218"):
        fit(None, scores, OWN_ONLY)
    with pytest.raises(DataError, match="FL218"):
        calibrated({"a": lambda: None}, OWN_ONLY)


def test_what_does_not_go_together_is_refused() -> None:
    one, more = of_zero(np.ones((1, 24))), of_zero(np.ones((2, 24)))
    with pytest.raises(ValueError, match="not among the fleet"):
        fit(more, one, OWN_ONLY)
    with pytest.raises(ValueError, match="cannot be added"):
        one + of_zero(np.ones((1, 24)), np.ones((1, 24), dtype=np.int64), blocks=2)
    calibration = fit(one, one, OWN_ONLY)
    quantiles = Forecast(np.ones((1, 1)), (0.5,), np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="calibrated for"):
        calibration.apply(quantiles, np.ones(1), flat(1, 1), np.zeros(1))


def test_a_learned_median_stays_and_nothing_crosses_it():
    """A model that is low by 2: the lower end stops at the median, the upper one moves."""
    median = np.zeros((1, 1))
    quantiles = np.array([[[-1.0, 0.0, 1.0]]])
    forecast = Forecast(median, (0.1, 0.5, 0.9), quantiles)
    made = Calibration((0.1, 0.5, 0.9), False, np.array([[2.0, 2.0, 2.0]])).apply(
        forecast, np.ones(1), np.zeros((1, 1), dtype=np.int64), np.full(1, -9.0)
    )
    assert made.quantiles_kwh.tolist() == [[[0.0, 0.0, 3.0]]]
    assert made.point_kwh.tolist() == [[0.0]]

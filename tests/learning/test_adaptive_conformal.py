"""Adaptive calibration: one step by hand, and its long-run coverage when errors drift."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.adaptive_conformal import Adaptive, follow
from fl_inmetro.learning.conformal import Scores, collect, scores_of
from fl_inmetro.metrics import Forecast
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]

SETTINGS = Conformal(fleet_days=0.0, levels=(0.1, 0.5, 0.9))


def errors_of_zero(errors: Floats, block: NDArray[np.int64], blocks: int = 1) -> Scores:
    """Errors of a forecast of zero by a client whose level is 1 kWh."""
    forecast = Forecast(np.zeros_like(errors))
    return collect(forecast, errors, np.ones(len(errors)), block, blocks, 24.0 / blocks)


def started(
    errors: Floats, gamma: float, block: NDArray[np.int64], blocks: int = 1, forget: float = 0.0
) -> Adaptive:
    scores = errors_of_zero(errors, block, blocks)
    return Adaptive.start(scores, scores, SETTINGS, gamma, forget)


def run(adaptive: Adaptive, days: Floats, block: NDArray[np.int64]) -> Floats:
    """Serve day after day a forecast of zero; return each day's share at or below each level."""
    shares = []
    for day in days:
        forecast = Forecast(np.zeros((1, day.size)))
        made = adaptive.calibration().apply(forecast, np.ones(1), block, np.full(1, -np.inf))
        assert made.quantiles_kwh is not None
        shares.append((day[:, None] <= made.quantiles_kwh[0]).mean(axis=0))
        adaptive = adaptive.observed(made, errors_of_zero(day[None], block), day[None], block)
    return np.array(shares)


def test_one_day_by_hand() -> None:
    # Quantiles 0, 1 and 2 kWh; four readings: 0.5, 1.5, 1.5 of block 0, one unknown of block 1.
    # Shares of block 0: 0, 1/3, 1. With γ = 0.3: 0.1 + 0.3 · 0.1 = 0.13,
    # 0.5 + 0.3 · (1/2 − 1/3) = 0.55, 0.9 − 0.3 · 0.1 = 0.87. Block 1 heard nothing.
    block = np.array([[0, 0, 0, 1]])
    adaptive = started(np.ones((1, 4)), 0.3, block, 2)
    quantiles = np.broadcast_to(np.array([0.0, 1.0, 2.0]), (1, 4, 3)).copy()
    made = Forecast(np.ones((1, 4)), (0.1, 0.5, 0.9), quantiles)
    target = np.array([[0.5, 1.5, 1.5, np.nan]])
    after = adaptive.observed(made, errors_of_zero(target, block, 2), target, block)
    # The three errors are counted, in their block.
    assert after.mass[0].sum() == adaptive.mass[0].sum() + 3
    assert (after.mass[1] == adaptive.mass[1]).all()
    assert after.asked[0] == pytest.approx([0.13, 0.55, 0.87])
    assert after.asked[1] == pytest.approx([0.1, 0.5, 0.9])
    assert adaptive.asked[0] == pytest.approx([0.1, 0.5, 0.9])


@pytest.mark.parametrize("levels", [(), (0.1, 0.5, 0.9)])
def test_at_the_start_it_asks_for_the_empirical_quantiles(levels: tuple[float, ...]) -> None:
    errors = np.random.default_rng(6).normal(size=(10, 24))
    block = np.broadcast_to(np.arange(24) // 6, (10, 24))
    quantiles = np.broadcast_to(np.linspace(-1, 1, len(levels)), (10, 24, len(levels)))
    forecast = Forecast(np.zeros((10, 24)), levels, quantiles if levels else None)
    scores = collect(forecast, errors, np.ones(10), block, 4, 6.0)
    begun = Adaptive.start(scores, scores, SETTINGS, 0.05).calibration()
    assert begun.of_mean is not bool(levels)
    assert begun.levels == (0.1, 0.5, 0.9)
    for number in range(4):
        for place, (level, low) in enumerate(
            zip((0.1, 0.5, 0.9), (True, False, False), strict=True)
        ):
            own = errors[:, 6 * number : 6 * number + 6].ravel()
            own = own - (np.linspace(-1, 1, 3)[place] if levels else 0)
            # Of 60 errors the 30th and the 54th; below one half from the other end.
            expected = np.sort(own)[60 - 54] if low else np.sort(own)[round(60 * level) - 1]
            assert begun.offsets[number, place] == pytest.approx(expected, rel=0.0101, abs=1e-3)


def test_a_level_out_of_range_answers_with_twice_the_largest_error() -> None:
    block = np.zeros((1, 4), dtype=np.int64)
    adaptive = started(np.ones((1, 4)), 2.0, block, 1)
    quantiles = np.broadcast_to(np.array([0.0, 5.0, 5.0]), (1, 4, 3)).copy()
    made = Forecast(np.ones((1, 4)), (0.1, 0.5, 0.9), quantiles)
    # All four at 9: shares 0; 0.1 + 0.2, 0.5 + 1 and 0.9 + 1.8, none above 1 + γ.
    target = np.full((1, 4), 9.0)
    after = adaptive.observed(made, errors_of_zero(target, block), target, block)
    assert after.asked[0] == pytest.approx([0.3, 1.5, 2.7])
    offsets = after.calibration().offsets[0]
    assert offsets[0] == pytest.approx(1.0, rel=0.01)
    assert offsets[1:] == pytest.approx(18.0, rel=0.01)


@pytest.mark.parametrize(
    ("drift", "forget"), [("grows", 0.0), ("grows", 0.05), ("jumps", 0.0), ("shifts", 0.05)]
)
def test_long_run_coverage_holds_whatever_the_errors_do(drift: str, forget: float) -> None:
    rng = np.random.default_rng(41)
    days, gamma = 400, 0.05
    noise = rng.normal(size=(days, 24))
    factor = {
        "grows": np.linspace(1, 6, days),
        "jumps": np.where(np.arange(days) < 100, 1.0, 4.0),
        "shifts": np.ones(days),
    }[drift]
    errors = noise * factor[:, None]
    if drift == "shifts":
        errors = errors + np.linspace(0, 5, days)[:, None]
    block = np.zeros((1, 24), dtype=np.int64)
    past = rng.normal(size=(28, 24))
    start = started(past, gamma, np.broadcast_to(block, (28, 24)), forget=forget)
    adapted = run(start, errors, block).mean(axis=0)
    # Gibbs & Candès: |mean share − τ| ≤ (1 + γ)/(γ T) = 1.05/20.
    assert (np.abs(adapted - [0.1, 0.5, 0.9]) <= 1.05 / (gamma * days)).all()
    offsets = started(past, 0.0, np.broadcast_to(block, (28, 24))).calibration().offsets[0]
    fixed = (errors[..., None] <= offsets).mean(axis=(0, 1))
    # What it had to mend: without adaptation some level is off by three times as much.
    assert np.abs(fixed - [0.1, 0.5, 0.9]).max() > 3 * 1.05 / (gamma * days)


def test_errors_of_the_day_take_the_place_of_old_ones_by_hand() -> None:
    # Two old errors at 1; forgetting half a day, new ones 3 and 4: weights 0.5, 0.5, 1, 1. The
    # median needs 0.5 · (3 + 1) = 2, which is reached at 3 (0.5 + 0.5 + 1).
    block = np.zeros((1, 2), dtype=np.int64)
    adaptive = started(np.ones((1, 2)), 0.0, block, forget=0.5)
    target = np.array([[3.0, 4.0]])
    made = Forecast(np.zeros((1, 2)), (0.1, 0.5, 0.9), np.zeros((1, 2, 3)))
    after = adaptive.observed(made, errors_of_zero(target, block), target, block)
    assert after.mass.sum() == pytest.approx(3.0)
    assert after.calibration().offsets[0, 1] == pytest.approx(3.0, rel=0.01)


def test_levels_at_the_floor_do_not_run_away() -> None:
    # A vacant home: every reading is zero, and so are all quantiles; the level stops at −γ.
    block = np.zeros((1, 24), dtype=np.int64)
    adaptive = started(np.ones((1, 24)), 0.1, block, 1)
    zero = Forecast(np.zeros((1, 24)), (0.1, 0.5, 0.9), np.zeros((1, 24, 3)))
    for _ in range(200):
        day = np.zeros((1, 24))
        adaptive = adaptive.observed(zero, errors_of_zero(day, block), day, block)
    assert adaptive.asked[0] == pytest.approx([-0.1, -0.1, -0.1])


def test_what_does_not_fit_is_refused() -> None:
    block = np.zeros((1, 4), dtype=np.int64)
    for gamma, forget in ((-0.1, 0.0), (0.1, 1.0)):
        with pytest.raises(ValueError, match="out of range"):
            started(np.ones((1, 4)), gamma, block, forget=forget)
    adaptive, day = started(np.ones((1, 4)), 0.1, block), np.zeros((1, 4))
    scores = errors_of_zero(day, block)
    with pytest.raises(ValueError, match="expected quantiles"):
        adaptive.observed(Forecast(day), scores, day, block)
    made = Forecast(day, (0.1, 0.5, 0.9), np.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match="other levels"):
        adaptive.observed(made, errors_of_zero(day, block, 2), day, block)


def windows_of(issues: int, horizon: int, kwh: float = 1.0) -> Windows:
    """Daily issues of a meter that reads 1 kWh for 28 days and `kwh` ever after."""
    energy = np.full((28 + issues) * 24, 1.0)
    energy[28 * 24 :] = kwh
    index = (28 + np.arange(issues, dtype=np.int64)) * 24
    return Windows(ClientSeries("a", 0, HOUR_S, energy), index, horizon, "UTC")


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [
        (24, [1, 1 + 3 * 31 / 28, 1 + 3 * 34 / 31, 1 + 3 * 37 / 34]),
        (36, [1, 1, 1 + 3 * 34 / 28, 1 + 3 * 37 / 31]),
    ],
)
def test_it_follows_what_was_known_at_issue_and_no_more(
    horizon: int, expected: list[float]
) -> None:
    # From day 28 on every reading is 3 kWh above its forecast of 1 kWh. The level (the mean of the
    # 28 days before) is 1, 31/28, 34/28 and 37/28 kWh at the four issues, so the errors count as
    # 3, 3 · 28/31, 3 · 28/34. Half of all weight is forgotten with each day that comes in: at the
    # second issue 12 of the old zeros stand against 24 errors of 3, the median (18.5) is 3; at the
    # third 6, 12 and 24 errors of 3 · 28/31, the median (21.5); and so on. Windows of 36 h end half
    # a day after the next issue, so the third issue is the first that knows of one.
    windows = windows_of(4, horizon, 4.0)
    start = started(np.zeros((1, 24)), 0.0, np.zeros((1, 24), dtype=np.int64), forget=0.5)
    made, last = follow(start, windows, Forecast(np.ones((4, horizon))))
    median = made.at(0.5)
    assert median is not None
    assert median == pytest.approx(np.repeat(np.array(expected)[:, None], horizon, 1), rel=0.01)
    known = 3 if horizon == 24 else 2
    assert last.mass.sum() == pytest.approx(
        24 * 0.5**known + horizon * sum(0.5**k for k in range(known))
    )


def irregular(rng: np.random.Generator, levels: tuple[float, ...]) -> tuple[Windows, Forecast]:
    """Forty days of a meter with gaps, and forecasts of its last twelve."""
    energy = rng.gamma(2.0, 1.0, 40 * 24)
    energy[rng.random(energy.size) < 0.1] = np.nan
    energy[33 * 24 : 34 * 24] = np.nan
    index = (28 + np.arange(12, dtype=np.int64)) * 24
    windows = Windows(ClientSeries("a", 0, HOUR_S, energy), index, 24, "UTC")
    quantiles = np.sort(rng.gamma(2.0, 1.0, (12, 24, len(levels))), axis=-1) if levels else None
    return windows, Forecast(rng.gamma(2.0, 1.0, (12, 24)), levels, quantiles)


@pytest.mark.parametrize("levels", [(), (0.1, 0.5, 0.9)])
def test_following_is_observing_day_after_day(levels: tuple[float, ...]) -> None:
    rng = np.random.default_rng(17)
    windows, forecast = irregular(rng, levels)
    past = Windows(windows.series, windows.issue_index[:4] - 96, 24, "UTC")
    own = scores_of(past, forecast.take(slice(0, 4)), 4)
    start = Adaptive.start(own, own, SETTINGS, 0.1, 0.05)
    before = start.mass.copy()
    found, last = follow(start, windows, forecast)
    assert (start.mass == before).all()
    state, made = start, []
    for k in range(12):
        day, plain = windows.take(np.array([k])), forecast.take(slice(k, k + 1))
        made.append(state.calibration().of(day, plain))
        if k < 11:
            scores = scores_of(day, plain, 4)
            block = day.target_clock.second_of_day // (6 * HOUR_S)
            state = state.observed(made[-1], scores, day.target_kwh(), block)
    expected = np.concatenate([one.quantiles_kwh for one in made])
    np.testing.assert_allclose(found.quantiles_kwh, expected, rtol=1e-12)
    np.testing.assert_allclose(last.mass, state.mass, rtol=1e-12)
    np.testing.assert_allclose(last.asked, state.asked, rtol=1e-12)


def test_readings_to_come_change_nothing() -> None:
    rng = np.random.default_rng(18)
    windows, forecast = irregular(rng, (0.1, 0.5, 0.9))
    past = Windows(windows.series, windows.issue_index[:4] - 96, 24, "UTC")
    own = scores_of(past, forecast.take(slice(0, 4)), 4)
    start = Adaptive.start(own, own, SETTINGS, 0.1, 0.05)
    plain = follow(start, windows, forecast)[0].quantiles_kwh
    energy = windows.series.energy_kwh.copy()
    energy[windows.issue_index[6] :] = rng.normal(size=energy.size - windows.issue_index[6]) * 1e6
    spoilt = Windows(ClientSeries("a", 0, HOUR_S, energy), windows.issue_index, 24, "UTC")
    found = follow(start, spoilt, forecast)[0].quantiles_kwh
    assert plain is not None
    assert found is not None
    np.testing.assert_array_equal(found[:7], plain[:7])
    assert (found[7:] != plain[7:]).any()


def test_a_new_client_begins_with_the_fleets_errors_as_if_few() -> None:
    # The fleet has 100 days of 24 errors; they weigh as the `fleet_days`, 5: 120 errors.
    block = np.zeros((100, 24), dtype=np.int64)
    fleet = errors_of_zero(np.random.default_rng(19).normal(size=(100, 24)), block)
    settings = Conformal(fleet_days=5.0, levels=(0.1, 0.5, 0.9))
    new = Adaptive.start(None, fleet, settings, 0.02)
    assert new.mass.sum() == pytest.approx(120.0)
    assert new.mass == pytest.approx(fleet.counts * 0.05)
    # Where own errors alone count, the fleet's are one day's.
    assert Adaptive.start(None, fleet, SETTINGS, 0.02).mass.sum() == pytest.approx(24.0)

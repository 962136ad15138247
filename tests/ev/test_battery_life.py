"""Cycle life and capacity ahead: by hand, against scikit-learn and loops, federated, real cells."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.batteries import Discharges, Lives, read_discharges, read_lives
from fl_inmetro.ev.battery_life import (
    NAMES,
    VARIANCE,
    fade_features,
    left_out_rmse_cycles,
    life_model,
    life_sums,
)
from fl_inmetro.ev.calibration import total
from fl_inmetro.ev.capacity_ahead import COLUMNS, fleet_sums, forecasts, pairs, weighed
from fl_inmetro.ev.regression import regress

DATA = os.environ.get("FL_INMETRO_DATA", "")
NASA = Path(DATA or ".") / "battery_nasa" / "discharge_cycles.parquet"
SEVERSON = Path(DATA or ".") / "battery_severson"


def lives(n: int = 30, seed: int = 0) -> Lives:
    rng = np.random.default_rng(seed)
    width = rng.uniform(0.005, 0.05, n)
    dq = -width[:, None] * np.sin(np.linspace(0, 3, 200)) ** 2 - 1e-4
    life = 30 / width * np.exp(rng.normal(0, 0.1, n))
    cycle = np.arange(2, 101)
    capacity = 1.07 - 1e-5 * cycle * rng.uniform(1, 9, n)[:, None] + rng.normal(0, 1e-4, (n, 99))
    names = tuple(f"c{i}" for i in range(n))
    return Lives(names, ("train",) * n, life, cycle, capacity, dq, ())


def test_features_by_hand():
    """Capacities 1.10 − 0.001·(cycle − 2), one left out; ΔQ of 0, −0.1, −0.2.

    ΔQ's variance is 0.02/3 (of all values, as NumPy's), minimum 0.2, mean 0.1. It falls by 1 mAh
    each cycle; from 1.100 at 2 to 1.002 at 100, where the highest is the first.
    """
    cycle = np.arange(2, 101)
    capacity = 1.1 - 0.001 * (cycle - 2.0)
    capacity[50] = np.nan
    one = Lives(
        ("a",),
        ("train",),
        np.array([500.0]),
        cycle,
        capacity[None],
        np.array([[0, -0.1, -0.2]]),
        (),
    )
    got = dict(zip(NAMES, fade_features(one)[0], strict=True))
    assert got["log10_var_dq"] == pytest.approx(np.log10(0.02 / 3))
    assert got["log10_min_dq"] == pytest.approx(np.log10(0.2))
    assert got["log10_mean_dq"] == pytest.approx(-1)
    assert got["capacity_first_ah"] == pytest.approx(1.1)
    assert got["capacity_last_ah"] == pytest.approx(1.002)
    assert got["capacity_rise_ah"] == 0
    assert got["fade_mah_per_cycle"] == pytest.approx(1)
    assert got["late_fade_mah_per_cycle"] == pytest.approx(1)
    late = capacity.copy()
    late[-10:] -= 0.002 * np.arange(10)
    bent = dict(zip(NAMES, fade_features(replace(one, capacity_ah=late[None]))[0], strict=True))
    assert bent["late_fade_mah_per_cycle"] == pytest.approx(3)
    late[-9:] = np.nan
    with pytest.raises(DataError, match=r"FL221[\s\S]*cell a"):
        fade_features(replace(one, capacity_ah=late[None]))


def test_laboratories_together_are_scikit_learns_line():
    some = lives()
    features = fade_features(some)
    labs = np.arange(30) % 4
    parts = [life_sums(features[labs == i], some.life_cycles[labs == i]) for i in range(4)]
    model = life_model(total(parts))
    peer = LinearRegression().fit(features[:, 1:2], np.log10(some.life_cycles))
    expected = 10 ** peer.predict(features[:, 1:2])
    assert model.median_cycles(features) == pytest.approx(expected, rel=1e-9)
    error = np.log(some.life_cycles) - np.log(expected)
    assert model.mean_cycles(features) == pytest.approx(
        stats.lognorm.mean(np.sqrt((error @ error) / 28), scale=expected), rel=1e-9
    )
    low, high = model.interval_cycles(features)
    assert np.all((low < expected) & (expected < high))
    pooled = life_model(life_sums(features, some.life_cycles))
    assert model.regression.coefficient == pytest.approx(pooled.regression.coefficient, rel=1e-9)


def test_leaving_cells_out_against_loops():
    some = lives(12)
    features, life = fade_features(some), some.life_cycles
    for mean in (True, False):
        errors = []
        for i in range(12):
            others = np.arange(12) != i
            model = life_model(life_sums(features[others], life[others]))
            told = (model.mean_cycles if mean else model.median_cycles)(features[i : i + 1])
            errors.append(told[0] - life[i])
        expected = np.mean(np.square(errors)) ** 0.5
        got = left_out_rmse_cycles(features, life, mean=mean)
        assert got == pytest.approx(expected, rel=1e-9)


def test_cells_that_decide_nothing():
    some = lives(2)
    with pytest.raises(FederationError, match="FL371"):
        life_model(life_sums(fade_features(some), some.life_cycles))
    with pytest.raises(FederationError, match="FL372"):
        life_model(life_sums(fade_features(lives()), lives().life_cycles), ("1", "volts"))


@pytest.mark.data
@pytest.mark.skipif(not SEVERSON.is_dir(), reason="FL_INMETRO_DATA has no battery_severson")
def test_the_papers_model_on_its_cells():
    """The set's own reference: RMSE 150 and 189 cycles; a mean life is nearer than a median one."""
    real = read_lives(SEVERSON)
    features, train = fade_features(real), real.of("train")
    batches = [train & (np.arange(len(train)) % 3 == i) for i in range(3)]
    model = life_model(total(life_sums(features[b], real.life_cycles[b]) for b in batches))
    for part, published in (("test1", 150.0), ("test2", 189.4)):
        here = real.of(part)
        life = real.life_cycles[here]
        median, mean = model.median_cycles(features[here]), model.mean_cycles(features[here])
        assert np.sqrt(np.mean((median - life) ** 2)) == pytest.approx(published, abs=0.5)
        assert np.sqrt(np.mean((mean - life) ** 2)) < published
        low, high = model.interval_cycles(features[here])
        assert 0.7 < np.mean((low <= life) & (life <= high)) < 0.95
    corr = np.corrcoef(features[:, 1], np.log10(real.life_cycles))[0, 1]
    assert corr == pytest.approx(-0.93, abs=0.01)
    assert set(VARIANCE) <= set(NAMES)


# ------------------------------------------------------------------------ capacity ahead
def cell(capacity: np.ndarray, cycle: np.ndarray | None = None, name: str = "A") -> Discharges:
    n = len(capacity)
    cycle = np.arange(1, n + 1) if cycle is None else cycle
    return Discharges(name, cycle, capacity, np.full(n, 3.5), np.full(n, 2.0), np.full(n, 24.0))


def noisy(seed: int, n: int = 120, fade: float = 0.004) -> Discharges:
    rng = np.random.default_rng(seed)
    return cell(2 - fade * np.arange(n) + 0.01 * rng.standard_normal(n), name=f"N{seed}")


def test_pairs_by_hand():
    """2.0, 1.9, 1.9, 1.7 with the third discharge missing: cycles 1, 2, 4, 5; two ahead.

    Pairs: 2 → 4. With three known (1, 2, 4; 2.0, 1.9, 1.9) at 4 there is no 6. One more: 3 ahead,
    1 → 4 and 2 → 5; at cycle 2 two discharges make no trend, and the mean of both is 1.95.
    """
    some = cell(np.array([2.0, 1.9, 1.9, 1.7]), np.array([1, 2, 4, 5]))
    two = pairs(some, 2)
    assert (two.cycle.tolist(), two.capacity_ah.tolist(), two.ahead_ah.tolist()) == (
        [2],
        [1.9],
        [1.9],
    )
    three = pairs(some, 3)
    assert three.cycle.tolist() == [1, 2]
    assert three.x == pytest.approx(np.array([[1, 0, 0], [1, 0, -0.05]]))
    # At 4 the slope of (1, 2.0), (2, 1.9), (4, 1.9): means 7/3 and 58/30, −0.4/3 over 14/3.
    one = pairs(some, 1)
    assert one.cycle.tolist() == [1, 4]
    assert one.x[1] == pytest.approx([1, -0.4 / 14, 1.9 - 5.8 / 3])
    with pytest.raises(DataError, match=r"FL221.*9 apart"):
        pairs(some, 9)


def test_a_straight_fade_is_foretold():
    """Trend −0.004 a cycle, ten ahead −0.04; the first ones have no trend yet."""
    fleet = fleet_sums([pairs(noisy(seed)) for seed in range(4)])
    straight = pairs(cell(2 - 0.004 * np.arange(60)))
    assert straight.x[30] == pytest.approx([1, -0.04, -0.004 * 4.5])
    assert forecasts(straight, fleet)[5:] == pytest.approx(straight.ahead_ah[5:], abs=0.01)


def test_forecasts_do_not_look_ahead():
    """Whatever a cell does after cycle 50 changes no forecast made until then."""
    fleet = fleet_sums([pairs(noisy(1)), pairs(noisy(2))])
    one = noisy(3)
    other = replace(one, capacity_ah=np.where(one.cycle > 50, 0.7, one.capacity_ah))
    first, second = (forecasts(pairs(c), fleet) for c in (one, other))
    until = pairs(one).cycle <= 50
    assert first[until].tolist() == second[until].tolist()
    assert first[~until] != pytest.approx(second[~until])


def test_own_pairs_count_when_they_are_known():
    """At cycle 40 the pairs 1 → 11 to 30 → 40, beside a fleet as heavy as five of them."""
    mine, others = pairs(noisy(5)), fleet_sums([pairs(noisy(6)), pairs(noisy(7))])
    got = forecasts(mine, others, fleet_pairs=5.0)[39]
    change = mine.ahead_ah - mine.capacity_ah
    fleet_rows = [pairs(noisy(seed)) for seed in (6, 7)]
    root = (5.0 / others.n) ** 0.5
    x = np.vstack([mine.x[:30], *(root * p.x for p in fleet_rows)])
    y = np.concatenate([change[:30], *(root * (p.ahead_ah - p.capacity_ah) for p in fleet_rows)])
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    assert got == pytest.approx(mine.capacity_ah[39] + mine.x[39] @ beta, rel=1e-9)
    fleet_only = forecasts(mine, others, fleet_pairs=np.inf)[39]
    beta = regress(others).coefficient
    assert fleet_only == pytest.approx(mine.capacity_ah[39] + mine.x[39] @ beta, rel=1e-9)
    assert weighed(others, 0.5).n == others.n
    assert len(COLUMNS) == 3


@pytest.mark.data
@pytest.mark.skipif(not NASA.is_file(), reason="FL_INMETRO_DATA has no battery_nasa")
@pytest.mark.parametrize(("name", "persistence"), [("B0006", 0.058), ("B0007", 0.032)])
def test_real_capacities_ten_discharges_ahead(name, persistence):
    """The set's own reference is persistence; other cells at 24 °C are the fleet."""
    cells = read_discharges(NASA)
    mine = pairs(cells[name])
    assert np.abs(mine.ahead_ah - mine.capacity_ah).mean() == pytest.approx(persistence, abs=5e-4)
    others = [c for c in ("B0006", "B0007", "B0033", "B0034", "B0036") if c != name]
    fleet = fleet_sums([pairs(cells[other]) for other in others])
    error = np.abs(forecasts(mine, fleet) - mine.ahead_ah).mean()
    assert error < 0.7 * persistence

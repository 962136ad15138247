"""UEC(BDR): by hand, against numpy's polynomials, its turning point, and cells as clients."""

import os
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.errors import DataError, FederationError
from fl_inmetro.ev.batteries import Discharges, read_discharges
from fl_inmetro.ev.calibration import total
from fl_inmetro.ev.degradation import (
    Law,
    cell_law_sums,
    degradation_ratio,
    law,
    law_sums,
    store_kwh_per_100km,
)
from fl_inmetro.ev.regression import Regression, sums_of_rows

DATA = os.environ.get("FL_INMETRO_DATA", "")
NASA = Path(DATA or ".") / "battery_nasa" / "discharge_cycles.parquet"


def made(seed: int, n: int = 60, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ratio = rng.uniform(0, 0.4, n)
    return ratio, 15 - 2 * ratio + 8 * ratio**2 + rng.normal(0, noise, n)


def test_degradation_by_hand():
    """1.5 of 2 Ah are left: a quarter is lost. 15 kWh at 3.6 V are 15·3.6/3.4 of 3.4 V's charge."""
    assert degradation_ratio(np.array([2.0, 1.5]), 2.0) == pytest.approx([0, 0.25])
    got = store_kwh_per_100km(15.0, np.array([3.6, 3.4]), 3.6)
    assert got == pytest.approx([15, 15 * 3.6 / 3.4])
    for bad in ([0.0], [np.nan], [-1.0]):
        with pytest.raises(DataError, match="FL221"):
            degradation_ratio(np.array(bad), 2.0)


def test_a_parabola_is_found_again():
    """15 − 2·r + 8·r² turns at 0.125, where it is 15 − 0.125."""
    ratio, _ = made(0)
    found = law(law_sums(ratio, 15 - 2 * ratio + 8 * ratio**2))
    assert found.regression.coefficient == pytest.approx([15, -2, 8], rel=1e-6)
    turn = found.extremum()
    assert turn.ratio == pytest.approx(0.125, rel=1e-6)
    assert turn.uec_kwh_per_100km == pytest.approx(14.875)
    assert turn.minimum
    assert found.at(np.array([[0.0, 0.5]])) == pytest.approx(np.array([[15, 16]]))


def test_many_clients_are_numpys_polynomial():
    parts = [made(seed) for seed in range(5)]
    found = law(total(law_sums(*one) for one in parts))
    ratio, uec = (np.concatenate(values) for values in zip(*parts, strict=True))
    peer, covariance = np.polyfit(ratio, uec, 2, cov=True)
    assert found.regression.coefficient == pytest.approx(peer[::-1], rel=1e-8)
    assert found.regression.covariance == pytest.approx(covariance[::-1, ::-1], rel=1e-7)
    low, high = found.interval_at(np.array([0.1]))
    assert low[0] < np.polyval(peer, 0.1) < high[0]


def test_the_turn_and_its_interval_by_hand():
    """a = (15, −2, 8), variances 0.04 and 1, none between: the turn's own is that of its slopes.

    ∂/∂a₁ = −1/16, ∂/∂a₂ = −2/128: √(0.04/256 + 1/4096) = 0.02001. Fieller, t² = 4 (t by bisection
    of the level): 4(64 − 4)·r² + 4(−16)·r + 4 − 0.16 = 0, r = (64 ± √(4096 − 3686.4))/480.
    """
    names = ("1", "BDR", "BDR²")
    covariance = np.diag([0.0, 0.04, 1.0])
    regression = Regression(names, np.array([15.0, -2, 8]), covariance, 0.1, 1e7, 9, 0.9, 0.0)
    turn = Law(regression).extremum(level=0.954499736)
    assert turn.ratio_error == pytest.approx((0.04 / 256 + 1 / 4096) ** 0.5)
    root = (4096 - 4 * 240 * 3.84) ** 0.5
    assert (turn.low, turn.high) == pytest.approx(((64 - root) / 480, (64 + root) / 480), rel=1e-5)
    unsure = Regression(names, np.array([15.0, -2, 8]), covariance * 30, 0.1, 1e7, 9, 0.9, 0.0)
    assert (Law(unsure).extremum().low, Law(unsure).extremum().high) == (-np.inf, np.inf)
    straight = Regression(names, np.array([15.0, 2, 0]), covariance, 0.1, 9, 9, 0.9, 0.0)
    assert Law(straight).extremum().ratio == np.inf


def test_intervals_of_the_turn_hold_it():
    """95 % of 300 laws from 60 noisy trips; where the other sign of a₂ is taken, none."""
    inside = 0
    for seed in range(300):
        turn = law(law_sums(*made(seed, noise=0.1))).extremum()
        inside += turn.low <= 0.125 <= turn.high
    assert inside == pytest.approx(285, abs=12)


def test_two_ratios_make_no_parabola():
    ratio = np.array([0.0, 0.1, 0.0, 0.1])
    with pytest.raises(FederationError, match="FL371"):
        law(law_sums(ratio, np.array([15.0, 16, 15.1, 16.2])))
    with pytest.raises(FederationError, match="FL372"):
        law(sums_of_rows(("1", "BDR"), np.eye(2), np.ones(2)))


def cell(load: np.ndarray) -> Discharges:
    n = len(load)
    capacity = np.concatenate([np.full(5, 2.0), np.linspace(2.0, 1.4, n - 5)])
    voltage = 3.6 / (1 + 0.1 * (1 - capacity / 2) + 0.2 * (1 - capacity / 2) ** 2)
    return Discharges("X", np.arange(1, n + 1), capacity, voltage, load, np.full(n, 24.0))


def test_a_cells_voltage_is_its_law():
    """V̄ = 3.6/(1 + 0.1·r + 0.2·r²): UEC = 20·(1 + 0.1·r + 0.2·r²)."""
    found = law(cell_law_sums(cell(np.full(30, 2.0)), 20.0))
    assert found.regression.coefficient == pytest.approx([20, 2, 4], rel=1e-6)
    with pytest.raises(DataError, match=r"FL221.*several loads"):
        cell_law_sums(cell(np.array([1.0] * 10 + [4.0] * 20)), 20.0)


@pytest.mark.data
@pytest.mark.skipif(not NASA.is_file(), reason="FL_INMETRO_DATA has no battery_nasa")
def test_aged_cells_take_more_for_the_same_way():
    """Real cells at 2 A: a fifth of the capacity lost costs about two per cent more charge."""
    cells = read_discharges(NASA)
    parts = {name: cell_law_sums(cells[name], 15.0) for name in ("B0006", "B0007", "B0036")}
    found = law(total(parts.values()))
    assert found.at(np.array([0.2]))[0] == pytest.approx(15.25, abs=0.1)
    for part in parts.values():
        alone = law(part)
        assert alone.regression.coefficient[2] > 2 * alone.regression.standard_error[2]

"""The learned rest, the choice of it, and what is said of trips that were left out."""

import numpy as np
import pytest

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.calibration import (
    PRIOR_SD,
    TERMS,
    calibrate,
    segment_starts,
    sums_per_trip,
    term_powers,
    total,
)
from fl_inmetro.ev.drives import Drives
from fl_inmetro.ev.parameters import Vehicle
from fl_inmetro.ev.residual import (
    COLUMNS,
    KNOTS,
    chosen,
    design,
    fitted,
    hats,
    left_out_kwh_per_km,
    prepared,
    states,
)
from fl_inmetro.ev.validation import leave_one_trip_out, scores


def drives(seed: int, trips: int) -> Drives:
    rng = np.random.default_rng(seed)
    n = trips * 400
    top = np.repeat(rng.uniform(6, 36, trips), 400)
    speed = np.clip(top * (0.5 + 0.45 * np.sin(np.arange(n) / 23)), 0, None)
    ambient = np.repeat(rng.uniform(-5, 32, trips), 400)
    return Drives(speed, np.zeros(n), ambient, np.arange(0, n + 1, 400))


DRIVES = drives(0, 16)
BATTERY = DRIVES.ambient_deg_c + 5
PHYSICAL = term_powers(DRIVES, Vehicle())


def with_a_hump(noise_kw: float, hump_kw: float) -> np.ndarray:
    """Power with a resistance at middling speeds that no term of the car has."""
    rng = np.random.default_rng(1)
    speed = DRIVES.interval_mean(DRIVES.speed_m_s)
    hump = hump_kw * np.exp(-(((speed - 16) / 5) ** 2)) * speed / 12
    trip = np.repeat(rng.normal(0, noise_kw, len(DRIVES)), 400)
    return PHYSICAL.sum(axis=1) + hump + trip * (PHYSICAL[:, TERMS.index("base")] > 0)


def test_hats_by_hand():
    """Between the knots 0, 2 and 6: 1 lies halfway of the first two, 3 a quarter on; ends level."""
    got = hats(np.array([-1.0, 0.0, 1.0, 3.0, 9.0]), (0.0, 2.0, 6.0))
    expected = [[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0.75, 0.25], [0, 0, 1]]
    assert got == pytest.approx(np.array(expected))


def test_columns_are_named_and_stand_still_at_rest():
    both = design(PHYSICAL, DRIVES, BATTERY)
    assert both.shape == (len(PHYSICAL), len(COLUMNS))
    assert COLUMNS[: len(TERMS)] == TERMS
    rest = both[:, len(TERMS) :]
    way = DRIVES.interval_mean(DRIVES.speed_m_s) / 12
    # The hats of each state sum to one, so its columns sum to the way.
    assert rest.sum(axis=1) == pytest.approx(len(KNOTS) * way)
    assert np.all(rest[DRIVES.offsets[1:] - 1] == 0)


def test_no_spread_is_physics_alone():
    measured = with_a_hump(0.3, 1.0)
    trips = prepared(PHYSICAL, measured, DRIVES, BATTERY)
    alone = calibrate(total(sums_per_trip(PHYSICAL, measured, DRIVES)))
    both = fitted(total(trip.sums for trip in trips), 0.0)
    assert both.factor[: len(TERMS)] == pytest.approx(alone.factor, rel=1e-6)
    assert np.abs(both.factor[len(TERMS) :]).max() < 1e-9


def test_leaving_out_is_fitting_again():
    """The short cut (subtracted sums) against least squares on the rows of the others.

    A prior is rows of its own: σ/s on the diagonal, σ/s·β⁰ on the right.
    """
    measured = with_a_hump(0.3, 1.0)
    trips = prepared(PHYSICAL, measured, DRIVES, BATTERY)
    short = left_out_kwh_per_km(trips, 0.2)
    noise = fitted(total(trip.sums for trip in trips), 0.2).noise_kwh
    both = design(PHYSICAL, DRIVES, BATTERY)
    rest = len(COLUMNS) - len(TERMS)
    centre = np.array([1.0] * len(TERMS) + [0.0] * rest)
    sd = np.array([PRIOR_SD[name] for name in TERMS] + [0.2] * rest)
    for i in (0, 7, 15):
        others = DRIVES.only(j for j in range(16) if j != i)
        inside = DRIVES.trip != i
        starts = segment_starts(others)
        x = np.add.reduceat(both[inside], starts) / 3600
        y = np.add.reduceat(measured[inside], starts) / 3600
        rows = np.vstack([x, np.diag(noise / sd)])
        factor = np.linalg.lstsq(rows, np.concatenate([y, noise / sd * centre]), rcond=None)[0]
        error = (both[~inside].sum(axis=0) / 3600 @ factor - measured[~inside].sum() / 3600) / (
            trips[i].distance_km
        )
        assert short[i] == pytest.approx(error, rel=1e-6, abs=1e-9)


def test_a_rest_is_found_where_there_is_one():
    measured = with_a_hump(0.05, 4.0)
    trips = prepared(PHYSICAL, measured, DRIVES, BATTERY)
    assert chosen(trips).spread_kw > 0
    physics, learned = (leave_one_trip_out(trips, rest) for rest in (False, True))
    truth = np.array([trip.measured_kwh for trip in trips])
    errors = [np.abs(left.predicted_kwh - truth).mean() for left in (physics, learned)]
    assert errors[1] < 0.7 * errors[0]
    assert all(choice.spread_kw == 0 for choice in physics.choices)


def test_the_trip_left_out_has_no_say():
    """Whatever the left-out trip measured, its prediction, its interval and the choice stay."""
    measured = with_a_hump(0.3, 1.0)
    other = measured.copy()
    other[: DRIVES.offsets[1]] += 40.0
    first, second = (
        leave_one_trip_out(prepared(PHYSICAL, one, DRIVES, BATTERY), learned=True)
        for one in (measured, other)
    )
    assert first.predicted_kwh[0] == second.predicted_kwh[0]
    assert first.half_width_kwh[0] == second.half_width_kwh[0]
    assert first.choices[0] == second.choices[0]
    assert first.predicted_kwh[1] != second.predicted_kwh[1]


def test_two_trips_are_too_few():
    trips = prepared(PHYSICAL, with_a_hump(0.3, 1.0), DRIVES, BATTERY)
    with pytest.raises(FederationError, match="FL368"):
        chosen(trips[:2])


def test_scores_by_hand():
    """Errors 0.1, 0.3 and 0.2 kWh of 1, 2 and 4 kWh over 10, 20 and 20 km.

    MAE 0.2; RMSE √(0.14/3) = 0.21602; MAPE (10 + 15 + 5)/3 = 10 %; kWh/100 km (1 + 1.5 + 1)/3 =
    1.16667; inside ± 0.25: two of three.
    """
    predicted = np.array([1.1, 1.7, 4.2])
    measured, distance = np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 20.0])
    found = scores(predicted, measured, distance, np.full(3, 0.25))
    assert found.mae_kwh.value == pytest.approx(0.2)
    assert found.rmse_kwh.value == pytest.approx(0.21602, abs=1e-5)
    assert found.mape_percent.value == pytest.approx(10)
    assert found.mae_kwh_per_100km.value == pytest.approx(3.5 / 3)
    assert found.coverage_80 == pytest.approx(2 / 3)
    for score in (found.mae_kwh, found.rmse_kwh, found.mape_percent, found.mae_kwh_per_100km):
        assert score.low <= score.value <= score.high
    # Three trips: the lowest resample is thrice the best trip, and it is drawn 1 time in 27.
    assert found.mae_kwh.low == pytest.approx(0.1)
    assert found.mae_kwh.high == pytest.approx(0.3)
    assert scores(predicted, measured, distance).coverage_80 is None


def test_the_bootstrap_is_as_wide_as_the_normal_law():
    """200 trips with errors of |N(0, 1)|: the mean's spread is √((1 − 2/π)/200) = 0.0426."""
    error = np.abs(np.random.default_rng(5).standard_normal(200))
    measured = np.full(200, 10.0)
    found = scores(measured + error, measured, np.full(200, 100.0)).mae_kwh
    assert found.high - found.low == pytest.approx(2 * 1.96 * error.std() / 200**0.5, rel=0.06)


def test_the_battery_is_known_as_it_was_at_the_start():
    warming = BATTERY + np.tile(np.linspace(0, 10, 400), 16)
    state = states(DRIVES, warming)
    assert state["battery_deg_c"] == pytest.approx(np.repeat(warming[::400], 400))
    assert state["minutes"][[0, 60, 399, 400]] == pytest.approx([0, 1, 6.65, 0])


def test_the_interval_has_the_rank_of_conformal_prediction():
    """15 training trips, 80 %: the ⌈0.8·16⌉ = 13th smallest of their errors, times the way."""
    trips = prepared(PHYSICAL, with_a_hump(0.3, 1.0), DRIVES, BATTERY)
    left = leave_one_trip_out(trips, learned=False)
    errors = np.sort(np.abs(left_out_kwh_per_km(trips[:4] + trips[5:], 0.0)))
    assert left.half_width_kwh[4] == pytest.approx(errors[12] * trips[4].distance_km)
    assert errors[11] < errors[12]

"""Networks over drives: federated = pooled, padding, chunks, and a car's own correction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fl_inmetro.errors import FederationError
from fl_inmetro.ev.physics_family import PhysicsFamily
from fl_inmetro.ev.simulated import fleet
from fl_inmetro.ev.trip_sets import some
from fl_inmetro.ev_study.car_correction import Correction, spreads
from fl_inmetro.ev_study.networks import network, positions
from fl_inmetro.ev_study.sequence_family import (
    SequenceFamily,
    SequenceSettings,
    energies,
    power_kw,
    summed_gradient,
)
from fl_inmetro.ev_study.signals import CHUNK, STEP_S, chunks_of, joined, width_of

CARS = {name: car.trips for name, car in fleet(3, 5, seed=2).items()}
QUICK = SequenceSettings(width=8, rounds=15, batch=1000)


def moved(kind: str, seed: int = 0):
    """A network whose head is no longer zero."""
    model = network(kind, width_of(False), 8, seed)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.parametrize("mode", ["none", "residual"])
def test_the_sum_of_clients_gradients_is_that_of_the_pool(kind, mode):
    model = moved(kind)
    parts = [chunks_of(trips) for trips in CARS.values()]
    whole, steps = summed_gradient(model, joined(parts), mode)
    each = [summed_gradient(model, part, mode) for part in parts]
    assert sum(count for _, count in each) == pytest.approx(steps, rel=1e-6)
    for name in whole:
        total = sum(gradient[name] for gradient, _ in each)
        assert np.allclose(total, whole[name], rtol=1e-3, atol=1e-4 * np.abs(whole[name]).max())


def test_federated_training_by_whole_batches_is_central_training():
    for family in (
        SequenceFamily("lstm", "none", QUICK),
        SequenceFamily("lstm", "residual", QUICK),
    ):
        federated, central = (family.fit(CARS, way, 0) for way in ("federated", "central"))
        for car, trips in CARS.items():
            one, other = (model.predict(car, trips) for model in (federated, central))
            assert np.allclose(one, other, rtol=2e-3)
    assert federated.moved_bytes > central.moved_bytes == 0


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_what_lies_behind_a_chunk_s_end_changes_nothing(kind):
    model = moved(kind)
    chunks = joined([chunks_of(trips) for trips in CARS.values()])
    together = power_kw(model, chunks, "none")
    for row in (0, 3, len(chunks) - 1):
        length = int((chunks.hours[row] > 0).sum())
        alone = chunks.part(np.array([row]))
        short = replace(
            alone,
            x=alone.x[:, :length],
            physics_kw=alone.physics_kw[:, :length],
            measured_kw=alone.measured_kw[:, :length],
            hours=alone.hours[:, :length],
        )
        assert torch.allclose(power_kw(model, short, "none")[0], together[row, :length], atol=1e-5)
        assert not together[row, length:].any()


def test_steps_and_energies_of_chunks_are_those_of_the_trips():
    trips = CARS["car 02"]
    chunks = chunks_of(trips)
    measured = np.zeros(len(trips.names))
    np.add.at(measured, chunks.trip, (chunks.measured_kw * chunks.hours).sum(axis=1))
    assert np.allclose(measured, trips.drives.sums(trips.interval_kw) / 3600, rtol=1e-5)
    lengths = np.diff(trips.drives.offsets)
    steps = np.ceil((lengths - 1) / STEP_S)
    assert len(chunks) == np.ceil(steps / CHUNK).sum()
    assert (chunks.hours > 0).sum() == steps.sum()
    # The first step by a plain loop: the mean of ten intervals' mean speeds, over 15 m/s.
    speed = trips.drives.speed_m_s
    first = np.mean([(speed[i] + speed[i + 1]) / 2 for i in range(STEP_S)]) / 15
    assert chunks.x[0, 0, 0] == pytest.approx(first, rel=1e-5)


def test_a_residual_begins_as_physics_and_physics_may_be_an_input():
    physics = PhysicsFamily().fit(CARS, "federated", 0)
    for kind in ("lstm", "transformer"):
        fresh = network(kind, width_of(False), 8, 0)
        for car, trips in CARS.items():
            told = energies(fresh, chunks_of(trips, physics, car), "residual", len(trips.names))
            assert np.allclose(told, physics.predict(car, trips), rtol=1e-5)
    with_input = chunks_of(CARS["car 01"], physics, "car 01", as_input=True)
    assert with_input.x.shape[-1] == width_of(True) == width_of(False) + 1


def test_what_was_measured_of_the_battery_is_not_looked_at():
    fitted = SequenceFamily("lstm", "residual", QUICK).fit(CARS, "federated", 0)
    trips = CARS["car 01"]
    other = replace(
        trips, terminal_kw=trips.terminal_kw * 2, battery_deg_c=trips.battery_deg_c.copy()
    )
    later = np.ones(len(trips.battery_deg_c), dtype=bool)
    later[trips.drives.offsets[:-1]] = False
    other.battery_deg_c[later] += 30
    assert np.array_equal(fitted.predict("new", trips), fitted.predict("new", other))


def test_alone_each_car_has_its_network_and_a_stranger_has_none():
    few = SequenceSettings(width=4, rounds=2)
    local = SequenceFamily("lstm", "none", few).fit(CARS, "local", 0)
    assert set(local.networks) == set(CARS)
    with pytest.raises(FederationError, match="FL369"):
        local.predict("new", CARS["car 01"])


def test_bytes_by_hand():
    """Weights down and a gradient up, four bytes each, in each round; three numbers at the end."""
    few = SequenceSettings(width=4, rounds=2)
    fitted = SequenceFamily("lstm", "none", few).fit(CARS, "federated", 0)
    assert fitted.moved_bytes == (2 * 4 * fitted.parameters * 2 + 24) * 3
    # An LSTM of 4 units on 12 inputs: 4·4·(12 + 4 + 2), a skip of 13 and a head of 5.
    assert fitted.parameters == 288 + 13 + 5


def test_a_correction_is_the_ridge_regression_of_all_trips():
    """Bayes by hand: (X'X/σ² + P⁻¹)⁻¹ (X'y/σ² + P⁻¹ μ), whatever the order of the trips."""
    rng = np.random.default_rng(0)
    told = rng.uniform(0.1, 0.3, 12)
    true = 1.1 * told + 0.02 + 0.005 * rng.normal(size=12)
    before = Correction.before(0.03, 0.01)
    x = np.column_stack([told, np.ones(12)])
    prior = np.linalg.inv(np.diag([0.1, 0.03]) ** 2)
    precision = x.T @ x / 0.01**2 + prior
    expected = np.linalg.solve(precision, x.T @ true / 0.01**2 + prior @ [1.0, 0.0])
    for order in (np.arange(12), np.arange(12)[::-1]):
        after = before.after_all(told[order].tolist(), true[order].tolist())
        assert np.allclose(after.mean, expected, rtol=1e-9)
        assert np.allclose(after.covariance, np.linalg.inv(precision), rtol=1e-8)
    # One who forgets follows a car that changed.
    changed = np.concatenate([true, true * 1.5])
    twice = np.concatenate([told, told])
    stays, follows = (
        Correction.before(0.03, 0.01, forgetting).after_all(twice.tolist(), changed.tolist())
        for forgetting in (1.0, 0.7)
    )
    error = [np.abs(c.applied(told) - 1.5 * true).mean() for c in (stays, follows)]
    assert error[1] < 0.5 * error[0]


def test_spreads_by_hand():
    """Cars at ±3 with trips at ±1 around: within 2·2/2 = 2; between (36 − 2)/2 = 17."""
    cars = [np.array([2.0, 4.0]), np.array([-4.0, -2.0])]
    between, within = spreads(cars)
    assert within == pytest.approx(np.sqrt(2.0))
    assert between == pytest.approx(np.sqrt(17.0))
    assert spreads([np.array([3.0, 4.0])]) == (0.0, pytest.approx(np.sqrt(12.5)))


def test_own_trips_help_a_car_unlike_the_fleet():
    fitted = SequenceFamily("lstm", "none", SequenceSettings(width=8, rounds=60)).fit(
        CARS, "federated", 0
    )
    strange = fleet(1, 12, seed=9)["car 01"].trips
    strange = replace(strange, terminal_kw=strange.terminal_kw * 1.5)
    own, later = some(strange, range(6)), some(strange, range(6, 12))
    errors = [
        np.abs(fitted.predict("new", later, known) - later.terminal_kwh).mean()
        for known in (None, own)
    ]
    assert errors[1] < errors[0]


def test_positions_by_hand():
    found = positions(3, 4).numpy()
    assert np.allclose(found[0], [0, 1, 0, 1])
    assert np.allclose(found[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)])

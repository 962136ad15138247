"""Federated load forecasting in one file: the idea of fl-inmetro without its machinery.

Eight meters want a forecast of the next 24 hours. Each has little history; together they have
enough, but nobody hands over readings. So the model travels instead:

    1. the server sends the same model to every meter;
    2. each meter improves it on its own readings, and sends back only the change;
    3. the server adds the weighted mean of the changes to the model, and starts again.

This is federated averaging (McMahan et al. 2017). Only NumPy is needed: `python nano_fed.py`.
The series are SIMULATED; a test of the library holds these very numbers equal to its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAY = 24  # hours of a forecast, and of the past the model looks at
FOUR_WEEKS = 28 * DAY  # a meter's scale is its mean load over this past
TEST_DAYS = 14  # the last days; nothing is trained on them
ROUNDS, LOCAL_STEPS, LEARNING_RATE = 30, 10, 1.0


class Model(NamedTuple):
    """A linear map from yesterday to today; this is all that ever travels."""

    w: Floats  # shape (24, 24): hour to forecast × hour of yesterday
    b: Floats  # shape (24,)


@dataclass(frozen=True)
class Windows:
    """One row per forecast: what is known at midnight, and what the day then brought."""

    x: Floats  # (N, 24) yesterday, relative to its last hour, in units of the scale
    y: Floats  # (N, 24) the day itself, likewise
    last: Floats  # (N, 1) the last hour before midnight, in units of the scale
    scale_kwh: Floats  # (N, 1) the meter's own mean; it stays at the meter
    target_kwh: Floats  # (N, 24) the day itself, to score with
    yesterday_kwh: Floats  # (N, 24) the seasonal naive forecast: the same hour yesterday


def simulate_load_kwh(meter: int) -> Floats:
    """Return hourly readings of one meter; every meter has its size, its habits and its length."""
    random = np.random.default_rng([2024, meter])
    days = 28 + TEST_DAYS + 10 + 3 * meter
    hour = np.arange(DAY)
    habits = 0.5 + sum(
        height * np.exp(-0.5 * ((hour - peak) / width) ** 2)
        for height, peak, width in [
            (random.uniform(0.3, 1.0), random.normal(8, 1), 2.0),
            (random.uniform(0.8, 1.6), random.normal(19, 1), 2.5),
        ]
    )
    level = np.ones(days)  # warm and cool days come in rows: today resembles yesterday
    for day in range(1, days):
        level[day] = 1 + 0.8 * (level[day - 1] - 1) + random.normal(0, 0.12)
    size_kwh = np.exp(random.normal(0, 1))
    noise = random.lognormal(0, 0.25, (days, DAY))
    kwh: Floats = size_kwh * (np.maximum(level, 0.2)[:, None] * habits * noise).ravel()
    return kwh


def cut_windows(load_kwh: Floats, first_day: int, last_day: int) -> Windows:
    """Cut one window per day: all inputs lie before midnight, all targets after it.

    The slices say so: `past` ends where `target` begins, hence no forecast can see its own answer.
    """
    x, y, last, scale, target, yesterday = [], [], [], [], [], []
    for midnight in range(first_day * DAY, last_day * DAY, DAY):
        past, day = load_kwh[:midnight], load_kwh[midnight : midnight + DAY]
        # Divided by its own trailing mean, a flat and a factory look alike and can share a model.
        mean = past[-FOUR_WEEKS:].mean()
        context = past[-DAY:] / mean
        # NLinear (Zeng et al. 2023): subtract the last value here, add it back to the forecast;
        # then the model need not know the level of the day, only the way it goes on from here.
        x.append(context - context[-1])
        y.append(day / mean - context[-1])
        last.append([context[-1]])
        scale.append([mean])
        target.append(day)
        yesterday.append(past[-DAY:])
    return Windows(*(np.array(rows) for rows in (x, y, last, scale, target, yesterday)))


def train_windows(load_kwh: Floats) -> Windows:
    """Return the windows of all days but the test days; the first four weeks are past only."""
    return cut_windows(load_kwh, 28, len(load_kwh) // DAY - TEST_DAYS)


def test_windows(load_kwh: Floats) -> Windows:
    """Return the windows of the last days."""
    return cut_windows(load_kwh, len(load_kwh) // DAY - TEST_DAYS, len(load_kwh) // DAY)


def forecast_kwh(model: Model, rows: Windows) -> Floats:
    """Forecast: last value + W · (context - last) + b, brought back to kWh; never negative."""
    scaled = rows.last + rows.x @ model.w.T + model.b
    return np.maximum(scaled, 0.0) * rows.scale_kwh


def client_update(model: Model, rows: Windows) -> Model:
    """Work at one meter: a few steps of gradient descent. Returns the CHANGE of the model."""
    w, b = model
    for _ in range(LOCAL_STEPS):
        error = rows.x @ w.T + b - rows.y  # (N, 24)
        # Derivative of the mean of error², over windows and hours.
        w = w - LEARNING_RATE * 2 * error.T @ rows.x / error.size
        b = b - LEARNING_RATE * 2 * error.sum(axis=0) / error.size
    return Model(w - model.w, b - model.b)


def server_round(model: Model, fleet: list[Windows]) -> Model:
    """One round: everybody works on the same model, the server merges the changes."""
    changes = [client_update(model, rows) for rows in fleet]
    # A meter with more windows knows more, so it weighs more; the weights sum to one.
    weights = np.array([len(rows.x) for rows in fleet]) / sum(len(rows.x) for rows in fleet)
    return Model(
        model.w + sum(share * change.w for share, change in zip(weights, changes, strict=True)),
        model.b + sum(share * change.b for share, change in zip(weights, changes, strict=True)),
    )


def federate(fleet: list[Windows], rounds: int = ROUNDS) -> list[Model]:
    """Return the model before the first round and after each; it starts as "like the last hour"."""
    models = [Model(np.zeros((DAY, DAY)), np.zeros(DAY))]
    for _ in range(rounds):
        models.append(server_round(models[-1], fleet))
    return models


def nmae(forecast: Floats, rows: Windows) -> float:
    """Return one meter's mean absolute error over its mean load: comparable between sizes."""
    return float(np.abs(forecast - rows.target_kwh).mean() / rows.target_kwh.mean())


def main() -> None:
    """Tell the story."""
    loads = [simulate_load_kwh(meter) for meter in range(8)]
    train, test = [train_windows(load) for load in loads], [test_windows(load) for load in loads]
    print("SIMULATED meters; nMAE = mean absolute error over mean load, mean over the meters\n")
    together = federate(train)
    for number in (0, 1, 2, 5, 10, 20, 30):
        error = np.mean([nmae(forecast_kwh(together[number], rows), rows) for rows in test])
        print(f"  round {number:2d}   nMAE {error:.3f}")
    # Alone = the same program with a federation of one: the only difference is who takes part.
    alone = [federate([rows])[-1] for rows in train]
    names = ("meter", "days to train on", "mean kWh/h", "yesterday", "alone", "together")
    # More rounds are not always better. Here the test days would give it away, but choosing by them
    # would be cheating; the library keeps validation days apart and takes the best round by those.
    print("\n" + "  ".join(f"{name:>16}" for name in names))
    table = []
    for meter, rows in enumerate(test):
        table.append(
            (
                nmae(rows.yesterday_kwh, rows),
                nmae(forecast_kwh(alone[meter], rows), rows),
                nmae(forecast_kwh(together[-1], rows), rows),
            )
        )
        numbers = (meter, len(train[meter].x), f"{loads[meter].mean():.2f}")
        print("  ".join(f"{cell:>16}" for cell in (*numbers, *(f"{e:.3f}" for e in table[-1]))))
    means = (f"{mean:.3f}" for mean in np.mean(table, axis=0))
    print("  ".join(f"{cell:>16}" for cell in ("all", "", "", *means)))
    values = together[-1].w.size + together[-1].b.size
    print(f"\nEach meter sent {ROUNDS} × {values} numbers, and not one reading.")


if __name__ == "__main__":
    main()

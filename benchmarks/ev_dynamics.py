"""How long are a million seconds of driving, from the speeds to the energy of each trip?

python benchmarks/ev_dynamics.py [--seconds 1000000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fl_inmetro.ev.drives import Drives  # noqa: E402
from fl_inmetro.ev.dynamics import trip_energies  # noqa: E402
from fl_inmetro.ev.parameters import Vehicle  # noqa: E402

#: Of one trip, about: 20 minutes.
TRIP_S = 1200


def drives_of(seconds: int) -> Drives:
    """Return trips of uneven length with hills, wind and weather."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(2, seconds - 2, 2), max(seconds // TRIP_S - 1, 0), False))
    speed = np.abs(15 + 10 * np.sin(np.arange(seconds) / 40) + rng.normal(0, 0.5, seconds))
    return Drives(
        speed,
        0.4 * np.sin(np.arange(seconds) / 300),
        rng.uniform(-10, 35, seconds),
        np.concatenate([[0], cuts, [seconds]]),
        wind_m_s=rng.normal(0, 3, seconds),
    )


def main() -> None:
    """Print the median time, with the efficiency map and without."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    drives = drives_of(asked.seconds)
    cars = {"efficiency map": Vehicle(), "one efficiency": replace(Vehicle(), motor_map=None)}
    for name, car in cars.items():
        times = []
        for _ in range(asked.repeats):
            begun = time.perf_counter()
            energy = trip_energies(drives, car)
            times.append(time.perf_counter() - begun)
        print(
            f"{name}: {asked.seconds:,} s of driving in {len(drives)} trips, "
            f"{energy.distance_km.sum():,.0f} km: {statistics.median(times):.3f} s "
            f"(fastest {min(times):.3f} s)"
        )


if __name__ == "__main__":
    main()

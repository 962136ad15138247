"""Speeds of drives: made up of micro-trips, or cut from real cars' GPS traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.trips import Limits

#: Road types of the generator: cruising speed in m/s (mean, spread), metres between stops (median),
#: and seconds of standing (mean).
ROADS: dict[str, tuple[float, float, float, float]] = {
    "urban": (11.0, 2.5, 350.0, 18.0),
    "suburban": (17.0, 3.0, 900.0, 15.0),
    "motorway": (28.0, 3.5, 9000.0, 8.0),
}

#: Metres per second of a mile per hour.
MPH = 0.44704


def generated_speed(rng: np.random.Generator, distance_m: float, roads: Floats) -> Floats:
    """Return the speeds of one drive, in m/s [second]: it begins and ends at rest.

    A drive is a chain of micro-trips from stop to stop (the way in which driving cycles are put
    together: Lin and Niemeier, *Transportation Research Part D* 7, 2002). On each the car goes up
    to a cruising speed by a driver's acceleration, keeps it with slow waves, brakes and stands.

    Args:
        rng: Draws.
        distance_m: Wanted length; the last micro-trip ends it within a few per cent.
        roads: Share of each of `ROADS`, summing to 1 [road].
    """
    parts, driven = [], 0.0
    kinds = list(ROADS.values())
    hurry = rng.uniform(0.8, 1.25)
    while driven < distance_m:
        cruise, spread, between, standing = kinds[int(rng.choice(len(kinds), p=roads))]
        top = max(cruise + spread * rng.normal(), 4.0)
        length = min(between * np.exp(0.6 * rng.normal()), max(distance_m - driven, 60.0))
        gain, brake = hurry * rng.uniform(0.7, 1.6), rng.uniform(0.7, 1.8)
        # A short way does not reach the cruising speed.
        top = min(top, float(np.sqrt(2 * length / (1 / gain + 1 / brake))))
        up, down = top / gain, top / brake
        steady = max((length - top * (up + down) / 2) / top, 0.0)
        seconds = np.arange(0.0, up + steady + down, 1.0)
        # The pull fades towards the wanted speed, as a driver's does.
        speed = np.minimum(top * np.sin(np.clip(seconds / (1.3 * up), 0, 1) * np.pi / 2), top)
        speed = np.minimum(speed, np.maximum((up + steady + down - seconds) * brake, 0.0))
        waves = np.convolve(rng.normal(size=len(seconds) + 14), np.ones(15) / 15, "valid")
        speed = np.clip(speed * (1 + 0.12 * waves), 0.0, None)
        rest = np.zeros(max(int(rng.exponential(standing)), 1))
        parts += [speed, rest]
        driven += float(speed.sum())
    return np.concatenate([np.zeros(1), *parts])


@dataclass(frozen=True)
class Traces:
    """Real drives by car.

    Attributes:
        speed_m_s: Of each car, its drives in their order; each [second].
        excluded: A fault for each drive that was left out.
    """

    speed_m_s: dict[str, list[Floats]]
    excluded: tuple[Fault, ...]


def read_traces(path: Path, limits: Limits | None = None) -> Traces:
    """Cut GPS traces (columns `vehicle`, `timestamp`, `speed_mph`) into drives.

    A step of more than a second ends a drive. What is too short, too fast or jumps is left out
    with FL224; standing before the first and after the last movement is cut off.

    Raises:
        DataError: FL224, the file cannot be read, a column is missing, or no drive is left.
    """
    # Only reading needs pyarrow; the physics runs without.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["vehicle", "timestamp", "speed_mph"])
    except (OSError, pa.ArrowInvalid) as problem:
        what = f"the traces cannot be read: {problem}"
        hint = "columns: `vehicle`, `timestamp`, `speed_mph`"
        raise DataError(Fault("FL224", what, str(path), hint)) from None
    vehicle = np.array([str(name) for name in table["vehicle"].to_pylist()])
    seconds = table["timestamp"].to_numpy().astype("datetime64[s]").astype(np.int64)
    speed = table["speed_mph"].to_numpy().astype(np.float64) * MPH
    limits = limits or Limits()
    found: dict[str, list[Floats]] = {}
    excluded = []
    for name in dict.fromkeys(vehicle.tolist()):
        mine = np.flatnonzero(vehicle == name)
        mine = mine[np.argsort(seconds[mine], kind="stable")]
        breaks = np.flatnonzero(np.diff(seconds[mine]) != 1) + 1
        for number, piece in enumerate(np.split(mine, breaks)):
            one = _moving(speed[piece])
            why = _reason(one, limits)
            if why:
                excluded.append(Fault("FL224", why, f"car {name}, drive {number + 1}"))
            else:
                found.setdefault(name, []).append(one)
    if not found:
        raise DataError(excluded or [Fault("FL224", "the table has no drive", str(path))])
    return Traces(found, tuple(excluded))


def _moving(speed_m_s: Floats) -> Floats:
    """Cut standing off both ends, but for the second before and after (where it was recorded)."""
    moving = np.flatnonzero(speed_m_s > 0)
    if not len(moving):
        return speed_m_s[:0]
    return speed_m_s[max(moving[0] - 1, 0) : moving[-1] + 2]


def _reason(speed_m_s: Floats, limits: Limits) -> str:
    if len(speed_m_s) < limits.shortest_s:
        return f"{len(speed_m_s)} samples, {limits.shortest_s} are needed"
    if not np.all(np.isfinite(speed_m_s)):
        return "a speed is missing"
    fastest = 3.6 * float(speed_m_s.max())
    if fastest > limits.speed_km_h:
        return f"a speed of {fastest:.0f} km/h"
    jump = float(np.abs(np.diff(speed_m_s)).max())
    if jump > limits.acceleration_m_s2:
        return f"the speed jumps by {jump:.0f} m/s in a second"
    distance_km = float(speed_m_s.sum()) / 1000
    if distance_km < limits.shortest_km:
        return f"{distance_km:.2f} km, {limits.shortest_km:g} are needed"
    return ""

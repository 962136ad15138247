"""Measured trips of an electric car: read, judged one by one, and the bad ones left out by name."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.drives import Drives, Floats, climb_from_height
from fl_inmetro.units import HOUR_S

#: Columns of the 1 Hz table (names and units are the source's own) that a trip needs.
COLUMNS = {
    "trip": "trip_id",
    "time_s": "Time [s]",
    "speed_km_h": "Velocity [km/h]",
    "height_m": "Elevation [m]",
    "voltage_v": "Battery Voltage [V]",
    "current_a": "Battery Current [A]",
    "soc_percent": "SoC [%]",
    "battery_deg_c": "Battery Temperature [°C]",
    "heating_kw": "Heating Power CAN [kW]",
    "heating_requested_w": "Requested Heating Power [W]",
    "cooling_kw": "AirCon Power [kW]",
    "ambient_deg_c": "Ambient Temperature [°C]",
}

Signals = dict[str, Floats]


@dataclass(frozen=True)
class Limits:
    """What a trip must not do.

    Attributes:
        gap_s: Longest step from one sample to the next; a step is 1 s.
        crowded_s: Shortest step.
        speed_km_h: Fastest car.
        acceleration_m_s2: Hardest change of speed over one step.
        stuck_s: Longest that speed or current may keep one value to the last digit on the move.
        moving_m_s: Speed from which a car moves.
        shortest_s: Of a trip.
        shortest_km: Of a trip.
        battery_kwh: Gross capacity, to hold the energy against the state of charge.
        capacity_tolerance: Energy over drop of charge may be this far from it (relative).
        soc_drop_percent: Smallest drop of charge that says something.
    """

    gap_s: float = 1.5
    crowded_s: float = 0.5
    speed_km_h: float = 250.0
    acceleration_m_s2: float = 15.0
    stuck_s: int = 30
    moving_m_s: float = 2.0
    shortest_s: int = 60
    shortest_km: float = 0.5
    battery_kwh: float = 21.6
    capacity_tolerance: float = 0.4
    soc_drop_percent: float = 1.5


@dataclass(frozen=True)
class Trips:
    """Trips that may be used.

    Attributes:
        names: [trip].
        drives: What is known without the battery's sensors.
        terminal_kw: Measured power at the battery's terminals [sample], discharging positive.
        battery_deg_c: [sample].
        level: Whether a trip's height never changed on the move and it counts as level [trip].
        excluded: One FL224 for each trip that was left out, with the reason.
    """

    names: tuple[str, ...]
    drives: Drives
    terminal_kw: Floats
    battery_deg_c: Floats
    level: NDArray[np.bool_]
    excluded: tuple[Fault, ...]

    @property
    def interval_kw(self) -> Floats:
        """Return the measured power of the interval after each sample, as a model has it."""
        return self.drives.interval_mean(self.terminal_kw)

    @property
    def terminal_kwh(self) -> Floats:
        """Return the measured energy of each trip [trip]: mean over each second, summed."""
        return self.drives.sums(self.terminal_kw) * (self.drives.step_s / HOUR_S)

    @property
    def distance_km(self) -> Floats:
        """Return ∫ v dt of each trip [trip]."""
        return self.drives.sums(self.drives.speed_m_s) * (self.drives.step_s / 1000)


def read_trips(path: Path, limits: Limits | None = None, height_window: int = 31) -> Trips:
    """Read a table of 1 Hz signals in the layout of Steinstraeter et al. (2020).

    Args:
        path: Parquet file with `COLUMNS`; negative current is discharging.
        limits: What a trip must not do.
        height_window: Samples over which heights are averaged before they are differenced.

    Raises:
        DataError: FL224, the file cannot be read, a column is missing, or no trip is left.
    """
    # Only reading needs pyarrow; the physics runs without.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise DataError(Fault("FL224", f"the trips cannot be read: {problem}", str(path))) from None
    missing = [column for column in COLUMNS.values() if column not in table.column_names]
    if missing:
        raise DataError(
            Fault(
                "FL224",
                f"the table of trips has no {', '.join(f'`{column}`' for column in missing)}",
                str(path),
                "names and units are those of the original files",
            )
        )
    names = np.array(table[COLUMNS["trip"]].to_pylist())
    signals = {
        key: table[column].to_numpy().astype(np.float64)
        for key, column in COLUMNS.items()
        if key != "trip"
    }
    return judged(names, signals, limits or Limits(), height_window, str(path))


def judged(
    trip: NDArray[np.str_],
    signals: Signals,
    limits: Limits,
    height_window: int = 31,
    where: str = "",
) -> Trips:
    """Judge trips one by one, and return those that are good.

    Args:
        trip: Which trip a sample is of [sample]; the rows of one trip follow each other.
        signals: The rest of `COLUMNS` by their keys [sample].
        limits: What a trip must not do.
        height_window: See `read_trips`.
        where: Place to name in errors.

    Raises:
        DataError: FL224, no trip is left.
    """
    starts = np.concatenate([[0], np.flatnonzero(trip[1:] != trip[:-1]) + 1, [len(trip)]])
    kept: list[tuple[str, Signals]] = []
    excluded = []
    for first, last in pairwise(starts):
        name = str(trip[first])
        one = {key: values[first:last] for key, values in signals.items()}
        why = reason(one, limits)
        if why:
            excluded.append(Fault("FL224", why, f"trip {name}"))
        else:
            kept.append((name, one))
    if not kept:
        raise DataError(excluded or [Fault("FL224", "the table has no trip", where)])
    whole = {key: np.concatenate([one[key] for _, one in kept]) for key in signals}
    offsets = np.cumsum([0, *(len(one["time_s"]) for _, one in kept)])
    # A heater draws no more than it is asked for. The reported power of this car alone is wrong in
    # part of the summer trips (kilowatts with a cold heat exchanger), the request alone in others.
    heating = np.minimum(whole["heating_kw"], whole["heating_requested_w"] * 1e-3)
    drives = Drives(
        np.maximum(whole["speed_km_h"], 0.0) / 3.6,
        climb_from_height(whole["height_m"], offsets, window=height_window),
        whole["ambient_deg_c"],
        offsets,
        heating_kw=heating,
        cooling_kw=whole["cooling_kw"],
    )
    return Trips(
        tuple(name for name, _ in kept),
        drives,
        -whole["voltage_v"] * whole["current_a"] * 1e-3,
        whole["battery_deg_c"],
        np.array([np.ptp(one["height_m"]) == 0 for _, one in kept]),
        tuple(excluded),
    )


def reason(one: Signals, limits: Limits) -> str:
    """Return why one trip cannot be used, or nothing.

    Args:
        one: Its signals by the keys of `COLUMNS` [sample].
        limits: What a trip must not do.
    """
    needed = (key for key in COLUMNS if key not in ("trip", "soc_percent"))
    for key in needed:
        missing = int(np.sum(~np.isfinite(one[key])))
        if missing:
            return f"`{COLUMNS[key]}` is missing in {missing} of {len(one[key])} samples"
    step = np.diff(one["time_s"])
    if len(step) + 1 < limits.shortest_s:
        return f"{len(step) + 1} samples, {limits.shortest_s} are needed"
    if np.any(step <= 0):
        return "time does not go forward"
    if step.max() > limits.gap_s:
        return f"a gap of {step.max():.0f} s"
    if step.min() < limits.crowded_s:
        return f"samples {step.min():g} s apart; one each second is needed"
    if one["voltage_v"].min() <= 0:
        return f"no voltage in {int(np.sum(one['voltage_v'] <= 0))} samples"
    speed = one["speed_km_h"] / 3.6
    # Sensors say a little less than nothing at rest; more than that is no speed.
    slowest, fastest = one["speed_km_h"].min(), one["speed_km_h"].max()
    if slowest < -1 or fastest > limits.speed_km_h:
        return f"a speed of {slowest if slowest < -1 else fastest:.0f} km/h"
    change = np.abs(np.diff(speed) / step).max()
    if change > limits.acceleration_m_s2:
        return f"the speed jumps by {change:.0f} m/s in a second"
    distance_km = float(speed.sum() / 1000)
    if distance_km < limits.shortest_km:
        return f"{distance_km:.2f} km, {limits.shortest_km:g} are needed"
    moving = speed > limits.moving_m_s
    for key in ("speed_km_h", "current_a"):
        stuck = longest_run((np.diff(one[key], prepend=np.nan) == 0) & moving)
        if stuck >= limits.stuck_s:
            return f"`{COLUMNS[key]}` is stuck for {stuck} s on the move"
    return _charge_reason(one, limits)


def _charge_reason(one: Signals, limits: Limits) -> str:
    """Hold the energy against the state of charge, where that says something."""
    known = one["soc_percent"][np.isfinite(one["soc_percent"])]
    drop = float(known[0] - known[-1]) if len(known) else 0.0
    if drop < limits.soc_drop_percent:
        return ""
    kwh = float(-(one["voltage_v"] * one["current_a"]).sum() * 1e-3 / HOUR_S)
    if kwh <= 0:
        return f"the current has the wrong sign: charge falls by {drop:.1f} %, energy {kwh:.2f} kWh"
    capacity = 100 * kwh / drop
    low = limits.battery_kwh * (1 - limits.capacity_tolerance)
    high = limits.battery_kwh * (1 + limits.capacity_tolerance)
    if not low <= capacity <= high:
        return f"{kwh:.2f} kWh for {drop:.1f} % of charge are a battery of {capacity:.0f} kWh"
    return ""


def longest_run(flags: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values.

    >>> longest_run(np.array([True, False, True, True]))
    2
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))

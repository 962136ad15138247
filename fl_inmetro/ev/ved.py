"""Trips in the layout of the Vehicle Energy Dataset: weekly CSV files, each signal at its rate.

G. S. Oh, D. J. LeBlanc and H. Peng, *Vehicle Energy Dataset (VED), a large-scale dataset for
vehicle energy consumption research*, IEEE Transactions on Intelligent Transportation Systems 23
(2022).
Battery voltage comes every 5 s, current every second, state of charge every minute; which sign of
the current is discharging is not said, so the state of charge tells.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.trips import Limits, Signals, Trips, judged
from fl_inmetro.units import HOUR_S

#: Columns of a weekly file; names and units are the source's own.
COLUMNS = {
    "vehicle": "VehId",
    "trip": "Trip",
    "time_ms": "Timestamp(ms)",
    "speed_km_h": "Vehicle Speed[km/h]",
    "ambient_deg_c": "OAT[DegC]",
    "soc_percent": "HV Battery SOC[%]",
    "voltage_v": "HV Battery Voltage[V]",
    "current_a": "HV Battery Current[A]",
    "heating_w": "Heater Power[Watts]",
    "cooling_w": "Air Conditioning Power[Watts]",
    "cooling_kw": "Air Conditioning Power[kW]",
}

#: A vehicle with a value in one of these has an engine.
ENGINE = ("MAF[g/sec]", "Engine RPM[RPM]", "Fuel Rate[L/hr]")

#: Longest way from one value to the next, in s, that is bridged.
BRIDGED_S = {
    "speed_km_h": 5.0,
    "current_a": 5.0,
    "voltage_v": 30.0,
    "soc_percent": 300.0,
    "ambient_deg_c": 900.0,
}

#: The Leaf's battery: what the study's electric cars have.
BATTERY_KWH = 24.0


@dataclass(frozen=True)
class Fleet:
    """Electric cars of some weekly files.

    Attributes:
        trips: By vehicle, those that have a usable trip; heights are unknown, so all are level.
        excluded: An FL224 for each trip that was left out.
        notes: What was found out and not measured, by vehicle: the sign of the current.
    """

    trips: Mapping[str, Trips]
    excluded: tuple[Fault, ...]
    notes: Mapping[str, str]


def read_ved(
    folder: Path, vehicles: Collection[int] | None = None, limits: Limits | None = None
) -> Fleet:
    """Read the weekly files of a folder (`*_week.csv`), one after the other.

    Args:
        folder: With the files.
        vehicles: Numbers of electric cars (the study's table of vehicles has them); None for all
            that have a battery's voltage and no engine.
        limits: What a trip must not do; None for those of `Limits` with the Leaf's battery.

    Raises:
        DataError: FL224, no file, a file without a needed column, or no usable trip.
    """
    files = sorted(folder.glob("*_week.csv"))
    if not files:
        hint = "weekly files are named like `VED_171101_week.csv`"
        raise DataError(Fault("FL224", "there is no weekly file of VED", str(folder), hint))
    wanted = set(vehicles) if vehicles is not None else _electric(files)
    parts: dict[tuple[int, int], list[dict[str, Floats]]] = {}
    for file in files:
        for key, part in _trips_of(file, wanted).items():
            parts.setdefault(key, []).append(part)
    limits = limits or Limits(battery_kwh=BATTERY_KWH)
    found: dict[str, Trips] = {}
    excluded: list[Fault] = []
    notes: dict[str, str] = {}
    for vehicle in sorted({vehicle for vehicle, _ in parts}):
        mine = {trip: pieces for (of, trip), pieces in sorted(parts.items()) if of == vehicle}
        trips, faults, note = _vehicle(vehicle, mine, limits)
        excluded += faults
        notes[str(vehicle)] = note
        if trips is not None:
            found[str(vehicle)] = trips
    if not found:
        nothing = Fault("FL224", "the files have no trip of an electric car", str(folder))
        raise DataError(excluded or [nothing])
    return Fleet(found, tuple(excluded), notes)


def _table(file: Path, columns: Sequence[str], needed: Collection[str]) -> Any:
    """Read some columns of a file as numbers; what is empty or no number is missing."""
    # Only reading needs pyarrow.
    import pyarrow as pa
    from pyarrow import csv

    try:
        with file.open(encoding="utf-8-sig") as opened:
            head = [name.strip() for name in opened.readline().rstrip("\n").split(",")]
        missing = [name for name in needed if name not in head]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            hint = "names and units are those of the original files"
            raise DataError(Fault("FL224", f"the file has no {names}", str(file), hint))
        present = [name for name in columns if name in head]
        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(column_names=head, skip_rows=1),
            convert_options=csv.ConvertOptions(
                include_columns=present,
                column_types=dict.fromkeys(present, pa.float64()),
                null_values=["", "NaN", "nan", "NA"],
            ),
        )
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as problem:
        raise DataError(Fault("FL224", f"the file cannot be read: {problem}", str(file))) from None


def _electric(files: Sequence[Path]) -> set[int]:
    """Return the vehicles that have a battery's voltage and, in no file, an engine."""
    battery: set[int] = set()
    engine: set[int] = set()
    id_name, voltage = COLUMNS["vehicle"], COLUMNS["voltage_v"]
    for file in files:
        table = _table(file, (id_name, voltage, *ENGINE), (id_name, voltage))
        vehicle = table[id_name].to_numpy()
        for name in table.column_names[1:]:
            values = table[name].to_numpy()
            # An engine at rest may be logged as zero of an electric car too.
            known = np.isfinite(values) & (values != 0)
            (battery if name == voltage else engine).update(vehicle[known].astype(int).tolist())
    return battery - engine


def _trips_of(file: Path, wanted: set[int]) -> dict[tuple[int, int], dict[str, Floats]]:
    needed = [COLUMNS[key] for key in ("vehicle", "trip", "time_ms", *BRIDGED_S)]
    table = _table(file, tuple(COLUMNS.values()), needed)
    arrays = {
        key: table[name].to_numpy() for key, name in COLUMNS.items() if name in table.column_names
    }
    of_interest = np.isin(arrays["vehicle"], list(wanted)) & np.isfinite(arrays["time_ms"])
    arrays = {key: values[of_interest] for key, values in arrays.items()}
    keys = np.stack([arrays["vehicle"], arrays["trip"]], axis=1)
    found: dict[tuple[int, int], dict[str, Floats]] = {}
    for vehicle, trip in np.unique(keys, axis=0).astype(int).tolist():
        mine = (keys[:, 0] == vehicle) & (keys[:, 1] == trip)
        found[vehicle, trip] = {key: values[mine] for key, values in arrays.items()}
    return found


def _vehicle(
    vehicle: int, trips: Mapping[int, list[dict[str, Floats]]], limits: Limits
) -> tuple[Trips | None, list[Fault], str]:
    """Return a car's usable trips, why others are none, and what the sign of its current is."""
    ready: dict[int, Signals] = {}
    faults: list[Fault] = []
    for trip, pieces in trips.items():
        keys = set.union(*(set(piece) for piece in pieces))
        whole = {
            key: np.concatenate(
                [piece.get(key, np.full(len(piece["time_ms"]), np.nan)) for piece in pieces]
            )
            for key in keys
        }
        one = each_second(whole)
        if isinstance(one, str):
            faults.append(Fault("FL224", one, f"trip {vehicle}/{trip}"))
        else:
            ready[trip] = one
    sign = discharging_sign(ready, limits)
    if ready and sign == 0:
        why = "the charge never falls enough to tell which sign of the current is discharging"
        faults += [Fault("FL224", why, f"trip {vehicle}/{trip}") for trip in ready]
        return None, faults, why
    note = f"{'positive' if sign > 0 else 'negative'} current is discharging"
    measured = all(np.isfinite(one["heating_kw"]).all() for one in ready.values())
    if not ready:
        return None, faults, ""
    table: dict[str, list[Floats]] = {}
    names: list[NDArray[np.str_]] = []
    for trip, one in ready.items():
        names.append(np.full(len(one["time_s"]), f"{vehicle}/{trip}"))
        # The house's sign: negative is discharging.
        signed = one | {"current_a": -sign * one["current_a"]}
        for key, values in signed.items():
            known = np.nan_to_num(values) if "heating" in key or key == "cooling_kw" else values
            table.setdefault(key, []).append(known)
    try:
        good = judged(
            np.concatenate(names),
            {key: np.concatenate(values) for key, values in table.items()},
            limits,
        )
    except DataError as none_left:
        return None, [*faults, *none_left.faults], note
    faults += good.excluded
    if not measured:
        # What some trips do not tell is told by none: zero would be a measurement.
        good = replace(good, drives=replace(good.drives, heating_kw=None, cooling_kw=None))
    return replace(good, excluded=()), faults, note


def each_second(one: Mapping[str, Floats]) -> Signals | str:
    """Return a trip's signals once a second, or why that cannot be.

    A signal is a straight line between its values, where these lie no farther apart than
    `BRIDGED_S`; heater and air conditioning keep their last value. Heights are unknown (0), the
    battery's temperature is taken to be the air's.

    Args:
        one: By the keys of `COLUMNS` [row], in any order; missing values are NaN.
    """
    order = np.argsort(one["time_ms"], kind="stable")
    time_s = (one["time_ms"][order] - one["time_ms"][order[0]]) / 1000
    seconds = np.arange(0.0, np.floor(time_s[-1]) + 1)
    result: Signals = {"time_s": seconds}
    for key, bridged in BRIDGED_S.items():
        values = one[key][order]
        known = np.isfinite(values)
        if not known.any():
            return f"`{COLUMNS[key]}` is missing"
        at = time_s[known]
        ends = max(at[0], time_s[-1] - at[-1])
        gap = max(float(np.diff(at).max(initial=0.0)), float(ends))
        if gap > bridged:
            return f"a gap of {gap:.0f} s in `{COLUMNS[key]}`"
        result[key] = np.interp(seconds, at, values[known])
    heating = _held(one, "heating_w", order, time_s, seconds) * 1e-3
    cooling = _held(one, "cooling_w", order, time_s, seconds) * 1e-3
    if np.isnan(cooling).all():
        cooling = _held(one, "cooling_kw", order, time_s, seconds)
    unknown = np.isnan(heating) | np.isnan(cooling)
    result["heating_kw"] = np.where(unknown, np.nan, heating)
    result["cooling_kw"] = np.where(unknown, np.nan, cooling)
    result["heating_requested_w"] = result["heating_kw"] * 1e3
    result["height_m"] = np.zeros(len(seconds))
    result["battery_deg_c"] = result["ambient_deg_c"]
    return result


def _held(
    one: Mapping[str, Floats], key: str, order: NDArray[np.intp], time_s: Floats, seconds: Floats
) -> Floats:
    """Return a signal's last known value each second; before the first one, that one."""
    if key not in one:
        return np.full(len(seconds), np.nan)
    values = one[key][order]
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.full(len(seconds), np.nan)
    at = np.searchsorted(time_s[known], seconds, side="right") - 1
    held: Floats = values[known[np.maximum(at, 0)]]
    return held


def discharging_sign(trips: Mapping[int, Signals], limits: Limits) -> int:
    """Return 1 where positive current is discharging, −1 where negative is, 0 where nobody knows.

    All trips of a car vote, by how far the charge fell; one whose charge hardly moves has no vote.
    """
    votes = 0.0
    for one in trips.values():
        drop = float(one["soc_percent"][0] - one["soc_percent"][-1])
        if abs(drop) < limits.soc_drop_percent:
            continue
        kwh = float((one["voltage_v"] * one["current_a"]).sum()) * 1e-3 / HOUR_S
        votes += drop * float(np.sign(kwh))
    return int(np.sign(votes))

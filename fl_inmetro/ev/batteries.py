"""Cells that were aged in laboratories: read, judged one record at a time, the bad ones named.

Two public sets: NASA's 18650 cells, one row for each discharge (Saha and Goebel, *Battery Data
Set*, NASA Prognostics Data Repository, 2007), and the 124 fast-charged LFP cells of Severson et
al., *Data-driven prediction of battery cycle life before capacity degradation*, Nature Energy 4
(2019) 383. Layouts are those of the derived tables: `discharge_cycles`; `cells`,
`capacity_first100` and `dQ_100_10_curves`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.drives import Floats

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class CellLimits:
    """What a record of a cell must not do.

    Attributes:
        capacity_tolerance: A capacity may lie this far (relative) from the median of those around.
        around: How many of the same load and temperature are around it, itself among them.
        full_low_v: A discharge begins with a full cell: at this voltage or more,
        full_high_v: and at this or less.
        fast_a: From this load on the voltage falls early, and the whole discharge is the capacity.
        fewest: Records that a cell needs.
    """

    capacity_tolerance: float = 0.15
    around: int = 31
    full_low_v: float = 4.1
    full_high_v: float = 4.25
    fast_a: float = 3.0
    fewest: int = 10


@dataclass(frozen=True)
class Discharges:
    """The discharges of one cell that may be used [discharge].

    Attributes:
        cell: Its name.
        cycle: Number of the discharge, from 1; what was left out is missing.
        capacity_ah: Charge until 2.7 V, at fast loads of the whole discharge.
        mean_voltage_v: Energy over charge until 2.7 V.
        load_a: Mean current.
        start_deg_c: Temperature at the start.
    """

    cell: str
    cycle: Whole
    capacity_ah: Floats
    mean_voltage_v: Floats
    load_a: Floats
    start_deg_c: Floats


@dataclass(frozen=True)
class Cells:
    """Cells and what was left out, one FL221 each."""

    cells: tuple[Discharges, ...]
    excluded: tuple[Fault, ...]

    def __getitem__(self, cell: str) -> Discharges:
        """Return a cell by its name.

        Raises:
            DataError: FL221, it is not among those that may be used.
        """
        for one in self.cells:
            if one.cell == cell:
                return one
        known = ", ".join(one.cell for one in self.cells)
        raise DataError(Fault("FL221", f"there is no good cell `{cell}`", "", f"there are {known}"))


#: Discharges that began in one band of temperatures, so wide, are alike.
_BAND_K = 20.0

_NASA_COLUMNS = (
    "cell",
    "cycle",
    "capacity_to_2V7_Ah",
    "capacity_full_Ah",
    "energy_to_2V7_Wh",
    "load_current_mean_A",
    "temp_start_C",
    "v_start",
)


def read_discharges(path: Path, limits: CellLimits | None = None) -> Cells:
    """Read NASA's table of discharges.

    Args:
        path: `discharge_cycles.parquet`.
        limits: What a record must not do.

    Raises:
        DataError: FL221, no such file, a column is missing, or no cell is left.
    """
    table = _table(path, _NASA_COLUMNS)
    names = np.array(table.pop("cell"))
    numbers = {column: _numbers(values, column, path) for column, values in table.items()}
    return judged_discharges(names, numbers, limits, str(path))


def judged_discharges(
    cell: NDArray[np.str_],
    table: dict[str, Floats],
    limits: CellLimits | None = None,
    where: str = "",
) -> Cells:
    """Judge each discharge of each cell, and return the good ones.

    Args:
        cell: [row].
        table: The other columns of `discharge_cycles` by their names [row].
        limits: What a record must not do.
        where: Place to name in errors.

    Raises:
        DataError: FL221, no cell is left.
    """
    limits = limits or CellLimits()
    kept, excluded = [], []
    for name in dict.fromkeys(cell.tolist()):
        one = {key: values[cell == name] for key, values in table.items()}
        order = np.argsort(one["cycle"], kind="stable")
        one = {key: values[order] for key, values in one.items()}
        load = one["load_current_mean_A"]
        capacity = np.where(
            load >= limits.fast_a, one["capacity_full_Ah"], one["capacity_to_2V7_Ah"]
        )
        reasons = _discharge_reasons(one, capacity, limits)
        for cycle, reason in zip(one["cycle"], reasons, strict=True):
            if reason:
                excluded.append(Fault("FL221", reason, f"cell {name}, discharge {cycle:.0f}"))
        good = np.array([not reason for reason in reasons])
        if good.sum() < limits.fewest:
            what = f"{good.sum()} good discharges, {limits.fewest} are needed"
            excluded.append(Fault("FL221", what, f"cell {name}"))
            continue
        voltage = one["energy_to_2V7_Wh"][good] / one["capacity_to_2V7_Ah"][good]
        kept.append(
            Discharges(
                str(name),
                one["cycle"][good].astype(np.int64),
                capacity[good],
                voltage,
                load[good],
                one["temp_start_C"][good],
            )
        )
    if not kept:
        raise DataError(excluded or [Fault("FL221", "the table has no discharge", where)])
    return Cells(tuple(kept), tuple(excluded))


def far_from_neighbours(values: Floats, around: int, tolerance: float) -> NDArray[np.bool_]:
    """Return which values lie too far from the median of those around them [record].

    The window is centred and shorter at the ends. It must be more than twice as long as a run of
    bad records may be; a cell fades by a few per cent over it.
    """
    half = around // 2
    found = np.zeros(len(values), dtype=np.bool_)
    for i, value in enumerate(values):
        near = values[max(i - half, 0) : i + half + 1]
        middle = float(np.median(near[np.isfinite(near)])) if np.isfinite(near).any() else np.nan
        found[i] = not abs(value - middle) <= tolerance * abs(middle)
    return found


def _discharge_reasons(one: dict[str, Floats], capacity: Floats, limits: CellLimits) -> list[str]:
    # A cell gives less under a faster load, and in the cold: like is held to like.
    group = np.round(one["load_current_mean_A"]) + 100 * np.round(one["temp_start_C"] / _BAND_K)
    far = np.zeros(len(capacity), dtype=np.bool_)
    for each in np.unique(group[np.isfinite(group)]):
        same = group == each
        far[same] = far_from_neighbours(capacity[same], limits.around, limits.capacity_tolerance)
    reasons = []
    for i, ah in enumerate(capacity):
        start = one["v_start"][i]
        if not all(np.isfinite(values[i]) for values in one.values()):
            reasons.append("a value is missing")
        elif min(ah, one["capacity_to_2V7_Ah"][i], one["energy_to_2V7_Wh"][i]) <= 0:
            reasons.append(f"{ah:.3f} Ah, or an energy that is none")
        elif i and one["cycle"][i] == one["cycle"][i - 1]:
            reasons.append("its number stands twice")
        elif not limits.full_low_v <= start <= limits.full_high_v:
            reasons.append(f"it began at {start:.2f} V: not a full cell, or an overfull one")
        elif far[i]:
            reasons.append(f"{ah:.3f} Ah lie far from the capacities around")
        else:
            reasons.append("")
    return reasons


@dataclass(frozen=True)
class Lives:
    """Cells that were cycled to the end of their life.

    Attributes:
        cells: [cell].
        split: The paper's `train`, `test1` or `test2` [cell].
        life_cycles: Cycles until 0.88 Ah, 80 % of the rated capacity [cell].
        cycle: Numbers of the first cycles [cycle].
        capacity_ah: [cell, cycle]; nan where a record was left out.
        delta_q_ah: Q₁₀₀(V) − Q₁₀(V) from 3.5 V down to 2.0 V [cell, voltage].
        excluded: One FL221 for each record that was left out.
    """

    cells: tuple[str, ...]
    split: tuple[str, ...]
    life_cycles: Floats
    cycle: Whole
    capacity_ah: Floats
    delta_q_ah: Floats
    excluded: tuple[Fault, ...]

    def of(self, *splits: str) -> NDArray[np.bool_]:
        """Return which cells are of some of the paper's parts [cell]."""
        return np.isin(self.split, splits)


def read_lives(folder: Path, limits: CellLimits | None = None) -> Lives:
    """Read the cells of Severson et al.

    `capacity_max_minus_cycle2_Ah` of the table is not read: the spurious capacities spoil it.

    Args:
        folder: With `cells`, `capacity_first100` and `dQ_100_10_curves`.
        limits: Of these, the tolerance of capacities is used, around a cell's median.

    Raises:
        DataError: FL221, a file or column is missing, or a life or curve of a cell is.
    """
    limits = limits or CellLimits()
    cells = _table(folder / "cells.parquet", ("cell", "split", "cycle_life"))
    names = [str(name) for name in cells["cell"]]
    records = _table(folder / "capacity_first100.parquet", ("cell", "cycle", "capacity_Ah"))
    curves = _table(folder / "dQ_100_10_curves.parquet", tuple(names))
    number = _numbers(records["cycle"], "cycle", folder).astype(np.int64)
    cycles = np.unique(number)
    capacity = np.full((len(names), len(cycles)), np.nan)
    row = {name: i for i, name in enumerate(names)}
    of = np.array([row.get(str(name), -1) for name in records["cell"]])
    at = np.searchsorted(cycles, number)
    known = of >= 0
    found = _numbers(records["capacity_Ah"], "capacity_Ah", folder)
    capacity[of[known], at[known]] = found[known]
    life = _numbers(cells["cycle_life"], "cycle_life", folder)
    delta_q = np.array([_numbers(curves[name], name, folder) for name in names])
    faults = [
        Fault("FL221", "its life or its curve is missing", f"cell {name}")
        for name, cycles_, curve in zip(names, life, delta_q, strict=True)
        if not (cycles_ > 0 and np.all(np.isfinite(curve)))
    ]
    if faults:
        raise DataError(faults)
    capacity, excluded = without_spurious(names, cycles, capacity, limits)
    split = tuple(str(part) for part in cells["split"])
    return Lives(tuple(names), split, life, cycles, capacity, delta_q, tuple(excluded))


def without_spurious(
    names: list[str], cycle: Whole, capacity_ah: Floats, limits: CellLimits
) -> tuple[Floats, list[Fault]]:
    """Return capacities [cell, cycle] with nan for the spurious ones, and one FL221 for each.

    Over so few cycles a cell keeps its capacity to some per cent, so it is held to its own median.
    """
    clean, excluded = capacity_ah.copy(), []
    for i, name in enumerate(names):
        far = far_from_neighbours(capacity_ah[i], 2 * len(cycle) + 1, limits.capacity_tolerance)
        for j in np.flatnonzero(far):
            value = capacity_ah[i, j]
            what = f"{value:.3f} Ah lie far from the cell's other capacities"
            what = what if np.isfinite(value) else "a capacity is missing"
            excluded.append(Fault("FL221", what, f"cell {name}, cycle {cycle[j]}"))
        clean[i, far] = np.nan
    return clean, excluded


def _table(path: Path, columns: tuple[str, ...]) -> dict[str, Any]:
    """Return columns of a table, as arrays."""
    # Only reading needs pyarrow; what is computed runs without.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise DataError(Fault("FL221", f"the cells cannot be read: {problem}", str(path))) from None
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        few = ", ".join(f"`{column}`" for column in missing[:5])
        raise DataError(Fault("FL221", f"the table of cells has no {few}", str(path)))
    return {column: table[column].to_numpy() for column in columns}


def _numbers(values: Any, column: str, path: Path) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        what = f"`{column}` holds something that is no number"
        raise DataError(Fault("FL221", what, str(path))) from None

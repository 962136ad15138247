"""Cleaning of one client, step by step in one visible order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import Cleaning
from fl_inmetro.data.cleaning import levels, values
from fl_inmetro.data.cleaning.findings import Action, Ledger
from fl_inmetro.data.cleaning.gaps import fill_from_past, gaps, trim
from fl_inmetro.data.cleaning.instants import Aligned, align
from fl_inmetro.data.cleaning.register import differences
from fl_inmetro.data.cleaning.steps import place_on_grid
from fl_inmetro.data.readings import Opened, Readings
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S, HOUR_S, TO_KILO, is_power, iso_utc

Floats = NDArray[np.float64]
Where = Callable[[NDArray[np.bool_]], list[str]]


def clean_client(
    readings: Readings, source: Opened, rules: Cleaning, ledger: Ledger
) -> ClientSeries:
    """Turn one client's readings into a series on the UTC grid; all that is found is noted.

    The order: stamps to UTC, jitter and repeats (`align`); a register to differences; unit to kWh;
    missing, zero, negative and impossible values; flat lines; outliers; onto the grid; gaps.
    What is done with the value of a step depends on readings up to its end only, so that cleaning a
    whole file gives what cleaning would have given at the time.

    Raises:
        DataError: FL205 nothing usable; FL206 less than `min_days`; FL207 no regular grid.
    """
    name = readings.client_id
    if not readings.value.size or not np.isfinite(readings.value).any():
        raise _empty(readings, ledger, said("no_reading"))
    # Inf is no reading; text files can contain it.
    value = np.where(np.isfinite(readings.value), readings.value, np.nan)
    aligned = align(
        Readings(name, readings.clock_s, value, readings.line, readings.place), source, ledger
    )

    def where(mask: NDArray[np.bool_]) -> list[str]:
        return [readings.where(aligned.row[i]) for i in np.flatnonzero(mask)[:3]]

    # Without those that became NaN just now, because two readings contradict each other.
    missing = np.isnan(aligned.value) & np.isnan(value[aligned.row])
    ledger.note(name, "missing_value", missing.sum(), "marked missing", where(missing))
    energy_kwh = _energy_kwh(name, aligned, source, ledger, where)
    energy_kwh = _mask_values(name, energy_kwh, aligned, source, rules, ledger, where)
    if not np.isfinite(energy_kwh).any():
        raise _empty(readings, ledger, said("no_usable"))

    step_s = aligned.coarse_s
    if aligned.fine_s != step_s:
        other = aligned.own_s != aligned.own_s[0]
        ledger.note(
            name,
            "changing_resolution",
            other.sum(),
            "repaired",
            where(other),
            said("steps_brought", fine=aligned.fine_s // 60, coarse=step_s // 60, to=step_s // 60),
        )
    start_utc_s, grid = place_on_grid(aligned.utc_s, aligned.own_s, energy_kwh, step_s)
    start_utc_s, grid = trim(start_utc_s, grid, step_s)
    if not grid.size:
        raise _empty(readings, ledger, said("no_whole_step"))
    grid = _gaps(name, start_utc_s, grid, step_s, rules, ledger)

    change = levels.change_of_level(grid, step_s)
    if change:
        at, factor, meaning = change
        ledger.note(
            name,
            "level_change",
            grid.size - at,
            "reported",
            [iso_utc(start_utc_s + at * step_s)],
            said("level_changes", factor=f"{factor:g}", meaning=meaning),
        )
    _enough(readings, grid, start_utc_s, step_s, rules, ledger)
    return ClientSeries(name, start_utc_s, step_s, grid)


def _energy_kwh(
    name: str, aligned: Aligned, source: Opened, ledger: Ledger, where: Where
) -> Floats:
    if source.quantity == "register":
        change = differences(aligned.utc_s, aligned.value, aligned.own_s)
        for kind, rows, action, detail in (
            ("register_reset", change.reset, "marked missing", said("register_fell")),
            ("register_rollover", change.rollover, "repaired", said("register_turned")),
        ):
            mask = np.zeros(aligned.value.shape, dtype=bool)
            mask[rows] = True
            done: Action = "repaired" if action == "repaired" else "marked missing"
            ledger.note(name, kind, rows.size, done, where(mask), detail)
        return change.energy * TO_KILO[source.unit]
    factor = TO_KILO[source.unit]
    if is_power(source.unit):
        return aligned.value * (factor / HOUR_S) * aligned.own_s
    return aligned.value * factor


def _mask_values(
    name: str,
    energy_kwh: Floats,
    aligned: Aligned,
    source: Opened,
    rules: Cleaning,
    ledger: Ledger,
    where: Where,
) -> Floats:
    result = energy_kwh.copy()

    def handle(kind: str, found: NDArray[np.bool_], masks: bool, detail: str = "") -> None:
        action: Action = "marked missing" if masks else "reported"
        ledger.note(name, kind, found.sum(), action, where(found), detail)
        if masks:
            result[found] = np.nan

    # A register that stands still is an empty house, whatever the rule for written zeros is.
    if source.zeros_mean_missing and source.quantity == "interval":
        handle("zero_missing", values.zeros(result), True)
    handle("negative", values.negatives(result), rules.negatives == "mask")
    if source.impossible_below is not None:
        factor = TO_KILO[source.unit]
        hours = aligned.own_s / HOUR_S if is_power(source.unit) else np.ones(result.shape)
        floor = source.impossible_below
        mask = values.below(result / (factor * hours), floor)
        detail = said("below", floor=f"{floor:g}", unit=source.unit)
        handle("impossible_low", mask, True, detail)
    steps = math.ceil(rules.flat_hours * HOUR_S / aligned.fine_s)
    if rules.flat == "mask":
        detail = said("flat_from", hours=f"{rules.flat_hours:g}")
        handle("flat", values.stuck(result, steps), True, detail)
    else:
        detail = said("flat_long", hours=f"{rules.flat_hours:g}")
        handle("flat", values.flat_lines(result, steps), False, detail)
    found = values.outliers(aligned.utc_s, result, rules.outlier_factor)
    factor_said = f"{rules.outlier_factor:g}"
    detail = said("above", factor=factor_said)
    if found.any():
        detail = said("above_peak", factor=factor_said, peak=f"{np.nanmax(result):.4g}")
    unseen = values.outliers_in_hindsight(result, rules.outlier_factor) & ~found
    handle("outlier", found, rules.outliers == "mask", detail)
    detail = said("above_later", factor=factor_said)
    handle("outlier", unseen, False, detail)
    return result


def _gaps(
    name: str, start_utc_s: int, grid: Floats, step_s: int, rules: Cleaning, ledger: Ledger
) -> Floats:
    first, length = gaps(grid)
    if not first.size:
        return grid
    longest = f"{int(length.max()) * step_s / HOUR_S:g}"
    one = first.size == 1
    ledger.note(
        name,
        "gap",
        int(length.sum()),
        "reported",
        [iso_utc(start_utc_s + int(i) * step_s) for i in first[:3]],
        said("gap", hours=longest) if one else said("gaps", count=first.size, hours=longest),
    )
    most = int(rules.max_gap_fill_h * HOUR_S // step_s)
    if most:
        grid, filled = fill_from_past(grid, most, DAY_S // step_s)
        detail = said("filled", hours=f"{rules.max_gap_fill_h:g}")
        ledger.note(name, "gap_filled", filled, "repaired", (), detail)
    return grid


def _enough(
    readings: Readings, grid: Floats, start_utc_s: int, step_s: int, rules: Cleaning, ledger: Ledger
) -> None:
    name = readings.client_id
    usable = int(np.isfinite(grid).sum())
    days = usable * step_s / DAY_S
    if days >= rules.min_days:
        return
    span = f"{iso_utc(start_utc_s)} to {iso_utc(start_utc_s + grid.size * step_s)}"
    action: Action = "reported" if rules.drop_short else "refused"
    shown = said("days", days=f"{days:.1f}")
    ledger.note(name, "too_short", usable, action, [readings.where(0)], shown)
    raise DataError(
        Fault(
            "FL206",
            f"client {name} has {days:.1f} days of usable readings ({span}), "
            f"`cleaning.min-days` asks for {rules.min_days}",
            f"client {name}, {readings.where(0)}",
            "lower `cleaning.min-days`, or leave such clients out with "
            "`cleaning.drop-short = true`",
        )
    )


def _empty(readings: Readings, ledger: Ledger, why: str) -> DataError:
    name = readings.client_id
    place = readings.where(0) if readings.value.size else readings.place
    ledger.note(name, "empty", max(int(readings.value.size), 1), "refused", [place], why)
    return DataError(
        Fault(
            "FL205",
            f"client {name} is empty: {why}",
            f"client {name}, {place}",
            "leave it out with `data.exclude`, or all such clients with "
            "`cleaning.drop-short = true`",
        )
    )

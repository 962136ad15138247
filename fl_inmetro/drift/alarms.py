"""Alarms: what changed, since when, by how much, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.drift.chart import Path
from fl_inmetro.drift.daily import Watched

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Kind = Literal["level_up", "level_down", "error_up", "shape_up", "shape_down", "flat", "missing"]
Advice = Literal["federation", "client", "meter"]

#: Consecutive days without readings, or without any change in them, that are told at the least.
LEAST_STREAK = 3
#: A load that changes by this factor is more often a meter's than a consumer's.
_METER_FACTOR = 2.0
#: Alarms whose onsets lie within so many days belong to one change.
_TOGETHER_DAYS = 14


@dataclass(frozen=True)
class Alarm:
    """What one client, or the fleet, tells.

    Attributes:
        client_id: Who; None = the fleet.
        kind: What changed.
        day: Local day on which it was told.
        onset: Local day since which it seems to be so.
        size: Change from what is usual, between onset and alarm: 0.05 = 5 % more. Of an error, too;
            of the shape, of the middle of the day against the rest. For `flat` and `missing`, days.
        again: Further alarms of this kind.
        last: Day of the last of them.
        advice: What to do: retrain the `federation`, refit what is the `client`'s own, or check the
            `meter`.
    """

    client_id: str | None
    kind: Kind
    day: date
    onset: date
    size: float
    again: int
    last: date
    advice: Advice = "client"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        days = {name: getattr(self, name).isoformat() for name in ("day", "onset", "last")}
        return {**vars(self), **days}


def of_chart(
    client_id: str | None, name: Watched, path: Path, deviation: Floats, days: Sequence[date]
) -> list[Alarm]:
    """Return the first alarm of each kind that a chart raised.

    Shapes: deviation (T,), logarithms of what is usual; days, scores of the path likewise.
    """
    found: list[Alarm] = []
    for up in (True, False):
        own = [signal for signal in path.signals if signal.up is up]
        if not own or (name == "error" and not up):
            continue  # A smaller error is no reason to wake anybody.
        first = own[0]
        change = float(np.nanmedian(deviation[first.onset : first.day + 1]))
        kind: Kind = f"{name}_{'up' if up else 'down'}"  # type: ignore[assignment]
        alarm = Alarm(
            client_id,
            kind,
            days[first.day],
            days[first.onset],
            float(np.expm1(change)),
            len(own) - 1,
            days[own[-1].day],
        )
        found.append(alarm)
    return found


def of_streak(
    client_id: str,
    kind: Literal["flat", "missing"],
    reference: Bools,
    watched: Bools,
    days: Sequence[date],
) -> list[Alarm]:
    """Return the alarm of the first streak of such days that is longer than any before.

    Shapes: reference (R,), watched (T,), like the days.
    """
    least = max(LEAST_STREAK, _longest(reference) + 1)
    streak, told = 0, []
    for place, such in enumerate(watched):
        streak = streak + 1 if such else 0
        if streak == least:
            told.append(place)
    if not told:
        return []
    first = told[0]
    onset = days[first - least + 1]
    alarm = Alarm(client_id, kind, days[first], onset, float(least), len(told) - 1, days[told[-1]])
    return [replace(alarm, advice="meter")]


def advised(alarms: Sequence[Alarm], clients: int) -> list[Alarm]:
    """Return the alarms with what to do about each.

    A change that half of the clients (two at least) or the fleet tell within two weeks is one that
    the federation has to learn; a load that doubles or halves is looked for at the meter first.
    """
    fleet = [one.onset for one in alarms if one.client_id is None]
    onsets: dict[str, list[date]] = {}
    for one in alarms:
        if one.client_id is not None and one.advice != "meter":
            onsets.setdefault(one.client_id, []).append(one.onset)
    return [replace(one, advice=_advice(one, fleet, onsets, clients)) for one in alarms]


# ------------------------------------------------------------------------------ internals
def _advice(
    one: Alarm, fleet: Sequence[date], onsets: Mapping[str, Sequence[date]], clients: int
) -> Advice:
    if one.client_id is None:
        return "federation"
    if one.advice == "meter":
        return "meter"
    others = sum(any(_near(one.onset, day) for day in days) for days in onsets.values())
    many = others >= max(2, clients / 2)
    large = not 1 / _METER_FACTOR < 1 + one.size < _METER_FACTOR
    if large and one.kind.startswith("level") and not many:
        return "meter"
    return "federation" if many or any(_near(one.onset, day) for day in fleet) else "client"


def _near(one: date, other: date) -> bool:
    return abs((one - other).days) <= _TOGETHER_DAYS


def _longest(days: Bools) -> int:
    longest = streak = 0
    for such in days:
        streak = streak + 1 if such else 0
        longest = max(longest, streak)
    return longest

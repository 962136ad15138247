"""Who lives in a simulated home, and when they are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.simulator.atmosphere import Sky
from fl_inmetro.data.simulator.clock import (
    SATURDAY,
    SUNDAY_OR_HOLIDAY,
    Clock,
    Floats,
)
from fl_inmetro.data.simulator.intervals import place

#: A client's own randomness: a generator per name, so that one appliance never disturbs another.
Stream = Callable[[str], np.random.Generator]

#: Households of 1, 2, 3, 4 and 5 people: mean 2.77, near the 2.8 of the Census 2022 (IBGE; the
#: mean is known to us from memory, the split is an assumption).
RESIDENTS_SHARE = (0.19, 0.27, 0.24, 0.18, 0.12)

#: Chance that a home is left alone for some days in a year, and the months it happens in.
VACATION_CHANCE = 0.65
VACATION_MONTHS = (1, 1, 1, 2, 7, 7, 12, 12)
WEEKEND_TRIP_CHANCE = 0.05
HOLIDAY_TRIP_CHANCE = 0.15
EVENING_OUT_CHANCE = (0.13, 0.28, 0.18)  # working day, Saturday, Sunday or holiday


@dataclass(frozen=True)
class Household:
    """Traits of a home that do not change.

    Attributes:
        residents: Number of people, 1 to 5.
        affluence: Factor on the number and size of devices; mean near 1.
        wake_min: Usual local minute of getting up on working days.
        leave_min: Usual local minute of leaving.
        return_min: Usual local minute of coming home.
        bed_min: Usual local minute of going to bed.
        someone_by_day: Chance that somebody is at home on a working day.
        has_air_conditioning: From the run's settings.
        has_pv: From the run's settings.
        has_vehicle: From the run's settings.
    """

    residents: int
    affluence: float
    wake_min: float
    leave_min: float
    return_min: float
    bed_min: float
    someone_by_day: float
    has_air_conditioning: bool
    has_pv: bool
    has_vehicle: bool


@dataclass(frozen=True, eq=False)
class Presence:
    """When somebody is at home; D days, T bins.

    Attributes:
        at_home: Shape (D,), False on days the home is left alone.
        evening: Shape (D,), True when the evening is spent at home.
        wake_min: Shape (D,), local minute of getting up.
        return_min: Shape (D,), local minute from which the evening at home begins.
        bed_min: Shape (D,), local minute of going to bed; may pass 1440.
        mood: Shape (D,), factor on the day's use of devices, mean near 1.
        awake: Shape (T,), share of the bin in which somebody is at home and awake.
    """

    at_home: NDArray[np.bool_]
    evening: NDArray[np.bool_]
    wake_min: Floats
    return_min: Floats
    bed_min: Floats
    mood: Floats
    awake: Floats


@dataclass(frozen=True, eq=False)
class Scene:
    """What every appliance of a home looks at: the time, the weather, the people."""

    clock: Clock
    sky: Sky
    home: Household
    presence: Presence
    stream: Stream


def household(
    stream: Stream, has_air_conditioning: bool, has_pv: bool, has_vehicle: bool
) -> Household:
    """Draw a home."""
    rng = stream("household")
    residents = 1 + int(rng.choice(len(RESIDENTS_SHARE), p=RESIDENTS_SHARE))
    wake = float(rng.normal(385, 45))
    # A car of one's own charging point, a roof of panels and cooling go with a larger income.
    richer = 0.18 * has_air_conditioning + 0.18 * has_pv + 0.25 * has_vehicle
    return Household(
        residents=residents,
        affluence=float(np.exp(rng.normal(-0.05 + richer, 0.28))),
        wake_min=wake,
        leave_min=wake + float(rng.uniform(45, 90)),
        return_min=float(rng.normal(1085, 55)),
        bed_min=float(rng.normal(1375, 40)),
        someone_by_day=float(np.clip(rng.normal(0.12 + 0.13 * residents, 0.25), 0.0, 1.0)),
        has_air_conditioning=has_air_conditioning,
        has_pv=has_pv,
        has_vehicle=has_vehicle,
    )


def presence(clock: Clock, home: Household, stream: Stream) -> Presence:
    """Draw a home's days."""
    days = clock.days
    free = clock.free_day
    at_home = ~_away(clock, stream)
    jitter = stream("presence").normal(0, 1, (days, 4))
    lie_in = np.where(free, 80.0, 0.0)
    wake = home.wake_min + lie_in + 18 * jitter[:, 0]
    leave = home.leave_min + 10 * jitter[:, 0]
    back = np.where(free, 1050.0, home.return_min) + np.where(free, 45, 22) * jitter[:, 1]
    late = np.where(clock.day_kind == SATURDAY, 50.0, 0.0)
    bed = np.maximum(home.bed_min + late + 25 * jitter[:, 2], back + 60)
    chance = stream("outings").random((days, 2))
    evening = at_home & (chance[:, 0] >= np.array(EVENING_OUT_CHANCE)[clock.day_kind])
    by_day = at_home & (chance[:, 1] < np.where(free, 0.75, home.someone_by_day))

    awake = place(clock, wake, leave - wake, 4.0, at_home)  # 4 kW x 1/4 h: one per full bin
    awake += place(clock, leave, back - leave, 4.0, by_day)
    awake += place(clock, back, bed - back, 4.0, evening)
    return Presence(
        at_home=at_home,
        evening=evening,
        wake_min=wake,
        return_min=back,
        bed_min=bed,
        mood=np.exp(0.35 * jitter[:, 3] - 0.061),
        awake=np.minimum(awake, 1.0),
    )


def _away(clock: Clock, stream: Stream) -> NDArray[np.bool_]:
    """Shape (D,): vacations, weekend trips and long holidays out of town."""
    away = np.zeros(clock.days, dtype=bool)
    # By calendar year, so that a vacation does not depend on where the series begins or ends.
    for year in range(clock.dates[0].year - 1, clock.dates[-1].year + 1):
        rng = stream(f"vacation-{year}")
        taken, month, day, length = (
            rng.random(),
            rng.choice(VACATION_MONTHS),
            *rng.integers((1, 6), (29, 20)),
        )
        if taken < VACATION_CHANCE:
            first = (date(year, int(month), int(day)) - clock.dates[0]).days
            away[max(first, 0) : max(first + int(length), 0)] = True
    chance = stream("trips").random(clock.days)
    saturday = clock.day_kind == SATURDAY
    leaves = saturday & (chance < WEEKEND_TRIP_CHANCE)
    away |= leaves
    away[1:] |= leaves[:-1]
    weekday = np.array([day.weekday() for day in clock.dates])
    holiday = (clock.day_kind == SUNDAY_OR_HOLIDAY) & (weekday != 6)
    away |= holiday & (chance < HOLIDAY_TRIP_CHANCE)
    return away

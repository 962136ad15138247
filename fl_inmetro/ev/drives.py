"""Drives as ragged arrays: trips of any length end to end, one sample per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drives:
    """What is known of some trips without any sensor of the battery.

    Trip i has the samples `offsets[i]` to `offsets[i + 1]`. A sample is an instant; the interval
    from it to the next one of the same trip has a mean power. So a trip of n samples has n − 1
    intervals, and what follows its last sample counts nothing.

    Attributes:
        speed_m_s: [sample]; never negative.
        climb_m_s: Vertical speed [sample], of the interval after it; v·sin α.
        ambient_deg_c: [sample].
        offsets: [trip + 1], from 0 to the number of samples.
        step_s: Between samples.
        wind_m_s: Headwind [sample], or None for calm air.
        pressure_pa: Of the air [sample], or None for the standard atmosphere's at sea level.
        heating_kw: Measured electrical power of the heater [sample], or None: then the car's own
            kW per kelvin.
        cooling_kw: The same of the air conditioning.
        payload_kg: [trip], or None for the car's usual one.
    """

    speed_m_s: Floats
    climb_m_s: Floats
    ambient_deg_c: Floats
    offsets: NDArray[np.int64]
    step_s: float = 1.0
    wind_m_s: Floats | None = None
    pressure_pa: Floats | None = None
    heating_kw: Floats | None = None
    cooling_kw: Floats | None = None
    payload_kg: Floats | None = None

    def __post_init__(self) -> None:
        if faults := _faults(self):
            raise DataError(faults)

    def __len__(self) -> int:
        """Return the number of trips."""
        return len(self.offsets) - 1

    @property
    def trip(self) -> NDArray[np.int64]:
        """Return which trip each sample is of [sample]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def sums(self, values: Floats) -> Floats:
        """Return sums of [sample] values over each trip [trip]."""
        total: Floats = np.add.reduceat(values, self.offsets[:-1])
        return total

    def interval_mean(self, values: Floats) -> Floats:
        """Return the mean of a sample and the next of its trip; 0 at the last one [sample]."""
        mean = np.zeros_like(values)
        np.add(values[:-1], values[1:], out=mean[:-1])
        mean *= 0.5
        mean[self.offsets[1:] - 1] = 0.0
        return mean

    def interval_change(self, values: Floats) -> Floats:
        """Return what a value grows by until the next sample of its trip; 0 at the last one."""
        change = np.zeros_like(values)
        np.subtract(values[1:], values[:-1], out=change[:-1])
        change[self.offsets[1:] - 1] = 0.0
        return change

    def only(self, trips: Iterable[int]) -> Drives:
        """Return some of the trips, in the order asked for."""
        wanted = list(trips)
        take = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in wanted])
        lengths = [int(self.offsets[i + 1] - self.offsets[i]) for i in wanted]
        changed = {
            name: value[take] for name in _PER_SAMPLE if (value := getattr(self, name)) is not None
        }
        if self.payload_kg is not None:
            changed["payload_kg"] = self.payload_kg[wanted]
        return replace(self, offsets=np.cumsum([0, *lengths]), **changed)


_PER_SAMPLE = tuple(
    field.name for field in fields(Drives) if field.name not in ("offsets", "step_s", "payload_kg")
)


def climb_from_height(
    height_m: Floats, offsets: NDArray[np.int64], step_s: float = 1.0, window: int = 1
) -> Floats:
    """Return vertical speeds from heights.

    A barometer or a map is noisy from one second to the next, and what goes up in noise is paid in
    traction but not won back in braking. So heights are first averaged over `window` samples
    (odd, centred, shorter at the ends of a trip).

    Shapes: heights in m [sample] → m/s of the interval after each sample, 0 at each trip's last.
    """
    climb = np.zeros(len(height_m))
    half = window // 2
    for first, last in pairwise(offsets):
        height = height_m[first:last]
        sums = np.concatenate([[0.0], np.cumsum(height - height[0])])
        at = np.arange(len(height))
        low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(height))
        smooth = (sums[high] - sums[low]) / (high - low)
        climb[first : last - 1] = np.diff(smooth) / step_s
    return climb


def one_drive(
    speed_m_s: Floats, ambient_deg_c: float = 20.0, grade: Floats | None = None
) -> Drives:
    """Return a drive of one trip at 1 Hz; `grade` is tan α [sample], level where None."""
    n = len(speed_m_s)
    offsets = np.array([0, n])
    calm = Drives(speed_m_s, np.zeros(n), np.full(n, ambient_deg_c), offsets)
    if grade is None:
        return calm
    # The interval's own speed climbs: the height gained is then exactly ∫ v sin α dt.
    return replace(calm, climb_m_s=calm.interval_mean(speed_m_s) * np.sin(np.arctan(grade)))


def _faults(drives: Drives) -> list[Fault]:
    offsets, n = drives.offsets, len(drives.speed_m_s)
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != n or np.any(np.diff(offsets) < 2):
        return [
            Fault(
                "FL224",
                "the trips do not lie end to end in the samples, each with two at least",
                "offsets",
                "offsets go from 0 to the number of samples",
            )
        ]
    found = []
    for name in _PER_SAMPLE:
        values = getattr(drives, name)
        if values is None:
            continue
        if values.shape != (n,):
            found.append(Fault("FL224", f"{len(values)} values for {n} samples", name))
        elif not np.all(np.isfinite(values)):
            at = int(np.argmin(np.isfinite(values)))
            found.append(Fault("FL224", "a value is missing or infinite", f"{name}, sample {at}"))
    if drives.payload_kg is not None and drives.payload_kg.shape != (len(drives),):
        found.append(
            Fault("FL224", f"not one payload for each of {len(drives)} trips", "payload_kg")
        )
    if not drives.step_s > 0:
        found.append(Fault("FL224", f"samples lie {drives.step_s:g} s apart", "step_s"))
    if not found and drives.speed_m_s.min() < 0:
        at = int(np.argmin(drives.speed_m_s))
        found.append(Fault("FL224", "a speed is negative", f"speed_m_s, sample {at}"))
    return found

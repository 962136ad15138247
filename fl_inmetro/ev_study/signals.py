"""A trip's signals as steps of a sequence: what networks are given of a drive."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.physics_family import FittedPhysics
from fl_inmetro.ev.trips import Trips

#: Seconds of a step: means of the 1 Hz signals, among them powers of speed, so that little of what
#: decides the energy is lost.
STEP_S = 10

#: Steps of a chunk at most; a longer trip is several, each with its own time since departure.
CHUNK = 90

#: Inputs and what they are divided by: round numbers of an ordinary drive, the same for all cars,
#: so that no car's data set another's scale.
INPUTS: dict[str, float] = {
    "speed_m_s": 15.0,
    "speed_cubed_m3_s3": 8000.0,
    "acceleration_power_m2_s3": 8.0,
    "braking_power_m2_s3": 8.0,
    "climb_m_s": 0.4,
    "cold_k": 15.0,
    "warm_k": 10.0,
    "heating_kw": 2.0,
    "cooling_kw": 2.0,
    "battery_deg_c": 20.0,
    "minutes": 15.0,
    "exp_minutes": 1.0,
}

#: What the physics expects, in kW, where it is an input.
PHYSICS = "physics_kw"
POWER_KW = 15.0


@dataclass(frozen=True, eq=False)
class Chunks:
    """Chunks of some trips, padded to one length.

    Attributes:
        x: Inputs, scaled [chunk, step, input].
        physics_kw: Mean power that the physics expects [chunk, step]; zero without.
        measured_kw: Mean power [chunk, step].
        hours: Length of each step; 0 behind a chunk's end [chunk, step].
        trip: Which trip a chunk is of [chunk].
    """

    x: NDArray[np.float32]
    physics_kw: NDArray[np.float32]
    measured_kw: NDArray[np.float32]
    hours: NDArray[np.float32]
    trip: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.trip)

    def part(self, chosen: NDArray[np.int64]) -> Chunks:
        """Return some chunks."""
        return Chunks(
            self.x[chosen],
            self.physics_kw[chosen],
            self.measured_kw[chosen],
            self.hours[chosen],
            self.trip[chosen],
        )


def chunks_of(
    trips: Trips,
    physics: FittedPhysics | None = None,
    car: str = "",
    own: Trips | None = None,
    *,
    as_input: bool = False,
) -> Chunks:
    """Return the chunks of trips; nothing in the inputs is from a sensor of the battery's power.

    The battery's temperature is that of the trip's first sample.

    Args:
        trips: To cut.
        physics: What networks correct, or are told; None for neither.
        car: Whose trips, for the physics.
        own: Earlier trips of the car, for the physics.
        as_input: Whether its power is among the inputs.
    """
    signals = _signals(trips)
    expected = np.zeros(len(trips.drives.speed_m_s))
    if physics is not None:
        expected = physics.powers_kw(car, trips, own)
    if as_input:
        signals = np.column_stack([signals, expected / POWER_KW])
    measured, step_s = trips.interval_kw, trips.drives.step_s
    per_step = max(round(STEP_S / step_s), 1)
    pieces: list[tuple[int, Floats, Floats, Floats, Floats]] = []
    for trip, (first, last) in enumerate(pairwise(trips.drives.offsets)):
        # An interval follows each sample but the last.
        starts = np.arange(first, last - 1, per_step)
        counts = np.diff([*starts, last - 1])
        inputs, known, power = (
            (np.add.reduceat(values[: last - 1], starts).T / counts).T
            for values in (signals, expected, measured)
        )
        hours = counts * step_s / 3600
        for begin in range(0, len(starts), CHUNK):
            cut = slice(begin, begin + CHUNK)
            pieces.append((trip, inputs[cut], known[cut], power[cut], hours[cut]))
    longest = max(len(hours) for *_, hours in pieces)
    width = signals.shape[1]
    x = np.zeros((len(pieces), longest, width), dtype=np.float32)
    flat = np.zeros((3, len(pieces), longest), dtype=np.float32)
    for row, (_, inputs, known, power, hours) in enumerate(pieces):
        x[row, : len(hours)] = inputs
        for which, values in enumerate((known, power, hours)):
            flat[which, row, : len(hours)] = values
    return Chunks(x, flat[0], flat[1], flat[2], np.array([trip for trip, *_ in pieces]))


def joined(several: list[Chunks]) -> Chunks:
    """Return chunks of several cars as one, padded to the longest; trips are numbered on."""
    longest = max(chunks.x.shape[1] for chunks in several)

    def wide(array: NDArray[np.float32]) -> NDArray[np.float32]:
        pad = [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(array, pad)

    def whole(name: str) -> NDArray[np.float32]:
        return np.concatenate([wide(getattr(chunks, name)) for chunks in several])

    begins = np.cumsum([0, *(int(c.trip.max()) + 1 for c in several)])
    trip = np.concatenate([c.trip + begin for c, begin in zip(several, begins, strict=False)])
    return Chunks(whole("x"), whole("physics_kw"), whole("measured_kw"), whole("hours"), trip)


def width_of(as_input: bool) -> int:
    """Return the number of inputs of a step."""
    return len(INPUTS) + int(as_input)


def _signals(trips: Trips) -> Floats:
    """Return the inputs of each interval, scaled [sample, input]."""
    drives = trips.drives
    speed = drives.interval_mean(drives.speed_m_s)
    gain = drives.interval_change(drives.speed_m_s) / drives.step_s * speed
    lengths = np.diff(drives.offsets)
    begun = np.repeat(drives.offsets[:-1], lengths)
    minutes = (np.arange(len(begun)) - begun) * (drives.step_s / 60)
    nothing = np.zeros(len(begun))
    values = {
        "speed_m_s": speed,
        "speed_cubed_m3_s3": speed**3,
        "acceleration_power_m2_s3": np.maximum(gain, 0.0),
        "braking_power_m2_s3": np.maximum(-gain, 0.0),
        "climb_m_s": drives.climb_m_s,
        "cold_k": np.maximum(20.0 - drives.ambient_deg_c, 0.0),
        "warm_k": np.maximum(drives.ambient_deg_c - 20.0, 0.0),
        "heating_kw": nothing if drives.heating_kw is None else drives.heating_kw,
        "cooling_kw": nothing if drives.cooling_kw is None else drives.cooling_kw,
        "battery_deg_c": np.repeat(trips.battery_deg_c[drives.offsets[:-1]], lengths),
        "minutes": minutes,
        "exp_minutes": np.exp(-minutes / 10),
    }
    return np.column_stack([values[name] / scale for name, scale in INPUTS.items()])

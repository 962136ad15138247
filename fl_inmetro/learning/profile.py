"""What a client shares of itself to be put beside others: its mean day, clipped and noised.

One vector leaves the client, once. It is made of training windows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.data.windows import Windows
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]

#: Working day, Saturday, Sunday; each of 24 hours.
DAY_TYPES, HOURS = 3, 24

#: Numbers of a profile.
WIDTH = DAY_TYPES * HOURS


@dataclass(frozen=True)
class Release:
    """Numbers that leave a client: what a ledger of privacy needs to know of them.

    Attributes:
        what: Name of what is released.
        sensitivity: Largest L2 change of it if one client's readings were all others.
        noise: Standard deviation of the Gaussian noise on each number; 0 = none.
        times: How often each client releases it, in one run; the folds of a backtest are a release
            each.
        simulated: The noise comes from the run's seed, so that a simulation can be made again. Who
            knows the seed can take it off: it protects nobody from the server of this run.
    """

    what: str
    sensitivity: float
    noise: float
    times: int = 1
    simulated: bool = True

    @property
    def noise_multiplier(self) -> float:
        """Noise in units of the sensitivity, as accountants of the Gaussian mechanism want it."""
        return self.noise / self.sensitivity

    def to_json(self) -> dict[str, float | int | str]:
        """Return the fields, for the run directory."""
        return asdict(self)


def profile_release(clip: float, noise: float) -> Release:
    """Describe the release of one profile per client.

    Two vectors of norm at most C are at most 2C apart, so that is the sensitivity where one
    client's data are replaced by any others (Dwork & Roth 2014, section 3.5).
    """
    return Release("day_type_profile", 2.0 * clip, noise)


def day_type_profile(parts: Iterable[Windows]) -> Floats | None:
    """Return a client's mean day of each type in units of its mean, (72,); None without readings.

    Each of its meters counts as much, whatever its energy. Hours are local. A day type without
    readings takes the mean of the others at that hour, an hour without any the mean of all, 1.

    Args:
        parts: Training windows, of one or several meters; their known targets are looked at.
    """
    found = [own for part in parts if (own := _of_meter(part)) is not None]
    return np.mean(found, axis=0) if found else None


def span_of(parts: Iterable[Windows]) -> tuple[int, int]:
    """Return the first and the last issue time of a client's training windows; there is one."""
    issues_utc_s = np.concatenate([part.issue_utc_s for part in parts])
    return int(issues_utc_s.min()), int(issues_utc_s.max())


def released(
    profile: Floats, clip: float, noise: float, seed: int, client_id: str, span: tuple[int, int]
) -> Floats:
    """Return what leaves the client: the profile at a norm of at most `clip`, plus noise.

    The noise depends on the seed, the client and the span of its windows alone, so that a run that
    is resumed releases nothing new. Other days are noised anew: the same noise on both would show
    their difference as it is.
    """
    norm = float(np.linalg.norm(profile))
    clipped = profile * min(1.0, clip / norm) if norm else profile.copy()
    if noise:
        clipped = clipped + seeds.derive(seed, "profile", client_id, *span).normal(
            0.0, noise, WIDTH
        )
    result: Floats = clipped
    return result


# ------------------------------------------------------------------------------ internals
def _of_meter(part: Windows) -> Floats | None:
    energy_kwh = part.target_kwh()
    return mean_day(energy_kwh, part.target_clock.day_type, part.target_clock.second_of_day)


def mean_day(
    energy_kwh: Floats, day_type: NDArray[np.int64], second_of_day: NDArray[np.int64]
) -> Floats | None:
    """Return the mean day of each type in units of the mean of all 72 hours; None without any use.

    Shapes: all alike → (72,), working day first. NaN is unknown.
    """
    known = np.isfinite(energy_kwh)
    place = (day_type * HOURS + second_of_day // HOUR_S)[known].astype(np.int64)
    total = np.bincount(place, energy_kwh[known], WIDTH)
    count = np.bincount(place, minlength=WIDTH)
    if not count.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        days = (total / count).reshape(DAY_TYPES, HOURS)
        of_hour = total.reshape(DAY_TYPES, HOURS).sum(0) / count.reshape(DAY_TYPES, HOURS).sum(0)
    whole = float(total.sum() / count.sum())
    of_hour = np.where(np.isnan(of_hour), whole, of_hour)
    days = np.where(np.isnan(days), of_hour, days)
    level = float(days.mean())
    # A meter that never reads, or feeds in as much as it takes, has no shape.
    if not math.isfinite(level) or level <= 1e-12:
        return None
    result: Floats = (days / level).ravel()
    return result

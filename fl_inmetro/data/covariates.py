"""Weather, tariff and PV as series with a rule of what is known of them at an issue time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import iso_utc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Name of a covariate to its unit.
UNITS = {
    "temperature": "deg_c",
    "humidity": "percent",
    "irradiance": "w_m2",
    "tariff": "per_kwh",
    "pv": "kw",
}

#: Those that a weather service forecasts; a client's own PV is not among them.
WEATHER = ("temperature", "humidity", "irradiance")

Kind = Literal["observed", "forecast", "known"]


@dataclass(frozen=True, eq=False)
class Covariate:
    """One quantity beside the readings, on a regular UTC grid.

    Attributes:
        name: A key of `UNITS`.
        kind: `observed` is known when its step has ended, `forecast` from its issue on, `known`
            always: a tariff, or what a perfect forecast would have said.
        start_utc_s: Epoch second at which the first step begins.
        resolution_s: Length of a step, seconds.
        values: Shape (T,), in the unit of `UNITS`, NaN where there is none. Made read-only.
        issued_utc_s: Shape (T,), when each value was forecast; of kind `forecast` alone.
    """

    name: str
    kind: Kind
    start_utc_s: int
    resolution_s: int
    values: Floats
    issued_utc_s: Ints | None = None

    def __post_init__(self) -> None:
        if self.name not in UNITS:
            raise ValueError(f"`{self.name}` is no covariate; known: {', '.join(UNITS)}")
        if (self.kind == "forecast") != (self.issued_utc_s is not None):
            raise ValueError(f"covariate {self.name}: a forecast, and only a forecast, is issued")
        if self.issued_utc_s is not None and self.issued_utc_s.shape != self.values.shape:
            raise ValueError(f"covariate {self.name}: values and issues differ in length")
        for field in ("values", "issued_utc_s"):
            array = getattr(self, field)
            if array is not None:
                array = array.view()
                array.flags.writeable = False
                object.__setattr__(self, field, array)

    @property
    def unit(self) -> str:
        """Return the unit of the values."""
        return UNITS[self.name]

    def at(self, instant_utc_s: Ints, issue_utc_s: Ints) -> Floats:
        """Return the values of the steps that hold these instants, as known at the issue times.

        Shapes: instant (N, …), issue (N,) → (N, …); NaN where there is none, or where a forecast
        was issued later.

        Raises:
            DataError: FL213, an observation was asked for whose step ends after its row's issue.
        """
        issue = issue_utc_s.reshape(-1, *([1] * (instant_utc_s.ndim - 1)))
        index = (instant_utc_s - self.start_utc_s) // self.resolution_s
        if self.kind == "observed":
            end_utc_s = self.start_utc_s + (index + 1) * self.resolution_s
            late = end_utc_s > issue
            if late.any():
                row = int(np.argwhere(late.reshape(len(late), -1).any(axis=1))[0, 0])
                raise DataError(
                    Fault(
                        "FL213",
                        f"a feature asked for an observation of {self.name} that its issue time "
                        "does not know yet",
                        f"issued {iso_utc(int(issue_utc_s[row]))}",
                        "look at earlier days, or give weather forecasts",
                    )
                )
        inside = (index >= 0) & (index < self.values.size)
        if not self.values.size:
            return np.full(index.shape, np.nan)
        place = np.where(inside, index, 0)
        if self.issued_utc_s is not None:
            inside = inside & (self.issued_utc_s[place] <= issue)
        return np.where(inside, self.values[place], np.nan)

    def foreseen(self) -> Covariate:
        """Return the observations as if they had been known ahead: a perfect forecast."""
        return Covariate(self.name, "known", self.start_utc_s, self.resolution_s, self.values)


def mean_of_last(observed: Covariate, hours: int, issue_utc_s: Ints) -> Floats:
    """Return the mean of what was observed in the last hours before each issue; (N,) → (N,).

    NaN where nothing was.
    """
    step = observed.resolution_s
    count = max(1, hours * 3600 // step)
    # The last whole step before the issue time, where the two grids are not the same.
    last = (issue_utc_s - observed.start_utc_s) // step - 1
    starts = observed.start_utc_s + (last[:, None] - np.arange(count)) * step
    values = observed.at(starts, issue_utc_s)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def on_grid(
    name: str, kind: Kind, utc_s: Ints, values: Floats, issued_utc_s: Ints | None = None
) -> Covariate:
    """Return a covariate from instants in any order; shapes (M,). The shortest step is the grid's.

    Raises:
        ValueError: Two values of one instant, an instant off the grid, or no two instants.
    """
    order = np.argsort(utc_s, kind="stable")
    utc_s = utc_s[order]
    gaps = np.diff(utc_s)
    if not gaps.size:
        raise ValueError("fewer than two instants")
    step = int(gaps.min())
    if step == 0:
        twice = int(utc_s[int(np.flatnonzero(gaps == 0)[0])])
        raise ValueError(f"two values of {iso_utc(twice)}")
    place, rest = np.divmod(utc_s - utc_s[0], step)
    if rest.any():
        odd = int(utc_s[int(np.flatnonzero(rest)[0])])
        raise ValueError(f"{iso_utc(odd)} is not on the {step} s grid of the others")
    grid = np.full(int(place[-1]) + 1, np.nan)
    grid[place] = values[order]
    issues = None
    if issued_utc_s is not None:
        issues = np.zeros(grid.size, dtype=np.int64)
        issues[place] = issued_utc_s[order]
    return Covariate(name, kind, int(utc_s[0]), step, grid, issues)

"""Windows of many clients at the same issue times, whose features are computed at once.

Row n = k · I + i is the window of client k at issue i. Whatever computes features of `Windows`
computes them of `FleetWindows` too; the calendar of the I issue times is looked up once for all
clients, and readings are gathered for all of them in one step. Each row sees its own client alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import LocalClock
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Past, Windows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FleetPast(Past):
    """The readings of K clients as seen from the same I issue times; rows as in `FleetWindows`.

    Args:
        energy_kwh: Shape (K, T), readings of each client on one grid, NaN where it has none.
        one: What one client of that grid may know at the I issue times.
    """

    __slots__ = ("_energy_kwh", "_one")

    def __init__(self, energy_kwh: Floats, one: Windows) -> None:
        super().__init__(one.series, np.tile(one.issue_index, len(energy_kwh)), None, one.lead)
        self._energy_kwh, self._one = energy_kwh, one.past

    def at(self, index: Ints) -> Floats:
        """Return the energy of steps; as `Past.at`, row by row."""
        issues = self._one.issue_index.size
        shape = (len(self._energy_kwh), issues, *index.shape[1:])
        own = index.reshape(shape)
        for of_client in own:
            self._one.at(of_client)  # refuses what lies ahead
        client = np.arange(shape[0]).reshape(-1, *([1] * (len(shape) - 1)))
        size = self._energy_kwh.shape[1]
        inside = (own >= 0) & (own < size)
        found = self._energy_kwh[client, np.where(inside, own, 0)] if size else np.nan
        return np.where(inside, found, np.nan).reshape(index.shape)

    def mean_so_far(self) -> Floats:
        """Return the mean of all readings before each issue time; (N,), NaN without any."""
        known = np.isfinite(self._energy_kwh)
        total = np.cumsum(np.where(known, self._energy_kwh, 0.0), axis=1)
        count = np.cumsum(known, axis=1)
        before = np.clip(self._one.issue_index, 0, known.shape[1])
        some = before > 0
        place = np.where(some, before - 1, 0)
        if not known.shape[1]:
            return np.full(self.issue_index.shape, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(some, total[:, place], 0.0) / np.where(some, count[:, place], 0)
        return mean.ravel()

    def steps_so_far(self) -> Ints:
        """Return the steps from the first reading to each issue time; (N,), 0 without any."""
        known = np.isfinite(self._energy_kwh)
        first = np.where(known.any(axis=1), known.argmax(axis=1), np.iinfo(np.int64).max)
        steps: Ints = np.maximum(self._one.issue_index - first[:, None], 0)
        return steps.ravel()

    def lookback(self, steps: int) -> Floats:
        """Return the last `steps` values before each issue time, oldest first; shape (N, steps)."""
        return self._of_all(self._one.issue_index[:, None] + np.arange(-steps, 0, dtype=np.int64))

    def before_issue(self, steps: Ints) -> Floats:
        """Gather for all clients what `Past` gathers for one; (I or 1, H, K) → (N, H, K)."""
        return self._of_all(self._one.issue_index[:, None, None] + steps)

    def _of_all(self, index: Ints) -> Floats:
        """Return the energy of the same steps for all clients; (I, …) → (N, …)."""
        self._one.at(index)  # refuses what lies ahead
        size = self._energy_kwh.shape[1]
        inside = (index >= 0) & (index < size)
        shape = (self.issue_index.size, *index.shape[1:])
        if not size:
            return np.full(shape, np.nan)
        values = np.take(self._energy_kwh, np.where(inside, index, 0), axis=1)
        if not inside.all():
            values[:, ~inside] = np.nan
        return values.reshape(shape)


@dataclass(frozen=True, eq=False)
class FleetWindows(Windows):
    """Forecasts to be made for many clients at the same issue times; see the module.

    Make one with `stacked`. `series` has the clients' grid and surroundings, and no readings.

    Attributes:
        clients: The K clients.
    """

    clients: tuple[ClientSeries, ...] = ()

    @cached_property
    def one(self) -> Windows:
        """The issue times as those of one client."""
        issues = self.issue_index[: self.issues]
        return Windows(self.series, issues, self.horizon, self.timezone, lead=self.lead)

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(client.client_id for client in self.clients)

    @property
    def issues(self) -> int:
        """Issue times, I."""
        return len(self) // len(self.clients)

    @cached_property
    def past(self) -> Past:
        """What is known at each issue time."""
        return FleetPast(self.energy_kwh, self.one)

    @cached_property
    def energy_kwh(self) -> Floats:
        """Shape (K, T), the clients' readings before the last issue time on one grid."""
        steps = max(int(self.issue_index.max()), 0) if len(self) else 0
        energy = np.full((len(self.clients), steps), np.nan)
        for row, client in zip(energy, self.clients, strict=True):
            first = (client.start_utc_s - self.series.start_utc_s) // client.resolution_s
            own = client.energy_kwh[: max(steps - first, 0)]
            row[first : first + own.size] = own
        return energy

    @cached_property
    def target_clock(self) -> LocalClock:
        """Local calendar of the target steps, arrays of shape (N, H)."""
        return self._of_all(self.one.target_clock)

    def slot_clock(self, days_back: Ints) -> LocalClock:
        """Local calendar of what `same_slot` returns, arrays of shape (N, H, K)."""
        return self._of_all(self.one.slot_clock(days_back))

    def _steps_back(self, back: Ints, period_s: int) -> Ints:
        """Return where a local time was before, (I or 1, H, K): the same for all clients."""
        return self.one._steps_back(back, period_s)

    def rows(self) -> Iterator[slice]:
        """Yield the rows of each client."""
        for k in range(len(self.clients)):
            yield slice(k * self.issues, (k + 1) * self.issues)

    def of(self, k: int) -> Windows:
        """Return the windows of one client as its own."""
        series = self.clients[k]
        shift = (series.start_utc_s - self.series.start_utc_s) // series.resolution_s
        index = self.one.issue_index - shift
        return Windows(series, index, self.horizon, self.timezone, lead=self.lead)

    def part(self, places: slice) -> FleetWindows:
        """Return the windows of some of the clients."""
        clients = self.clients[places]
        index = np.tile(self.one.issue_index, len(clients))
        return replace(self, issue_index=index, clients=clients)

    def at(self, issue_utc_s: Ints) -> FleetWindows:
        """Return the windows of the same clients at other issue times."""
        index = (issue_utc_s - self.series.start_utc_s) // self.series.resolution_s
        return replace(self, issue_index=np.tile(index, len(self.clients)))

    def take(self, rows: Ints | NDArray[np.bool_]) -> Windows:
        """Not used: rows of several clients are no windows of one.

        Raises:
            TypeError: Always.
        """
        raise TypeError("take the windows of a client with `of`")

    def _of_all(self, clock: LocalClock) -> LocalClock:
        """Repeat the calendar of the I issue times for each client."""
        count = len(self.clients)

        def repeated(values: Ints) -> Ints:
            return np.tile(values, (count, *([1] * (values.ndim - 1))))

        return LocalClock(
            second_of_day=repeated(clock.second_of_day),
            weekday=repeated(clock.weekday),
            day_of_year=repeated(clock.day_of_year),
            day=repeated(clock.day),
        )


def stacked(
    clients: Sequence[ClientSeries], issue_utc_s: Ints, horizon: int, timezone: str, lead: int = 0
) -> FleetWindows:
    """Return the windows of clients that live in the same surroundings (`alike`).

    Args:
        clients: K clients, at least one.
        issue_utc_s: Shape (I,), ascending epoch seconds on the clients' grid.
        horizon: Steps of a forecast.
        timezone: Clock of the calendar features.
        lead: Steps from the issue to the first step of the forecast.
    """
    start_utc_s, resolution_s = min(one.start_utc_s for one in clients), clients[0].resolution_s
    name = f"{clients[0].client_id} …"
    grid = ClientSeries(name, start_utc_s, resolution_s, np.zeros(0), clients[0].site)
    index = np.tile((issue_utc_s - start_utc_s) // resolution_s, len(clients))
    return FleetWindows(grid, index, horizon, timezone, lead=lead, clients=tuple(clients))


def alike(site: Site) -> object:
    """Return what two clients must have in common to be computed at once."""
    place = (site.latitude_deg, site.longitude_deg)
    return (site.holidays, *place, site.timezone, tuple(id(one) for one in site.covariates))

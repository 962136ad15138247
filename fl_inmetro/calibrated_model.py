"""Trained models whose quantiles are calibrated on each client, once or from day to day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import issue_times_utc_s, local_date
from fl_inmetro.data.features import trailing_level
from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows, windows_at
from fl_inmetro.learning.adaptive_conformal import Adaptive, follow_on
from fl_inmetro.learning.conformal import Calibration, FleetCalibration, hour_blocks
from fl_inmetro.learning.followed import FollowedFleet
from fl_inmetro.metrics import Forecast, joined_forecasts
from fl_inmetro.model import Model
from fl_inmetro.plan import Job
from fl_inmetro.units import DAY_S

Ints = NDArray[np.int64]

#: How many memories back a client learns from; beyond it an error has lost all but e⁻⁸ of its
#: weight. Within the run's test window a client of the run learns from every day.
_MEMORIES = 8


@dataclass(frozen=True, eq=False)
class CalibratedModel:
    """A model whose quantiles are calibrated on each client.

    Attributes:
        plain: The model.
        calibration: By client, and for one that was never seen.
    """

    plain: Model
    calibration: FleetCalibration

    @property
    def job(self) -> Job:
        """What it is and how it was trained."""
        return self.plain.job

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; None where it has no model for that client."""
        made = self.plain.forecast(client_id, windows)
        own = self.calibration.of(client_id)
        return made if made is None or own is None else own.of(windows, made)

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it."""
        level = trailing_level(windows)
        result: list[Forecast | None] = []
        asked = zip(windows.names, self.plain.forecast_fleet(windows), windows.rows(), strict=True)
        for name, made, rows in asked:
            own = self.calibration.of(name)
            if made is not None and own is not None:
                block = hour_blocks(windows.one, len(own.offsets))
                made = own.apply(made, level.scale_kwh[rows], block, level.floor_kwh[rows])
            result.append(made)
        return result

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: Ints, zone: str
    ) -> CalibratedModel:
        """Return the calibration of the settled model."""
        return replace(self, plain=self.plain.settled(clients, asked_utc_s, zone))


@dataclass(frozen=True, eq=False)
class _Way:
    """How a client comes to the first window that is asked for.

    Attributes:
        adaptive: What it knows where it sets out.
        given: By what the first windows on the way were calibrated when they were made.
        before_utc_s: Shape (M,), the issues on the way.
    """

    adaptive: Adaptive
    given: tuple[Calibration, ...]
    before_utc_s: Ints


@dataclass(frozen=True, eq=False)
class FollowedModel:
    """A model whose quantiles follow each client from day to day.

    A forecast of a test day is the one that was scored: what the client had learnt since the first
    test day is learnt again from the readings that are there. A later one goes on from where the
    client stood after the test window, which the run keeps, and learns from the days since. A
    client that the run has not seen sets out at the first test day with the fleet's errors.

    More than eight memories (`memory_days`) after the place where a client sets out, the days
    before the last eight memories are skipped: their errors would have lost all but e⁻⁸ of their
    weight, and the levels go on from where they were.

    Attributes:
        plain: The model.
        fleet: What each client follows from.
        issue_time: Local time of issue of the run, HH:MM.
    """

    plain: Model
    fleet: FollowedFleet
    issue_time: str

    @property
    def job(self) -> Job:
        """What it is and how it was trained."""
        return self.plain.job

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; None where it has no model for that client.

        Windows that were issued before the run's first test day are calibrated by the validation
        days alone; nothing is learnt from them.

        Shapes: windows by time of issue.
        """
        start, way = self._way(client_id, windows.issue_utc_s, windows.timezone)
        if start is None or way is None or not way.before_utc_s.size:
            made = self.plain.forecast(client_id, windows)
            return made if made is None else self._after(start, way, None, windows, None, made)
        before = _at(windows, way.before_utc_s)
        # Issues before the client's readings begin are no windows of its.
        way = replace(way, given=way.given[way.before_utc_s.size - len(before) :])
        every = _joined(before, windows)
        # Days that are only learnt from have no say in what is chosen for the days asked for.
        series = {client_id: windows.series}
        plain = self.plain.settled(series, windows.issue_utc_s, windows.timezone)
        made = plain.forecast(client_id, every)
        if made is None:
            return None
        count = len(before)
        past, own = made.take(slice(None, count)), made.take(slice(count, None))
        return self._after(start, way, before, windows, past, own)

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it."""
        issues = windows.one.issue_utc_s
        ways = [self._way(name, issues, windows.timezone) for name in windows.names]
        longest = max((way.before_utc_s.size for _, way in ways if way is not None), default=0)
        # The way may be much longer than what is asked for.
        at_once = max(len(windows) // (len(issues) + longest), 1) if len(issues) else 1
        result: list[Forecast | None] = []
        for first in range(0, len(ways), at_once):
            some = slice(first, first + at_once)
            result += self._some(windows.part(some), ways[some])
        return result

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: Ints, zone: str
    ) -> FollowedModel:
        """Return the calibration of the settled model."""
        return replace(self, plain=self.plain.settled(clients, asked_utc_s, zone))

    def _some(
        self, windows: FleetWindows, ways: list[tuple[Adaptive | None, _Way | None]]
    ) -> list[Forecast | None]:
        """Forecast clients and all windows on their ways at once."""
        issues = windows.one.issue_utc_s
        on_the_way = [way.before_utc_s for _, way in ways if way is not None]
        all_utc_s = np.unique(np.concatenate([issues, *on_the_way]))
        clients = dict(zip(windows.names, windows.clients, strict=True))
        plain = self.plain.settled(clients, issues, windows.timezone)
        made = plain.forecast_fleet(windows.at(all_utc_s))
        result: list[Forecast | None] = []
        asked = np.searchsorted(all_utc_s, issues)
        for k, (start, way) in enumerate(ways):
            own = made[k]
            if own is None:
                result.append(None)
                continue
            before = past = None
            if way is not None and way.before_utc_s.size:
                place = np.searchsorted(all_utc_s, way.before_utc_s)
                before, past = windows.at(way.before_utc_s).of(k), own.take(place)
            result.append(self._after(start, way, before, windows.of(k), past, own.take(asked)))
        return result

    def _after(
        self,
        start: Adaptive | None,
        way: _Way | None,
        before: Windows | None,
        asked: Windows,
        past: Forecast | None,
        made: Forecast,
    ) -> Forecast:
        """Calibrate what is asked for, after the windows on the way to it."""
        if start is None:
            return made
        early = asked.issue_utc_s < self.fleet.since_utc_s
        parts = [start.calibration().of(asked.take(early), made.take(early))]
        if way is not None:
            every, plain, count = asked.take(~early), made.take(~early), 0
            if before is not None and past is not None:
                every, plain = _joined(before, every), joined_forecasts([past, plain])
                count = len(before)
            done = follow_on(way.adaptive, every, plain, way.given)
            parts.append(done.forecast.take(slice(count, None)))
        return joined_forecasts(parts)

    def _way(
        self, client_id: str, asked_utc_s: Ints, zone: str
    ) -> tuple[Adaptive | None, _Way | None]:
        """Return what a client begins with, and its way to the first issue that it follows to."""
        start = self.fleet.of(client_id)
        late = asked_utc_s[asked_utc_s >= self.fleet.since_utc_s]
        if start is None or not late.size:
            return start, None
        first_utc_s = int(late[0])
        ended = self.fleet.ended.get(client_id)
        since_utc_s, adaptive = self.fleet.since_utc_s, start
        pending = np.zeros(0, dtype=np.int64)
        given: tuple[Calibration, ...] = ()
        within = ended is not None and first_utc_s <= ended.pending_utc_s[-1]
        if ended is not None and not within:
            adaptive, given = ended.adaptive(start), ended.given(start)
            pending, since_utc_s = ended.pending_utc_s, int(ended.pending_utc_s[-1]) + 1
        if not within:
            reach_s = int(_MEMORIES * self.fleet.settings.memory_days * DAY_S)
            since_utc_s = max(since_utc_s, first_utc_s - reach_s)
        days = (local_date(since_utc_s, zone), local_date(first_utc_s, zone))
        issues = issue_times_utc_s(*days, self.issue_time, zone)
        issues = issues[(issues >= since_utc_s) & (issues < first_utc_s)]
        return start, _Way(adaptive, given, np.concatenate([pending, issues]))


def mean_calibration(model: Model, client_id: str) -> Calibration | None:
    """Return the calibration of a client that makes quantiles of a mean; None without one."""
    own: Calibration | None = None
    if isinstance(model, CalibratedModel):
        own = model.calibration.of(client_id)
    elif isinstance(model, FollowedModel):
        start = model.fleet.of(client_id)
        own = None if start is None else start.calibration()
    return own if own is not None and own.of_mean else None


def unfollowed(model: Model, client_id: str, windows: Windows) -> Forecast | None:
    """Forecast without learning anything of the windows' readings, which are not the client's."""
    if not isinstance(model, FollowedModel):
        return model.forecast(client_id, windows)
    made, start = model.plain.forecast(client_id, windows), model.fleet.of(client_id)
    return made if made is None or start is None else start.calibration().of(windows, made)


# ------------------------------------------------------------------------------ internals
def _at(asked: Windows, issue_utc_s: Ints) -> Windows:
    """Return the windows of the same meter at earlier issues."""
    index = windows_at(
        asked.series, issue_utc_s, asked.horizon, asked.timezone, known=False, lead=asked.lead
    ).issue_index
    visible = asked.visible_from
    if visible is not None:
        index = index[index >= visible[0]]
        visible = np.full(index.shape, visible[0])
    return replace(asked, issue_index=index, visible_from=visible)


def _joined(first: Windows, second: Windows) -> Windows:
    """Return the windows of two stretches of one meter as one."""
    visible = None
    if first.visible_from is not None and second.visible_from is not None:
        visible = np.concatenate([first.visible_from, second.visible_from])
    index = np.concatenate([first.issue_index, second.issue_index])
    return replace(second, issue_index=index, visible_from=visible)

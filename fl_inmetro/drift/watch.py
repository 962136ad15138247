"""Watch a finished run's model on readings of after its training: clients, then the fleet.

Every client forecasts its own days with the model, compares them with its own readings, and keeps
its own charts. What leaves it are alarms, and for each day its scores as part of a sum over the
clients, from which the fleet's charts are made: a change that is small in everybody is plain there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import issue_times_utc_s, local_date
from fl_inmetro.data.protocols import horizon_of, lead_of
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.data.windows import windows_at
from fl_inmetro.drift.alarms import Alarm, advised, of_chart, of_streak
from fl_inmetro.drift.chart import Path, ShortReferenceError, cusum, limit_for, usable_days
from fl_inmetro.drift.daily import WATCHED, Daily, Watched, daily
from fl_inmetro.drift.request import Request, Skipped
from fl_inmetro.drift.yardstick import LEAST_DAYS, Yardstick
from fl_inmetro.errors import DataError, Fault, FederationError, RunError
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.trained import Model
from fl_inmetro.units import DAY_S, epoch_s, iso_utc

Floats = NDArray[np.float64]

#: The fleet has a number of a day on which so many of its clients have one.
_LEAST_SHARE = 0.5
#: Sums that raise false alarms: two of the level, two of the shape, one of the error.
_SIDES = {"level": 2, "shape": 2, "error": 1}


@dataclass(frozen=True, eq=False)
class Watch:
    """One client's charts, or the fleet's, over the watched days.

    Attributes:
        alarms: First of each kind.
        paths: Chart to its sums.
        limits: Chart to its limit.
        scores: Chart to the scores of all days, shape (R + T,).
        deviations: Chart to logarithmic deviations from the usual, shape (R + T,).
    """

    alarms: tuple[Alarm, ...]
    paths: Mapping[Watched, Path]
    limits: Mapping[Watched, float]
    scores: Mapping[Watched, Floats]
    deviations: Mapping[Watched, Floats]

    def sums(self) -> dict[str, list[float]]:
        """Return the sums by kind of alarm, in units of their limits; not those that tell none."""
        found: dict[str, list[float]] = {}
        for name, path in self.paths.items():
            found[f"{name}_up"] = (path.up / self.limits[name]).tolist()
            if _SIDES[name] == 2:
                found[f"{name}_down"] = (path.down / self.limits[name]).tolist()
        return found


@dataclass(frozen=True, eq=False)
class Report:
    """What was found.

    Attributes:
        alarms: Those of the fleet first, then by client and day.
        days: The watched local days.
        reference: First and last local day that thresholds were learnt from.
        watched: Client to its charts.
        fleet: The fleet's; None with fewer than two clients, or where `fleet_skipped` says why.
        skipped: Client to the reason why it is not watched.
        fleet_skipped: Why the fleet has no chart; None where it has one, or too few clients.
    """

    alarms: tuple[Alarm, ...]
    days: tuple[date, ...]
    reference: tuple[date, date]
    watched: Mapping[str, Watch]
    fleet: Watch | None
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    fleet_skipped: Skipped | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the charts."""
        alarmed = {one.client_id for one in self.alarms} - {None}
        return {
            "reference": [day.isoformat() for day in self.reference],
            "days": [self.days[0].isoformat(), self.days[-1].isoformat()],
            "clients": len(self.watched),
            "alarmed": len(alarmed),
            "alarms": [one.to_json() for one in self.alarms],
            "skipped": {name: why.told("en") for name, why in self.skipped.items()},
            "fleet_skipped": self.fleet_skipped.told("en") if self.fleet_skipped else None,
        }

    def lines(self) -> dict[str, dict[str, Any]]:
        """Return the sums of those who told something, in units of their limits, for a page.

        The fleet's stand under the empty name.
        """
        told = {one.client_id for one in self.alarms}
        every: list[tuple[str | None, Watch | None]] = [(None, self.fleet), *self.watched.items()]
        days = [day.isoformat() for day in self.days]
        return {
            name or "": {"days": days, "sums": found.sums()}
            for name, found in every
            if name in told and found is not None
        }


def watch(record: RunRecord, trained: Model, data: FederatedData, request: Request) -> Report:
    """Watch the clients of `data`; the run's validation and test days say what is usual.

    Raises:
        DataError: FL207, other steps than the model's.
        FederationError: FL355, no client has 28 usable reference days; FL356, days that cannot be
            watched; FL357, too short a reference for the wish; FL358, unknown clients.
        RunError: FL723, the run's windows are no days of one clock.
    """
    span = _Span.of(record, data, request)
    unknown = [name for name in request.clients if name not in data]
    if unknown:
        raise FederationError(
            Fault(
                "FL358",
                f"the data have no client `{unknown[0]}`",
                f"--client; there are {', '.join(list(data)[:5])}{' …' if len(data) > 5 else ''}",
                "`fl-inmetro data describe SOURCE` lists them",
            )
        )
    watched: dict[str, Watch] = {}
    skipped: dict[str, Skipped] = {}
    short: list[Fault] = []
    for name, series in data.items():
        if request.clients and name not in request.clients:
            continue
        own = span.daily(trained, series)
        if own is None:
            skipped[name] = Skipped("FL212")
            continue
        try:
            found = _client(name, own, span, request)
        except ShortReferenceError as error:
            # One short reference does not end the watch of all others.
            skipped[name] = Skipped("FL357", error.days)
            short += error.faults
            continue
        if found is None:
            days = int(np.isfinite(own.level[: span.first]).sum())
            skipped[name] = Skipped("FL355", days)
            continue
        watched[name] = found
    if not watched and short:
        raise FederationError(short[0])
    if not watched:
        raise FederationError(
            Fault(
                "FL355",
                "no client can be watched",
                "\n".join(f"client {n}: {why.told('en')}" for n, why in list(skipped.items())[:5]),
                "the run's validation and test days are the reference: train with "
                f"`[window] validation-days` of {LEAST_DAYS} or more",
            )
        )
    fleet: Watch | None = None
    fleet_skipped: Skipped | None = None
    try:
        fleet = _fleet(watched, span, request)
    except ShortReferenceError as error:
        # The clients' own charts stand without the fleet's.
        fleet_skipped = Skipped("FL357", error.days)
    alarms = [*(fleet.alarms if fleet else ()), *(a for w in watched.values() for a in w.alarms)]
    told = sorted(
        advised(alarms, len(watched)),
        key=lambda one: (one.client_id is not None, one.client_id or "", one.day, one.kind),
    )
    reference = (span.dates[0], span.reference_last)
    return Report(tuple(told), span.watched, reference, watched, fleet, skipped, fleet_skipped)


# ------------------------------------------------------------------------------ internals
@dataclass(frozen=True, eq=False)
class _Span:
    """The days: the reference from the first on, what is watched from place `first` on."""

    dates: tuple[date, ...]
    reference_last: date
    first: int
    issue_utc_s: NDArray[np.int64]
    horizon: int
    lead: int
    timezone: str

    @property
    def watched(self) -> tuple[date, ...]:
        return self.dates[self.first :]

    @property
    def reference(self) -> slice:
        return slice(0, (self.reference_last - self.dates[0]).days + 1)

    @classmethod
    def of(cls, record: RunRecord, data: FederatedData, request: Request) -> _Span:
        trained_on = int(record.manifest["data"]["resolution_s"])
        if data.resolution_s != trained_on:
            raise DataError(
                Fault(
                    "FL207",
                    f"the model was trained on steps of {trained_on} s, "
                    f"the data have {data.resolution_s} s",
                    f"run {record.id}",
                    f"bring the data to it: --set data.resolution-min={trained_on // 60}",
                )
            )
        window = record.manifest["window"]
        asked = (record.config.window, record.config.protocol, data.resolution_s)
        horizon, lead = horizon_of(*asked), lead_of(*asked)
        lead_s = lead * data.resolution_s
        try:
            zone, issue_time = window["timezone"], window["issue_time"]
            parts = [window[name] for name in ("validation", "test") if window[name]["issues"]]
            edges_utc_s = [
                _second(parts[0]["first_issue_utc"]),
                _second(parts[-1]["last_issue_utc"]),
            ]
        except (KeyError, IndexError, TypeError):
            raise RunError(
                Fault(
                    "FL723",
                    "the run's windows are cut by a published protocol, not by days",
                    f"run {record.id}",
                    "watch a run that was made with [window]",
                )
            ) from None
        # A day is called by what is delivered on it, not by when that was issued.
        begin, end = (local_date(edge + lead_s, zone) for edge in edges_utc_s)
        before = begin - local_date(edges_utc_s[0], zone)

        def issued_utc_s(first: date, last: date) -> NDArray[np.int64]:
            return issue_times_utc_s(first - before, last - before, issue_time, zone)

        known_until = max(_known_until(series) for series in data.values())
        newest = local_date(known_until - DAY_S, zone)
        # A day that is not over is not judged.
        if int(issued_utc_s(newest, newest)[0]) + lead_s + DAY_S > known_until:
            newest -= timedelta(days=1)
        first = request.first or end + timedelta(days=1)
        last = request.last or newest
        if first <= end or last > newest or last < first:
            raise FederationError(
                Fault(
                    "FL356",
                    f"{first} to {last} cannot be watched",
                    f"run {record.id}: reference days {begin} to {end}; "
                    f"readings until {iso_utc(known_until)}",
                    f"there are no readings of a day after {end}, the last of the run's test "
                    "window: give newer ones, behind the run's own, with --data"
                    if newest <= end
                    else "watch days after the run's test window that have readings: "
                    f"--from {end + timedelta(days=1)} --to {newest}",
                )
            )
        issues = issued_utc_s(begin, last)
        dates = tuple(begin + timedelta(days=day) for day in range(len(issues)))
        return cls(dates, end, (first - begin).days, issues, horizon, lead, zone)

    def daily(self, trained: Model, series: ClientSeries) -> Daily | None:
        """Return the client's numbers for all days; None where there is no model for it."""
        windows = windows_at(
            series, self.issue_utc_s, self.horizon, self.timezone, known=False, lead=self.lead
        )
        made = trained.forecast(series.client_id, windows)
        if made is None:
            return None
        own = daily(windows, made.mean_kwh)
        place = np.searchsorted(self.issue_utc_s, windows.issue_utc_s)

        def spread(values: Floats, absent: float) -> Floats:
            whole = np.full(len(self.dates), absent)
            whole[place] = values
            return whole

        numbers = {name: spread(own.of(name), np.nan) for name in WATCHED}
        flat = spread(own.flat.astype(np.float64), 0.0) > 0
        return Daily(**numbers, share=spread(own.share, 0.0), flat=flat)


def _client(name: str, own: Daily, span: _Span, request: Request) -> Watch | None:
    found = _charts(name, {kind: own.of(kind) for kind in WATCHED}, span, request)
    if not found.paths:
        return None
    streaks: list[Alarm] = []
    seen = np.flatnonzero(own.share[: span.first] > 0)
    for kind, such in (("flat", own.flat), ("missing", own.share < 0.5)):
        # Days of before a meter's first reading are not missing.
        before = such[span.reference][int(seen[0]) if seen.size else 0 :]
        streaks += of_streak(name, kind, before, such[span.first :], span.watched)  # type: ignore[arg-type]
    return Watch(
        (*found.alarms, *streaks), found.paths, found.limits, found.scores, found.deviations
    )


def _charts(
    name: str | None, numbers: Mapping[Watched, Floats], span: _Span, request: Request
) -> Watch:
    k = request.shift / 2
    paths: dict[Watched, Path] = {}
    limits: dict[Watched, float] = {}
    scores: dict[Watched, Floats] = {}
    deviations: dict[Watched, Floats] = {}
    alarms: list[Alarm] = []
    for kind, values in numbers.items():
        yardstick = Yardstick.of(values[span.reference])
        if yardstick is None:
            continue
        # Rates of false alarms add up: each sum has its part.
        every = request.every_days * len(WATCHED) * _SIDES[kind]
        limit = limit_for(usable_days(yardstick.usual.size), k, every)
        scored = yardstick.scores(values)
        path = cusum(scored[span.first :], k, limit)
        deviation = values - yardstick.centre
        alarms += of_chart(name, kind, path, deviation[span.first :], span.watched)
        paths[kind], limits[kind] = path, limit
        scores[kind], deviations[kind] = scored, deviation
    return Watch(tuple(alarms), paths, limits, scores, deviations)


def _fleet(watched: Mapping[str, Watch], span: _Span, request: Request) -> Watch | None:
    """Chart the clients' mean score of each day: from two sums, of scores and of deviations."""
    if len(watched) < 2:
        return None
    means: dict[Watched, Floats] = {}
    changes: dict[Watched, Floats] = {}
    for kind in WATCHED:
        having = [one for one in watched.values() if kind in one.paths]
        if len(having) < 2:
            continue
        score, known = _sum([one.scores[kind] for one in having])
        change, _ = _sum([one.deviations[kind] for one in having])
        enough = known >= max(2.0, _LEAST_SHARE * len(having))
        divisor = np.where(enough, known, np.nan)
        means[kind], changes[kind] = score / divisor, change / divisor
    charts = _charts(None, means, span, request)
    # Sizes are told in what the clients measure, not in scores.
    alarms = [
        alarm
        for kind, path in charts.paths.items()
        for alarm in of_chart(None, kind, path, changes[kind][span.first :], span.watched)
    ]
    return Watch(tuple(alarms), charts.paths, charts.limits, charts.scores, changes)


def _sum(series: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Add up what is known of each day, and count it; K of shape (T,) → (T,), (T,)."""
    total, known = np.zeros(series[0].shape), np.zeros(series[0].shape)
    for one in series:
        there = np.isfinite(one)
        total[there] += one[there]
        known += there
    return total, known


def _known_until(series: ClientSeries) -> int:
    places = np.flatnonzero(series.valid)
    return series.start_utc_s + (int(places[-1]) + 1 if places.size else 0) * series.resolution_s


def _second(instant: str) -> int:
    return epoch_s(datetime.fromisoformat(instant))

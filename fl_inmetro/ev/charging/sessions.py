"""Charging sessions in one form: judged one by one, and the bad ones left out by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.units import HOUR_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Limits:
    """What a session must not do.

    A session that gave nothing is none of it: that nothing will come is not known at plug-in.

    Attributes:
        plug_kw: Most that the plug gives.
        energy_kwh: Most that a battery takes.
        longest_h: Longest time at the plug.
        rounding_s: What a clock of whole minutes may hide of a duration.
        disagreement_s: How far a stated duration may be from that of the two instants.
    """

    plug_kw: float = 22.0
    energy_kwh: float = 120.0
    longest_h: float = 14 * 24.0
    rounding_s: float = 60.0
    disagreement_s: float = 150.0


class Reason(NamedTuple):
    """Why a session cannot be used: a short name to count by, and what was found."""

    kind: str
    found: str


@dataclass(frozen=True, eq=False)
class RawSessions:
    """Sessions as a source has them; all [session].

    Attributes:
        name: Of the session; to name it in errors.
        user: Empty where nobody is known.
        hub: Garage, station or location; empty where it is not known.
        start: Local time at plug-in, without a zone; None where it is missing.
        end: Local time at plug-out.
        stated_h: Duration as the source states it; NaN where it does not.
        energy_kwh: Delivered.
        zone: IANA name of the clock. `UTC` takes the clock as it is, without summer time.
    """

    name: Names
    user: Names
    hub: Names
    start: list[datetime | None]
    end: list[datetime | None]
    stated_h: Floats
    energy_kwh: Floats
    zone: str


@dataclass(frozen=True, eq=False)
class Sessions:
    """Sessions that may be used, by plug-in; all [session].

    Attributes:
        user: Who charged.
        hub: Where.
        start_utc_s: Plug-in, seconds since 1970 UTC.
        duration_h: Until plug-out, which may be long after the car is full.
        energy_kwh: Delivered.
        zone: IANA name of the clock that people live by there.
        local_s: Plug-in in seconds since 1970 of that clock.
        excluded: One FL225 for each session that was left out, with the reason.
        counts: How many were left out, by kind of reason.
    """

    user: Names
    hub: Names
    start_utc_s: Ints
    duration_h: Floats
    energy_kwh: Floats
    zone: str
    local_s: Ints
    excluded: tuple[Fault, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.user)

    @property
    def end_utc_s(self) -> Floats:
        """Return plug-out, seconds since 1970 UTC."""
        end: Floats = self.start_utc_s + self.duration_h * HOUR_S
        return end

    def take(self, rows: NDArray[np.bool_] | Ints) -> Sessions:
        """Return some of the sessions; what was left out stays told."""
        return Sessions(
            self.user[rows],
            self.hub[rows],
            self.start_utc_s[rows],
            self.duration_h[rows],
            self.energy_kwh[rows],
            self.zone,
            self.local_s[rows],
            self.excluded,
            self.counts,
        )


def judged(raw: RawSessions, limits: Limits | None = None, where: str = "") -> Sessions:
    """Judge sessions one by one, and return the good ones, ordered by plug-in.

    A local time that summer time skips is no time. Of one that autumn has twice the first is
    taken, unless the stated duration fits the second better.

    Args:
        raw: As the source has them.
        limits: What a session must not do.
        where: Place to name in errors.

    Raises:
        DataError: FL225, no session is left.
    """
    limits = limits or Limits()
    zone = ZoneInfo(raw.zone)
    rows: list[int] = []
    starts: list[int] = []
    hours: list[float] = []
    excluded: list[Fault] = []
    kinds: Counter[str] = Counter()
    seen: set[tuple[str, str, int, float, float]] = set()
    for i in range(len(raw.name)):
        start_s, duration_h, reason = _instants(raw, i, zone, limits)
        reason = reason or _reason(raw, i, duration_h, limits)
        if reason is None:
            energy = float(raw.energy_kwh[i])
            # Two plug-ins in one minute happen; two with one energy and duration are one.
            key = (str(raw.user[i]), str(raw.hub[i]), start_s, energy, duration_h)
            reason = Reason("twice", "the same session is there already") if key in seen else None
            seen.add(key)
        if reason is None:
            rows.append(i)
            starts.append(start_s)
            hours.append(duration_h)
        else:
            kinds[reason.kind] += 1
            excluded.append(Fault("FL225", reason.found, f"session {raw.name[i]}"))
    if not rows:
        raise DataError(excluded or [Fault("FL225", "the table has no session", where)])
    start = np.array(starts, dtype=np.int64)
    order = np.lexsort((np.array(rows), start))
    kept = np.array(rows)[order]
    local = [_local_s(int(second), zone) for second in start[order]]
    return Sessions(
        raw.user[kept],
        raw.hub[kept],
        start[order],
        np.array(hours)[order],
        raw.energy_kwh[kept],
        raw.zone,
        np.array(local, dtype=np.int64),
        tuple(excluded),
        tuple(sorted(kinds.items())),
    )


def _instants(
    raw: RawSessions, i: int, zone: ZoneInfo, limits: Limits
) -> tuple[int, float, Reason | None]:
    """Return plug-in in UTC, hours at the plug, and what is wrong with them."""
    first, last, stated = raw.start[i], raw.end[i], float(raw.stated_h[i])
    if first is None:
        return 0, 0.0, Reason("no plug-in", "no time of plug-in")
    if last is None:
        return 0, 0.0, Reason("no plug-out", "no time of plug-out")
    starts, ends = _utc_s(first, zone), _utc_s(last, zone)
    if not starts or not ends:
        skipped = last if starts else first
        return 0, 0.0, Reason("skipped hour", f"{skipped} does not exist in {raw.zone}")
    pairs = [(a, b) for a in starts for b in ends]
    if np.isfinite(stated):
        start_s, end_s = min(pairs, key=lambda pair: abs(pair[1] - pair[0] - stated * HOUR_S))
    else:
        start_s, end_s = pairs[0]
    apart_h = (end_s - start_s) / HOUR_S
    if apart_h < 0:
        return 0, 0.0, Reason("end before start", f"plugged out {-apart_h:.2f} h before plug-in")
    if np.isfinite(stated) and abs(apart_h - stated) * HOUR_S > limits.disagreement_s:
        found = f"{stated:.2f} h are stated, its clock says {apart_h:.2f} h"
        return 0, 0.0, Reason("two durations", found)
    # Whole minutes make nothing of a session of seconds; what is stated is finer.
    return start_s, stated if np.isfinite(stated) else apart_h, None


def _reason(raw: RawSessions, i: int, duration_h: float, limits: Limits) -> Reason | None:
    energy = float(raw.energy_kwh[i])
    if not str(raw.user[i]).strip():
        return Reason("no user", "nobody is known to have charged")
    if not str(raw.hub[i]).strip():
        return Reason("no hub", "it is not known where it was")
    if not np.isfinite(energy) or energy < 0:
        return Reason("no energy", f"an energy of {energy:g} kWh")
    if energy > limits.energy_kwh:
        return Reason(
            "too much energy", f"{energy:g} kWh, {limits.energy_kwh:g} are the most a battery takes"
        )
    if not duration_h > 0:
        return Reason("no duration", "plugged out as it was plugged in")
    if duration_h > limits.longest_h:
        return Reason("too long", f"{duration_h:.1f} h at the plug, {limits.longest_h:g} at most")
    power = energy / (duration_h + limits.rounding_s / HOUR_S)
    if power > limits.plug_kw:
        return Reason("too much power", f"{power:.1f} kW, the plug gives {limits.plug_kw:g}")
    return None


def _utc_s(local: datetime, zone: ZoneInfo) -> list[int]:
    """Return the instants that a local time means: one, two in autumn, none in spring."""
    found = []
    for fold in (0, 1):
        moment = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        second = int(moment.timestamp())
        back = moment.astimezone(zone).replace(tzinfo=None)
        if back == local.replace(fold=0) and second not in found:
            found.append(second)
    return found


def _local_s(second: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
    return second + (round(offset.total_seconds()) if offset is not None else 0)

"""What hubs draw by the hour, and what is known of it at midnight before.

A session's energy is drawn from plug-in on at the plug's power until it is delivered, not spread
over the time at the plug: a car begins when it is plugged in and is full long before it leaves (in
the homes the median is 10 h at the plug and 9 kWh, less than 3 h at 3.6 kW). Where that would
take longer than the session, the power is energy over duration. No charging curve is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.charging.regression import Floats
from fl_inmetro.ev.charging.sessions import Sessions
from fl_inmetro.units import DAY_S, HOUR_S

#: Power at which a session is drawn: one phase of 16 A at 230 V.
POWER_KW = 3.6

#: Energies below a watt-hour are none.
LEAST_KWH = 1e-3

#: Days that the recent past goes back.
RECENT_DAYS = 28

#: Days of a stranger's habits that a hub begins with.
PRIOR_DAYS = 3.0


@dataclass(frozen=True, eq=False)
class HubSeries:
    """Hourly energy of one hub on its local clock.

    Attributes:
        name: Of the hub.
        energy_kwh: [day, hour of the local clock]; NaN in the hour that summer time skips; the one
            that autumn has twice is the sum of both.
        first_day: Days since 1970 of the first row: the day after its first session, as before
            it nobody knew of the hub.
    """

    name: str
    energy_kwh: Floats
    first_day: int

    @property
    def days(self) -> NDArray[np.int64]:
        """Return days since 1970 of the local clock [day]."""
        return self.first_day + np.arange(len(self.energy_kwh))

    def until(self, day: int) -> HubSeries:
        """Return what was before a day."""
        return HubSeries(self.name, self.energy_kwh[: max(day - self.first_day, 0)], self.first_day)


def hourly(
    sessions: Sessions, power_kw: float = POWER_KW, last_day: int | None = None
) -> list[HubSeries]:
    """Return each hub's series, by name, up to the day of the last plug-in of all.

    Args:
        sessions: Of any hubs.
        power_kw: Of a plug.
        last_day: Last day, in days since 1970; that of the last plug-in where None.

    Raises:
        DataError: FL225, the power is no power, or no hub has a whole day after its first session.
    """
    if not (power_kw > 0 and np.isfinite(power_kw)):
        raise DataError(Fault("FL225", f"a plug of {power_kw:g} kW", "power_kw"))
    zone = ZoneInfo(sessions.zone)
    last = int(sessions.local_s.max() // DAY_S) if last_day is None else last_day
    found = []
    for name in np.unique(sessions.hub):
        own = sessions.take(sessions.hub == name)
        opened = int(own.local_s.min() // DAY_S)
        if last <= opened:
            continue
        energy = np.zeros((last - opened + 1, 24))
        for i in range(len(own)):
            for second, kwh in pieces(
                int(own.start_utc_s[i]),
                float(own.energy_kwh[i]),
                float(own.duration_h[i]),
                power_kw,
            ):
                local = second + _offset_s(second, zone)
                if local // DAY_S <= last:
                    energy[local // DAY_S - opened, local % DAY_S // HOUR_S] += kwh
        for day in range(len(energy)):
            for hour in _skipped_hours(opened + day, zone):
                energy[day, hour] = np.nan
        found.append(HubSeries(str(name), energy[1:], opened + 1))
    if not found:
        raise DataError(Fault("FL225", "no hub has a day after that of its first session", "hubs"))
    return found


def pieces(
    start_s: int, energy_kwh: float, duration_h: float, power_kw: float
) -> list[tuple[int, float]]:
    """Return the energy of each clock hour that a session draws in: (a second of it, kWh)."""
    power = max(power_kw, energy_kwh / duration_h)
    at, left, found = float(start_s), energy_kwh, []
    while left > 1e-9:
        till = (at // HOUR_S + 1) * HOUR_S
        kwh = min(power * (till - at) / HOUR_S, left)
        found.append((int(at), kwh))
        at, left = till, left - kwh
    return found


def _offset_s(second: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _skipped_hours(day: int, zone: ZoneInfo) -> list[int]:
    """Return local hours of a day that no instant has."""
    # Noon to noon: a change of the clock lies at night.
    near = [day * DAY_S + hour * HOUR_S for hour in (-12, 36)]
    if _offset_s(near[0], zone) >= _offset_s(near[1], zone):
        return []
    offsets = {second: _offset_s(second, zone) for second in range(near[0], near[1], HOUR_S)}
    present = {(s + o) % DAY_S // HOUR_S for s, o in offsets.items() if (s + o) // DAY_S == day}
    return sorted(set(range(24)) - present)


@dataclass(frozen=True, eq=False)
class Habits:
    """The fleet's ordinary hub, from sums over hubs.

    Attributes:
        use: Share of days with use, by weekend and hour [2, 24].
        amount_kwh: Mean energy of an hour with use.
    """

    use: Floats
    amount_kwh: float


def habit_sums(series: HubSeries) -> Floats:
    """Return what leaves a hub: known hours, hours with use [2 × 24 each], then kWh [97]."""
    weekend = ((series.days + 3) % 7 >= 5)[:, None]
    known = np.isfinite(series.energy_kwh)
    used = np.nan_to_num(series.energy_kwh) > LEAST_KWH
    parts = [np.sum(flag & at, axis=0) for flag in (known, used) for at in (~weekend, weekend)]
    return np.concatenate([*parts, [np.nansum(series.energy_kwh)]]).astype(np.float64)


def habits(sums: Floats) -> Habits:
    """Return the ordinary hub from the total of `habit_sums`; an hour without days is rare."""
    known, used = sums[:48].reshape(2, 24), sums[48:96].reshape(2, 24)
    return Habits((used + 0.5) / (known + 1.0), float((sums[96] + 1.0) / (used.sum() + 0.5)))


@dataclass(frozen=True, eq=False)
class HubColumns:
    """What is known at the midnight before each hour; rows are days × 24.

    Attributes:
        use: Columns for whether [row, column], the intercept first.
        amount: Columns for how much [row, column], the intercept first.
        energy_kwh: What was drawn [row], NaN where there was no such hour.
        day: Days since 1970 [row].
    """

    use: Floats
    amount: Floats
    energy_kwh: Floats
    day: NDArray[np.int64]


def hub_columns(series: HubSeries, fleet: Habits) -> HubColumns:
    """Return the columns of every hour of a hub; those of a day use the days before it only.

    The hour by weekday is there as 48 columns (hour × weekend) and six weekdays; recent use as the
    log-odds of the share of the last four weeks' days (this hour; this hour and weekday; any
    hour; any hour of the last week), of yesterday's and last week's same hour, and of the last
    hour before midnight, whose car may still draw.
    """
    energy = np.nan_to_num(series.energy_kwh)
    used = (energy > LEAST_KWH).astype(np.float64)
    n = len(energy)
    weekday = (series.days + 3) % 7
    weekend = (weekday >= 5).astype(np.int64)
    usual = fleet.use[weekend]
    had = np.arange(n, dtype=np.float64)[:, None]

    def window(values: Floats, days: int) -> Floats:
        """Sum of the `days` days before each [day, hour]."""
        sums = np.vstack([np.zeros(24), np.cumsum(values, axis=0)])
        first = np.maximum(np.arange(n) - days, 0)
        result: Floats = sums[np.arange(n)] - sums[first]
        return result

    def share(total: Floats, days: Floats, prior: Floats) -> Floats:
        return log_odds((total + PRIOR_DAYS * prior) / (days + PRIOR_DAYS))

    def before(values: Floats, days: int) -> Floats:
        result = np.zeros_like(values)
        result[days:] = values[:-days] if n > days else values[:0]
        return result

    weeks = sum(before(used, 7 * k) for k in range(1, 5))
    had_weeks = np.minimum(had // 7, 4)
    month, week = np.minimum(had, RECENT_DAYS), np.minimum(had, 7)
    same = share(window(used, RECENT_DAYS), month, usual)
    any_month = window(used, RECENT_DAYS).sum(axis=1, keepdims=True)
    any_week = window(used, 7).sum(axis=1, keepdims=True)
    all_day = usual.mean(axis=1, keepdims=True)
    month_rate = share(any_month / 24, month, all_day)
    week_rate = share(any_week / 24, week, all_day)
    late = np.zeros((n, 1))
    late[1:, 0] = used[:-1, 23]
    hour = np.arange(24)[None, :]
    still = late * np.exp(-hour / 2.0)
    drawn = window(energy, RECENT_DAYS).sum(axis=1, keepdims=True)
    amount = np.log((drawn + PRIOR_DAYS * fleet.amount_kwh) / (any_month + PRIOR_DAYS))
    drawn_here = window(energy, RECENT_DAYS)
    here = np.log(
        (drawn_here + PRIOR_DAYS * np.exp(amount)) / (window(used, RECENT_DAYS) + PRIOR_DAYS)
    )
    yesterday, last_week = before(energy, 1), before(energy, 7)
    calendar = np.zeros((n, 24, 48 + 7))
    calendar[np.arange(n)[:, None], hour, weekend[:, None] * 24 + hour] = 1.0
    calendar[np.arange(n)[:, None], hour, 48 + weekday[:, None]] = 1.0
    # One of each is what the others differ from.
    calendar = np.delete(calendar, [12, 48], axis=2)
    both = [same, np.broadcast_to(month_rate, used.shape), np.broadcast_to(week_rate, used.shape)]
    of_use = [
        *both,
        share(np.asarray(weeks), had_weeks, usual),
        before(used, 1),
        before(used, 7),
        still,
        same * (month_rate - log_odds(all_day)),
    ]
    of_amount = [
        *both,
        np.broadcast_to(amount, used.shape),
        here,
        np.log1p(yesterday),
        np.log1p(last_week),
        still,
    ]

    def columns(parts: list[Floats]) -> Floats:
        stacked = np.stack([np.ones((n, 24)), *parts], axis=2)
        both_kinds = np.concatenate([stacked, calendar], axis=2)
        return both_kinds.reshape(n * 24, both_kinds.shape[2])

    return HubColumns(
        columns(of_use),
        columns(of_amount),
        series.energy_kwh.reshape(-1),
        np.repeat(series.days, 24),
    )


def log_odds(share: Floats) -> Floats:
    """Return log(p / (1 − p)), kept within ±7."""
    inside = np.clip(share, 1e-3, 1 - 1e-3)
    odds: Floats = np.log(inside / (1 - inside))
    return odds

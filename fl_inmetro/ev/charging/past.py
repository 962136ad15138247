"""What is known at plug-in: the clock, the place, and the user's own sessions that had ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.ev.charging.sessions import Sessions
from fl_inmetro.units import DAY_S, HOUR_S

Floats = NDArray[np.float64]

#: Weight of each earlier session beside the one after it, of the recent mean.
RECENT = 0.8


@dataclass(frozen=True, eq=False)
class Past:
    """A user's own past at each plug-in; all [session], 0 where there is none.

    Attributes:
        n: Sessions of the user that had ended.
        total: Σ of their target.
        recent_n: Σ of weights 1, 0.8, 0.64 … of the last, the one before …
        recent_total: Σ weight · target.
        same_n: Sessions among them at nearly this hour (within 2 h), or on such a day (weekend or
            not), each counting half.
        same_total: Their Σ.
        low, middle, high: Their quantiles at 0.1, 0.5 and 0.9.
        gap_days: Since the last plug-out; NaN where there was none.
        days: Since the first plug-in; 0 where there was none.
        last: Target of the last one.
    """

    n: Floats
    total: Floats
    recent_n: Floats
    recent_total: Floats
    same_n: Floats
    same_total: Floats
    low: Floats
    middle: Floats
    high: Floats
    gap_days: Floats
    days: Floats
    last: Floats


def past(sessions: Sessions, target: Floats) -> Past:
    """Return each session's past.

    A session that had not ended at plug-in tells nothing: its energy was not known.

    Args:
        sessions: Of any users, ordered by plug-in.
        target: Energy or duration [session].
    """
    n = len(sessions)
    names = tuple(Past.__dataclass_fields__)
    found = {name: np.zeros(n) for name in names}
    found["gap_days"][:] = np.nan
    hour = hours(sessions)
    weekend = weekdays(sessions) >= 5
    end = sessions.end_utc_s
    for user in np.unique(sessions.user):
        rows = np.flatnonzero(sessions.user == user)
        for i in rows:
            known = rows[(rows < i) & (end[rows] <= sessions.start_utc_s[i])]
            if not len(known):
                continue
            known = known[np.argsort(end[known], kind="stable")]
            y = target[known]
            weight = RECENT ** np.arange(len(known))[::-1]
            apart = np.abs(hour[known] - hour[i])
            near = np.minimum(apart, 24 - apart) <= 2
            alike = 0.5 * near + 0.5 * (weekend[known] == weekend[i])
            low, middle, high = np.quantile(y, (0.1, 0.5, 0.9))
            values = (
                len(known),
                y.sum(),
                weight.sum(),
                weight @ y,
                alike.sum(),
                alike @ y,
                low,
                middle,
                high,
                (sessions.start_utc_s[i] - end[known[-1]]) / DAY_S,
                (sessions.start_utc_s[i] - sessions.start_utc_s[known].min()) / DAY_S,
                y[-1],
            )
            for name, value in zip(names, values, strict=True):
                found[name][i] = value
    return Past(**found)


def hours(sessions: Sessions) -> Floats:
    """Return the local hour of plug-in, with its fraction [session]."""
    hour: Floats = (sessions.local_s % DAY_S) / HOUR_S
    return hour


def weekdays(sessions: Sessions) -> NDArray[np.int64]:
    """Return the local weekday of plug-in, Monday 0 [session]."""
    # 1 January 1970 was a Thursday.
    day: NDArray[np.int64] = (sessions.local_s // DAY_S + 3) % 7
    return day


def year_share(sessions: Sessions) -> Floats:
    """Return how far the year has gone, 0 to 1 (a year of 365.2425 days) [session]."""
    share: Floats = (sessions.local_s / DAY_S / 365.2425) % 1.0
    return share

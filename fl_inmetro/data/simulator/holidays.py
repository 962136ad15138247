"""Brazilian national holidays and the days that people treat as such, computed for any year."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

#: (month, day) of the fixed national holidays: Laws 662/1949, 6.802/1980 and 10.607/2002.
FIXED = ((1, 1), (4, 21), (5, 1), (9, 7), (10, 12), (11, 2), (11, 15), (12, 25))

#: Days after Easter Sunday: Carnaval Monday and Tuesday, Good Friday, Corpus Christi. Carnaval and
#: Corpus Christi are optional days (pontos facultativos) by law; trade and offices close all the
#: same in most of the country, so the simulator treats them as holidays.
MOVABLE_DAYS_FROM_EASTER = (-48, -47, -2, 60)

#: 20 November (Consciência Negra) is a national holiday from this year on: Law 14.759/2023.
CONSCIENCIA_NEGRA_FROM = 2024


def easter(year: int) -> date:
    """Return Easter Sunday of a Gregorian year (Meeus/Jones/Butcher algorithm).

    >>> easter(2024)
    datetime.date(2024, 3, 31)
    """
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


@cache
def holidays(year: int) -> frozenset[date]:
    """Return the national holidays of a year, Carnaval and Corpus Christi included."""
    days = {date(year, month, day) for month, day in FIXED}
    days |= {easter(year) + timedelta(days=shift) for shift in MOVABLE_DAYS_FROM_EASTER}
    if year >= CONSCIENCIA_NEGRA_FROM:
        days.add(date(year, 11, 20))
    return frozenset(days)


def is_holiday(day: date) -> bool:
    """Tell whether `day` is a national holiday (or Carnaval, or Corpus Christi)."""
    return day in holidays(day.year)

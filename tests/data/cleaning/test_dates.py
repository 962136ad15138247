"""Exchanged days and months: the exchange itself, and telling a gap from an exchange."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from fl_inmetro.data.cleaning.dates import better_exchanged, civil, days_of, exchange, jumps

DAY = 86_400


def stamps(first: str, days: int, per_day: int = 24) -> np.ndarray:
    begin = (date.fromisoformat(first) - date(1970, 1, 1)).days * DAY
    return begin + np.arange(days * per_day) * (DAY // per_day)


def test_exchange_is_its_own_inverse_and_leaves_days_over_12() -> None:
    march_2 = stamps("2024-03-02", 1, 1)
    assert exchange(march_2).tolist() == stamps("2024-02-03", 1, 1).tolist()
    assert exchange(stamps("2024-03-13", 1)).tolist() == stamps("2024-03-13", 1).tolist()
    year = stamps("2024-01-01", 366)
    assert exchange(exchange(year)).tolist() == year.tolist()


def test_civil_agrees_with_the_calendar() -> None:
    days = np.array([-1, 0, 58, 59, 11_016, 19_782, 19_783])
    year, month, day = civil(days)
    for k, number in enumerate(days):
        expected = date(1970, 1, 1) + timedelta(days=int(number))
        assert (year[k], month[k], day[k]) == (expected.year, expected.month, expected.day)
    assert days_of(year, month, day).tolist() == days.tolist()


def test_jumps_of_one_exchanged_quarter_by_hand() -> None:
    # January 2024: written 01-01, 02-01, …, 12-01 (11 changes of month), then 13 January (a jump
    # from 1 December): 12. February: 31 January to 2 January (1 February) is a jump, then 02-02
    # for the 2nd from 01-02: every change up to the 13th jumps: 13.
    assert jumps(exchange(stamps("2024-01-01", 31))) == 12
    assert jumps(exchange(stamps("2024-01-01", 60))) == 25
    assert jumps(stamps("2024-01-01", 60)) == 0


def test_gaps_are_no_exchange_and_an_exchange_is() -> None:
    year = stamps("2023-01-01", 365)
    rng = np.random.default_rng(0)
    gappy = np.delete(
        year, np.concatenate([np.arange(k, k + 72) for k in rng.integers(0, 8000, 20)])
    )
    assert not better_exchanged([gappy])[2]
    assert better_exchanged([exchange(gappy)])[2]
    assert not better_exchanged([gappy[::-1]])[2]
    assert better_exchanged([exchange(gappy)[::-1]])[2]
    # Without any order nothing can be said about a whole year: days 1 to 12 map onto themselves.
    assert not better_exchanged([rng.permutation(year)])[2]

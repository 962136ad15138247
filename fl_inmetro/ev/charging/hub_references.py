"""What any model of a hub's hours has to beat: last week, and what is usual at this hour."""

from __future__ import annotations

import numpy as np

from fl_inmetro.ev.charging.hubs import LEAST_KWH, HubSeries
from fl_inmetro.ev.charging.hurdle import GRID, HubForecast
from fl_inmetro.ev.charging.regression import Floats


def last_week(series: HubSeries) -> HubForecast:
    """Tell each hour as it was a week ago; 0 where there was no week ago."""
    energy = np.nan_to_num(series.energy_kwh)
    told = np.zeros_like(energy)
    told[7:] = energy[:-7] if len(energy) > 7 else energy[:0]
    return _certain(told.reshape(-1))


def four_weeks(series: HubSeries) -> HubForecast:
    """Tell each hour as the mean of this hour and weekday over the last four weeks.

    The share of them with use is the chance; their quantiles are those told.
    """
    return _usual(series, same_weekday=True, days=28)


def usual(series: HubSeries) -> HubForecast:
    """Tell each hour as all earlier days alike (weekend or not), by the hub's own history."""
    return _usual(series, same_weekday=False, days=10_000)


def _usual(series: HubSeries, same_weekday: bool, days: int) -> HubForecast:
    energy = series.energy_kwh
    weekday = (series.days + 3) % 7
    kind = weekday if same_weekday else (weekday >= 5).astype(np.int64)
    n = len(energy)
    p, mean = np.zeros((n, 24)), np.zeros((n, 24))
    quantiles = np.zeros((n, 24, len(GRID)))
    for day in range(n):
        first = max(day - days, 0)
        known = energy[first:day][kind[first:day] == kind[day]]
        if len(known):
            # A skipped hour is a day less for that hour; it was in the night, and counts as none.
            known = np.nan_to_num(known)
            p[day] = (known > LEAST_KWH).mean(axis=0)
            mean[day] = known.mean(axis=0)
            quantiles[day] = np.quantile(known, GRID, axis=0).T
    return HubForecast(p.reshape(-1), mean.reshape(-1), quantiles.reshape(n * 24, -1))


def _certain(told: Floats) -> HubForecast:
    used = (told > LEAST_KWH).astype(np.float64)
    return HubForecast(used, told, np.repeat(told[:, None], len(GRID), axis=1))

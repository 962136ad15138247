"""Statistics by which simulated and measured consumers can be held side by side.

`statistics` works on any `FederatedData`. `RANGES` states where a fleet of simulated homes has to
lie, each range with its source; a test asserts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.units import DAY_S, HOUR_S, epoch_s

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Statistics:
    """What a set of consumers looks like at one resolution.

    Attributes:
        clients: Number of clients.
        days: Length of the common time axis in days.
        resolution_s: Step, seconds; load factors and coincidence depend on it.
        mean_daily_kwh: Mean over clients of each client's mean daily energy, kWh/day.
        smallest_daily_kwh: Mean daily energy of the client at the 10th percentile, kWh/day.
        largest_daily_kwh: The same at the 90th percentile.
        daily_variation: Median over clients of the coefficient of variation (standard deviation
            over mean) of the energy of complete days.
        peak_hour: Local hour (0 to 23) in which the mean profile of all clients is highest.
        evening_share: Share of the energy used from 17 to 21 h local time, over all clients.
        morning_to_night: Mean load of 6 to 8 h over that of 2 to 4 h, over all clients.
        free_day_ratio: Mean load on Saturdays and Sundays over that on the other days; NaN when
            the set has no weekend.
        client_load_factor: Median over clients of mean load / highest load.
        aggregate_load_factor: Mean / highest load of the sum of all clients.
        coincidence_factor: Highest load of the sum / sum of the clients' highest loads; its inverse
            is the diversity factor.
    """

    clients: int
    days: float
    resolution_s: int
    mean_daily_kwh: float
    smallest_daily_kwh: float
    largest_daily_kwh: float
    daily_variation: float
    peak_hour: int
    evening_share: float
    morning_to_night: float
    free_day_ratio: float
    client_load_factor: float
    aggregate_load_factor: float
    coincidence_factor: float


@dataclass(frozen=True)
class Range:
    """Where a statistic of simulated homes must lie, and why."""

    low: float
    high: float
    source: str


_SGSC = "measured: sgsc_households (Australian homes), quarters July 2012 to September 2013, 60 min"

#: Where 60 simulated homes without panels and vehicles, climate of São Paulo, 60 to 90 days of
#: summer or winter, summed to 60 min, have to lie. Sources in full: docs/simulator.md.
RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "mean_daily_kwh": Range(
            4.3,
            6.6,
            "131 to 201 kWh/month. Published means per home: 143 (summer) and 161 (winter) for "
            "2005 (Fedrigo, Ghisi, Lamberts 2009, from PROCEL's survey), 160 for 2016 and 161.3 "
            "for the last quarter of 2022 (EPE, as reported by the press)",
        ),
        "daily_variation": Range(0.20, 0.38, f"{_SGSC}: 0.296 to 0.375"),
        "peak_hour": Range(
            18,
            20,
            "showers form the residential peak, between 18 and 19 h in the load of the country "
            f"(Tomé 2014, Unicamp); {_SGSC}: evening peak at 18 to 20 h (in two quarters the "
            "morning peak at 7 or 8 h is higher)",
        ),
        "evening_share": Range(
            0.24,
            0.40,
            f"{_SGSC}: 0.210 to 0.226; above that here, because showers are 20 to 30 % of the "
            "energy of Brazilian homes (Tomé 2014) and most are taken in the evening",
        ),
        "free_day_ratio": Range(0.92, 1.18, f"{_SGSC}: 1.02 to 1.10"),
        "client_load_factor": Range(0.07, 0.15, f"{_SGSC}: 0.091 to 0.107"),
        "aggregate_load_factor": Range(0.25, 0.47, f"{_SGSC}: 0.363 to 0.469 (35 to 41 homes)"),
        "coincidence_factor": Range(
            0.21,
            0.37,
            f"{_SGSC}: 0.214 to 0.292 (35 to 41 homes); up to a quarter more is allowed for "
            "showers, which nearly all homes use in the same hours",
        ),
    }
)


def outside(found: Statistics) -> dict[str, float]:
    """Return the statistics that lie outside `RANGES`, by name; empty when all is well."""
    values = {name: float(getattr(found, name)) for name in RANGES}
    return {
        name: value
        for name, value in values.items()
        if not RANGES[name].low <= value <= RANGES[name].high
    }


def statistics(data: FederatedData, resolution_s: int | None = None) -> Statistics:
    """Compute the statistics of a set, after summing to `resolution_s` if given.

    Steps without a reading are left out; the sum of all clients is the mean over those that have a
    reading, times their number. A client whose load never differs from 0 does not count.

    Raises:
        ValueError: `resolution_s` is no multiple of the set's step, or no client has a load.
    """
    step_s = resolution_s or data.resolution_s
    if step_s % data.resolution_s:
        raise ValueError(f"cannot sum steps of {data.resolution_s} s to {step_s} s")
    start_utc_s, load = _matrix(data, step_s)
    load = load[np.nansum(load, axis=1) > 0]
    if not load.size:
        raise ValueError("no client has a load")
    local_s = _local_s(start_utc_s, step_s, load.shape[1], data.manifest.timezone)

    mean_kwh, max_kwh = np.nanmean(load, axis=1), np.nanmax(load, axis=1)
    valid = np.isfinite(load)
    present = valid.sum(axis=0) > 0
    total = np.full(load.shape[1], np.nan)
    total[present] = np.nanmean(load[:, present], axis=0) * load.shape[0]

    hour = (local_s % DAY_S) // HOUR_S
    weekend = (local_s // DAY_S + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    profile = np.array([_mean(total[hour == h]) for h in range(24)])
    daily_kwh = mean_kwh * (DAY_S / step_s)
    return Statistics(
        clients=int(load.shape[0]),
        days=load.shape[1] * step_s / DAY_S,
        resolution_s=step_s,
        mean_daily_kwh=float(daily_kwh.mean()),
        smallest_daily_kwh=float(np.quantile(daily_kwh, 0.1)),
        largest_daily_kwh=float(np.quantile(daily_kwh, 0.9)),
        daily_variation=_daily_variation(load, local_s, step_s),
        peak_hour=int(profile.argmax()),
        evening_share=float(profile[17:21].sum() / profile.sum()),
        morning_to_night=float(profile[6:8].mean() / profile[2:4].mean()),
        free_day_ratio=_mean(total[weekend]) / _mean(total[~weekend]),
        client_load_factor=float(np.median(mean_kwh / max_kwh)),
        aggregate_load_factor=float(np.nanmean(total) / np.nanmax(total)),
        coincidence_factor=float(np.nanmax(total) / max_kwh.sum()),
    )


def _mean(values: Floats) -> float:
    """Mean of what is known; NaN where nothing is (a set without a weekend, for example)."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _matrix(data: FederatedData, step_s: int) -> tuple[int, Floats]:
    """Return the first instant, and shape (K, T): all clients on one axis, NaN where unknown."""
    first = min(series.start_utc_s for series in data.values())
    first -= first % step_s
    last = max(series.end_utc_s for series in data.values())
    count = -(-(last - first) // step_s)
    load = np.stack([_on_axis(series, first, count, step_s) for series in data.values()])
    return first, load


def _on_axis(series: ClientSeries, first: int, count: int, step_s: int) -> Floats:
    fine = np.full(count * (step_s // series.resolution_s), np.nan)
    at = (series.start_utc_s - first) // series.resolution_s
    fine[at : at + len(series)] = series.energy_kwh
    total: Floats = fine.reshape(count, -1).sum(axis=1)  # a missing part makes the sum missing
    return total


def _local_s(start_utc_s: int, step_s: int, count: int, timezone: str) -> Ints:
    """Shape (T,): seconds since 1970-01-01 on the wall clock of the set."""
    zone = ZoneInfo(timezone)
    moments = start_utc_s + step_s * np.arange(count, dtype=np.int64)
    return np.array(
        [
            epoch_s(datetime.fromtimestamp(int(moment), UTC).astimezone(zone).replace(tzinfo=UTC))
            for moment in moments
        ],
        dtype=np.int64,
    )


def _daily_variation(load: Floats, local_s: Ints, step_s: int) -> float:
    day = local_s // DAY_S - local_s[0] // DAY_S
    per_day = DAY_S // step_s
    count = np.bincount(day)
    whole = count == per_day
    found = []
    for row in load:
        energy = np.bincount(day, weights=np.nan_to_num(row))
        complete = whole & (np.bincount(day, weights=np.isfinite(row)) == per_day)
        if complete.sum() >= 2 and energy[complete].mean() > 0:
            found.append(energy[complete].std(ddof=1) / energy[complete].mean())
    return float(np.median(found)) if found else float("nan")

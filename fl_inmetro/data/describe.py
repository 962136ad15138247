"""A set in numbers: span, missing share, level, and the mean day on the clock of its source."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.calendar import local_clock
from fl_inmetro.data.series import ClientSeries, FederatedData
from fl_inmetro.units import HOUR_S, iso_utc

Floats = NDArray[np.float64]


def daily_profile_kw(series: ClientSeries, zone: str) -> Floats:
    """Return the mean power of each hour of the day on the clock of `zone`, shape (24,), kW.

    NaN for an hour without any reading. The hour is that in which a step begins.
    """
    utc_s = series.start_utc_s + np.arange(len(series), dtype=np.int64) * series.resolution_s
    hour = local_clock(utc_s, zone).second_of_day[series.valid] // HOUR_S
    total = np.bincount(hour, weights=series.energy_kwh[series.valid], minlength=24)
    steps = np.bincount(hour, minlength=24)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / steps * (HOUR_S / series.resolution_s))


def describe(data: FederatedData) -> dict[str, Any]:
    """Return what `fl-inmetro data describe --json` prints (keys: see `docs/data.md`)."""
    zone = data.manifest.timezone
    hours = data.resolution_s / HOUR_S
    rows = []
    for name, series in data.items():
        profile = daily_profile_kw(series, zone)
        rows.append(
            {
                "client_id": name,
                "start_utc": iso_utc(series.start_utc_s),
                "end_utc": iso_utc(series.end_utc_s),
                "steps": len(series),
                "missing_share": float(1 - series.valid.mean()),
                "mean_kw": float(np.nanmean(series.energy_kwh) / hours),
                "peak_kw": float(np.nanmax(series.energy_kwh) / hours),
                "profile_kw": [float(p) if np.isfinite(p) else None for p in profile],
            }
        )
    steps = sum(len(series) for series in data.values())
    valid = sum(int(series.valid.sum()) for series in data.values())
    manifest = data.manifest.to_json()
    return {
        "source": manifest["source"],
        "title": manifest["title"],
        "simulated": manifest["simulated"],
        "licence": manifest["licence"],
        "citation": manifest["citation"],
        "timezone": zone,
        "resolution_s": data.resolution_s,
        "n_clients": len(data),
        "start_utc": iso_utc(min(series.start_utc_s for series in data.values())),
        "end_utc": iso_utc(max(series.end_utc_s for series in data.values())),
        "missing_share": 1 - valid / steps,
        "clients": rows,
        "files": manifest["files"],
        "excluded": manifest["excluded"],
        "cleaning": manifest["cleaning"],
        "reference_window": manifest["reference_window"],
    }


def sparkline(values: list[float | None]) -> str:
    """Draw values as blocks of eight heights from zero to their maximum; a gap is a dot.

    >>> sparkline([0.0, 1.0, None, 2.0])
    '▁▄·█'
    """
    blocks = "▁▂▃▄▅▆▇█"
    top = max((value for value in values if value is not None), default=0.0)
    if top <= 0:
        return "".join("·" if value is None else blocks[0] for value in values)
    return "".join(
        "·" if value is None else blocks[min(7, max(0, int(value / top * 7.999)))]
        for value in values
    )

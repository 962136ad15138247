"""The published scores of the cheap forecasts, recomputed with plain NumPy on our series."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from fl_inmetro.config.schema import Data
from fl_inmetro.data.load import load
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.sources import SOURCES

# set: kWh per unit of the printed MAE; nMAE of SN-24, SN-168, HA4; MAE of the same; clients scored.
# Source: the table "Reference numbers" of the README of the data sets.
PUBLISHED = {
    "cambridge_buildings": (1.0, ("0.1750", "0.1581", "0.1496"), ("7.55", "7.03", "6.50"), 82),
    "sgsc_households": (1.0, ("1.0744", "1.0637", "0.9913"), ("0.1842", "0.1838", "0.1657"), None),
    "citylearn_fontana": (1.0, ("0.5631", "0.5953", "0.5097"), ("0.533", "0.559", "0.479"), 14),
    "ons_brazil": (1000.0, ("0.0644", "0.0708", "0.0566"), ("1352", "1617", "1270"), 4),
    "pjm_zones": (1000.0, ("0.0791", "0.1211", "0.1079"), ("867", "1349", "1249"), 8),
}

needs_data = pytest.mark.skipif(
    not os.environ.get("FL_INMETRO_DATA"),
    reason="FL_INMETRO_DATA is not set: the real data sets are not here",
)


def forecasts(series: ClientSeries, first: int, last: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Truth and SN-24, SN-168, HA4 on the steps [first, last), NaN where there is none."""
    day = 86_400 // series.resolution_s

    def at(lag: int) -> np.ndarray:
        wanted = np.arange(first, last) - lag
        inside = (wanted >= 0) & (wanted < len(series))
        result = np.full(wanted.size, np.nan)
        result[inside] = series.energy_kwh[wanted[inside]]
        return result

    weeks = np.stack([at(7 * day * k) for k in (1, 2, 3, 4)])
    known = np.isfinite(weeks).sum(axis=0)
    ha4 = np.where(known > 0, np.nansum(weeks, axis=0) / np.maximum(known, 1), np.nan)
    return at(0), [at(day), at(7 * day), ha4]


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_cheap_forecasts_give_the_published_scores(name: str) -> None:
    unit_kwh, nmae_text, mae_text, clients = PUBLISHED[name]
    data = load(Data(source=name))
    window = data.manifest.reference_window
    assert window is not None
    assert window == SOURCES[name].open(SOURCES[name].required()).reference_window
    zone = ZoneInfo(window.timezone)
    hour, minute = map(int, window.issue_time.split(":"))
    begin = datetime.fromisoformat(window.test_start).replace(hour=hour, minute=minute, tzinfo=zone)
    end = datetime.fromisoformat(window.test_end).replace(hour=hour, minute=minute, tzinfo=zone)
    end += timedelta(days=1)

    shares: list[list[float]] = [[], [], []]
    total = np.zeros(3)
    number = np.zeros(3)
    for series in data.values():
        first = series.index_of(int(begin.timestamp()))
        last = series.index_of(int(end.timestamp()))
        truth, models = forecasts(series, first, last)
        if not np.isfinite(truth).any():
            continue
        mean = np.nanmean(truth)
        for k, model in enumerate(models):
            error = np.abs(model - truth)
            error = error[np.isfinite(error)]
            if error.size:
                shares[k].append(error.mean() / mean)
                total[k] += error.sum()
                number[k] += error.size

    for k in range(3):
        assert f"{np.mean(shares[k]):.4f}" == nmae_text[k]
        digits = len(mae_text[k].partition(".")[2])
        assert f"{total[k] / number[k] / unit_kwh:.{digits}f}" == mae_text[k]
    if clients is not None:
        assert len(shares[1]) == clients


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_files_are_the_published_ones(name: str) -> None:
    manifest = load(Data(source=name, max_clients=2)).manifest
    named = SOURCES[name]
    key = f"{name}/{named.file}"
    rows = (named.required().parent.parent / "MANIFEST.csv").read_text().splitlines()
    expected = {row.split(",")[0]: row.split(",")[-1] for row in rows}
    assert manifest.files == {key: expected[key]}
    assert manifest.licence
    assert "http" in manifest.citation

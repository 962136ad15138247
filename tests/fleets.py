"""Small made fleets: deterministic loads on a UTC grid, with gaps, and their windows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from fl_inmetro.config import RunConfig, check
from fl_inmetro.config.schema import Window
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest, ReferenceWindow
from fl_inmetro.data.splits import Splits, resolve, split_fleet
from fl_inmetro.data.windows import Windows
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.learning.client import ClientData, ClientWorker
from fl_inmetro.learning.update import Learner
from fl_inmetro.seeds import derive
from fl_inmetro.units import DAY_S, epoch_s

#: 2024-01-01 00:00 UTC, a Monday.
MONDAY = epoch_s(datetime(2024, 1, 1, tzinfo=UTC))


def series(
    name: str = "a",
    days: float = 40,
    *,
    resolution_s: int = 3600,
    start_utc_s: int = MONDAY,
    gaps: float = 0.0,
    level_kwh: float = 1.0,
) -> ClientSeries:
    """Daily and weekly waves with noise, above zero; a share `gaps` of the steps is missing."""
    rng = derive(1, "series", name)
    count = round(days * DAY_S / resolution_s)
    hour = np.arange(count) * resolution_s / 3600
    wave = 1 + 0.5 * np.sin(2 * np.pi * hour / 24) + 0.2 * np.cos(2 * np.pi * hour / 168)
    energy = level_kwh * wave * rng.uniform(0.7, 1.3, count)
    energy[rng.random(count) < gaps] = np.nan
    return ClientSeries(name, start_utc_s, resolution_s, energy)


def by_the_clock(zone: str, first: datetime, days: int, step_s: int = 3600) -> ClientSeries:
    """A load that local day type and time of day alone decide; no day differs by its hour 1 or 2.

    (One of those hours is skipped where a clock goes forward: who looks it up gets the next.)
    """
    energy = []
    for step in range(days * DAY_S // step_s):
        local = (first + timedelta(seconds=step * step_s)).astimezone(ZoneInfo(zone))
        hour = 3 if local.hour in (1, 2) else local.hour
        energy.append(1.0 + hour**1.5 + 20.0 * max(local.weekday() - 4, 0) + local.minute / 60)
        if hour == 3:
            energy[-1] -= local.minute / 60
    return ClientSeries("a", int(first.timestamp()), step_s, np.asarray(energy))


def federated(
    clients: Sequence[ClientSeries], reference_window: ReferenceWindow | None = None
) -> FederatedData:
    manifest = Manifest(
        source="made",
        title="made by a test",
        licence="none needed",
        citation="",
        timezone="UTC",
        resolution_s=clients[0].resolution_s,
        simulated=True,
        reference_window=reference_window,
    )
    return FederatedData({one.client_id: one for one in clients}, manifest)


def fleet(count: int = 4, days: float = 40, *, gaps: float = 0.05) -> FederatedData:
    """`count` clients c0, c1, … of levels 1, 2, … kWh per hour."""
    return federated([series(f"c{k}", days, gaps=gaps, level_kwh=1.0 + k) for k in range(count)])


#: 40 days from 2024-01-01: five test days, three validation days, training before.
WINDOW = Window(
    test_start=date(2024, 2, 5), test_end=date(2024, 2, 9), validation_days=3, train_days=0
)


def clients_of(data: FederatedData, window: Window = WINDOW) -> tuple[list[ClientData], Splits]:
    splits = resolve(window, data)
    parts, _ = split_fleet(data, splits, drop_short=False)
    return [
        ClientData(name, (part.train,), (part.validation,), (part.test,))
        for name, part in parts.items()
    ], splits


def workers(learner: Learner, data: FederatedData | None = None) -> list[ClientWorker]:
    members, _ = clients_of(data if data is not None else fleet())
    return [ClientWorker(member, learner) for member in members]


def grid(learner: Learner, data: FederatedData | None = None, **options: Any) -> LoopGrid:
    return LoopGrid(workers(learner, data), **options)


def windows(
    one: ClientSeries, days: Sequence[int], horizon: int = 24, zone: str = "UTC"
) -> Windows:
    """Windows issued at midnight UTC of the days counted from the start of the series."""
    per_day = DAY_S // one.resolution_s
    return Windows(one, np.asarray(days, dtype=np.int64) * per_day, horizon, zone)


def tiny_config(**values: Any) -> RunConfig:
    """Four simulated clients of 60 days, three rounds, small models."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "data": {"simulator": {"clients": 4, "days": 60}},
        "window": {"validation_days": 5, "test_days": 7, "timezone": "America/Sao_Paulo"},
        "models": {"mlp": {"hidden": [4]}, "nlinear": {"context_h": 24}},
        "federation": {"num_server_rounds": 3},
        "compare": {"models": ["sn168", "mlp"]},
    }
    return check({**plain, **values})

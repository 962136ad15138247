"""Prints how simulated and measured homes compare, as the Markdown tables of docs/simulator.md.

    FL_INMETRO_DATA=<folder of the data sets> python tests/data/simulator/side_by_side.py

Simulated: 60 homes, climate of São Paulo, 90 days from January and from June 2024, seed 0.
Measured: `sgsc_households` (Australian Smart-Grid Smart-City trial), 90 days from January and from
April 2013 (its summer and autumn), the homes with a reading in at least 95 % of the half hours.
"""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fl_inmetro.config.schema import Simulator
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.data.simulator import simulate
from fl_inmetro.data.simulator.atmosphere import sky
from fl_inmetro.data.simulator.build import parts
from fl_inmetro.data.simulator.calibration import Statistics, statistics
from fl_inmetro.data.simulator.climates import CLIMATES
from fl_inmetro.data.simulator.clock import clock

HALF_HOUR_S = 1800
SEED = 0
FLEET = Simulator(
    clients=60,
    days=90,
    resolution_min=30,
    commercial_share=0.0,
    pv_share=0.0,
    ev_share=0.0,
)


def measured_homes(folder: Path, first: datetime, days: int) -> FederatedData:
    """Read homes of the trial; its clock has no daylight-saving time (UTC+10 assumed)."""
    table = pq.read_table(
        folder / "sgsc_households" / "load_30min.parquet",
        columns=["customer_id", "reading_datetime", "general_supply_kwh"],
    )
    step = table["reading_datetime"].to_numpy().astype("datetime64[s]").astype(np.int64)
    coded = table["customer_id"].combine_chunks().dictionary_encode()
    names, owner = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    energy = table["general_supply_kwh"].to_numpy().astype(np.float64)
    begin, count = int(first.timestamp()), days * 48
    index = (step - begin) // HALF_HOUR_S
    inside = (index >= 0) & (index < count)
    load = np.full((len(names), count), np.nan)
    load[owner[inside], index[inside]] = energy[inside]
    clients = {
        str(name): ClientSeries(str(name), begin - 10 * 3600, HALF_HOUR_S, row)
        for name, row in zip(names, load, strict=True)
        if np.isfinite(row).mean() >= 0.95
    }
    manifest = Manifest(
        "sgsc_households", "Australian homes", "CC BY", "SGSC", "Etc/GMT-10", HALF_HOUR_S
    )
    return FederatedData(clients, manifest)


def table(columns: dict[str, Statistics]) -> str:
    """Return a Markdown table: one row per statistic, one column per set."""
    lines = ["| statistic | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for field in fields(Statistics):
        cells = [f"{getattr(values, field.name):.4g}" for values in columns.values()]
        lines.append(f"| `{field.name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def uses() -> str:
    """Return a Markdown table: energy of a year by use, 60 homes, for each climate."""
    rows: dict[str, dict[str, float]] = {}
    for climate, place in CLIMATES.items():
        axis = clock(date(2024, 1, 1), 366)
        above = sky(axis, place, SEED)
        settings = FLEET.model_copy(update={"climate": climate})
        for number in range(1, FLEET.clients + 1):
            for use, energy in parts(settings, SEED, number, axis, above).items():
                row = rows.setdefault(use, dict.fromkeys(CLIMATES, 0.0))
                row[climate] += float(energy.sum())
    total = {climate: sum(row[climate] for row in rows.values()) for climate in CLIMATES}
    lines = ["| use | " + " | ".join(CLIMATES) + " |", "|---" * (len(CLIMATES) + 1) + "|"]
    for use, row in rows.items():
        cells = [f"{row[climate] / total[climate]:.1%}" for climate in CLIMATES]
        lines.append(f"| `{use}` | " + " | ".join(cells) + " |")
    monthly = [f"{total[climate] / FLEET.clients / 367 * 365.25 / 12:.0f}" for climate in CLIMATES]
    return "\n".join([*lines, "| kWh per home and month | " + " | ".join(monthly) + " |"])


def main() -> None:
    summer = simulate(FLEET, SEED)
    winter = simulate(FLEET.model_copy(update={"start": date(2024, 6, 1)}), SEED)
    columns = {
        "simulated Jan-Mar, 30 min": statistics(summer),
        "simulated Jan-Mar, 60 min": statistics(summer, 3600),
        "simulated Jun-Aug, 60 min": statistics(winter, 3600),
    }
    if folder := os.environ.get("FL_INMETRO_DATA"):
        first = measured_homes(Path(folder), datetime(2013, 1, 1, tzinfo=UTC), 90)
        second = measured_homes(Path(folder), datetime(2013, 4, 1, tzinfo=UTC), 90)
        columns["measured Jan-Mar, 30 min"] = statistics(first)
        columns["measured Jan-Mar, 60 min"] = statistics(first, 3600)
        columns["measured Apr-Jun, 60 min"] = statistics(second, 3600)
    print(table(columns), uses(), sep="\n\n")


if __name__ == "__main__":
    main()

"""Electricity of buildings of the University of Cambridge: hourly kWh, UTC, zeros mean missing."""

from __future__ import annotations

from pathlib import Path

from fl_inmetro.data.readings import About, Clock, Opened
from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.data.sources.archive import NamedSet, read_columns

ABOUT = About(
    "cambridge_buildings",
    "Electricity of University of Cambridge buildings, hourly",
    "MIT",
    "M. Langtry, R. Choudhary, Cambridge University Estates building energy usage archive, v2.1, "
    "2024, https://doi.org/10.5281/zenodo.10955332",
)
WINDOW = ReferenceWindow("2019-05-06", "2019-06-30", "00:00", "UTC")


def open_set(path: Path) -> Opened:
    """Open the set. The archive replaced missing readings by 0 before it was published."""
    clients, files = read_columns(path, "building_id", "datetime", "equipment load [kWh]")
    return Opened(
        ABOUT,
        clients,
        Clock("UTC"),
        zeros_mean_missing=True,
        files=files,
        reference_window=WINDOW,
    )


SET = NamedSet(ABOUT, "electricity_hourly.parquet", open_set)

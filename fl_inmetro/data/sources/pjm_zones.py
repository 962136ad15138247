"""Load of the zones of PJM (eastern United States): mean MW per hour, stamps mark its end."""

from __future__ import annotations

from pathlib import Path

from fl_inmetro.data.readings import About, Clock, Opened
from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.data.sources.archive import NamedSet, read_columns

ABOUT = About(
    "pjm_zones",
    "Load of utility zones of PJM (eastern United States), hourly",
    "CC0 (Kaggle listing)",
    "PJM metered load, collected by R. Mulla, "
    "https://www.kaggle.com/datasets/robikscube/hourly-energy-consumption",
)
ZONE = "America/New_York"
WINDOW = ReferenceWindow("2017-05-31", "2017-07-30", "23:00", ZONE)


def open_set(path: Path) -> Opened:
    """Open the set.

    At the end of daylight-saving time the repeated hour is there twice in some years (first =
    daylight-saving time) and missing in others; where order cannot tell two readings apart, their
    mean is used. The single zero (FE) is missing.
    """
    clients, files = read_columns(path, "zone", "Datetime", "load_MW")
    return Opened(
        ABOUT,
        clients,
        Clock(ZONE, marks="end"),
        unit="MW",
        zeros_mean_missing=True,
        conflicts="mean",
        files=files,
        reference_window=WINDOW,
    )


SET = NamedSet(ABOUT, "load_hourly.parquet", open_set)

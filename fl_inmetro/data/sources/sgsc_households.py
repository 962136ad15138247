"""Smart-Grid Smart-City trial: Australian homes, kWh per half hour, a clock without summer time."""

from __future__ import annotations

from pathlib import Path

from fl_inmetro.data.readings import About, Clock, Opened
from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.data.sources.archive import NamedSet, read_columns
from fl_inmetro.i18n.said import said

ABOUT = About(
    "sgsc_households",
    "Smart-meter load of Australian homes (Smart-Grid Smart-City trial), half-hourly",
    "Creative Commons Attribution (Australian Government, data.gov.au)",
    "Smart-Grid Smart-City Customer Trial Data, Australian Government / Ausgrid, 2010-2014, "
    "https://data.gov.au/data/dataset/smart-grid-smart-city-customer-trial-data",
)
#: The clock shows no summer-time jumps; AEST all year.
ZONE = "Etc/GMT-10"
WINDOW = ReferenceWindow("2013-10-07", "2013-11-30", "00:00", ZONE)


def open_set(path: Path) -> Opened:
    """Open the set. Zeros are kept: some are outages, others are empty homes."""
    clients, files = read_columns(path, "customer_id", "reading_datetime", "general_supply_kwh")
    clock = Clock(ZONE)
    assumed = (said("half_hour"),)
    return Opened(ABOUT, clients, clock, files=files, assumed=assumed, reference_window=WINDOW)


SET = NamedSet(ABOUT, "load_30min.parquet", open_set)

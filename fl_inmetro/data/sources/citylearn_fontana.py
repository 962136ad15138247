"""CityLearn Challenge 2022: homes in Fontana, California, hourly kWh without their PV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fl_inmetro.data.readings import About, Clock, Opened, Readings
from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.data.sources.archive import NamedSet, read_columns
from fl_inmetro.units import HOUR_S

ABOUT = About(
    "citylearn_fontana",
    "Net-zero homes in Fontana, California (CityLearn Challenge 2022), hourly",
    "MIT",
    "K. Nweye, S. Siva, Z. Nagy, The CityLearn Challenge 2022, Texas Data Repository, "
    "https://doi.org/10.18738/T8/0YLJ6Q",
)
#: Pacific standard time all year: the set states daylight_savings_status = 0 throughout.
ZONE = "Etc/GMT+8"
#: 2016-08-01 00:00 on the set's clock, when step 0 ENDS: seconds since 1970-01-01 of that clock.
STEP_0_END_S = 1_470_009_600
WINDOW = ReferenceWindow("2017-04-06", "2017-05-31", "23:00", ZONE)


def open_set(path: Path) -> Opened:
    """Open the set. Step 0 begins 2016-07-31 23:00 on a clock eight hours behind UTC."""
    parts, files = read_columns(path, "building_id", "time_step", "non_shiftable_load")
    clients = {name: partial(_with_clock, part) for name, part in parts.items()}
    return Opened(ABOUT, clients, Clock(ZONE, marks="end"), files=files, reference_window=WINDOW)


def _with_clock(part: Callable[[], Readings]) -> Readings:
    readings = part()
    return replace(readings, clock_s=STEP_0_END_S + readings.clock_s * HOUR_S)


SET = NamedSet(ABOUT, "homes_hourly.parquet", open_set)

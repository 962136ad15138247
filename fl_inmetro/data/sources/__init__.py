"""The sources of readings: five public sets by name, and the layouts of the user's own files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.readings import Opened
from fl_inmetro.data.sources import (
    cambridge_buildings,
    citylearn_fontana,
    ons_brazil,
    pjm_zones,
    sgsc_households,
)
from fl_inmetro.data.sources.archive import NamedSet
from fl_inmetro.data.sources.buildingsbench import open_buildings
from fl_inmetro.data.sources.folder import open_folder
from fl_inmetro.data.sources.long import open_long
from fl_inmetro.data.sources.wide import open_wide

#: The public sets, by the name that goes into `data.source`.
SOURCES: dict[str, NamedSet] = {
    named.about.name: named
    for named in (
        cambridge_buildings.SET,
        sgsc_households.SET,
        citylearn_fontana.SET,
        ons_brazil.SET,
        pjm_zones.SET,
    )
}

#: The layouts of the user's own files.
LAYOUTS: dict[str, Callable[[str | Path | None, FileFormat], Opened]] = {
    "long": open_long,
    "wide": open_wide,
    "folder": open_folder,
    "buildingsbench": open_buildings,
}

SIMULATOR = "simulator"

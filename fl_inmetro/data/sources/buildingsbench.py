"""A folder of BuildingsBench: one wide CSV per site and year, `bear_clean=2016.csv`.

Source of the layout: the loaders of NREL/BuildingsBench (Emami, Sahu & Graf 2023,
arXiv 2307.00142): the first column holds the stamps; a file with one more column is one building,
named by what stands before `_clean`; in a file with several, their names are the buildings'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fl_inmetro.config.schema import FileFormat
from fl_inmetro.data.readings import Opened, Readings
from fl_inmetro.data.sources.files import existing
from fl_inmetro.data.sources.wide import open_wide
from fl_inmetro.errors import DataError, Fault

_FILE = re.compile(r"(?P<name>.+?)_.*=(?P<year>\d{4})\.csv(\.gz)?")

_Parts = dict[str, list[Callable[[], Readings]]]


def open_buildings(path: str | Path | None, settings: FileFormat) -> Opened:
    """Open a folder of yearly files; the years of a building are joined in their order.

    Raises:
        DataError: FL203, no such file in the folder, or one that cannot be read; and as `open_wide`
            for each of them.
    """
    folder = existing(path, folder=True)
    found = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    if not found:
        what = f"`{folder}` holds no file of BuildingsBench"
        hint = "they are named as `bear_clean=2016.csv`; other files: `[data] source`"
        raise DataError(Fault("FL203", what, str(folder), hint))
    parts: _Parts = {}
    files: dict[str, str] = {}
    opened: list[Opened] = []
    for match, file in sorted(found, key=lambda one: (one[0]["year"], one[0]["name"])):
        wide = open_wide(file, settings)
        opened.append(wide)
        files |= wide.files
        for name, take in _named(wide.clients, match["name"]).items():
            parts.setdefault(name, []).append(take)
    first = opened[0]
    clients = {name: partial(_joined, name, years) for name, years in parts.items()}
    title = f"{folder.name}/ ({len(files)} files)"
    assumed = tuple(dict.fromkeys(said for wide in opened for said in wide.assumed))
    about = replace(first.about, name="buildingsbench", title=title)
    return replace(first, about=about, clients=clients, files=files, assumed=assumed)


def _named(
    columns: Mapping[str, Callable[[], Readings]], site: str
) -> dict[str, Callable[[], Readings]]:
    """Return a file's buildings by name."""
    if len(columns) == 1:
        return dict.fromkeys((site,), *columns.values())
    return dict(columns)


def _joined(name: str, years: list[Callable[[], Readings]]) -> Readings:
    parts = [take() for take in years]
    return Readings(
        name,
        np.concatenate([part.clock_s for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.line for part in parts]),
        ", ".join(part.place for part in parts),
    )

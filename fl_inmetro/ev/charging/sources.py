"""Two public sets of charging sessions: homes in Trondheim, workplaces in the United States."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.ev.charging.sessions import Floats, Limits, Names, RawSessions, Sessions, judged

#: Garages of apartment buildings: sockets of at most 7.4 kW, some of three phases (11 kW), and cars
#: that stay at the plug over holidays.
NORWAY_LIMITS = Limits(plug_kw=11.0)

#: Level 2 stations: 32 A at 240 V, and cars that go home in the evening.
WORKPLACE_LIMITS = Limits(plug_kw=7.7, longest_h=24.0)

#: The clock of the homes.
NORWAY_ZONE = "Europe/Oslo"

#: No zone is stated, and plug-ins around noon in half of the rows say that it is no local time of
#: the sites; so the clock is taken as it stands, without summer time.
WORKPLACE_ZONE = "UTC"


def read_norway(path: Path, limits: Limits = NORWAY_LIMITS) -> Sessions:
    """Read sessions in the layout of Sørensen et al., Data in Brief 36 (2021) 107105, dataset 1.

    A hub is a garage. Users of shared plugs are users like the others.

    Args:
        path: Parquet file with local times of Trondheim, in whole minutes.
        limits: What a session must not do.

    Raises:
        DataError: FL225, the file cannot be read, a column is missing, or no session is left.
    """
    columns = _columns(
        path,
        (
            "session_ID",
            "User_ID",
            "Garage_ID",
            "Start_plugin",
            "End_plugout",
            "Duration_hours",
            "El_kWh",
        ),
    )
    return judged(_raw(columns, NORWAY_ZONE), limits, str(path))


def read_workplace(path: Path, limits: Limits = WORKPLACE_LIMITS) -> Sessions:
    """Read sessions in the layout of Asensio et al., Scientific Data 8 (2021) 168.

    A hub is a location (`locationId`): the stations of one site.

    Args:
        path: Parquet file; times as the source has them.
        limits: What a session must not do.

    Raises:
        DataError: FL225, the file cannot be read, a column is missing, or no session is left.
    """
    columns = _columns(
        path,
        ("sessionId", "userId", "locationId", "created", "ended", "chargeTimeHrs", "kwhTotal"),
    )
    return judged(_raw(columns, WORKPLACE_ZONE), limits, str(path))


def _columns(path: Path, names: tuple[str, ...]) -> list[list[Any]]:
    """Return the columns in the order asked for."""
    # Only reading needs pyarrow; the models run without.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise DataError(
            Fault("FL225", f"the sessions cannot be read: {problem}", str(path))
        ) from None
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            Fault(
                "FL225",
                f"the table of sessions has no {', '.join(f'`{name}`' for name in missing)}",
                str(path),
                "names are those of the original files",
            )
        )
    return [table[name].to_pylist() for name in names]


def _raw(columns: list[list[Any]], zone: str) -> RawSessions:
    """Return name, user, hub, start, end, stated hours and energy as one form."""
    name, user, hub, start, end, hours, energy = columns
    return RawSessions(
        _names(name),
        _names(user),
        _names(hub),
        _times(start),
        _times(end),
        _floats(hours),
        _floats(energy),
        zone,
    )


def _names(values: list[Any]) -> Names:
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)


def _times(values: list[Any]) -> list[datetime | None]:
    return [value if isinstance(value, datetime) else None for value in values]


def _floats(values: list[Any]) -> Floats:
    return np.array([np.nan if value is None else float(value) for value in values])

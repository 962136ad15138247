"""Look at a user's file or folder and say what it seems to be; every guess is said aloud."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fl_inmetro.config.schema import Columns, Data, FileFormat
from fl_inmetro.data.sources.delimited import is_number
from fl_inmetro.data.sources.files import existing
from fl_inmetro.data.sources.folder import SUFFIXES
from fl_inmetro.data.sources.stamps import PATTERN
from fl_inmetro.data.sources.tables import Table, look
from fl_inmetro.data.sources.wide import UNNAMED
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said

LAYOUTS = ("long", "wide", "folder")
_STAMP = re.compile(PATTERN)
_CLIENT = re.compile(
    r"^(client|customer|consumer|meter|building|household|home|house|user|site|zone|lclid|"
    r"medidor|cliente|unidade|uc|id)(_?(id|name|code|nome))?$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"kwh|mwh|wh|kw|mw|load|energy|consum|demand|value|reading|carga|energia|demanda|leitura|valor",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Guess:
    """What a path seems to be.

    Attributes:
        layout: `long`, `wide` or `folder`.
        columns: Guessed column names: keys of `format.columns`.
        header: False for a table of numbers only.
        assumed: The guesses in words.
    """

    layout: str
    columns: Mapping[str, str]
    header: bool
    assumed: tuple[str, ...]


def settings_for(
    target: str, base: Data, layout: str | None = None
) -> tuple[Data, tuple[str, ...]]:
    """Return the settings that read `target` (a name or a path), and what was guessed for them.

    Everything that `base` says about format, cleaning, clients and step is kept; only the source,
    the path and columns that nobody named are filled in.

    Raises:
        DataError: FL202, FL203 when the path is no table (see `guess`); FL208 unknown layout.
    """
    if layout is not None and layout not in LAYOUTS:
        hint = f"known: {', '.join(LAYOUTS)}"
        raise DataError(Fault("FL208", f"`{layout}` is not a layout", f"--layout {layout}", hint))
    if layout is None and not Path(target).exists():
        if target in LAYOUTS and base.source == target:
            return base, ()
        if _is_name(target):
            path = base.path if target == base.source else None
            return base.model_copy(update={"source": target, "path": path}), ()
    wanted = layout or (base.source if base.source in LAYOUTS else None)
    found = guess(target, base.format, wanted)
    columns = base.format.columns.model_copy(update=dict(found.columns))
    settings = base.format.model_copy(update={"columns": columns, "header": found.header})
    update = {"source": found.layout, "path": target, "format": settings}
    return base.model_copy(update=update), found.assumed


def _is_name(target: str) -> bool:
    """Tell a name (to be found, or refused as unknown, by `load`) from a path that is not there."""
    return not Path(target).suffix and "/" not in target and "\\" not in target


def guess(path: str | Path, settings: FileFormat, layout: str | None = None) -> Guess:
    """Guess layout and columns of a path; columns that `settings` names and the file has stay.

    Raises:
        DataError: FL202 when no column can hold timestamps or values; FL203 when it is no table.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not files:
            return Guess("folder", {}, True, ())  # the reader refuses it, with the reason
        roles = _roles(look(files[0], settings), settings)
        columns = _pick(files[0], roles, settings, needs_client=False)
        return Guess("folder", columns, True, _said("folder", columns, settings))
    file = existing(path)
    try:
        table = look(file, settings)
    except DataError as error:
        if layout in (None, "wide") and "format.header = false" in error.faults[0].hint:
            return Guess("wide", {}, False, (said("layout_bare"),))
        raise
    if not settings.header:
        return Guess("wide", {}, False, ())
    roles = _roles(table, settings)
    chosen = layout or ("long" if roles["client"] else "wide")
    if chosen == "wide":
        named = settings.columns.timestamp in table.columns or table.columns[0] in UNNAMED
        named = named or settings.columns.timestamp != Columns().timestamp
        columns = {} if named or not roles["timestamp"] else {"timestamp": roles["timestamp"][0]}
    else:
        columns = _pick(file, roles, settings, needs_client=chosen == "long")
    return Guess(chosen, columns, True, _said(chosen, columns, settings))


def _roles(table: Table, settings: FileFormat) -> dict[str, list[str]]:
    """Sort the columns of a table into what they could be, the likeliest first."""
    kinds = _kinds(table)
    stamps = [name for name, kind in kinds.items() if kind == "stamp"]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    clients = [name for name in kinds if _CLIENT.match(name) and name not in stamps]
    if not clients:
        clients = texts
    if settings.columns.client in kinds:
        clients = [settings.columns.client]
    if settings.columns.timestamp in kinds:
        stamps = [settings.columns.timestamp]
    values = [name for name in numbers if name not in clients]
    values.sort(key=lambda name: not _VALUE.search(name))
    if settings.columns.value in kinds:
        values = [settings.columns.value]
    return {"client": clients, "timestamp": stamps, "value": values}


def _kinds(table: Table) -> dict[str, str]:
    if table.look is None:
        return {field.name: _kind_of_type(field.type) for field in pq.read_schema(table.path)}
    result = {}
    for place, name in enumerate(table.columns):
        fields = [row[place] for row in table.look.rows if place < len(row) and row[place].strip()]
        if fields and all(_STAMP.match(field) for field in fields):
            result[name] = "stamp"
        else:
            result[name] = "number" if all(is_number(field) for field in fields) else "text"
    return result


def _kind_of_type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "stamp"
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return "number"
    return "text"


def _pick(
    file: Path, roles: Mapping[str, Sequence[str]], settings: FileFormat, needs_client: bool
) -> dict[str, str]:
    # A column that the user named and the file does not have is an error, not a guess.
    wanted = [
        role
        for role in (("client", "timestamp", "value") if needs_client else ("timestamp", "value"))
        if getattr(settings.columns, role) == getattr(Columns(), role)
    ]
    lacking = [role for role in wanted if not roles[role]]
    if lacking:
        raise DataError(
            Fault(
                "FL202",
                f"no column of `{file.name}` looks like the {role}",
                f"{file.name}:1",
                f"name it: `format.columns.{role}` or `--{role}-column`",
            )
            for role in lacking
        )
    return {
        role: roles[role][0] for role in wanted if roles[role][0] != getattr(settings.columns, role)
    }


def _said(layout: str, columns: Mapping[str, str], settings: FileFormat) -> tuple[str, ...]:
    picked = tuple(said(f"column_{role}", name=name) for role, name in columns.items())
    marks = f"marks_{settings.timestamp_marks}"
    clock = said(marks, unit=settings.unit, zone=settings.timezone)
    return (said(f"layout_{layout}"), *picked, clock)

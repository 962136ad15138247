"""The file that says which feeder and which region a client belongs to."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.hierarchy.tree import LEAF_LEVEL, TOTAL, Hierarchy, hierarchy_of

Groups = dict[str, tuple[str | None, ...]]

_HEAD = "client_id"
_LEVEL = re.compile(r"[A-Za-z]\w*")


def read_groups(path: Path, known: Collection[str]) -> tuple[Hierarchy, list[str]]:
    """Read the groups of clients from a CSV or TOML file.

    A CSV has a line per client and a column per level, the nearest first:
    `client_id,feeder,region`. A TOML has `levels = ["feeder", "region"]` and a table `[clients]`
    with a list of names, one per level: `meter-7 = ["F1", "north"]`. An empty name: the client
    hangs on the next level.

    Args:
        path: The file.
        known: The clients that have forecasts.

    Returns:
        The tree, and the known clients that the file does not name: they are no part of its sums.

    Raises:
        RunError: FL715, the file cannot be used; all faults at once.
    """
    levels, groups, faults = _toml(path) if path.suffix.lower() == ".toml" else _csv(path)
    faults += [_fault(f"a level cannot be called `{n}`", str(path)) for n in _odd_names(levels)]
    if strangers := sorted(set(groups) - set(known)):
        some = ", ".join(strangers[:5]) + (" …" if len(strangers) > 5 else "")
        faults.append(
            _fault(
                f"{len(strangers)} clients of the file have no forecasts in the run: {some}",
                str(path),
                "take them out, or choose a run and a row that forecast them",
            )
        )
    if not groups and not faults:
        faults.append(_fault("the file names no client", str(path)))
    if faults:
        raise RunError(faults)
    try:
        tree = hierarchy_of(groups, levels)
    except ValueError as error:
        raise RunError(
            _fault(str(error), str(path), "a group lies in one group of each higher level")
        ) from None
    return tree, sorted(set(known) - set(groups))


# ------------------------------------------------------------------------------ internals
def _csv(path: Path) -> tuple[list[str], Groups, list[Fault]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None
    head = [cell.strip() for cell in rows[0]] if rows else []
    if len(head) < 2 or head[0] != _HEAD:
        raise RunError(
            _fault(
                "the first line does not name the columns",
                f"{path}:1  {','.join(head)}",
                f"begin the file with `{_HEAD},feeder` or `{_HEAD},feeder,region`",
            )
        )
    groups: Groups = {}
    faults: list[Fault] = []
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        where = f"{path}: row {number}  {','.join(cells)}"
        if len(cells) != len(head) or not cells[0]:
            faults.append(_fault(f"a row needs {len(head)} cells and a client", where))
            continue
        faults += _put(groups, cells[0], cells[1:], where)
    return head[1:], groups, faults


def _toml(path: Path) -> tuple[list[str], Groups, list[Fault]]:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unreadable(path, error) from None
    levels, clients = content.get("levels"), content.get("clients")
    if not _texts(levels) or not levels or not isinstance(clients, Mapping):
        raise RunError(
            _fault(
                "the file lacks `levels`, a list of names, or the table `[clients]`",
                str(path),
                'write levels = ["feeder"] and, under [clients], meter-7 = ["F1"]',
            )
        )
    groups: Groups = {}
    faults: list[Fault] = []
    for client, names in clients.items():
        where = f"{path}  [clients] {client}"
        if not _texts(names) or len(names) != len(levels):
            faults.append(_fault(f"a client needs a list of {len(levels)} names", where))
            continue
        faults += _put(groups, str(client), [name.strip() for name in names], where)
    return list(levels), groups, faults


def _put(groups: Groups, client: str, names: Sequence[str], where: str) -> list[Fault]:
    """Add a client; one that is there already stands in two places, or twice in one."""
    own = tuple(name or None for name in names)
    if client in groups:
        before = ", ".join(name or "–" for name in groups[client])
        text = f"client `{client}` is there more than once, first in {before}"
        return [_fault(text, where, "a client belongs to one group of each level")]
    groups[client] = own
    return []


def _odd_names(levels: Sequence[str]) -> list[str]:
    taken = {TOTAL, LEAF_LEVEL}
    odd = []
    for name in levels:
        if not _LEVEL.fullmatch(name) or name in taken:
            odd.append(name)
        taken.add(name)
    return odd


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _unreadable(path: Path, error: Exception) -> RunError:
    missing = isinstance(error, FileNotFoundError)
    reason = "there is no such file" if missing else str(error).splitlines()[0]
    return RunError(
        _fault(
            f"the groups cannot be read: {reason}",
            str(path),
            f"give a CSV `{_HEAD},feeder,region` or a TOML file",
        )
    )


def _fault(what: str, where: str, hint: str = "") -> Fault:
    return Fault("FL715", what, where, hint)

"""Call the real command, in this process or in one of its own, and make small files for it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from fl_inmetro.cli import main
from fl_inmetro.seeds import derive

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "commands.md"

#: Variables that change what a command does or prints.
VARIABLES = (
    "FL_INMETRO_DATA",
    "FL_INMETRO_RUNS",
    "FL_INMETRO_NO_PROGRESS",
    "FL_INMETRO_DEBUG",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)

TINY = """\
name = "tiny"
seed = 3
model = "mlp"

[data.simulator]
clients = 3
days = 60

[window]
validation-days = 5
test-days = 7
timezone = "America/Sao_Paulo"

[models.mlp]
hidden = [4]

[federation]
num-server-rounds = 2

[compare]
models = ["sn168", "mlp"]
"""

#: The same for a user's long CSV of clients, days and a clock of UTC.
METERS = TINY.replace("[data.simulator]\nclients = 3\ndays = 60\n", "{data}").replace(
    "America/Sao_Paulo", "UTC"
)


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def faults(self) -> list[dict[str, str]]:
        """The faults on stderr: code, what, where, hint."""
        found = []
        for block in re.split(r"^(?=error\[)", self.err, flags=re.MULTILINE)[1:]:
            head = re.match(r"error\[(FL\d{3})\]: (.*)", block)
            assert head
            hint = re.search(r"^hint: (.*(?:\n {6}\S.*)*)", block, flags=re.MULTILINE)
            found.append(
                {
                    "code": head[1],
                    "what": head[2],
                    "where": "\n".join(re.findall(r"^  --> (.*)", block, flags=re.MULTILINE)),
                    "hint": hint[1] if hint else "",
                }
            )
        return found


def environment(**values: str) -> dict[str, str]:
    """This process's environment, without what changes a command, in English, and `values`."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "FL_INMETRO_LANG": "en", "PYTHONPATH": str(ROOT), **values}


def call(*words: object, **env: str) -> Answer:
    """Run `fl-inmetro WORDS` through `main()`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.dict(os.environ, environment(**env), clear=True),
        mock.patch.object(sys, "argv", ["fl-inmetro", *(str(word) for word in words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), err.getvalue())


def words_for(*words: object) -> list[str]:
    """The words that start the command in a process of its own."""
    start = "from fl_inmetro.cli import main; main()"
    return [sys.executable, "-c", start, *(str(word) for word in words)]


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own, without a terminal."""
    return subprocess.Popen(
        words_for(*words),
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def documented(table: str) -> list[str]:
    """Keys of the table of `docs/commands.md` under the heading `### JSON: <table>`."""
    section = DOC.read_text(encoding="utf-8").split(f"### JSON: `{table}`\n", 1)[1]
    section = section.split("\n#", 1)[0]
    return sorted(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


# ------------------------------------------------------------------------------ made files
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)

#: client, instant, kWh
Reading = tuple[str, datetime, float]


def readings(
    client: str, days: float, *, first_day: int = 0, level_kwh: float = 1.0
) -> list[Reading]:
    """Hourly readings with a daily wave and noise; `first_day` counts from 2024-01-01."""
    rng = derive(5, "meter", client)
    count = round(days * 24)
    hour = np.arange(count)
    values = level_kwh * (1 + 0.5 * np.sin(2 * np.pi * hour / 24)) * rng.uniform(0.8, 1.2, count)
    start_at = BEGIN + timedelta(days=first_day)
    return [
        (client, start_at + timedelta(hours=int(h)), round(float(v), 4))
        for h, v in zip(hour, values, strict=True)
    ]


def fleet() -> list[Reading]:
    """Three meters of sixty days."""
    return [
        reading
        for k, name in enumerate(("a", "b", "c"))
        for reading in readings(name, 60, level_kwh=1.0 + k)
    ]


def long_file(
    path: Path, rows: Sequence[Reading], head: str = "client_id,timestamp,energy_kwh"
) -> Path:
    lines = [f"{client},{at:%Y-%m-%d %H:%M},{kwh}" for client, at, kwh in rows]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def wide_file(path: Path, rows: Sequence[Reading], rename: Mapping[str, str]) -> Path:
    """One column per client of `rename`, under its new name."""
    table: dict[datetime, dict[str, float]] = {}
    for client, at, kwh in rows:
        table.setdefault(at, {})[client] = kwh
    lines = [
        ",".join([f"{at:%Y-%m-%d %H:%M}", *(str(row[client]) for client in rename)])
        for at, row in table.items()
    ]
    path.write_text("\n".join([",".join(["timestamp", *rename.values()]), *lines]) + "\n")
    return path


def config_for(path: Path, csv: Path, data: str = "") -> Path:
    """A configuration of a run on a long file."""
    table = f'[data]\nsource = "long"\npath = "{csv.name}"\n{data}'
    path.write_text(METERS.replace("{data}", table))
    return path

"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fl_inmetro.i18n import text


def _known_language(wanted: str | None) -> str | None:
    if wanted is not None and not wanted.lower().startswith(("en", "pt")):
        raise typer.BadParameter(text("cli.lang"))
    return wanted


Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help=text("cli.run.set"))
]
AsJson = Annotated[bool, typer.Option("--json", help=text("cli.json"))]
Runs = Annotated[Path, typer.Option("--runs", envvar="FL_INMETRO_RUNS", help=text("cli.run.runs"))]
Lang = Annotated[
    str | None, typer.Option("--lang", help=text("cli.lang"), callback=_known_language)
]

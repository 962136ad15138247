"""`fl-inmetro report`: write the report of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fl_inmetro.cli.runs import ROOT, JsonOption, RunArgument, RunsOption
from fl_inmetro.i18n import language, text


def report_command(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=text("runs.option.output"))
    ] = None,
    lang: Annotated[str | None, typer.Option("--lang", help=text("runs.option.lang"))] = None,
    runs: RunsOption = ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run: one HTML file that needs no network."""
    from fl_inmetro.report.html import write
    from fl_inmetro.report.words import byte_count
    from fl_inmetro.runs import RunRecord, find_run
    from fl_inmetro.runs.layout import REPORT

    if lang is not None and lang.lower() not in ("en", "pt-br", "pt"):
        raise typer.BadParameter(text("runs.option.lang"))
    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    path = output or record.path / REPORT
    size = write(record, path, chosen).stat().st_size
    if as_json:
        answer = {"run": record.id, "report": str(path), "bytes": size, "lang": chosen}
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        typer.echo(text("runs.say.written", path=path, size=byte_count(size, language())))

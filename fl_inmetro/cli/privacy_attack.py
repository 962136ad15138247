"""`fl-inmetro privacy attack`: what the updates of a run tell about a meter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Runs
from fl_inmetro.i18n import Language, language, text


def attack(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    model: Annotated[str | None, typer.Option(help=text("leakage.model"))] = None,
    clients: Annotated[int, typer.Option("--clients", min=1, help=text("leakage.clients"))] = 5,
    invert: Annotated[
        bool, typer.Option("--invert/--no-invert", help=text("leakage.invert"))
    ] = True,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="PAGE", help=text("leakage.page"))
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Attack a finished run, keep what was found in its directory, and say it."""
    chosen = language(lang)
    from fl_inmetro.leakage.bench import attack as attack_run
    from fl_inmetro.runs.leakage import keep
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run

    record = RunRecord.open(find_run(runs, run))
    found = attack_run(record, model, clients, invert=invert).to_json()
    keep(record, found["model"], found)
    if out is not None:
        from fl_inmetro.report.leakage_page import write

        write(found, out, chosen)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False))
        return
    _print(found, chosen)
    if out is not None:
        typer.echo(text("leakage.written", chosen, path=out))


# ------------------------------------------------------------------------------ internals
def _print(found: dict[str, Any], lang: Language) -> None:
    from fl_inmetro.cli.importance import print_columns
    from fl_inmetro.report.leakage import columns, notes, sentences, subject

    if found["simulated"]:
        typer.echo(text("cli.simulated", lang))
    typer.echo(subject(found, lang))
    for heads, rows in columns(found, lang).values():
        if rows:
            typer.echo()
            print_columns(heads, rows)
    typer.echo()
    for line in (*sentences(found, lang), *notes(found, lang)):
        typer.echo(line)

"""`fl-inmetro drift`: tell whether the model of a run still fits what the meters say."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.forecast import ConfigFile
from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from rich.table import Table

    from fl_inmetro.drift import Report

#: Exit code when there is an alarm, for cron: no error has it.
ALARM = 10

Day = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help=text("drift.from"))
]
LastDay = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help=text("drift.to"))
]


def drift(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    source: Annotated[
        str | None, typer.Option("--data", metavar="SOURCE", help=text("drift.data"))
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    first: Day = None,
    last: LastDay = None,
    clients: Annotated[
        list[str] | None, typer.Option("--client", metavar="ID", help=text("drift.client"))
    ] = None,
    every: Annotated[
        float, typer.Option("--alarm-every", metavar="DAYS", min=30, help=text("drift.every"))
    ] = 36500,
    shift: Annotated[float, typer.Option("--shift", min=1, max=6, help=text("drift.shift"))] = 1.5,
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help=text("drift.out"))
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Watch a run's model on readings of after its training."""
    chosen = language(lang)
    from dataclasses import replace

    from fl_inmetro.cli.forecast import load_source
    from fl_inmetro.drift import Request, watch
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    days = (first.date() if first else None, last.date() if last else None)
    request = Request(*days, (), every, shift)  # refuses numbers that are none before it reads
    record = RunRecord.open(find_run(runs, run))
    trained = trained_model(record, model, training)
    wanted = source if source is not None else str(record.config.data.source)
    if source is None and record.config.data.path is not None:
        wanted = str(record.config.data.path)
    data = load_source(wanted, config, overrides, record)
    if source is None and not clients:  # the run's own: not those that its configuration left out
        clients = [name for name in data if name in record.manifest["data"]["clients"]]
    found = watch(record, trained, data, replace(request, clients=tuple(clients or ())))
    summary: dict[str, Any] = {
        "run": record.id,
        "model": trained.job.model,
        "training": trained.job.training,
        "source": data.manifest.source,
        "simulated": data.manifest.simulated,
        "alarm_every_days": every,
        "shift": shift,
        **found.to_json(),
    }
    if out is not None:
        summary |= _save(summary, found.lines(), out, chosen)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    else:
        _print(summary, found, chosen)
    if found.alarms:
        raise typer.Exit(ALARM)


def _save(
    summary: dict[str, Any], lines: dict[str, Any], out: Path, lang: Language
) -> dict[str, str]:
    from fl_inmetro.report.drift import write
    from fl_inmetro.runs.layout import write_whole

    content = json.dumps(summary, ensure_ascii=False, allow_nan=False, indent=1)
    write_whole(out / "drift.json", f"{content}\n".encode())
    write(summary, lines, out / "drift.html", lang)
    return {"file": str(out / "drift.json"), "page": str(out / "drift.html")}


def _print(summary: dict[str, Any], found: Report, lang: Language) -> None:
    from rich.console import Console

    from fl_inmetro.cli.tables import print_whole
    from fl_inmetro.report.drift import sentence

    console = Console(highlight=False)
    if summary["simulated"]:
        console.print(text("cli.simulated", lang), style="bold yellow")
    # In the reader's language; JSON has the reasons in English, like all error sentences.
    unwatched = dict(found.skipped)
    if found.fleet_skipped is not None:
        unwatched[text("drift.fleet", lang)] = found.fleet_skipped
    for name, why in unwatched.items():
        typer.echo(text("drift.skipped", lang, client=name, why=why.told(lang)), err=True)
    console.print(sentence(summary, lang), soft_wrap=True, markup=False)
    if summary["alarms"]:
        print_whole(_table(summary, lang), console)
        for advice in dict.fromkeys(one["advice"] for one in summary["alarms"]):
            said = text(f"drift.advice.{advice}", lang)
            console.print(said, soft_wrap=True, markup=False)
    console.print(
        text(
            "drift.legend",
            lang,
            first=summary["reference"][0],
            last=summary["reference"][1],
            every=number(summary["alarm_every_days"], 0, lang),
        ),
        style="dim italic",
        soft_wrap=True,
        markup=False,
    )
    if "page" in summary:
        console.print(text("drift.saved", lang, path=summary["page"]), soft_wrap=True, markup=False)


def _table(summary: dict[str, Any], lang: Language) -> Table:
    from rich import box
    from rich.table import Table

    from fl_inmetro.report.drift import cells, heads

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads(lang):
        table.add_column(head.title, justify="right" if head.numeric else "left", no_wrap=True)
    for one in summary["alarms"]:
        table.add_row(*cells(one, lang))
    return table

"""`fl-inmetro coldstart`: the federation's model on clients that it has not seen, with few days."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides
from fl_inmetro.cli.run import ConfigFile, Seed
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from rich.table import Table

Folds = Annotated[int | None, typer.Option("--folds", help=text("coldstart.folds"))]
Days = Annotated[str | None, typer.Option("--days", metavar="0,3,7", help=text("coldstart.days"))]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help=text("coldstart.out"))]


def coldstart(
    config: ConfigFile = None,
    folds: Folds = None,
    days: Days = None,
    overrides: Overrides = None,
    seed: Seed = None,
    out: Out = None,
    as_json: AsJson = False,
    lang: Lang = None,
) -> None:
    """Leave clients out of the federation and forecast them from few days of readings."""
    chosen = language(lang)
    from fl_inmetro.config import load

    said = list(overrides or [])
    said += [] if folds is None else [f"coldstart.folds={folds}"]
    said += [] if days is None else [f"coldstart.days=[{days}]"]
    said += [] if seed is None else [f"seed={seed}"]
    settings = load(config, said)

    from fl_inmetro.cli.progress import stop_on_interrupt
    from fl_inmetro.coldstart import ColdStart
    from fl_inmetro.federation import flower_compat
    from fl_inmetro.federation.grids import Interrupted
    from fl_inmetro.plan import prepare

    flower_compat.quiet()

    def say(key: str, **values: object) -> None:
        print(text(key, chosen, **values), file=sys.stderr, flush=True)

    with stop_on_interrupt(lambda: say("cli.progress.stopping")) as should_stop:
        study = ColdStart(settings, prepare(settings), should_stop)
        of, done = settings.coldstart.folds, 0
        try:
            for done in study.run():
                seconds = number(study.seconds, 1, chosen)
                say("coldstart.progress.fold", done=done, of=of, seconds=seconds)
        except (Interrupted, KeyboardInterrupt):
            say("coldstart.progress.stopped", done=done, of=of)
    summary = study.summary() | {"complete": done == of}
    if out and done:
        from fl_inmetro.runs.layout import write_whole

        content = json.dumps(summary, ensure_ascii=False, allow_nan=False, indent=1)
        write_whole(out / "coldstart.json", f"{content}\n".encode())
        summary |= {"file": str(out / "coldstart.json")}
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    elif done:
        _print(summary, chosen)
    if done < of:
        raise typer.Exit(130)


def _print(summary: dict[str, Any], lang: Language) -> None:
    from rich.console import Console

    from fl_inmetro.cli.tables import print_whole

    console = Console(highlight=False)
    if summary["simulated"]:
        console.print(text("cli.simulated", lang), style="bold yellow")
    folds = len(summary["folds"])
    for history in ("last", "since"):
        if not any(row["history"] == history for row in summary["rows"]):
            continue
        title = text(f"coldstart.title.{history}", lang, clients=summary["clients"], folds=folds)
        console.print(f"\n{title}", style="italic", markup=False, soft_wrap=True)
        print_whole(_table(summary, history, lang), console)
    console.print(text("coldstart.legend", lang), style="dim italic", markup=False, soft_wrap=True)
    if "file" in summary:
        saved = text("coldstart.saved", lang, path=summary["file"])
        console.print(saved, soft_wrap=True, markup=False)


def _table(summary: dict[str, Any], history: str, lang: Language) -> Table:
    """Return models by lengths of history; the nMAE of each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in summary["rows"] if row["history"] == history]
    # Without a reading there are two ways to know how large a client is: two columns.
    columns = sorted({(row["days"], row["size"]) for row in rows})
    found = {(r["model"], r["training"], r["days"], r["size"]): r for r in rows}
    most = max(row["clients"] for row in rows)
    names = sorted(
        {(row["model"], row["training"]) for row in rows},
        key=lambda name: (("federated", "local", "baseline").index(name[1]), name[0]),
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(text("coldstart.column.model", lang), no_wrap=True)
    table.add_column(text("coldstart.column.training", lang), no_wrap=True)
    for days, size in columns:
        head = text(f"coldstart.size.{size}", lang, days=days)
        table.add_column(head, justify="right", no_wrap=True)
    for model, training in names:
        cells = []
        for days, size in columns:
            row = found.get((model, training, days, size))
            if row is None or row["nmae"] is None:
                cells.append(Text("–"))
                continue
            few = row["clients"] < most
            mark = f" ({row['clients']})" if few and training == "local" else ""
            cells.append(Text(number(row["nmae"], 4, lang) + mark))
        table.add_row(model, text(f"coldstart.training.{training}", lang), *cells)
    return table

"""`fl-inmetro importance`: which inputs a run's model rests on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Runs
from fl_inmetro.i18n import Language, language, text

if TYPE_CHECKING:
    from fl_inmetro.report.markup import Column


class Cut(StrEnum):
    """How finely the input is cut."""

    GROUP = "group"
    FEATURE = "feature"


#: A head of numbers is broken into lines of about so many characters.
HEAD_WIDTH = 12


def importance(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="ID", help=text("explain.only"))
    ] = None,
    by: Annotated[Cut, typer.Option("--by", help=text("explain.by"))] = Cut.GROUP,
    repeats: Annotated[int, typer.Option(min=1, help=text("explain.repeats"))] = 5,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help=text("explain.out"))
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Deal each part of the input anew over a client's test days, and score what comes of it."""
    import json

    from fl_inmetro.explain.study import study
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    trained = trained_model(record, model, training)
    result = study(record, trained, client or [], by.value, repeats)
    written = _written(result, out, chosen) if out else []
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    _print(result, client or [], chosen)
    for path in written:
        typer.echo(text("explain.written", chosen, path=path))


def _written(result: dict[str, Any], out: Path, lang: Language) -> list[Path]:
    import json

    from fl_inmetro.report.importance import write
    from fl_inmetro.runs.layout import write_whole

    table = out / "importance.json"
    content = json.dumps(result, ensure_ascii=False, allow_nan=False, indent=2)
    write_whole(table, f"{content}\n".encode())
    return [table, write(result, out / "importance.html", lang)]


def _print(result: dict[str, Any], clients: list[str], lang: Language) -> None:
    from fl_inmetro.report import importance as said
    from fl_inmetro.report.words import ratio

    for name, reason in result["left_out"].items():
        why = text(f"explain.{reason}", lang)
        typer.echo(text("explain.left_out", lang, client=name, why=why), err=True)
    if result["simulated"]:
        typer.echo(text("cli.simulated", lang))
    typer.echo(said.subject(result, lang))
    typer.echo(
        text(
            "explain.fleet" if result["repeats"] > 1 else "explain.fleet_once",
            lang,
            clients=len(result["clients"]),
            nmae=ratio(result["nmae"], lang),
            repeats=result["repeats"],
        )
    )
    print_columns(*said.rows_of(result, lang))
    for name in clients if len(result["clients"]) > 1 else []:
        told = result["clients"].get(name)
        if told is not None:
            nmae = ratio(told["nmae"], lang)
            typer.echo(text("explain.one", lang, client=name, nmae=nmae))
            print_columns(*said.rows_of(told, lang))
    for line in said.sentences(result, lang):
        typer.echo(line)


def print_columns(heads: list[Column], rows: list[list[str]]) -> None:
    """Print a table as a report has it, without cutting a cell; long heads take several lines."""
    from textwrap import wrap

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fl_inmetro.cli.tables import print_whole

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        title = "\n".join(wrap(head.title, HEAD_WIDTH)) if head.numeric else head.title
        table.add_column(
            Text(title),
            vertical="bottom",
            justify="right" if head.numeric else "left",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    print_whole(table, Console(highlight=False))

"""`fl-inmetro backtest`: what would have been, had the models been used and trained again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.cli.run import ConfigFile
from fl_inmetro.errors import FlInmetroError
from fl_inmetro.i18n import Language, language, text

if TYPE_CHECKING:
    from fl_inmetro.backtest.study import Step, Study
    from fl_inmetro.report.markup import Column

First = Annotated[
    str | None, typer.Option("--first", metavar="YYYY-MM-DD", help=text("backtest.first"))
]
Last = Annotated[
    str | None, typer.Option("--last", metavar="YYYY-MM-DD", help=text("backtest.last"))
]
RefitDays = Annotated[int | None, typer.Option("--refit-days", help=text("backtest.refit_days"))]
TrainDays = Annotated[int | None, typer.Option("--train-days", help=text("backtest.train_days"))]
WarmStart = Annotated[
    bool | None, typer.Option("--warm-start/--anew", help=text("backtest.warm_start"))
]
RefitRounds = Annotated[
    int | None, typer.Option("--refit-rounds", help=text("backtest.refit_rounds"))
]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help=text("backtest.seeds"))]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help=text("backtest.out"))]


def backtest(
    config: ConfigFile = None,
    first: First = None,
    last: Last = None,
    refit_days: RefitDays = None,
    train_days: TrainDays = None,
    warm_start: WarmStart = None,
    refit_rounds: RefitRounds = None,
    seeds: Seeds = None,
    overrides: Overrides = None,
    out: Out = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Train again and again, score each model until the next, and print the table."""
    chosen = language(lang)
    from fl_inmetro.config import load

    said = list(overrides or [])
    flags: dict[str, object] = {
        "first": first,
        "last": last,
        "refit_days": refit_days,
        "train_days": train_days,
        "warm_start": None if warm_start is None else str(warm_start).lower(),
        "refit_rounds": refit_rounds,
        "seeds": None if seeds is None else f"[{seeds}]",
    }
    said += [f"backtest.{key}={value}" for key, value in flags.items() if value is not None]
    settings = load(config, said)

    from fl_inmetro.backtest.study import Study
    from fl_inmetro.backtest.summary import summary_of

    command = ["fl-inmetro", "backtest", *([str(config)] if config else [])]
    command += [word for item in said for word in ("--set", item)]
    command += [] if runs == Path("runs") else ["--runs", str(runs)]
    command += ["--out", str(out)] if out else []
    command += ["--json"] if as_json else []
    command += ["--lang", lang] if lang else []
    study = Study(settings, runs)
    error, stopped = None, False
    try:
        stopped = not _carried_out(study, shlex.join(command), chosen)
    except FlInmetroError as failed:
        error = failed
    try:
        summary = summary_of(study)
    except FlInmetroError as failed:
        raise error or failed from None
    files = _written(summary, out, chosen) if out and summary["rows"] else {}
    if as_json:
        typer.echo(json.dumps(summary | files, ensure_ascii=False, allow_nan=False))
    elif summary["rows"]:
        _print(summary, files, chosen)
    if error:  # what is done is shown all the same
        raise error
    if stopped:
        raise typer.Exit(130)


def _carried_out(study: Study, command: str, lang: Language) -> bool:
    """Train what is not trained yet; False when a person has stopped it."""
    from fl_inmetro.cli.progress import Display, stop_on_interrupt
    from fl_inmetro.federation import flower_compat
    from fl_inmetro.federation.grids import Interrupted

    flower_compat.quiet()
    steps, done = study.steps(), study.finished()
    for place, step in enumerate(steps):
        with Display(lang) as display, stop_on_interrupt(display.stopping) as should_stop:
            display.say(_about(step, place, steps, lang, kept=step in done))
            if step in done:
                continue
            try:
                study.carry_out(step, display, should_stop)
            except (Interrupted, KeyboardInterrupt):
                display.interrupted(command)
                return False
    return True


def _about(step: Step, place: int, steps: list[Step], lang: Language, *, kept: bool) -> str:
    return text(
        f"backtest.progress.{'kept' if kept else 'fold'}",
        lang,
        done=place + 1,
        of=len(steps),
        first=step.fold.first,
        last=step.fold.last,
        seed=step.seed,
    )


def _written(summary: dict[str, Any], out: Path, lang: Language) -> dict[str, str]:
    """Write the files of `--out`; return their paths."""
    from fl_inmetro.report.backtest import write
    from fl_inmetro.runs.layout import write_whole

    content = json.dumps(summary, ensure_ascii=False, allow_nan=False, indent=1)
    write_whole(out / "backtest.json", f"{content}\n".encode())
    page = write(summary, out / "backtest.html", lang)
    return {"file": str(out / "backtest.json"), "report": str(page)}


def _print(summary: dict[str, Any], files: dict[str, str], lang: Language) -> None:
    from rich.console import Console

    from fl_inmetro.report import backtest as said

    console = Console(highlight=False, soft_wrap=True, markup=False)
    if summary["simulated"]:
        console.print(text("cli.simulated", lang), style="bold yellow")
    if not summary["complete"]:
        console.print(text("backtest.incomplete", lang), style="bold yellow")
    console.print(said.subject(summary, lang), style="italic")
    for part in said.TABLES:
        if part != "errors":
            console.print(text(f"backtest.table.{part}", lang), style="italic")
        _table(*said.rows(summary, part, lang))
    for by in ("age", "lead"):
        console.print(text(f"backtest.slice.{by}.title", lang), style="italic")
        _table(*said.slice_rows(summary, by, lang))
    for sentence in said.findings(summary, lang):
        console.print(sentence)
    for path in files.values():
        console.print(text("backtest.saved", lang, path=path))


def _table(heads: list[Column], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fl_inmetro.cli.tables import print_whole

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(head.title, justify="right" if head.numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    print_whole(table, console)
    console.print()

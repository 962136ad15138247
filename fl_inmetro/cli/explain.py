"""`fl-inmetro explain`: what a forecast is made of, or what an error code means."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.i18n import Language, catalogue, language, text

if TYPE_CHECKING:
    from fl_inmetro.data.series import FederatedData
    from fl_inmetro.runs.record import RunRecord


def explain(
    what: Annotated[str, typer.Argument(metavar="CODE|RUN", help=text("explain.what"))],
    client: Annotated[
        str | None, typer.Option("--client", metavar="ID", help=text("explain.client"))
    ] = None,
    issue: Annotated[
        datetime | None,
        typer.Option("--issue", formats=["%Y-%m-%d"], help=text("explain.issue")),
    ] = None,
    hour: Annotated[int | None, typer.Option(min=0, max=23, help=text("explain.hour"))] = None,
    level: Annotated[float | None, typer.Option(help=text("explain.level"))] = None,
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    source: Annotated[
        str | None, typer.Option("--data", metavar="SOURCE", help=text("explain.data"))
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help=text("explain.config"))
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help=text("explain.out"))
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Take a client's forecast apart; with a code alone, print its page."""
    chosen = language(lang)
    told = (client, issue, hour, level, model, training, source, config, out)
    if all(one is None for one in told) and not overrides:
        _page(what, chosen)
        return
    if client is None or issue is None:
        raise typer.BadParameter(text("explain.incomplete", chosen))
    import json

    from fl_inmetro.explain.terms import explain as take_apart
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    record = RunRecord.open(find_run(runs, what))
    trained = trained_model(record, model, training)
    data = _readings(record, source, config, overrides)
    made = take_apart(record, trained, data, client, issue.date(), level)
    result = {
        "run": record.id,
        "model": trained.job.model,
        "training": trained.job.training,
        "simulated": data.manifest.simulated,
        "hour": hour,
        **made.to_json(),
    }
    written = _written(result, out, chosen) if out else []
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    _print(result, chosen)
    for path in written:
        typer.echo(text("explain.written", chosen, path=path))


def _page(code: str, lang: Language) -> None:
    """Print the page of an error code."""
    pages = catalogue("errors", lang)
    page = pages.get(code.upper())
    if page is None:
        import difflib

        asked = code.upper()
        begins = sorted(name for name in pages if len(asked) > 2 and name.startswith(asked))
        near = begins[:5] or difflib.get_close_matches(asked, pages, n=3)
        known = ", ".join(near or sorted(pages))
        typer.echo(text("cli.explain.unknown", lang, code=code, known=known), err=True)
        raise typer.Exit(2)
    typer.echo(f"{code.upper()}: {page['title']}\n\n{page['meaning']}\n\n{page['cure']}")


def _readings(
    record: RunRecord, source: str | None, config: Path | None, overrides: list[str] | None
) -> FederatedData:
    """Load the run's own readings, or others as `forecast` does."""
    if source is None and config is None and not overrides:
        from fl_inmetro.data.load import load

        return load(record.config.data, record.config.seed)
    from fl_inmetro.cli.forecast import load_source

    return load_source(source or record.config.data.source, config, overrides, record)


def _written(result: dict[str, Any], out: Path, lang: Language) -> list[Path]:
    import json

    from fl_inmetro.report.explanation import write
    from fl_inmetro.runs.layout import write_whole

    table = out / "explanation.json"
    content = json.dumps(result, ensure_ascii=False, allow_nan=False, indent=2)
    write_whole(table, f"{content}\n".encode())
    return [table, write(result, out / "explanation.html", lang)]


def _print(result: dict[str, Any], lang: Language) -> None:
    from fl_inmetro.cli.importance import print_columns
    from fl_inmetro.report import explanation as said

    if result["simulated"]:
        typer.echo(text("cli.simulated", lang))
    typer.echo(said.subject(result, lang))
    rows = said.told_rows(result)
    shown = rows if result["hour"] is not None else result["rows"]
    for row in rows:
        typer.echo(said.sentence(result, row, lang))
    print_columns(*said.rows_of(result, lang, shown, brief=True))
    for line in said.made_how(result, lang):
        typer.echo(line)

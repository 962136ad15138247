"""`fl-inmetro reconcile`: forecasts of sites, feeders and the total that add up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_inmetro.cli.options import AsJson, Lang, Runs
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from fl_inmetro.hierarchy.reconcile import Reconciliation

#: Method whose forecasts are written where none is named; why: docs/adr/0013.
_USUAL = "wls-var"


def reconcile(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    groups: Annotated[
        Path, typer.Option("--groups", metavar="FILE", help=text("reconcile.groups"))
    ],
    method: Annotated[str | None, typer.Option("--method", help=text("reconcile.method"))] = None,
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FILE.parquet", help=text("reconcile.base"))
    ] = None,
    node_model: Annotated[
        str, typer.Option("--node-model", help=text("reconcile.node_model"))
    ] = "ridge",
    calibration_days: Annotated[
        int, typer.Option("--calibration-days", min=1, help=text("reconcile.calibration_days"))
    ] = 14,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.parquet", help=text("reconcile.out")),
    ] = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Reconcile a run's test forecasts."""
    import json

    from fl_inmetro.hierarchy import METHODS
    from fl_inmetro.hierarchy.base import NODE_MODELS
    from fl_inmetro.hierarchy.reconcile import Request, forecast_table
    from fl_inmetro.hierarchy.reconcile import reconcile as make
    from fl_inmetro.runs.forecasts import save_forecasts
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.runs.versus import entry_of

    _one_of("--method", method, METHODS)
    _one_of("--node-model", node_model, NODE_MODELS)
    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    entry = entry_of(record, model, training)
    methods = METHODS if method is None else (method,)
    request = Request(entry, groups, methods, calibration_days, base, node_model)
    made = make(record, request)
    written = method or _USUAL
    if output is not None:
        labels = {"run": record.id, "model": entry.model, "training": entry.training}
        metadata = {**labels, "reconciled": written}
        block = {f"fl_inmetro.{key}": value for key, value in metadata.items()}
        save_forecasts([forecast_table(made, written)], output, block)
    simulated = bool(record.manifest["data"].get("simulated"))
    if as_json:
        result = {
            "run": record.id,
            "model": entry.model,
            "training": entry.training,
            "groups": str(groups),
            "base": str(base) if base else node_model,
            "simulated": simulated,
            **made.to_json(),
            "file": str(output) if output else None,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False))
        return
    if simulated:
        typer.echo(text("cli.simulated", chosen))
    _print(made, chosen)
    if output is not None:
        typer.echo(text("reconcile.done", chosen, method=written, file=output))


def _one_of(option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise typer.BadParameter(f"{option} {value}: {', '.join(known)}")


def _print(made: Reconciliation, lang: Language) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fl_inmetro.cli.tables import print_whole
    from fl_inmetro.hierarchy import LEAF_LEVEL, TOTAL
    from fl_inmetro.hierarchy.study import BASE
    from fl_inmetro.report.words import percent, ratio

    facts = made.to_json()
    if made.left_out:
        some = ", ".join(made.left_out[:3]) + (" …" if len(made.left_out) > 3 else "")
        typer.echo(text("reconcile.left_out", lang, n=len(made.left_out), clients=some), err=True)
    if lost := facts["instants"] - facts["common_instants"]:
        worst = sorted(facts["holes"].items(), key=lambda item: -item[1])[:3]
        some = ", ".join(f"{name} ({n})" for name, n in worst) or "–"
        said = text("reconcile.holes", lang, n=lost, of=facts["instants"], clients=some)
        typer.echo(said, err=True)
    cells = {(row.method, row.level): row for row in made.outcome.scores}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(text("reconcile.column", lang), no_wrap=True)
    for level, count in facts["levels"].items():
        known = level in (TOTAL, LEAF_LEVEL)
        name = text(f"reconcile.level.{level}", lang) if known else level
        table.add_column(f"{name} ({number(count, 0, lang)})", justify="right", no_wrap=True)
    for method in dict.fromkeys(row.method for row in made.outcome.scores):
        name = text("reconcile.base_row", lang) if method == BASE else method
        own = (ratio(cells[method, level].nmae, lang) for level in facts["levels"])
        table.add_row(name, *own)
    typer.echo(text("reconcile.title", lang))
    print_whole(table, Console(highlight=False))
    gaps = ", ".join(
        f"{text('reconcile.level.total', lang) if level == TOTAL else level} "
        f"{percent(100 * cells[BASE, level].gap, lang)}"
        for level in facts["levels"]
        if level != LEAF_LEVEL
    )
    typer.echo(text("reconcile.gap", lang, gaps=gaps))
    kept, scored = facts["calibration"], facts["scored"]
    typer.echo(
        text(
            "reconcile.days",
            lang,
            days=kept["days"],
            last=kept["last_issue_utc"][:10],
            whole=number(kept["whole_instants"], 0, lang),
            instants=number(scored["instants"], 0, lang),
            first=scored["first_issue_utc"][:10],
            end=scored["last_issue_utc"][:10],
        )
    )
    if made.filled:
        most = max(made.filled, key=lambda name: made.filled[name])
        share = percent(100 * made.filled[most], lang)
        typer.echo(text("reconcile.feeder_meter", lang, share=share, node=most))
    if facts["shrinkage"] is not None:
        typer.echo(text("reconcile.shrinkage", lang, weight=number(facts["shrinkage"], 3, lang)))
    below = {name: share for name, share in facts["negative"].items() if share > 0}
    if below:
        said = ", ".join(f"{name} {percent(100 * share, lang)}" for name, share in below.items())
        typer.echo(text("reconcile.negative", lang, methods=said))

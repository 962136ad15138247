"""`fl-inmetro data`: check, describe and list the sources of readings, and deal their windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fl_inmetro.cli.data_partition import partition_command
from fl_inmetro.i18n import number, text
from fl_inmetro.i18n.said import told

if TYPE_CHECKING:
    from fl_inmetro.config.schema import Data
    from fl_inmetro.data.cleaning.findings import CleaningReport

# Nothing heavy is imported here: `fl-inmetro --help` reads this module. NumPy, pyarrow and pydantic
# are imported by the command that needs them.
app = typer.Typer(no_args_is_help=True, help=text("data.help.data"))

#: Rows of the table by client before the rest is summed up in a line.
MOST_ROWS = 25

Target = Annotated[str, typer.Argument(help=text("data.help.target"), show_default=False)]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help=text("data.help.config"), show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help=text("data.help.json"))]


def _option(name: str) -> Any:
    key = f"data.help.{name.replace('-', '_')}"
    return typer.Option(f"--{name}", help=text(key), show_default=False)


Layout = Annotated[str | None, _option("layout")]
Timezone = Annotated[str | None, _option("timezone")]
Unit = Annotated[str | None, _option("unit")]
Decimal = Annotated[str | None, _option("decimal")]
Separator = Annotated[str | None, _option("separator")]
DayFirst = Annotated[
    bool | None,
    typer.Option("--day-first/--month-first", help=text("data.help.day_first"), show_default=False),
]
Quantity = Annotated[str | None, _option("quantity")]
Marks = Annotated[str | None, _option("marks")]
RepeatedHour = Annotated[str | None, _option("repeated-hour")]
ResolutionMin = Annotated[int | None, _option("resolution-min")]
Start = Annotated[str | None, _option("start")]
ClientColumn = Annotated[str | None, _option("client-column")]
TimestampColumn = Annotated[str | None, _option("timestamp-column")]
ValueColumn = Annotated[str | None, _option("value-column")]
ZerosMissing = Annotated[
    bool | None, typer.Option("--zeros-mean-missing", help=text("data.help.zeros_mean_missing"))
]


@app.command(help=text("data.help.check"))
def check(
    target: Target,
    config: Config = None,
    as_json: AsJson = False,
    by_client: Annotated[
        bool, typer.Option("--by-client", help=text("data.help.by_client"))
    ] = False,
    layout: Layout = None,
    timezone: Timezone = None,
    unit: Unit = None,
    decimal: Decimal = None,
    separator: Separator = None,
    day_first: DayFirst = None,
    quantity: Quantity = None,
    marks: Marks = None,
    repeated_hour: RepeatedHour = None,
    resolution_min: ResolutionMin = None,
    start: Start = None,
    client_column: ClientColumn = None,
    timestamp_column: TimestampColumn = None,
    value_column: ValueColumn = None,
    zeros_mean_missing: ZerosMissing = None,
) -> None:
    """Clean a source and print what was found; the process ends with 4 when it is refused."""
    from dataclasses import replace

    from fl_inmetro.data.cleaning.findings import CleaningReport
    from fl_inmetro.data.load import examine
    from fl_inmetro.errors import DataError

    options = {
        "timezone": timezone,
        "unit": unit,
        "decimal": decimal,
        "separator": separator,
        "day_first": day_first,
        "quantity": quantity,
        "timestamp_marks": marks,
        "repeated_hour": repeated_hour,
        "resolution_min": resolution_min,
        "start": start,
        "zeros_mean_missing": zeros_mean_missing,
    }
    columns = {"client": client_column, "timestamp": timestamp_column, "value": value_column}
    try:
        data, assumed = _resolve(target, config, layout, options, columns)
        report = examine(data)[1]
    except DataError as error:
        if as_json:
            print(json.dumps(CleaningReport(target, faults=error.faults).to_json()))
        raise
    report = replace(report, assumed=assumed + report.assumed)
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_report(report, by_client)
    if report.refused:
        raise DataError(report.faults)


@app.command(help=text("data.help.describe"))
def describe(
    target: Target,
    config: Config = None,
    as_json: AsJson = False,
    everything: Annotated[bool, typer.Option("--all", help=text("data.help.all"))] = False,
    layout: Layout = None,
    timezone: Timezone = None,
    unit: Unit = None,
    decimal: Decimal = None,
    day_first: DayFirst = None,
) -> None:
    """Print the span, level and mean day of a source after cleaning."""
    from fl_inmetro.data.describe import describe as in_numbers
    from fl_inmetro.data.load import load

    options = {"timezone": timezone, "unit": unit, "decimal": decimal, "day_first": day_first}
    data, _ = _resolve(target, config, layout, options, {})
    found = in_numbers(load(data))
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print_description(found, everything)


@app.command(help=text("data.help.ls"))
def ls(as_json: AsJson = False) -> None:
    """List the sources that are known by name, and whether their files are here."""
    import os

    from fl_inmetro.data.sources import SIMULATOR, SOURCES
    from fl_inmetro.data.sources.archive import VARIABLE

    root = os.environ.get(VARIABLE) or None
    sets = [
        {
            "name": name,
            "title": named.about.title,
            "licence": named.about.licence,
            "citation": named.about.citation,
            "simulated": False,
            "present": named.path() is not None,
            "file": f"{name}/{named.file}",
        }
        for name, named in SOURCES.items()
    ]
    sets.append(
        {
            "name": SIMULATOR,
            "title": text("data.simulator_title"),
            "licence": "Apache-2.0",
            "citation": "fl-inmetro",
            "simulated": True,
            "present": True,
            "file": None,
        }
    )
    if as_json:
        print(json.dumps({"data_root": root, "variable": VARIABLE, "sets": sets}))
        return
    console, table = _table("data.ls_title", ("set", "here", "title", "licence"))
    for one in sets:
        here = text("data.yes") if one["present"] else text("data.no")
        table.add_row(str(one["name"]), here, str(one["title"]), str(one["licence"]))
    console.print(table)
    key = "data.root_is" if root else "data.root_unset"
    console.print(text(key, variable=VARIABLE, root=root or ""), markup=False)
    console.print(text("data.own_files"), markup=False)


app.command("partition", help=text("data.help.partition"))(partition_command)


# ------------------------------------------------------------------------------ internals
def _resolve(
    target: str,
    config: Path | None,
    layout: str | None,
    options: dict[str, Any],
    columns: dict[str, str | None],
) -> tuple[Data, tuple[str, ...]]:
    """Turn a name or a path, a configuration and options into the `[data]` table of a run.

    A TOML file in the place of the data stands for the data of its run.

    Raises:
        ConfigError: The configuration cannot be used.
        DataError: FL223 two configurations; FL202, FL203, FL208 as `settings_for`.
    """
    from fl_inmetro.config.load import check as checked
    from fl_inmetro.config.load import load as read
    from fl_inmetro.data.sources.guess import settings_for
    from fl_inmetro.errors import DataError, Fault

    is_run = Path(target).suffix.lower() == ".toml"
    if is_run and config:
        what = f"`{target}` is a configuration, and --config names another one"
        hint = "give the configuration alone, or a file of readings with --config"
        raise DataError(Fault("FL223", what, f"--config {config}", hint))
    run = read(Path(target) if is_run else config) if is_run or config else None
    raw = run.data.model_dump() if run else {}
    if run and run.data.simulator.seed is None:
        raw["simulator"]["seed"] = run.seed  # as in the run itself
    if is_run and run:
        target = run.data.path if layout and run.data.path else run.data.source
    kept: dict[str, Any] = dict(raw.get("format", {}))
    kept.update({key: value for key, value in options.items() if value is not None})
    named = {key: value for key, value in columns.items() if value is not None}
    kept["columns"] = {**kept.get("columns", {}), **named}
    base = checked({"data": {**raw, "format": kept}}, "options").data
    return settings_for(target, base, layout)


def _table(title: str, columns: tuple[str, ...]) -> tuple[Any, Any]:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    right = ("clients", "readings", "missing", "mean_kw", "peak_kw")
    whole = (*right, "set", "done", "from", "to", "profile")
    for column in columns:
        justify: Literal["right", "left"] = "right" if column in right else "left"
        ratio = 1 if column in ("where", "title") else None
        # Numbers and names stay whole; the long column takes what is left.
        table.add_column(
            text(f"data.column.{column}"),
            justify=justify,
            ratio=ratio,
            no_wrap=column in whole,
            overflow="fold",
        )
    return Console(highlight=False), table


def _print_report(report: CleaningReport, by_client: bool) -> None:
    from rich.markup import escape

    columns = ("client",) if by_client else ()
    console, table = _table(
        "data.check_title",
        (*columns, "finding", "done", *(() if by_client else ("clients",)), "readings", "where"),
    )
    console.print(text("data.source_line", source=report.source), markup=False)
    for one in report.assumed:
        console.print(text("data.assumed", what=told(one)), markup=False)
    rows = _by_client(report) if by_client else _by_kind(report)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    if rows:
        console.print(table)
    else:
        console.print(text("data.nothing_found"))
    for name, why in list(report.excluded.items())[:5]:
        console.print(text("data.excluded", client=name, why=told(why)), markup=False)
    if len(report.excluded) > 5:
        console.print(text("data.more", count=len(report.excluded) - 5))
    if report.refused:
        console.print(text("data.refused", count=len(report.faults)), style="bold red")
        return
    steps = sum(one.steps for one in report.clients)
    valid = sum(one.valid_steps for one in report.clients)
    console.print(
        text(
            "data.usable_one" if len(report.clients) == 1 else "data.usable",
            clients=len(report.clients),
            readings=number(report.readings, 0),
            valid=number(valid, 0),
            steps=number(steps, 0),
            minutes=report.clients[0].resolution_s // 60,
            start=min(one.start_utc for one in report.clients)[:16].replace("T", " "),
            end=max(one.end_utc for one in report.clients)[:16].replace("T", " "),
        ),
        markup=False,
    )


def _by_kind(report: CleaningReport) -> list[tuple[str, ...]]:
    from fl_inmetro.data.cleaning.findings import KINDS

    groups: dict[tuple[str, str], list[Any]] = {}
    for finding in report.findings:
        groups.setdefault((finding.kind, finding.action), []).append(finding)
    rows: list[tuple[str, ...]] = []
    for (kind, action), found in sorted(groups.items(), key=lambda g: KINDS.index(g[0][0])):
        worst = max(found, key=lambda f: f.count)
        where = "\n".join(
            part for part in (worst.client_id, *worst.places[:1], told(worst.detail)) if part
        )
        rows.append(
            (
                text(f"data.finding.{kind}"),
                text(f"data.action.{action.replace(' ', '_')}"),
                number(len({f.client_id for f in found}), 0),
                number(sum(f.count for f in found), 0),
                where,
            )
        )
    return rows


def _by_client(report: CleaningReport) -> list[tuple[str, ...]]:
    return [
        (
            finding.client_id,
            text(f"data.finding.{finding.kind}"),
            text(f"data.action.{finding.action.replace(' ', '_')}"),
            number(finding.count, 0),
            "\n".join((*finding.places, *((told(finding.detail),) if finding.detail else ()))),
        )
        for finding in report.findings
    ]


def _print_description(found: dict[str, Any], everything: bool) -> None:
    from rich.markup import escape

    from fl_inmetro.cli.tables import print_whole
    from fl_inmetro.data.describe import sparkline

    console, table = _table(
        "data.describe_title",
        ("client", "from", "to", "missing", "mean_kw", "peak_kw", "profile"),
    )
    if found["simulated"]:
        console.print(text("data.simulated"), style="bold yellow")
    window = found["reference_window"]
    lines = {
        "title": found["title"],
        "clients": number(found["n_clients"], 0),
        "span": f"{found['start_utc']} - {found['end_utc']}",
        "step": f"{found['resolution_s'] // 60} min",
        "clock": found["timezone"],
        "missing": f"{number(100 * found['missing_share'], 1)} %",
        "reference_window": f"{window['test_start']} - {window['test_end']} {window['issue_time']} "
        f"{window['timezone']}"
        if window
        else "",
        "licence": told(found["licence"]),
        "citation": told(found["citation"]),
    }
    for key, value in lines.items():
        if value:
            console.print(f"{text(f'data.line.{key}')}: {value}", markup=False, soft_wrap=False)
    rows = found["clients"] if everything else found["clients"][:MOST_ROWS]
    for one in rows:
        table.add_row(
            escape(one["client_id"]),
            one["start_utc"][:10],
            one["end_utc"][:10],
            f"{number(100 * one['missing_share'], 1)} %",
            number(one["mean_kw"], 2 if one["mean_kw"] < 1000 else 0),
            number(one["peak_kw"], 2 if one["mean_kw"] < 1000 else 0),
            sparkline(one["profile_kw"]),
        )
    print_whole(table, console)
    if len(rows) < len(found["clients"]):
        console.print(text("data.more_clients", count=len(found["clients"]) - len(rows)))

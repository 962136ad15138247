"""`fl-inmetro ev`: models of the energy of electric cars' trips, side by side."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang
from fl_inmetro.i18n import Language, catalogue, language, number, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from fl_inmetro.ev_study.compare import Row
    from fl_inmetro.ev_study.scenes import Scene, Wishes

app = typer.Typer(help=text("ev.help"), no_args_is_help=True)

#: Options that say nothing about what was measured, about one car, and about a fleet: giving one
#: there is refused, for whoever gave it expects that it does something.
SIMULATED_ONLY = ("cars", "trips", "traces")
FLEET_ONLY = ("new_cars", "own_trips")
ONE_CAR_ONLY = ("folds", "logs")


class TrainingName(StrEnum):
    """Ways to train."""

    LOCAL = "local"
    FEDERATED = "federated"
    CENTRAL = "central"


class Traces(StrEnum):
    """Where a simulated car's speeds are from."""

    GENERATED = "generated"
    CHICAGO = "chicago"


@app.callback()
def root() -> None:
    """Keep `compare` a command of its own; a group with one command would swallow its name."""


@app.command("compare", help=text("ev.compare.help"))
def compare(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help=text("ev.compare.data"))
    ] = "simulated",
    model: Annotated[
        list[str] | None, typer.Option("--model", help=text("ev.compare.model"))
    ] = None,
    training: Annotated[
        list[TrainingName] | None, typer.Option("--training", help=text("ev.compare.training"))
    ] = None,
    cars: Annotated[int, typer.Option("--cars", min=2, help=text("ev.compare.cars"))] = 22,
    trips: Annotated[int, typer.Option("--trips", min=5, help=text("ev.compare.trips"))] = 40,
    traces: Annotated[
        Traces, typer.Option("--traces", help=text("ev.compare.traces"))
    ] = Traces.GENERATED,
    new_cars: Annotated[
        int | None, typer.Option("--new-cars", min=0, help=text("ev.compare.new_cars"))
    ] = None,
    own_trips: Annotated[
        int, typer.Option("--own-trips", min=0, help=text("ev.compare.own_trips"))
    ] = 5,
    train_trips: Annotated[
        int | None, typer.Option("--train-trips", min=1, help=text("ev.compare.train_trips"))
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help=text("ev.compare.folds"))
    ] = None,
    logs: Annotated[int, typer.Option("--logs", min=1, help=text("ev.compare.logs"))] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help=text("ev.compare.seed"))] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help=text("ev.compare.out"))
    ] = None,
    as_json: AsJson = False,
    lang: Lang = None,
) -> None:
    """Train every family in every way, and predict trips that were left out."""
    chosen = language(lang)
    from fl_inmetro.ev_study.families import families
    from fl_inmetro.ev_study.scenes import SIMULATED, Wishes, scene
    from fl_inmetro.ev_study.summary import summary

    # A name that is none is told before anything is read or simulated.
    asked = families(model or ())
    wishes = Wishes(new_cars, own_trips, train_trips, folds, logs, seed)
    given = _given(context, (*SIMULATED_ONLY, *FLEET_ONLY, *ONE_CAR_ONLY))
    if data != SIMULATED:
        _refuse(given & set(SIMULATED_ONLY), "simulated_only", chosen)
    cut = scene(data, wishes, cars, trips, traces.value)
    if cut.logs:
        _refuse(given & set(FLEET_ONLY), "fleet_only", chosen)
    else:
        _refuse(given & set(ONE_CAR_ONLY), "one_car_only", chosen)
    for fault in cut.excluded:
        _say("left_out", chosen, reason=fault.reason())
    rows, complete = _rows(
        cut, wishes, asked, [t.value for t in training or list(TrainingName)], chosen
    )
    result = summary(cut, wishes, rows, complete)
    if out:
        from fl_inmetro.runs.layout import write_whole

        path = out / "ev_compare.json"
        content = json.dumps(result, ensure_ascii=False, allow_nan=False, indent=1)
        write_whole(path, f"{content}\n".encode())
        result |= {"file": str(path)}
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
    elif rows:
        _print(result, chosen)
    if not complete:
        raise typer.Exit(130)


def _given(context: typer.Context, names: tuple[str, ...]) -> set[str]:
    """Return those of the options that somebody wrote."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _refuse(given: set[str], key: str, lang: Language) -> None:
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise typer.BadParameter(text(f"ev.compare.{key}", lang, options=names))


def _say(key: str, lang: Language, **values: object) -> None:
    print(text(f"ev.{key}", lang, **values), file=sys.stderr, flush=True)


def _rows(
    cut: Scene, wishes: Wishes, asked: list[Any], trainings: list[Any], lang: Language
) -> tuple[list[Row], bool]:
    """Return the rows, and whether none is missing because somebody stopped."""
    from fl_inmetro.cli.progress import stop_on_interrupt
    from fl_inmetro.ev_study.compare import compare as all_rows

    rows: list[Row] = []
    with stop_on_interrupt(lambda: _say("stopping", lang)) as should_stop:
        try:
            told = _progress(should_stop, lang)
            rows.extend(all_rows(cut.folds, asked, trainings, wishes.seed, told))
        except KeyboardInterrupt:
            _say("stopped", lang)
            return rows, False
    return rows, True


def _progress(should_stop: Callable[[], bool], lang: Language) -> Callable[..., None]:
    """Return what is told on the way: one line that is written over on a terminal."""
    live = sys.stderr.isatty()

    def told(model: str, training: str, done: int, of: int) -> None:
        if should_stop():
            raise KeyboardInterrupt
        line = text(
            "ev.progress",
            lang,
            model=label(model, lang),
            training=text(f"ev.training.{training}", lang),
            done=done,
            of=of,
        )
        if live:
            print(f"\r\x1b[2K{line if done < of else ''}", end="", file=sys.stderr, flush=True)
        elif done == of:
            print(line, file=sys.stderr, flush=True)

    return told


def label(model: str, lang: Language) -> str:
    """Return the name of a family for a reader."""
    return str(catalogue("ev", lang)["model"].get(model, model))


def _print(result: dict[str, Any], lang: Language) -> None:
    from rich.console import Console

    from fl_inmetro.cli.tables import print_whole

    console = Console(highlight=False)

    def line(key: str, style: str = "dim italic", **values: object) -> None:
        said = text(f"ev.{key}", lang, **values)
        console.print(said, style=style, markup=False, soft_wrap=True)

    if result["simulated"]:
        line("simulated", "bold yellow")
    line("compare.title", "italic")
    if result["logs"]:
        line("logs", trips=result["trips"], logs=result["logs"], folds=result["folds"])
    groups = dict.fromkeys(row["group"] for row in result["rows"])
    for group in groups:
        rows = [row for row in result["rows"] if row["group"] == group]
        if not result["logs"]:
            key = "compare.group_new" if group == "new" else "compare.group"
            first = rows[0]
            console.print()
            line(key, "italic", cars=first["cars"], trips=first["trips"], own=result["own_trips"])
        print_whole(_table(rows, lang), console)
    line("compare.legend")
    if any(row["task"] == "before" for row in result["rows"]):
        line("compare.before")
    cited = result["cited"]
    line("cited", source=cited["source"])
    for row in cited["rows"]:
        rmse, mape = (number(row[key], 2, lang) for key in ("rmse_kwh", "mape_percent"))
        console.print("  " + text("ev.cited_row", lang, model=row["model"], rmse=rmse, mape=mape))
    if "file" in result:
        line("written", "", path=result["file"])


def _table(rows: list[dict[str, Any]], lang: Language) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fl_inmetro.cli.tables import size

    best = min(row["mae_kwh_per_100km"] for row in rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for key in catalogue("ev", lang)["compare"]["column"]:
        side = "left" if key in ("model", "training") else "right"
        head = text(f"ev.compare.column.{key}", lang)
        table.add_column(head, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        inside, width = row["coverage_80"], row["width_80_kwh"]
        low, high = (number(value, 2, lang) for value in row["mae_kwh_per_100km_95"])
        first = row["mae_kwh_per_100km"] == best
        mark = ("¹" if row["task"] == "before" else "") + (" *" if first else "")
        cells = [
            label(row["model"], lang) + mark,
            text(f"ev.training.{row['training']}", lang),
            f"{number(row['mae_kwh_per_100km'], 2, lang)} ({low} – {high})",
            number(row["mae_kwh"], 3, lang),
            number(row["rmse_kwh"], 3, lang),
            number(row["mape_percent"], 1, lang),
            "–" if inside is None else f"{number(100 * inside, 0, lang)} %",
            "–" if width is None else number(width, 2, lang),
            number(row["parameters"], 0, lang),
            size(row["bytes"], lang),
            number(row["seconds"], 2, lang),
        ]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if first else None)
    return table

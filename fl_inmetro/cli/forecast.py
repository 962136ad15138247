"""`fl-inmetro forecast` and `fl-inmetro score`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_inmetro.i18n import language, text

if TYPE_CHECKING:
    from fl_inmetro.data.series import FederatedData

Source = Annotated[str, typer.Option("--data", metavar="SOURCE", help=text("cli.forecast.data"))]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=text("cli.forecast.config"))
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help=text("cli.run.set"))
]
AsJson = Annotated[bool, typer.Option("--json", help=text("cli.json"))]
Runs = Annotated[Path, typer.Option("--runs", envvar="FL_INMETRO_RUNS", help=text("cli.run.runs"))]
Lang = Annotated[str | None, typer.Option("--lang", help=text("cli.lang"))]


def forecast(
    run: Annotated[str, typer.Option("--run", help=text("cli.forecast.run"))],
    source: Source,
    first: Annotated[
        datetime,
        typer.Option("--from", formats=["%Y-%m-%d"], help=text("cli.forecast.from")),
    ],
    last: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help=text("cli.forecast.to"))
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.parquet", help=text("cli.forecast.out"))
    ],
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Forecast clients of the run, and clients it has never seen."""
    import json

    from fl_inmetro import forecasting
    from fl_inmetro.data.forecast_table import write_forecasts
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run

    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    trained = forecasting.trained_model(record, model, training)
    data = _load(source, config, overrides)
    table, skipped = forecasting.forecast(record, trained, data, first.date(), last.date())
    job = trained.job
    labels = {"model": job.model, "training": job.training}
    write_forecasts(
        [table], output, {f"fl_inmetro.{k}": v for k, v in {"run": record.id, **labels}.items()}
    )
    clients = len(data) - len(skipped)
    if as_json:
        result = {
            "file": str(output),
            "run": record.id,
            **labels,
            "clients": clients,
            "rows": table.num_rows,
            "skipped": skipped,
            "simulated": data.manifest.simulated,
        }
        typer.echo(json.dumps(result))
        return
    for name, why in skipped.items():
        typer.echo(text("cli.forecast.skipped", chosen, client=name, why=why), err=True)
    if data.manifest.simulated:
        typer.echo(text("cli.simulated", chosen))
    typer.echo(
        text(
            "cli.forecast.done",
            chosen,
            rows=table.num_rows,
            clients=clients,
            file=output,
            model=job.model,
            training=text(f"cli.training.{job.training}", chosen),
        )
    )


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help=text("cli.score.file"))],
    source: Source,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    lang: Lang = None,
) -> None:
    """Score any file of forecasts against readings."""
    import json

    from fl_inmetro import forecasting
    from fl_inmetro.metrics import client_scores

    chosen = language(lang)
    data = _load(source, config, overrides)
    scores, sums = forecasting.score_file(file, data)
    if as_json:
        per_client = {name: _finite(client_scores(s)) for name, s in sums.items()}
        result = {
            "file": str(file),
            "simulated": data.manifest.simulated,
            "scores": _finite(scores),
            "clients": per_client,
        }
        typer.echo(json.dumps(result))
        return
    from rich.console import Console

    from fl_inmetro.cli.tables import fleet_table

    if data.manifest.simulated:
        typer.echo(text("cli.simulated", chosen))
    Console().print(fleet_table(scores, chosen))


def _load(source: str, config: Path | None, overrides: list[str] | None) -> FederatedData:
    from fl_inmetro.config import load
    from fl_inmetro.data.load import load as load_data
    from fl_inmetro.data.load import settings_for

    run_config = load(config, overrides or [])
    return load_data(settings_for(source, run_config.data), run_config.seed)


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in scores.items()}

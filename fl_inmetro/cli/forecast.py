"""`fl-inmetro forecast` and `fl-inmetro score`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.i18n import language, number, text

if TYPE_CHECKING:
    from fl_inmetro.config import RunConfig
    from fl_inmetro.data.series import FederatedData
    from fl_inmetro.runs.record import RunRecord

Source = Annotated[str, typer.Option("--data", metavar="SOURCE", help=text("cli.forecast.data"))]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=text("cli.forecast.config"))
]


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

    _ordered(first, last)
    _parquet(output)
    from fl_inmetro import forecasting
    from fl_inmetro.runs.forecasts import save_forecasts
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    trained = trained_model(record, model, training)
    data = _load(source, config, overrides, record)
    made = forecasting.forecast(record, trained, data, first.date(), last.date())
    job = trained.job
    labels = {"model": job.model, "training": job.training}
    metadata = {f"fl_inmetro.{key}": value for key, value in {"run": record.id, **labels}.items()}
    save_forecasts([made.table], output, metadata)
    clients = len(data) - len(made.skipped)
    if as_json:
        result = {
            "file": str(output),
            "run": record.id,
            **labels,
            "clients": clients,
            "rows": made.table.num_rows,
            "issues": made.issues,
            "skipped": dict(made.skipped),
            "incomplete": dict(made.incomplete),
            "stale_h": dict(made.stale_h),
            "simulated": data.manifest.simulated,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    for name, why in made.skipped.items():
        typer.echo(text("cli.forecast.skipped", chosen, client=name, why=why), err=True)
    for name, issues in made.incomplete.items():
        lacks = text("cli.forecast.incomplete", chosen, client=name, n=issues, of=made.issues)
        typer.echo(lacks, err=True)
    for name, hours in made.stale_h.items():
        typer.echo(text("cli.forecast.stale", chosen, client=name, hours=hours), err=True)
    if data.manifest.simulated:
        typer.echo(text("cli.simulated", chosen))
    typer.echo(
        text(
            "cli.forecast.done",
            chosen,
            rows=number(made.table.num_rows, 0, chosen),
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
    from fl_inmetro.cli.tables import fleet_table, plain_scores, print_whole
    from fl_inmetro.metrics import client_scores

    chosen = language(lang)
    data = _load(source, config, overrides)
    scores, sums = forecasting.score_file(file, data)
    if as_json:
        per_client = {name: plain_scores(client_scores(s)) for name, s in sums.items()}
        result = {
            "file": str(file),
            "simulated": data.manifest.simulated,
            "scores": plain_scores(scores),
            "clients": per_client,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    unmet = [name for name, s in sums.items() if not s.n]
    if unmet:
        some = ", ".join(unmet[:3]) + (" …" if len(unmet) > 3 else "")
        typer.echo(text("cli.score.unmet", chosen, n=len(unmet), clients=some), err=True)
    if data.manifest.simulated:
        typer.echo(text("cli.simulated", chosen))
    print_whole(fleet_table(scores, chosen), Console(highlight=False))


def _load(
    source: str,
    config: Path | None,
    overrides: list[str] | None,
    record: RunRecord | None = None,
) -> FederatedData:
    """Load a source as `config` says; without one, as the run read its data."""
    from fl_inmetro.config import load
    from fl_inmetro.config.load import override
    from fl_inmetro.data.load import load as load_data
    from fl_inmetro.data.load import settings_for

    if config is None and record is not None:
        settings = override(_for_any_client(record.config, source), overrides or [])
    else:
        settings = load(config, overrides or [])
    return load_data(settings_for(source, settings.data), settings.seed)


def _for_any_client(config: RunConfig, source: str) -> RunConfig:
    """Lift what chose the run's clients: others, and younger ones, may be forecast too.

    Units, clock, cleaning and named columns stay; the layout of another file is looked at anew.
    """
    from fl_inmetro.config.schema import Data

    data = config.data
    update = {
        "clients": (),
        "exclude": (),
        "max_clients": None,
        "cleaning": data.cleaning.model_copy(update={"min_days": 0}),
        "source": data.source if source == data.source else Data().source,
    }
    return config.model_copy(update={"data": data.model_copy(update=update)})


def _parquet(output: Path) -> None:
    # A folder is refused where it is written to, with a better reason.
    if output.suffix.lower() not in (".parquet", ".pq") and not output.is_dir():
        from fl_inmetro.errors import ConfigError, Fault

        raise ConfigError(
            Fault(
                "FL108",
                "forecasts are written as Parquet",
                f"-o {output}",
                f"name it {output.with_suffix('.parquet').name}",
            )
        )


def _ordered(first: datetime, last: datetime) -> None:
    if last < first:
        from fl_inmetro.errors import ConfigError, Fault

        raise ConfigError(
            Fault(
                "FL107",
                "the last day lies before the first",
                f"--from {first:%Y-%m-%d} --to {last:%Y-%m-%d}",
                f"exchange them: --from {last:%Y-%m-%d} --to {first:%Y-%m-%d}",
            )
        )

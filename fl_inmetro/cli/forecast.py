"""`fl-inmetro forecast` and `fl-inmetro score`."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from fl_inmetro.config import RunConfig
    from fl_inmetro.data.series import FederatedData
    from fl_inmetro.forecasting import Forecasts
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
    new: Annotated[
        list[str] | None,
        typer.Option("--new", metavar="CLIENT=KWH", help=text("cli.forecast.new")),
    ] = None,
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
    years = _years(new or [])
    from fl_inmetro import forecasting
    from fl_inmetro.runs.forecasts import save_forecasts
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    trained = trained_model(record, model, training)
    data = load_source(source, config, overrides, record)
    fallback = _settings(config, overrides, record, source).fallback
    days = (first.date(), last.date())
    made = forecasting.forecast(record, trained, data, *days, fallback, years)
    job = trained.job
    labels = {"model": job.model, "training": job.training}
    metadata = {f"fl_inmetro.{key}": value for key, value in {"run": record.id, **labels}.items()}
    save_forecasts([made.table], output, metadata)
    clients = len({*data, *years}) - len(made.skipped)
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
            "methods": dict(made.methods),
            "reasons": dict(made.reasons),
            "simulated": data.manifest.simulated,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    for name, why in made.skipped.items():
        typer.echo(text("cli.forecast.skipped", chosen, client=name, why=why), err=True)
    for name, issues in made.incomplete.items():
        lacks = text("cli.forecast.incomplete", chosen, client=name, n=issues, of=made.issues)
        typer.echo(lacks, err=True)
    _tell_stale(made, chosen)
    if made.reasons:
        _tell_who(made, f"{job.model}/{job.training}", chosen)
    if data.manifest.simulated:
        typer.echo(text("cli.simulated", chosen))
    typer.echo(
        text(
            "cli.forecast.done",
            chosen,
            n=number(sum(made.methods.values()), 0, chosen),
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
    data = load_source(source, config, overrides)
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


def load_source(
    source: str,
    config: Path | None,
    overrides: list[str] | None,
    record: RunRecord | None = None,
) -> FederatedData:
    """Load a source as `config` says; without one, as the run read its data."""
    from fl_inmetro.data.load import load as load_data
    from fl_inmetro.data.load import settings_for

    settings = _settings(config, overrides, record, source)
    return load_data(settings_for(source, settings.data), settings.seed)


def _settings(
    config: Path | None, overrides: list[str] | None, record: RunRecord | None, source: str
) -> RunConfig:
    from fl_inmetro.config import load
    from fl_inmetro.config.load import override

    if config is None and record is not None:
        return override(_for_any_client(record.config, source), overrides or [])
    return load(config, overrides or [])


def _years(given: list[str]) -> dict[str, float]:
    """Return clients and the energy of their year, kWh.

    Raises:
        ConfigError: FL222, of all that are no such pair.
    """
    from fl_inmetro.errors import ConfigError, Fault

    years: dict[str, float] = {}
    faults: list[Fault] = []
    for pair in given:
        name, _, energy = pair.rpartition("=")
        try:
            kwh = float(energy)
        except ValueError:
            kwh = math.nan
        if name and name not in years and 0 < kwh < math.inf:
            years[name] = kwh
            continue
        what = "named twice" if name in years else "no client and a number of kWh above 0"
        hint = "write for example --new house-7=3200"
        faults.append(Fault("FL222", f"`--new` is {what}", f"--new {pair}", hint))
    if faults:
        raise ConfigError(faults)
    return years


def _tell_who(made: Forecasts, model: str, chosen: Language) -> None:
    """Say how many forecasts are not the model's, why, and whose they are."""
    why = ", ".join(
        text("cli.forecast.why", chosen, reason=reason, words=_words(reason, chosen), n=n)
        for reason, n in made.reasons.items()
    )
    total = sum(made.methods.values())
    n = total - made.methods.get(model, 0)
    typer.echo(text("cli.forecast.instead", chosen, n=n, of=total, model=model, why=why), err=True)
    for method, count in made.methods.items():
        if method != model:
            typer.echo(text("cli.forecast.method", chosen, method=method, n=count), err=True)


def _words(reason: str, chosen: Language) -> str:
    """Return what a value of the file's column `reason` means."""
    return text(f"cli.reason.{reason}", chosen)


def _tell_stale(made: Forecasts, chosen: Language) -> None:
    """Say whose readings end a day or more before the last issue time, and how many days."""
    late: dict[int, list[str]] = {}
    for name, hours in made.stale_h.items():
        late.setdefault(hours, []).append(name)
    for hours, names in sorted(late.items()):
        count = number(hours / 24, 0 if hours % 24 == 0 else 1, chosen)
        days = text(f"cli.forecast.{'a_day' if hours == 24 else 'days'}", chosen, n=count)
        some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        said = text("cli.forecast.stale", chosen, n=len(names), clients=some, days=days)
        typer.echo(said, err=True)


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

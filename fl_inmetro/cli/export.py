"""`fl-inmetro export`: a run's model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fl_inmetro.cli.options import AsJson, Lang, Runs
from fl_inmetro.i18n import language, text


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.onnx", help=text("export.out"))
    ],
    model: Annotated[str | None, typer.Option(help=text("cli.forecast.model"))] = None,
    training: Annotated[str | None, typer.Option(help=text("cli.forecast.training"))] = None,
    client: Annotated[str, typer.Option("--client", metavar="ID", help=text("export.client"))] = "",
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Write a model as ONNX, checked by onnxruntime."""
    import json

    _onnx(output)
    from fl_inmetro.exported import export as write
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run
    from fl_inmetro.trained import trained_model

    chosen = language(lang)
    record = RunRecord.open(find_run(runs, run))
    trained = trained_model(record, model, training)
    made = write(record, trained, output, client)
    job = trained.job
    if as_json:
        result = {
            "run": record.id,
            "model": job.model,
            "training": job.training,
            "client": client or None,
            "files": [str(file) for file in made.files],
            "weights": list(made.weights),
            "recipe": None if made.recipe is None else str(made.recipe),
            "largest_gap": made.largest_gap,
            "calibrated": made.calibrated,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    if made.calibrated:
        typer.echo(text("export.uncalibrated", chosen), err=True)
    for file, weight in zip(made.files, made.weights, strict=True):
        typer.echo(text("export.file", chosen, file=file, weight=f"{weight:.3g}"))
    if made.recipe is not None:
        typer.echo(text("export.recipe", chosen, file=made.recipe))
    training_text = text(f"cli.training.{job.training}", chosen)
    gap = f"{made.largest_gap:.1e}"
    typer.echo(text("export.done", chosen, model=job.model, training=training_text, gap=gap))


def _onnx(output: Path) -> None:
    # A folder is refused where it is written to, with a better reason.
    if output.suffix.lower() != ".onnx" and not output.is_dir():
        from fl_inmetro.errors import ConfigError, Fault

        hint = f"name it {output.with_suffix('.onnx').name}"
        raise ConfigError(Fault("FL108", "models are exported as ONNX", f"-o {output}", hint))

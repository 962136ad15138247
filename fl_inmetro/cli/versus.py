"""`fl-inmetro runs test`: whether a row is better than another by more than chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fl_inmetro.cli.runs import ROOT, JsonOption, RunArgument, RunsOption
from fl_inmetro.i18n import Language, language, text

if TYPE_CHECKING:
    from fl_inmetro.runs.versus import Versus

Other = Annotated[str | None, typer.Argument(metavar="[RUN_B]", help=text("runs.test.other"))]
Model = Annotated[str | None, typer.Option("--model", help=text("runs.test.model"))]
Training = Annotated[str | None, typer.Option("--training", help=text("runs.test.training"))]
AgainstModel = Annotated[
    str | None, typer.Option("--against-model", help=text("runs.test.against_model"))
]
AgainstTraining = Annotated[
    str | None, typer.Option("--against-training", help=text("runs.test.against_training"))
]


def versus_command(
    run: RunArgument,
    other: Other = None,
    model: Model = None,
    training: Training = None,
    against_model: AgainstModel = None,
    against_training: AgainstTraining = None,
    runs: RunsOption = ROOT,
    as_json: JsonOption = False,
) -> None:
    """Test two rows against each other.

    Without a second run the two rows are of one run, the second its best baseline if nothing else
    is said; with one, the second is the row of the same name.
    """
    from fl_inmetro.runs import RunRecord, find_run
    from fl_inmetro.runs.versus import entry_of, versus

    first = RunRecord.open(find_run(runs, run))
    second = first if other is None else RunRecord.open(find_run(runs, other))
    ours = entry_of(first, model, training)
    if other is not None or against_model or against_training:
        # What is not said of the second row is as in the first; a baseline has one training only.
        if against_training is None:
            bare = against_model is not None and against_model != ours.model
            against_training = None if bare else ours.training
        theirs = entry_of(second, against_model or ours.model, against_training)
    else:
        theirs = entry_of(second, rival=True)
    found = versus(first, ours, second, theirs)
    if as_json:
        import json

        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        _print(found, language())


def _print(found: Versus, lang: Language) -> None:
    from fl_inmetro.report.words import line_label, percent, ratio, significant, whole

    share = 100 * found.difference / found.other_nmae if found.other_nmae else float("nan")
    entries = (("A", found.ours, found.nmae), ("B", found.theirs, found.other_nmae))
    labels = {key: line_label(entry.model, entry.training, lang) for key, entry, _ in entries}
    width = max(map(len, labels.values()))
    for key, entry, nmae in entries:
        typer.echo(f"{key}  {labels[key]:<{width}}  nMAE {ratio(nmae, lang)}  {entry.run}")
    typer.echo()
    lines = (
        ("difference", f"{ratio(found.difference, lang)} ({percent(share, lang)})"),
        ("interval", f"{ratio(found.low, lang)} … {ratio(found.high, lang)}"),
        ("p_value", significant(found.p_value, lang)),
        (
            "based_on",
            text(
                "runs.test.counts",
                lang,
                points=whole(found.points, lang),
                clients=whole(found.clients, lang),
                days=whole(found.days, lang),
            ),
        ),
    )
    names = {key: text(f"runs.test.{key}", lang) for key, _ in lines}
    wide = max(map(len, names.values()))
    for key, value in lines:
        typer.echo(f"{names[key]:<{wide}}  {value}")
    better = "a" if found.difference < 0 else "b"
    typer.echo(text(f"runs.test.{'clear_' + better if found.clear else 'unclear'}", lang))

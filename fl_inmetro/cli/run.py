"""`fl-inmetro run` and `fl-inmetro compare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

from fl_inmetro.cli.options import AsJson, Lang, Overrides, Runs
from fl_inmetro.i18n import Language, language, text

if TYPE_CHECKING:
    from fl_inmetro.runs.record import RunRecord

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="CONFIG.toml", help=text("cli.run.config"))
]
Seed = Annotated[int | None, typer.Option(help=text("cli.run.seed"))]
Resume = Annotated[bool, typer.Option("--resume", help=text("cli.run.resume"))]
Debug = Annotated[bool, typer.Option("--debug", help=text("cli.run.debug"))]


def run(
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
    resume: Resume = False,
    debug: Debug = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Train one model and score it beside the baselines."""
    _carry_out("run", config, overrides, seed, as_json, resume, debug, runs, language(lang))


def compare(
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
    resume: Resume = False,
    debug: Debug = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Train every learner local-only, federated and centralised, and print the table."""
    _carry_out("compare", config, overrides, seed, as_json, resume, debug, runs, language(lang))


def _carry_out(
    kind: Literal["run", "compare"],
    file: Path | None,
    overrides: list[str] | None,
    seed: int | None,
    as_json: bool,
    resume: bool,
    debug: bool,
    root: Path,
    lang: Language,
) -> None:
    from fl_inmetro.config import load

    config = load(file, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])
    from fl_inmetro import session
    from fl_inmetro.cli.progress import Display, stop_on_interrupt
    from fl_inmetro.federation.grids import Interrupted
    from fl_inmetro.report.html import write
    from fl_inmetro.runs.record import RunRecord

    command = ["fl-inmetro", kind, *([str(file)] if file else [])]
    command += [word for override in overrides or [] for word in ("--set", override)]
    command += [] if seed is None else ["--seed", str(seed)]
    command += [] if root == Path("runs") else ["--runs", str(root)]
    with Display(lang) as display, stop_on_interrupt(display.stopping) as should_stop:
        try:
            if resume:
                unfinished = session.find_unfinished(config, kind, root)
                path = session.resume(unfinished, display, should_stop, debug=debug)
            elif config.engine == "flower":
                path = session.start_on_flower(
                    config, kind, root, display.say, should_stop, debug=debug
                )
            else:
                path = session.start(config, kind, root, display, should_stop, debug=debug)
        except (Interrupted, KeyboardInterrupt):
            resumable = config.engine != "flower"
            display.interrupted(shlex.join([*command, "--resume"]) if resumable else None)
            raise typer.Exit(130) from None
    record = RunRecord.open(path)
    report = write(record, path / "report.html", lang)
    if as_json:
        _print_json(record, report)
    else:
        follow = _next(record, file, root, overrides or [])
        _print_end(record, report, [text(f"cli.next.{kind}", lang), *follow], lang)


def _next(record: RunRecord, file: Path | None, root: Path, overrides: Sequence[str]) -> list[str]:
    """Return commands that work as they stand: look, compare, forecast the test window."""
    runs = [] if root == Path("runs") else ["--runs", str(root)]
    data, window = record.manifest["data"], record.manifest["window"]
    source = record.config.data.path or data["source"]
    settings = ["--config", str(file)] if file else []
    zone = ZoneInfo(window["timezone"])
    first, last = (
        str(datetime.fromisoformat(window["test"][key]).astimezone(zone).date())
        for key in ("first_issue_utc", "last_issue_utc")
    )
    commands = [["runs", "show", record.id, *runs]]
    if record.kind == "run":
        again = [word for one in overrides for word in ("--set", one)]
        commands.append(["compare", *([str(file)] if file else []), *again, *runs])
    by_parts = record.config.partition.kind != "natural" and record.config.training == "local"
    if record.kind == "run" and by_parts:  # no model is any meter's
        return [f"  {shlex.join(['fl-inmetro', *command])}" for command in commands]
    # The other keys are the run's; these say what is read.
    about = [one for one in overrides if one.startswith("data.") and "data.path" not in one]
    settings += [word for one in about for word in ("--set", one)]
    asked = ["--data", source, *settings, "--from", first, "--to", last]
    commands.append(["forecast", "--run", record.id, *runs, *asked, "-o", "forecast.parquet"])
    return [f"  {shlex.join(['fl-inmetro', *command])}" for command in commands]


def _print_json(record: RunRecord, report: Path) -> None:
    import json

    from fl_inmetro.cli.tables import plain_scores

    result: dict[str, Any] = {
        "run": record.id,
        "path": str(record.path),
        "report": str(report),
        "status": record.status,
        "simulated": bool(record.manifest["data"].get("simulated")),
        "rows": [plain_scores(row) for row in record.scores()],
    }
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def _print_end(record: RunRecord, report: Path, next_lines: Sequence[str], lang: Language) -> None:
    from rich.console import Console

    from fl_inmetro.cli.tables import print_scores

    console = Console()
    if record.manifest["data"].get("simulated"):
        console.print(text("cli.simulated", lang), style="bold yellow")
    print_scores(record.scores(), lang)
    own = [
        text("cli.run.own_code", lang, module=module, file=place["file"])
        for module, place in record.manifest.get("own_code", {}).items()
    ]
    # Names and paths are no markup, and whole lines can be copied.
    for line in (*own, text("cli.run.report", lang, path=report), *next_lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)

"""`fl-inmetro privacy audit`: canaries through the parts of a private run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang, Runs
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from fl_inmetro.audited import Audited

#: Exit code when something speaks against the claim; no error has it.
REFUTED = 11


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help=text("cli.forecast.run"))],
    releases: Annotated[
        int, typer.Option("--releases", min=20, help=text("privacy.audit.releases"))
    ] = 2000,
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
    lang: Lang = None,
) -> None:
    """Look whether canaries find less noise than a run claims."""
    chosen = language(lang)
    from fl_inmetro.audited import audit_run
    from fl_inmetro.plan import prepare
    from fl_inmetro.report.privacy import account_of
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.runs.shelf import find_run

    record = RunRecord.open(find_run(runs, run))
    account = account_of(record)
    clients = list(prepare(record.config).clients.values())
    found = audit_run(record.config, account, clients, releases)
    holds = all(one.audit.holds for one in found)
    if as_json:
        parts = [
            {"model": one.model, "part": one.part, "holds": one.audit.holds, **_plain(one)}
            for one in found
        ]
        result = {
            "run": record.id,
            "protect": record.config.privacy.protect,
            "holds": holds,
            "parts": parts,
        }
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        models = {one.model for one in found}
        for one in found:
            of = f"{one.model}: " if len(models) > 1 else ""
            typer.echo(of + _said(one, chosen))
        typer.echo(text(f"privacy.audit.{'holds' if holds else 'refuted'}", chosen))
        typer.echo(text("privacy.audit.limits", chosen))
    if not holds:
        raise typer.Exit(REFUTED)


# ------------------------------------------------------------------------------ internals
def _plain(one: Audited) -> dict[str, Any]:
    """Return the figures; None for those that are not finite, which JSON has not."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in asdict(one.audit).items()
    }


def _said(one: Audited, lang: Language) -> str:
    found = one.audit
    return text(
        f"privacy.audit.part.{one.part}",
        lang,
        claimed=number(found.claimed_epsilon, 2, lang),
        bound=number(found.lower_bound, 2, lang),
        noise=number(found.noise, 3, lang),
        error=number(found.noise_error, 3, lang),
        of=number(found.claimed_noise, 3, lang),
        scores=number(found.scores, 0, lang),
    )

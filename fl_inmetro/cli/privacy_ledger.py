"""`fl-inmetro privacy ledger`: show, verify and export what was released."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.i18n import Language, text

if TYPE_CHECKING:
    from fl_inmetro.errors import Fault
    from fl_inmetro.privacy.ledger import Contents, Entry
    from fl_inmetro.privacy.mechanism import Events
    from fl_inmetro.privacy.totals import Total

app = typer.Typer(help=text("ledger.help"), no_args_is_help=True)

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help=text("ledger.path"))]
AnyArgument = Annotated[Path, typer.Argument(metavar="PATH", help=text("ledger.path_or_export"))]
JsonOption = Annotated[bool, typer.Option("--json", help=text("ledger.json"))]

_COLUMNS = (
    "sequence",
    "at_utc",
    "run",
    "round",
    "attempt",
    "what",
    "mechanism",
    "noise_multiplier",
    "sensitivity",
    "sampling",
    "sampling_rate",
    "times",
    "subject",
    "epsilon",
)
_WORDS = {"at_utc", "run", "what", "mechanism", "sampling", "subject"}


@app.command("show", help=text("ledger.show"))
def show(
    path: PathArgument,
    last: Annotated[int, typer.Option("--last", min=0, help=text("ledger.last"))] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the releases of ledgers; each is checked while it is read."""
    from fl_inmetro.privacy.ledger import find_ledgers, read_ledger

    ledgers = [read_ledger(one) for one in find_ledgers(path)]
    if as_json:
        return _print_json({"ledgers": [_plain(one, last) for one in ledgers]})
    for count, one in enumerate(ledgers):
        if count:
            typer.echo()
        _show_one(one, last)
    return None


@app.command("verify", help=text("ledger.verify"))
def verify(
    path: AnyArgument,
    against: Annotated[Path | None, typer.Option(help=text("ledger.against"))] = None,
    public_key: Annotated[str | None, typer.Option(help=text("ledger.public_key"))] = None,
    as_json: JsonOption = False,
) -> None:
    """Check ledgers (all of a folder, whatever is wrong with one), or an export."""
    from fl_inmetro.errors import PrivacyError
    from fl_inmetro.privacy.ledger import find_ledgers, read_ledger
    from fl_inmetro.privacy.signed import check_export, compare_with_export

    if path.suffix == ".json":
        return _verify_export(path, public_key, as_json)
    export = None if against is None else check_export(against, public_key)
    whole: list[Contents] = []
    faults: list[Fault] = []
    for file in find_ledgers(path):
        try:
            whole.append(read_ledger(file))
        except PrivacyError as error:
            faults += error.faults
    if export is not None and not faults:
        try:
            compare_with_export(whole, export)
        except PrivacyError as error:
            faults += error.faults
    if as_json:
        _print_json(
            {
                "ok": not faults,
                "ledgers": [_summary(one) for one in whole],
                "faults": [{"code": f.code, "what": f.what, "where": f.where} for f in faults],
            }
        )
    else:
        for one in whole:
            typer.echo(
                text("ledger.say.whole", name=_name(one), entries=len(one.bodies), hash=one.hash)
            )
            _say_torn(one)
        if export is not None and not faults:
            typer.echo(text("ledger.say.compared", count=len(export.ledgers), made=export.made_utc))
    if faults:
        raise PrivacyError(faults)
    return None


@app.command("export", help=text("ledger.export"))
def export(
    path: PathArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help=text("ledger.out"))] = Path(
        "ledger-export.json"
    ),
    key: Annotated[Path | None, typer.Option(help=text("ledger.key"))] = None,
    statement: Annotated[Path | None, typer.Option(help=text("ledger.statement_out"))] = None,
) -> None:
    """Write ledgers that verify as one signed document, and a statement of them."""
    from fl_inmetro.privacy import statement as words
    from fl_inmetro.privacy.ledger import find_ledgers, read_ledger
    from fl_inmetro.privacy.signed import sign, signing_key, write_document

    ledgers = [read_ledger(one) for one in find_ledgers(path)]
    document = sign(ledgers, signing_key(key))
    written = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_document(out, written.encode("utf-8"))
    typer.echo(text("ledger.say.exported", path=out))
    if statement is not None:
        page = words.statement(ledgers, document["content"]["made_utc"], document["public_key"])
        write_document(statement, page.encode("utf-8"))
        typer.echo(text("ledger.say.statement", path=statement))
    typer.echo(text("ledger.say.key", signer=document["public_key"]))


# ------------------------------------------------------------------------------ internals
def _verify_export(path: Path, public_key: str | None, as_json: bool) -> None:
    from fl_inmetro.privacy.signed import check_export

    found = check_export(path, public_key)
    if as_json:
        ledgers = [
            {
                "federation": one.owner.federation,
                "client": one.owner.client,
                "entries": one.head.entries,
                "hash": one.head.hash,
            }
            for one in found.ledgers
        ]
        return _print_json(
            {
                "ok": True,
                "made_utc": found.made_utc,
                "public_key": found.public_key,
                "ledgers": ledgers,
            }
        )
    typer.echo(text("ledger.say.signature", made=found.made_utc, signer=found.public_key))
    if public_key is None:
        typer.echo(text("ledger.say.signer_unknown"), err=True)
    for one in found.ledgers:
        name = _owner(one.owner.federation, one.owner.client)
        typer.echo(
            text("ledger.say.whole", name=name, entries=one.head.entries, hash=one.head.hash)
        )
    return None


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False))


def _owner(federation: str, client: str | None) -> str:
    if client is None:
        return text("ledger.say.of_federation", federation=federation)
    return text("ledger.say.of_client", federation=federation, client=client)


def _name(one: Contents) -> str:
    return _owner(one.owner.federation, one.owner.client)


def _say_torn(one: Contents) -> None:
    if one.torn_bytes:
        typer.echo(text("ledger.say.torn", count=one.torn_bytes), err=True)


def _summary(one: Contents) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "federation": one.owner.federation,
        "client": one.owner.client,
        "opened_utc": one.opened_utc,
        "entries": len(one.bodies),
        "hash": one.hash,
        "torn_bytes": one.torn_bytes,
    }


def _plain(one: Contents, last: int) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **_summary(one),
        "spent": [asdict(part) for part in _spent(one)],
        "together": [
            {**asdict(total), "epsilon": total.epsilon if math.isfinite(total.epsilon) else None}
            for total in _totals(one)
        ],
        "releases": [_row(entry) for entry in _latest(one.entries, last)],
    }


def _spent(one: Contents) -> Events:
    """Return what an accountant can count of a ledger."""
    from fl_inmetro.privacy.release import COUNTED, spending

    releases = [entry.release for entry in one.entries]
    return spending(release for release in releases if release.mechanism == COUNTED)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "at_utc": entry.at_utc,
        "attempt": entry.attempt,
        "account": list(entry.account),
        **entry.release.to_json(),
    }


def _latest(entries: Sequence[Entry], last: int) -> Sequence[Entry]:
    return entries[-last:] if last else entries


def _show_one(one: Contents, last: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fl_inmetro.cli.tables import print_whole
    from fl_inmetro.i18n import language, number
    from fl_inmetro.privacy.release import COUNTED
    from fl_inmetro.privacy.statement import figure, named_in

    lang = language()
    typer.echo(_name(one))
    typer.echo(text("ledger.say.opened", opened=one.opened_utc, releases=len(one.entries)))
    for part in _spent(one):
        typer.echo(
            text(
                "ledger.say.spent",
                mechanism=named_in("mechanism", COUNTED, lang),
                noise=figure(part.noise_multiplier, lang),
                sampling=text(f"ledger.sampling.{part.sampling}"),
                rate=figure(part.sampling_rate, lang),
                times=number(part.times, 0, lang),
            )
        )
    for total in _totals(one):
        typer.echo(
            text(
                "ledger.say.total",
                epsilon=figure(total.epsilon, lang),
                delta=figure(total.delta, lang),
                who=text(f"ledger.subject.{total.subject}"),
                releases=number(total.releases, 0, lang),
            )
        )
    shown = _latest(one.entries, last)
    if len(shown) < len(one.entries):
        typer.echo(text("ledger.say.earlier", count=len(one.entries) - len(shown)))
    if shown:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in _COLUMNS:
            justify: Any = "left" if name in _WORDS else "right"
            table.add_column(text(f"ledger.column.{name}"), no_wrap=True, justify=justify)
        for entry in shown:
            table.add_row(*(Text(cell) for cell in _cells(entry, lang)))
        # A pipe has no width: nothing is cut there.
        print_whole(table, Console() if sys.stdout.isatty() else Console(width=10_000))
    _say_torn(one)


def _cells(entry: Entry, lang: Language) -> list[str]:
    from fl_inmetro.privacy.statement import figure, named_in

    row = _row(entry)
    scopes = {one["scope"]: text(f"ledger.short.{one['scope']}") for one in entry.account}
    noted = [f"{figure(one['epsilon'], lang)} ({scopes[one['scope']]})" for one in entry.account]
    row["epsilon"] = ", ".join(noted) or "–"
    row |= {name: named_in(name, row[name], lang) for name in ("what", "mechanism")}
    row["sampling"] = named_in("drawn", row["sampling"], lang)
    row["subject"] = named_in("unit", row["subject"], lang)
    return [figure(row[n], lang) if isinstance(row[n], float) else str(row[n]) for n in _COLUMNS]


def _totals(one: Contents) -> Sequence[Total]:
    """Return what a ledger's releases cost together; nothing where that cannot be counted."""
    from fl_inmetro.errors import PrivacyError
    from fl_inmetro.privacy.totals import totals

    try:
        return totals(one)
    except PrivacyError as error:
        if error.faults[0].code != "FL403":
            raise
        return ()

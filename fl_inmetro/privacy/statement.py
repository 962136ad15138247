"""A statement of ledgers for an encarregado (LGPD) or another reader who is no programmer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fl_inmetro.errors import PrivacyError
from fl_inmetro.i18n import Language, catalogue, number, text
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.ledger import Contents, Entry
from fl_inmetro.privacy.release import Release
from fl_inmetro.privacy.totals import totals

LANGUAGES: tuple[Language, ...] = ("pt-BR", "en")


def statement(ledgers: Sequence[Contents], made_utc: str, public_key: str) -> str:
    """Return the statement in Markdown, Portuguese first, then English.

    Args:
        ledgers: Ledgers that were read and checked.
        made_utc: When the signed export beside it was made.
        public_key: Key that signed that export, base64.
    """
    parts = [_one_language(ledgers, made_utc, public_key, lang) for lang in LANGUAGES]
    return "\n---\n\n".join(parts)


# ------------------------------------------------------------------------------ internals
def _one_language(
    ledgers: Sequence[Contents], made_utc: str, public_key: str, lang: Language
) -> str:
    def say(key: str, **values: object) -> str:
        return text(f"ledger.statement.{key}", lang, **values)

    lines = [f"# {say('title')}", "", say("made", made=made_utc), "", say("what"), ""]
    for one in ledgers:
        lines += [*_one_ledger(one, lang), ""]
    lines += [f"## {say('shows_head')}", ""]
    lines += [f"- {say(f'shows.{key}')}" for key in ("whole", "before", "signed")]
    lines += ["", f"## {say('shows_not_head')}", ""]
    lines += [
        f"- {say(f'shows_not.{key}')}"
        for key in ("complete", "names", "noise", "rollback", "epsilon", "clock", "law")
    ]
    lines += ["", f"## {say('check_head')}", "", say("check", signer=public_key), ""]
    lines += [say("personal"), ""]
    return "\n".join(lines)


def _one_ledger(one: Contents, lang: Language) -> list[str]:
    def say(key: str, **values: object) -> str:
        return text(f"ledger.statement.{key}", lang, **values)

    owner = one.owner
    federation = _plain(owner.federation)
    if owner.client is None:
        title = say("of_federation", federation=federation)
    else:
        title = say("of_client", federation=federation, client=_plain(owner.client))
    releases = [entry.release for entry in one.entries]
    lines = [f"## {title}", ""]
    if not releases:
        lines.append(say("nothing", opened=one.opened_utc))
    else:
        lines += [
            say(
                "count",
                releases=number(len(releases), 0, lang),
                runs=number(len({release.run for release in releases}), 0, lang),
                first=one.entries[0].at_utc,
                last=one.entries[-1].at_utc,
            ),
            "",
            *_table(releases, lang),
            "",
            *_accounts(one, lang),
            *_totals(one, lang),
        ]
    return [*lines, "", say("hash", entries=number(len(one.bodies), 0, lang), hash=one.hash)]


def _table(releases: Sequence[Release], lang: Language) -> list[str]:
    def say(key: str) -> str:
        return text(f"ledger.statement.{key}", lang)

    counts: dict[tuple[Any, ...], list[int]] = {}
    for one in releases:
        first = (one.what, one.mechanism, one.noise_multiplier, one.sensitivity, one.sampling)
        key = (*first, one.sampling_rate, one.group, one.subject, one.relation)
        found = counts.setdefault(key, [0, 0])
        found[0] += 1
        found[1] += one.times
    heads = ("what_left", "mechanism", "noise", "clip", "sampling", "protects", "releases", "times")
    lines = [
        "| " + " | ".join(say(f"column.{head}") for head in heads) + " |",
        "|" + "---|" * len(heads),
    ]
    for (
        what,
        mechanism,
        noise,
        clip,
        sampling,
        rate,
        group,
        subject,
        relation,
    ), found in counts.items():
        drawn = text(f"ledger.sampling.{sampling}", lang)
        share = f"{drawn}, {figure(100 * rate, lang)} %" if sampling != "all" else drawn
        who = text(f"ledger.subject.{subject}", lang)
        how = text(f"ledger.relation.{relation}", lang)
        named = [named_in("what", what, lang), named_in("mechanism", mechanism, lang)]
        cells = [*map(_plain, named), figure(noise, lang), figure(clip, lang), share]
        many = f"; {text('ledger.group', lang, count=number(group, 0, lang))}" if group > 1 else ""
        cells += [f"{who} ({how}{many})", *(number(count, 0, lang) for count in found)]
        lines.append("| " + " | ".join(cells) + " |")
    if any(one.noise_multiplier == 0 for one in releases):
        lines += ["", f"**{say('without_noise')}**"]
    return lines


def _accounts(one: Contents, lang: Language) -> list[str]:
    """Return what the last release of each scope was counted as, as it was noted then."""
    last: dict[tuple[str, str, float, str], tuple[dict[str, Any], Entry]] = {}
    for entry in one.entries:
        for noted in entry.account:
            run = entry.release.run if noted["scope"] == "run" else ""
            key = (noted["scope"], run, noted["delta"], noted["accountant"])
            last[key] = (noted, entry)
    if not last:
        return [text("ledger.statement.no_account", lang)]
    lines = []
    for noted, entry in last.values():
        run = entry.release.run
        said = text(
            "ledger.statement.account",
            lang,
            scope=text(f"ledger.scope.{noted['scope']}", lang, run=_plain(run)),
            epsilon=figure(noted["epsilon"], lang),
            limit=figure(noted["limit"], lang),
            delta=figure(noted["delta"], lang),
            accountant=_plain(noted["accountant"]),
            who=text(f"ledger.subject.{entry.release.subject}", lang),
        )
        later = sum(
            other.sequence > entry.sequence
            and (noted["scope"] != "run" or other.release.run == run)
            for other in one.entries
        )
        if later:
            count = number(later, 0, lang)
            said += " " + text("ledger.statement.uncounted", lang, count=count)
        lines.append(f"- {said}")
    return lines


def _totals(one: Contents, lang: Language) -> list[str]:
    """Return what all that is written costs together, counted for the statement."""
    try:
        found = totals(one)
    except PrivacyError as error:
        if error.faults[0].code != "FL403":
            raise
        return ["", text("ledger.statement.no_total", lang)]
    return [
        "- "
        + text(
            "ledger.statement.total",
            lang,
            who=text(f"ledger.subject.{total.subject}", lang),
            releases=number(total.releases, 0, lang),
            epsilon=figure(total.epsilon, lang),
            delta=figure(total.delta, lang),
            accountant=f"dp-accounting {accountant.version()}",
        )
        for total in found
    ]


def named_in(table: str, name: str, lang: Language) -> str:
    """Return the reader's word for what left, or for a mechanism; an unknown one as it is."""
    known = catalogue("ledger", lang)[table]
    return str(known.get(name, name))


def figure(value: float, lang: Language) -> str:
    """Write a number with four significant digits and the language's decimal mark."""
    if math.isinf(value):
        return "∞"
    written = f"{value:.4g}"
    return written if lang == "en" else written.replace(".", ",")


def _plain(value: str) -> str:
    """Keep a name from being read as Markdown: names are whatever a user wrote."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~&" else c for c in value)

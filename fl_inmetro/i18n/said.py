"""Sentences that data and runs carry with them: kept in English, shown in the reader's language.

What cleaning found, what a run notes of its privacy, what a reader assumed and why a client was
left out is written into JSON and into runs, in English. `told` finds the message that such a
sentence was made of and says it anew.
"""

from __future__ import annotations

import re
import string
from functools import cache

from fl_inmetro.i18n import Language, catalogue, language, text

_DECIMAL = re.compile(r"-?\d+\.\d+")


def said(key: str, **values: object) -> str:
    """Return the English sentence of `key` (table `said` of `data.toml`)."""
    return text(f"data.said.{key}", "en", **values)


def told(sentence: str, lang: Language | None = None) -> str:
    """Return a sentence that `said` made in another language; one that it did not, as it is.

    >>> told("5 gaps, longest 2.5 h", "pt-BR")
    '5 lacunas, a maior de 2,5 h'
    """
    lang = lang or language()
    if lang == "en":
        return sentence
    for key, pattern in _patterns():
        if found := pattern.fullmatch(sentence):
            values = {
                # A meaning is a sentence itself.
                name: told(value, lang) if name == "meaning" else _number(value)
                for name, value in found.groupdict().items()
            }
            return text(f"data.said.{key}", lang, **values)
    return sentence


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Return what each message looks like; those that say most by themselves come first."""
    found: list[tuple[int, str, re.Pattern[str]]] = []
    for key, message in catalogue("data", "en")["said"].items():
        parts = list(string.Formatter().parse(message))
        pattern = "".join(
            re.escape(literal) + (f"(?P<{name}>.+?)" if name else "") for literal, name, *_ in parts
        )
        size = sum(len(literal) for literal, *_ in parts)
        found.append((-size, key, re.compile(pattern, re.DOTALL)))
    return [(key, pattern) for _, key, pattern in sorted(found, key=lambda one: one[:2])]


def _number(value: str) -> str:
    """Write a decimal mark as a comma; names, dates and zones stay as they are."""
    return value.replace(".", ",") if _DECIMAL.fullmatch(value) else value

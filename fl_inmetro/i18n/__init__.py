"""Messages in Brazilian Portuguese and English, from one TOML catalogue per area and language.

`text("report.title")` looks up `title` in `i18n/<language>/report.toml`; a dotted key may go deeper
(`report.figure.loss.caption`). A contract test holds the two languages to the same keys.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Language = Literal["en", "pt-BR"]

_FOLDERS: dict[Language, str] = {"en": "en", "pt-BR": "pt_br"}


def language(wanted: str | None = None) -> Language:
    """Choose the language: `wanted`, else FL_INMETRO_LANG, else the locale, else English."""
    variables = ("FL_INMETRO_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    names = [wanted, *(os.environ.get(variable) for variable in variables)]
    chosen = next((name for name in names if name), "en")
    return "pt-BR" if chosen.lower().startswith("pt") else "en"


def text(key: str, lang: Language | None = None, **values: object) -> str:
    """Return the message of `key`, with `{name}` places filled from `values`.

    Raises:
        KeyError: No such message (a fault of ours: the contract test finds it).
    """
    area, *path = key.split(".")
    message: Any = catalogue(area, lang or language())
    for part in path:
        message = message[part]
    return str(message).format(**values) if values else str(message)


@cache
def catalogue(area: str, lang: Language) -> dict[str, Any]:
    """Return the whole catalogue of an area, as nested tables."""
    source = files(__package__).joinpath(_FOLDERS[lang], f"{area}.toml")
    return tomllib.loads(source.read_text(encoding="utf-8"))


def number(value: float, digits: int, lang: Language | None = None) -> str:
    """Write a number with the language's decimal and thousands marks.

    >>> number(1234.5, 2, "pt-BR")
    '1.234,50'
    """
    english = f"{value:,.{digits}f}"
    if (lang or language()) == "en":
        return english
    return english.translate(str.maketrans(",.", ".,"))

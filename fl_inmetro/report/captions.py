"""Titles, notes and column heads of the report, by key."""

from __future__ import annotations

from html import escape

from fl_inmetro.i18n import Language, text
from fl_inmetro.report.markup import Column, pairs


def columns(keys: tuple[str, ...], lang: Language) -> list[Column]:
    """Return the table columns of `keys`; those that hold words are set left-aligned."""
    words = {"model", "training", "client", "code", "reason"}
    return [Column(text(f"report.column.{k}", lang), numeric=k not in words) for k in keys]


def facts(section: str, rows: list[tuple[str, str]], lang: Language) -> str:
    """Return a table of names and values; empty values are left out."""
    caption = text(f"report.section.{section}", lang)
    return pairs(caption, [(text(f"report.item.{k}", lang), v) for k, v in rows if v])


def figure_title(key: str, lang: Language) -> str:
    """Return the title of a figure."""
    return text(f"report.figure.{key}", lang)


def note(key: str, lang: Language, **values: object) -> str:
    """Return what a reader must know to read a figure."""
    return text(f"report.note.{key}", lang, **values)


def table_title(key: str, lang: Language) -> str:
    """Return the caption of a figure's table."""
    return text("report.table_of", lang, name=figure_title(key, lang))


def nothing(lang: Language) -> str:
    """Return the sentence that stands where nothing was recorded."""
    return f'<p class="note">{escape(text("report.no_figure", lang))}</p>\n'

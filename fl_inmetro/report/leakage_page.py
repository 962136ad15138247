"""The page of an attack on a run's updates."""

from __future__ import annotations

from pathlib import Path

from fl_inmetro.i18n import Language, text
from fl_inmetro.report.html import banner, page
from fl_inmetro.report.leakage import Found, columns, notes, sentences, subject
from fl_inmetro.report.markup import bullets, table
from fl_inmetro.runs.layout import write_whole


def write(found: Found, path: Path, lang: Language) -> Path:
    """Write the page to a file and return its path.

    Raises:
        RunError: FL704 when the place cannot be written.
    """
    write_whole(path, render(found, lang).encode())
    return path


def render(found: Found, lang: Language) -> str:
    """Return the page of what `fl-inmetro privacy attack --json` prints."""
    said = bullets([subject(found, lang), *sentences(found, lang)])
    parts = [("meaning", said.replace("<ul>", '<ul class="answer">', 1))]
    for kind, (heads, rows) in columns(found, lang).items():
        caption = text(f"leakage.caption.{kind}", lang)
        parts.append((kind, table(caption, heads, rows) if rows else ""))
    parts.append(("reading", bullets(notes(found, lang))))
    titled = [(key, text(f"leakage.section.{key}", lang), body) for key, body in parts]
    banners = ""
    if found["simulated"]:
        banners = banner(text("report.simulated", lang), text("report.simulated_text", lang))
    return page(text("leakage.title", lang), found["run"], titled, lang, banners)

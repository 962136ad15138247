"""`fl-inmetro explain CODE`: what an error means and what cures it."""

from __future__ import annotations

import typer

from fl_inmetro.cli.options import Lang
from fl_inmetro.i18n import catalogue, language, text


def explain(
    code: str = typer.Argument(..., help=text("cli.explain.code")),
    lang: Lang = None,
) -> None:
    """Print the page of an error code."""
    chosen = language(lang)
    pages = catalogue("errors", chosen)
    page = pages.get(code.upper())
    if page is None:
        import difflib

        asked = code.upper()
        begins = sorted(name for name in pages if len(asked) > 2 and name.startswith(asked))
        near = begins[:5] or difflib.get_close_matches(asked, pages, n=3)
        known = ", ".join(near or sorted(pages))
        typer.echo(text("cli.explain.unknown", chosen, code=code, known=known), err=True)
        raise typer.Exit(2)
    typer.echo(f"{code.upper()}: {page['title']}\n\n{page['meaning']}\n\n{page['cure']}")

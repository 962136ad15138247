"""The one place that mends Typer: under Click 8.5, Typer before 0.21 loses the help of arguments.

Its `TyperArgument` sets `help` and then calls Click's constructor, which has known a `help` of its
own since 8.5 and sets it to None. Flower holds Typer below 0.21.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument


class _Argument(TyperArgument):
    """An argument that keeps its help."""

    def __init__(self, *, help: str | None = None, **rest: Any) -> None:
        super().__init__(help=help, **rest)
        self.help = help


def keep_help_of_arguments() -> None:
    """Make Typer build arguments that keep their help; harmless when repeated."""
    import typer.main

    typer.main.TyperArgument = _Argument  # type: ignore[attr-defined,misc,unused-ignore]

"""The one place that mends Typer: help that is whole, printed once, and fast.

Flower holds Typer below 0.21, which meets Click 8.5 with three flaws. Its `TyperArgument` sets
`help` and then calls Click's constructor, which has known a `help` of its own since 8.5 and sets it
to None. Where arguments have help, both list them. And wherever Rich is installed it escapes
brackets for Rich and imports it for every help, which doubles the time to the first line.
"""

from __future__ import annotations

from typing import Any

import typer.core
import typer.main
from typer.core import TyperArgument, TyperCommand


class _Argument(TyperArgument):
    """An argument that keeps its help."""

    def __init__(self, *, help: str | None = None, **rest: Any) -> None:
        super().__init__(help=help, **rest)
        self.help = help


def _nothing(*_: object) -> None:
    """Stand in for Click's list of arguments; Typer prints its own."""


def mend_help() -> None:
    """Mend Typer for this process; harmless when repeated."""
    patches: tuple[tuple[Any, str, Any], ...] = (
        (typer.core, "HAS_RICH", False),
        (typer.main, "TyperArgument", _Argument),
        (TyperCommand, "format_arguments", _nothing),
    )
    for owner, name, value in patches:
        setattr(owner, name, value)

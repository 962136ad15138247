"""Code of the user's own, by import path."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_inmetro.errors import FlInmetroError

#: What went wrong, where, and what would help → the error to raise.
Failure = Callable[[str, str, str], FlInmetroError]


def imported(path: str, failure: Failure) -> Any:
    """Return what `package.module:name` names, also from the current directory.

    Raises:
        FlInmetroError: What `failure` makes: there is no such module or name, or the module fails.
    """
    module_name, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: nothing that is installed is hidden by a file that lies here
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # One that the user's own module asks for is missing in another way.
        own = module_name == error.name or module_name.startswith(f"{error.name}.")
        hint = f"start in the directory that has it, or install it: searched {here} too"
        what = f"there is no module `{error.name}`"
        raise failure(what, "" if own else place_of(error), hint) from error
    except Exception as error:  # a user's module may raise anything
        what = f"the module fails: {said_by(error)}"
        raise failure(what, place_of(error), "it must import without an error") from error
    if not hasattr(module, name):
        hint = "`package.module:name` names a function or class at the top of its module"
        raise failure(f"the module has no `{name}`", str(module.__file__ or module_name), hint)
    return getattr(module, name)


def said_by(error: Exception) -> str:
    """Return kind and text of an error."""
    return f"{type(error).__name__}: {error}"


def place_of(error: Exception) -> str:
    """Return file and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}"

"""Code of the user's own, by import path: found beside the configuration that names it."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fl_inmetro.errors import FlInmetroError

if TYPE_CHECKING:
    from fl_inmetro.config.schema import RunConfig

#: What went wrong, where, and what would help → the error to raise.
Failure = Callable[[str, str, str], FlInmetroError]

#: First part of a module's name → the folder of the configuration, or of the run, that names it.
_FOLDERS: dict[str, str] = {}
#: What we put on the search path ourselves: all else there counts as installed.
_OURS: set[str] = set()
#: First part of a module's name → the file that we took it from.
_TAKEN: dict[str, str] = {}


def imported(path: str, failure: Failure) -> Any:
    """Return what `package.module:name` names.

    Looked through in this order: what is installed, the folder that `search_beside` or
    `search_again` gave for it, the current directory.

    Raises:
        FlInmetroError: What `failure` makes: there is no such module or name, or the module fails.
    """
    module_name, _, name = path.partition(":")
    folders = _search(module_name)
    importlib.invalidate_caches()
    try:
        module = _module(module_name, folders)
    except ModuleNotFoundError as error:
        # One that the user's own module asks for is missing in another way.
        own = module_name == error.name or module_name.startswith(f"{error.name}.")
        hint = f"put it beside the TOML file, or install it: searched {' and '.join(folders)} too"
        what = f"there is no module `{error.name}`"
        raise failure(what, "" if own else place_of(error), hint) from error
    except Exception as error:  # a user's module may raise anything
        what = f"the module fails: {said_by(error)}"
        raise failure(what, place_of(error), "it must import without an error") from error
    if not hasattr(module, name):
        hint = "`package.module:name` names a function or class at the top of its module"
        raise failure(f"the module has no `{name}`", str(module.__file__ or module_name), hint)
    return getattr(module, name)


def search_beside(config: RunConfig, folder: Path) -> None:
    """Look for the modules that a configuration names in the folder of its file."""
    for module_name in named_in(config):
        _FOLDERS[_top(module_name)] = str(folder.resolve())


def search_again(kept: Mapping[str, Mapping[str, str]]) -> None:
    """Look for modules where a run had them: `kept` is what `places` said when it began."""
    for module_name, place in kept.items():
        if place.get("folder"):
            _FOLDERS[_top(module_name)] = place["folder"]


def places(config: RunConfig) -> dict[str, dict[str, str]]:
    """Say where each module that a configuration names is taken from; nothing is imported.

    Returns:
        Module to `file`, its `sha256`, and the `folder` that has to be searched for it (without
        one for an installed module). A module that is not there is left out: its learner, rule or
        strategy says so when it is made.
    """
    found: dict[str, dict[str, str]] = {}
    for module_name in named_in(config):
        for folder in (None, *_search(module_name)):
            file = _file(module_name, _installed_path() if folder is None else [folder])
            if file is None:
                continue
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            kept = {} if folder is None else {"folder": folder}
            found[module_name] = {"file": str(file), "sha256": digest, **kept}
            break
    return found


def named_in(config: RunConfig) -> list[str]:
    """Return the modules that a configuration names: of its network, its rule, its strategy."""
    named = (config.models.own.network, config.strategy.rule, config.strategy.name)
    return list(dict.fromkeys(path.partition(":")[0] for path in named if path and ":" in path))


def said_by(error: Exception) -> str:
    """Return kind and text of an error."""
    return f"{type(error).__name__}: {error}"


def place_of(error: Exception) -> str:
    """Return file and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}"


# ------------------------------------------------------------------------------ internals
def _top(module_name: str) -> str:
    return module_name.partition(".")[0]


def _search(module_name: str) -> list[str]:
    """Return the folders to look in after what is installed, the first first."""
    beside = _FOLDERS.get(_top(module_name))
    return list(dict.fromkeys([*([beside] if beside else []), str(Path.cwd())]))


def _installed_path() -> list[str]:
    return [entry for entry in sys.path if entry not in _OURS]


def _module(module_name: str, folders: list[str]) -> ModuleType:
    """Import a module; one that an earlier configuration had from elsewhere makes way."""
    # Last: nothing that is installed is hidden by a file that lies in one of the folders.
    installed = _installed_path()
    more = [folder for folder in folders if folder not in installed]
    _OURS.update(more)
    sys.path[:] = [*installed, *more]
    top = _top(module_name)
    spec = PathFinder.find_spec(top, sys.path)
    origin = _origin(spec)
    if top in _TAKEN and origin and _TAKEN[top] != origin:
        for loaded in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[loaded]
    module = importlib.import_module(module_name)
    if origin and any(Path(origin).is_relative_to(folder) for folder in more):
        _TAKEN[top] = origin
    return module


def _file(module_name: str, path: list[str]) -> Path | None:
    """Return the file of a module of a search path, without running any of its packages."""
    spec: ModuleSpec | None = None
    where: list[str] | None = path
    name = ""
    for part in module_name.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, where)
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or ())
    origin = _origin(spec)
    return Path(origin) if origin else None


def _origin(spec: ModuleSpec | None) -> str | None:
    """Return the file a module would be read from; None for a folder without `__init__.py`."""
    return spec.origin if spec is not None and spec.has_location else None

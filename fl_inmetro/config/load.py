"""Read, check, override, freeze and hash a `RunConfig`; all faults at once, with lines."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from fl_inmetro.config import own_code
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import ConfigError, Fault

_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+)\s*=")


def load(path: Path | None, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file (None = all defaults) and apply `table.key=value` overrides.

    Relative paths of `[data]` and `[data.covariates]` are taken from the folder of the file; code
    of the user's own is looked for there too (see `own_code`).

    Raises:
        ConfigError: FL100 file, FL101 syntax, FL102 keys or values, FL104 override.
    """
    raw: dict[str, Any] = {}
    lines: list[str] = []
    if path is not None:
        raw, lines = _read(path)
    said = tuple(overrides)
    for item in said:
        _apply(raw, item)
    data = raw.get("data")
    if path is not None and isinstance(data, dict):
        for table in (data, data.get("covariates")):
            if isinstance(table, dict) and isinstance(table.get("path"), str):
                table["path"] = str((path.parent / table["path"]).resolve())
    config = check(raw, str(path) if path else "--set", lines, said)
    if path is not None:
        own_code.search_beside(config, path.parent)
    return config


def override(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Return `config` with `table.key=value` overrides applied.

    Raises:
        ConfigError: FL102 keys or values, FL104 override.
    """
    raw = config.model_dump(mode="json")
    said = tuple(overrides)
    for item in said:
        _apply(raw, item)
    return check(raw, "--set", overrides=said)


def check(
    raw: Mapping[str, Any],
    name: str = "config",
    lines: list[str] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Turn plain data into a `RunConfig`.

    `name` and `lines` say where the data come from, `overrides` which were said on the command
    line; errors point there.

    Raises:
        ConfigError: FL102, one fault per wrong key or value.
    """
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        said = {_split(item.partition("=")[0]): item for item in overrides}
        faults = [_fault(item, name, lines or [], said) for item in error.errors(include_url=False)]
        raise ConfigError(faults) from None


def frozen_json(config: RunConfig) -> str:
    """Return the effective configuration as canonical JSON (sorted keys, no spaces)."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def config_hash(config: RunConfig) -> str:
    """Return the first 12 hex digits of the SHA-256 of `frozen_json`."""
    return hashlib.sha256(frozen_json(config).encode()).hexdigest()[:12]


def to_toml(config: RunConfig) -> str:
    """Write the effective configuration as TOML that `load` reads back to an equal value."""
    lines: list[str] = []
    _write_table(lines, (), config.model_dump(mode="json", exclude_none=True))
    return "\n".join(lines).strip() + "\n"


# ------------------------------------------------------------------------------ internals
def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(
            Fault(
                "FL100",
                f"cannot read the configuration: {reason}",
                str(path),
                "start from one of `examples/*.toml`",
            )
        ) from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{found.group(1)}" if found else str(path)
        raise ConfigError(
            Fault("FL101", f"not valid TOML: {error}", place, 'strings need quotes: name = "x"')
        ) from None
    return _underscored(raw, str(path)), text.splitlines()


def _underscored(value: Any, name: str) -> Any:
    """Spell every key with underscores, so that `fraction-fit` and `fraction_fit` are one key."""
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        plain = key.replace("-", "_")
        if plain in result:
            raise ConfigError(
                Fault("FL102", f"`{plain}` is given twice, with - and with _", name, "keep one")
            )
        result[plain] = _underscored(item, name)
    return result


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = [part.strip().replace("-", "_") for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(
            Fault(
                "FL104",
                f"`{override}` is not an override",
                f"--set {override}",
                "write table.key=value, for example --set federation.num-server-rounds=5",
            )
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word: --set model=ridge
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(
                Fault("FL104", f"`{part}` is a value, not a table", f"--set {override}", "")
            )
    table[parts[-1]] = _underscored(value, f"--set {override}")


def _fault(
    item: Mapping[str, Any],
    name: str,
    lines: list[str],
    overrides: Mapping[tuple[str, ...], str],
) -> Fault:
    location = [str(part) for part in item["loc"]]
    dotted = ".".join(location) or "the file"
    place = _place(location, name, lines, overrides)
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        return Fault("FL102", f"`{dotted}` is not a key of the configuration", place, hint)
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = item.get("input")
    given = f" (given: {shown!r})" if isinstance(shown, str | int | float | bool) else ""
    what = f"`{dotted}`: {message[:1].lower()}{message[1:]}{given}"
    return Fault("FL102", what, place, _value_hint(location, item))


def _place(
    location: list[str],
    name: str,
    lines: list[str],
    overrides: Mapping[tuple[str, ...], str],
) -> str:
    """Return the override that set the value, else its line in the file, else its dotted name."""
    for key, override in overrides.items():
        if key and tuple(location[: len(key)]) == key:
            return f"--set {override}"
    line = _line_of(location, lines)
    dotted = ".".join(location) or "the file"
    return f"{name}:{line}  {lines[line - 1].strip()}" if line else f"{name}  {dotted}"


def _value_hint(location: list[str], item: Mapping[str, Any]) -> str:
    """Return what would work in place of a wrong value: the nearest word, or the default."""
    if item["type"] == "literal_error":
        words = re.findall(r"'([^']+)'", str(item["ctx"]["expected"]))
        near = difflib.get_close_matches(str(item.get("input")), words, n=1)
        if near:
            return f"did you mean `{near[0]}`?"
    # An element of a list is at fault as a part of the list.
    path = [part for part in location if not part.isdigit()]
    model = _table_of(path[:-1])
    field = model.model_fields.get(path[-1]) if model and path else None
    if field is None or field.is_required():
        return ""
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, BaseModel):
        return ""
    return f"the default is {_toml_value(to_jsonable_python(default))}"


def _table_of(path: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _known_keys(path: list[str]) -> list[str]:
    model = _table_of(path)
    return sorted(model.model_fields) if model else []


def _line_of(location: list[str], lines: list[str]) -> int:
    """Find the line of the longest known prefix of `location`; 0 when no line has one."""
    table: tuple[str, ...] = ()
    best, best_depth = 0, 0
    for number, line in enumerate(lines, start=1):
        header = _TABLE.match(line)
        key = _KEY.match(line)
        if header:
            table = _split(header.group(1))
            here = table
        elif key:
            here = table + _split(key.group(1))
        else:
            continue
        # `[a.b]` is also the first line of `a`, when `a` as a whole is at fault.
        depth = min(len(here), len(location))
        if tuple(location[:depth]) == here[:depth] and depth > best_depth:
            best, best_depth = number, depth
    return best


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'").replace("-", "_") for part in dotted.split("."))


def _write_table(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    if path and plain:
        lines += ["", f"[{'.'.join(path)}]"]
    lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            _write_table(lines, (*path, key), value)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON leaves DEL as it is, TOML does not allow it.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value)

"""Two languages with the same messages, a page for every error code, and no private places."""

import ast
import re
import string
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fl_inmetro.i18n import catalogue

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fl_inmetro"
AREAS = sorted(path.stem for path in (PACKAGE / "i18n" / "en").glob("*.toml"))

CODE = re.compile(r"\bFL\d{3}\b")


def flat(table: dict[str, Any], path: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        found |= flat(value, name) if isinstance(value, dict) else {name: str(value)}
    return found


def places(message: str) -> list[str]:
    """The `{name}` places of a message, with their formats."""
    parsed = string.Formatter().parse(message)
    return sorted(f"{name}:{spec}" for _, name, spec, _ in parsed if name is not None)


def codes_of_the_package() -> set[str]:
    """Codes in string constants of the code that are not docstrings."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, documented)
            and node.body
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node not in docstrings
            ):
                found |= set(CODE.findall(node.value))
    return found


# ------------------------------------------------------------------------------ languages
def test_both_languages_have_the_same_areas():
    assert sorted(path.stem for path in (PACKAGE / "i18n" / "pt_br").glob("*.toml")) == AREAS
    assert {"cli", "errors"} <= set(AREAS)


@pytest.mark.parametrize("area", AREAS)
def test_both_languages_say_the_same(area):
    english, portuguese = flat(catalogue(area, "en")), flat(catalogue(area, "pt-BR"))
    assert english.keys() == portuguese.keys()
    for key, message in english.items():
        assert message.strip(), key
        assert portuguese[key].strip(), key
        if area != "errors":  # pages are printed as they are, braces included
            assert places(message) == places(portuguese[key]), key


# ---------------------------------------------------------------------------- error pages
@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_every_code_has_a_page_and_every_page_is_used(language):
    pages = catalogue("errors", language)
    codes = codes_of_the_package()
    assert len(codes) > 30
    assert codes - set(pages) == set(), "codes without a page"
    assert set(pages) - codes == set(), "pages that nothing leads to"
    for code, page in pages.items():
        assert set(page) == {"title", "meaning", "cure"}, code
        assert not page["title"].endswith("."), code
        assert all(page[part].endswith((".", "?", "`")) for part in ("meaning", "cure")), code


def test_codes_lie_in_the_blocks_of_their_errors():
    """1xx ConfigError, 2xx DataError, 3xx FederationError, 7xx RunError: read from the raises."""
    blocks = {"ConfigError": "1", "DataError": "2", "FederationError": "3", "RunError": "7"}
    # The engine is a setting, so what it cannot do is an error of the configuration.
    elsewhere = {("ConfigError", "FL306")}
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            kind = getattr(getattr(node, "func", None), "id", None)
            if kind not in blocks:
                continue
            for inner in ast.walk(node):
                value = inner.value if isinstance(inner, ast.Constant) else None
                if isinstance(value, str) and CODE.fullmatch(value):
                    seen.add(value)
                    right = value[2] == blocks[kind] or (kind, value) in elsewhere
                    assert right, f"{path}:{inner.lineno}: {kind} with {value}"
    assert len(seen) > 20


def test_a_code_has_one_meaning():
    """No code is raised by two packages, except those whose page speaks of both."""
    shared = {
        "FL205": "an empty client or source, found on reading or on splitting",
        "FL206": "too little history, found on reading, splitting or forecasting",
        "FL207": "resolutions and grids that do not fit",
        "FL213": "a value of later than the issue time: a reading, or an observed covariate",
        "FL703": "a damaged run: its files, or weights that are gone",
    }
    raised: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if getattr(getattr(node, "func", None), "id", None) == "Fault" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    place = "/".join(parts[:2]) if parts[0] == "data" else parts[0]
                    raised.setdefault(first.value, set()).add(place)
    several = {code for code, where in raised.items() if len(where) > 1}
    # Sources and cleaning find the same faults of the same files, and say them alike.
    readers = {"data/sources", "data/cleaning", "data/load.py", "data/readings.py"}
    readers |= {"data/surroundings.py"}
    unexplained = {c for c in several - set(shared) if not raised[c] <= readers}
    assert not unexplained, {code: raised[code] for code in unexplained}


# -------------------------------------------------------------------------- private places
def tracked_text() -> list[tuple[str, str]]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    found = []
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".parquet", ".gz", ".png", ".woff2"):
            found.append((name, path.read_text(encoding="utf-8", errors="ignore")))
    return found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_tracked_file_knows_the_machine_it_was_written_on():
    private = re.compile(
        r"(?<![\w.])/(?:home|Users|root|work|workspace)/\w+|(?<![\w.])/tmp/[a-z]/|[A-Z]:\\\\Users"
    )
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_text()
        if name != "tests/contracts/test_messages.py"
        for match in private.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_the_project_says_its_version_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    from fl_inmetro import __version__

    assert project["version"] == __version__

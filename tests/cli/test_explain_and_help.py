"""`fl-inmetro explain`, the help of every command in both languages, and a light start."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from fl_inmetro import __version__
from fl_inmetro.i18n import catalogue
from tests.cli.command_line import ROOT, call, environment

#: Prints the help of every command as JSON; in a process of its own, for help is read at import.
HELP = """
import json, sys, click, typer
from typer.testing import CliRunner
from fl_inmetro.cli.app import app
def walk(command, path=()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))
found = []
for path, command in walk(typer.main.get_command(app)):
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="fl-inmetro")
    found.append({
        "command": " ".join(path), "code": result.exit_code, "text": result.output,
        "silent": [p.name for p in command.params if not getattr(p, "help", None)],
        "options": [o for p in command.params for o in p.opts if o.startswith("--")],
    })
print(json.dumps(found))
"""

COMMANDS = {
    "", "run", "compare", "forecast", "score", "explain", "report",
    "data", "data check", "data describe", "data ls",
    "runs", "runs ls", "runs show", "runs compare", "runs test", "runs rm",
    "attack", "backtest", "coldstart", "convergence", "data partition", "drift", "export",
    "importance", "reconcile", "ev", "ev compare", "privacy", "privacy audit", "privacy attack",
    "privacy budget",
    "privacy ledger", "privacy ledger show", "privacy ledger verify", "privacy ledger export",
}  # fmt: skip


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=environment(**env), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module", params=["en", "pt-BR"])
def helps(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, object]]]:
    return request.param, json.loads(
        python(HELP, FL_INMETRO_LANG=request.param, NO_COLOR="1", COLUMNS="80")
    )


def test_every_command_has_help_in_both_languages(helps):
    lang, found = helps
    assert {one["command"] for one in found} == COMMANDS
    for one in found:
        assert one["code"] == 0, one
        assert f"Usage: fl-inmetro {one['command']}".rstrip() in one["text"]
        assert one["silent"] == [], one["command"]
        assert "\x1b" not in one["text"]
        # No sentence is cut in a list, nothing is escaped, arguments are listed once.
        assert not re.search(r"[a-zà-ú]\.\.\.$", one["text"], re.MULTILINE), one["command"]
        assert "\\" not in one["text"]
        assert "Positional arguments" not in one["text"]
        # An option that is cut off or swallowed as markup would not be found.
        for option in one["options"]:
            assert option in one["text"], (one["command"], option)
    pages = {one["command"]: " ".join(one["text"].split()) for one in found}
    for name in ("run", "compare", "forecast", "score"):
        assert catalogue("cli", lang)[name]["help"] in pages[name]
    assert catalogue("explain", lang)["help"] in pages["explain"]
    told = catalogue("cli", lang)["forecast"]["config"]
    assert "[data]" in told  # and is not taken for markup
    assert told in pages["forecast"]


def test_version_and_no_arguments():
    assert call("--version").out == f"fl-inmetro {__version__}\n"
    bare = call()
    assert bare.code == 2
    assert "Usage" in bare.out + bare.err


@pytest.mark.parametrize(
    "words", [["nonsense"], ["run", "--nonsense"], ["explain"], ["score"], ["run", "--lang", "xx"]]
)
def test_wrong_command_lines_end_with_two(words):
    answer = call(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_explain_prints_title_meaning_and_cure_in_the_language_asked_for():
    for lang in ("en", "pt-BR"):
        page = catalogue("errors", lang)["FL206"]
        expected = f"FL206: {page['title']}\n\n{page['meaning']}\n\n{page['cure']}\n"
        assert call("explain", "fl206", "--lang", lang).out == expected
        assert call("explain", "FL206", FL_INMETRO_LANG=lang).out == expected
    assert call("explain", "FL206", "--lang", "pt").out != call("explain", "FL206").out


def test_an_unknown_code_names_the_nearest():
    answer = call("explain", "FL20")
    assert (answer.code, answer.out) == (2, "")
    assert "There is no page for FL20." in answer.err
    assert re.search(r"Known: .*FL20\d", answer.err)


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_every_code_that_is_raised_has_a_whole_page(lang):
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "fl_inmetro").rglob("*.py")
    )
    raised = set(re.findall(r"\"(FL\d{3})\b|error\[(FL\d{3})\]", sources))
    codes = {code for pair in raised for code in pair if code}
    assert {"FL102", "FL212", "FL900"} <= codes
    pages = catalogue("errors", lang)
    assert codes - set(pages) == set()
    assert all(pages[code][part] for code in codes for part in ("title", "meaning", "cure"))


def test_nothing_heavy_is_imported_before_a_command_runs():
    heavy = "torch flwr numpy pandas pyarrow pydantic plotly safetensors sqlite3"
    code = (
        "import sys; from fl_inmetro.cli import main; import fl_inmetro.cli.app;"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    assert python(code).strip() == "[]"

"""What the documents promise exists: commands and options, links, settings, error codes."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import typer
from typer.testing import CliRunner

from fl_inmetro.cli.app import app
from fl_inmetro.config.load import load
from fl_inmetro.i18n import Language, catalogue

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.pt-BR.md")
DOCUMENTS = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^ *```", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.M)
_COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?fl-inmetro(?: |$)")


@dataclass(frozen=True)
class Block:
    """A block of code: fenced (with the word behind the fence) or indented."""

    info: str
    body: str


@dataclass(frozen=True)
class CommandLine:
    """A command as written; one in running text may stop after the command's name."""

    text: str
    whole: bool


def blocks(text: str) -> list[Block]:
    found = []
    for fence in _FENCE.finditer(text):
        indent = len(fence["indent"])
        body = "\n".join(line[indent:] for line in fence["body"].splitlines())
        found.append(Block(fence["info"].strip(), body))
    plain = _FENCE.sub("", text)
    for indented in re.findall(r"(?:^ {4}\S.*\n?(?:^ *\n(?= {4}\S))*)+", plain, re.M):
        found.append(Block("", re.sub(r"^ {4}", "", indented, flags=re.M)))
    return found


def command_lines(text: str) -> list[CommandLine]:
    found = []
    for block in blocks(text):
        joined = block.body.replace("\\\n", " ")
        found += [
            CommandLine(line.strip(), whole=True)
            for line in joined.splitlines()
            if _COMMAND.match(line.strip())
        ]
    prose = _FENCE.sub("", text)
    for span in _SPAN.findall(prose):
        if _COMMAND.match(span):
            found.append(CommandLine(span.replace("\\|", "|"), whole=False))
    return found


def words_of(line: str) -> list[str]:
    """Split a command line; brackets of usage lines (`[--json]`) and ellipses say nothing here."""
    plain = line.removeprefix("$ ").replace("[", " ").replace("]", " ").replace("…", " ")
    return shlex.split(plain, comments=True)[1:]


def faults_of(line: CommandLine) -> list[str]:
    """Return what is wrong with a command line; nothing is executed."""
    root = typer.main.get_command(app)
    command: Any = root
    words = words_of(line.text)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            return [f"there is no command `{name}`"]
        command = command.commands[name]
    options = {
        opt: param
        for param in command.params
        for opt in (*param.opts, *param.secondary_opts)
        if opt.startswith("-")
    }
    names = command.context_settings.get("help_option_names") or ["--help", "-h"]
    known_help = {*names, "--help", "-h"}
    faults, seen, positional = [], set(), 0
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            positional += 1
            continue
        name, equals, value = word.partition("=")
        if name in known_help:
            continue
        if name not in options:
            faults.append(f"`{command.name}` has no option `{name}`")
            continue
        seen.add(options[name].name)
        if not getattr(options[name], "is_flag", False):
            if not equals and not words:
                faults.append(f"`{name}` lacks its value")
                continue
            value = value if equals else words.pop(0)
            if name == "--set":
                faults += faults_of_override(value)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    most = float("inf") if any(a.nargs == -1 for a in arguments) else len(arguments)
    if positional > most:
        faults.append(f"`{command.name}` takes {most} arguments, not {positional}")
    if line.whole:
        if hasattr(command, "commands") and not {"--version"} & set(line.text.split()):
            faults.append("a group of commands, not a command")
        if positional < sum(a.required for a in arguments):
            faults.append(f"`{command.name}` lacks an argument")
        faults += [
            f"`{command.name}` needs `{param.opts[0]}`"
            for param in command.params
            if param.param_type_name == "option" and param.required and param.name not in seen
        ]
    return faults


def faults_of_override(override: str) -> list[str]:
    key = override.partition("=")[0]
    if key in ("A.B", "a.b", "table.key"):  # says the form, names nothing
        return []
    try:
        load(None, [override])
    except Exception as error:
        return [f"--set {override}: {error}"]
    return []


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page as code hosts make them: lower case, dashes, no punctuation."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for _, title in _HEADING.findall(text)
    }


def pages() -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]


@pytest.mark.parametrize("path", pages())
def test_every_command_exists_with_its_options(path: Path) -> None:
    faults = [
        f"{line.text}: {fault}"
        for line in command_lines(path.read_text(encoding="utf-8"))
        for fault in faults_of(line)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", pages())
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        anchored = (
            not anchor or target.suffix != ".md" or (target.exists() and anchor in anchors(target))
        )
        if not target.exists() or not anchored:
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("path", pages())
def test_every_table_of_settings_is_a_configuration(path: Path, tmp_path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        settings = re.match(r"(?:[ \t]*(?:#.*)?\n)*\[[a-z]", block.body)
        if block.info == "toml" or (not block.info and settings):
            file = tmp_path / "run.toml"
            file.write_text(block.body, encoding="utf-8")
            load(file)


@pytest.mark.parametrize("path", pages())
@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_every_error_code_has_a_page(path: Path, lang: Language) -> None:
    codes = set(re.findall(r"\bFL\d{3}\b", path.read_text(encoding="utf-8")))
    assert codes <= set(catalogue("errors", lang))


def test_both_readmes_have_the_same_sections_commands_links_and_settings() -> None:
    english, portuguese = (path.read_text(encoding="utf-8") for path in READMES)
    assert _outline(english) == _outline(portuguese)
    assert command_lines(english) == command_lines(portuguese)
    assert _other_shell_lines(english) == _other_shell_lines(portuguese)
    # Each names the other one; all else that they link to is the same, in the same order.
    linked = [[t for t in _LINK.findall(x) if "README." not in t] for x in (english, portuguese)]
    assert linked[0] == linked[1]
    assert _settings(english) == _settings(portuguese)
    # Two empty lists are equal too.
    assert len(command_lines(english)) > 20
    assert _settings(english)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_file_with_a_decimal_comma_is_read_by_its_command(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that are shown, gone on with for 40 days of 0.35 and 0.30 kWh by turns."""
    text = path.read_text(encoding="utf-8")
    (shown,) = [block.body for block in blocks(text) if block.info == "csv"]
    (line,) = [one.text for one in command_lines(text) if one.whole and "--decimal" in one.text]
    head, *rows = shown.splitlines()
    begin = datetime(2024, 1, 1)
    made = [
        f"casa-1;{begin + timedelta(hours=hour):%d/%m/%Y %H:%M};{'0,30' if hour % 2 else '0,35'}"
        for hour in range(40 * 24)
    ]
    assert made[: len(rows)] == rows
    words = words_of(line)
    (tmp_path / words[2]).write_text("\n".join([head, *made]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, [*words, "--json"])
    assert answer.exit_code == 0, answer.output
    (client,) = json.loads(answer.output)["clients"]
    assert client["client_id"] == "casa-1"
    assert client["valid_steps"] == 40 * 24
    assert client["mean_kw"] == pytest.approx(0.325)
    assert client["start_utc"] == "2024-01-01T03:00:00Z"  # midnight in São Paulo


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=!~ ]", d, maxsplit=1)[0] for d in project["dependencies"]}
    for extra in project["optional-dependencies"].values():
        wanted |= {re.split(r"[<>=!~ ]", d, maxsplit=1)[0] for d in extra}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    assert wanted == {name for name in rows if "/" not in name}  # a path is a shipped file


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "adr"
    records = sorted(path.name for path in folder.glob("0*.md"))
    listed = _LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert records == listed
    for name in records:
        text = (folder / name).read_text(encoding="utf-8")
        parts = [text.find(part) for part in ("**Context.**", "**Decision.**", "**Price.**")]
        assert -1 not in parts
        assert parts == sorted(parts)
        assert "**Revisit**" in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("fl-inmetro rnu x.toml", "no command `rnu`"),
        ("fl-inmetro run --sett a=1", "no option `--sett`"),
        ("fl-inmetro run a.toml b.toml", "takes 1 arguments"),
        ("fl-inmetro run --set modle=ridge", "modle"),
        ("fl-inmetro run --seed", "lacks its value"),
        ("fl-inmetro data check", "lacks an argument"),
        ("fl-inmetro score f.parquet", "needs `--data`"),
        ("fl-inmetro data", "a group"),
    ],
)
def test_a_wrong_command_line_is_found(text: str, fault: str) -> None:
    (line,) = command_lines(f"```sh\n{text}\n```\n")
    assert any(fault in found for found in faults_of(line)), faults_of(line)


def test_blocks_are_found_wherever_they_stand() -> None:
    text = (
        "a\n\n    [data]\n    source = 'x'\n\nb\n\n1. c\n\n   ```toml\n   [x]\n   y = 1\n   ```\n"
    )
    assert [(b.info, b.body.strip()) for b in blocks(text)] == [
        ("toml", "[x]\ny = 1"),
        ("", "[data]\nsource = 'x'"),
    ]


def test_the_command_line_is_made_of_click_commands() -> None:
    assert isinstance(typer.main.get_command(app), click.Command)


# ------------------------------------------------------------------------------ internals
def _outline(text: str) -> list[int]:
    return [len(marks) for marks, _ in _HEADING.findall(_FENCE.sub("", text))]


def _other_shell_lines(text: str) -> list[str]:
    return [
        line.partition("#")[0].strip()
        for block in blocks(text)
        if block.info == "sh"
        for line in block.body.splitlines()
    ]


def _settings(text: str) -> list[dict[str, Any]]:
    return [tomllib.loads(block.body) for block in blocks(text) if block.info == "toml"]

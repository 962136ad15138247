"""What is seen while a run works: lines into a pipe, a live bar that fits on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from fl_inmetro import events as ev
from fl_inmetro.cli.progress import Display
from fl_inmetro.runs.record import RunRecord
from tests.cli.command_line import TINY, call, environment, words_for


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def on_terminal(columns: int, *words: object, **env: str) -> list[str]:
    """Run the command on a terminal of so many columns; return all lines it ever drew."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        words_for(*words),
        env=environment(TERM="xterm-256color", **env),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    raw = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # Linux says so when the last process has closed the terminal
            break
        if not block:
            break
        raw += block
    os.close(master)
    assert process.wait(timeout=60) == 0, raw.decode()
    # Colours, cursor movements and titles draw nothing.
    plain = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)", "", raw.decode())
    return [line for line in re.split(r"[\r\n]+", plain) if line]


def test_a_pipe_gets_one_line_per_round_with_all_that_was_promised(tiny, tmp_path):
    answer = call("run", tiny, "--runs", tmp_path / "runs")
    lines = answer.err.splitlines()
    assert lines[0] == "mlp · federated: 3 clients"
    number = r"\d+\.\d{4}"
    for k, line in enumerate(lines[1:3], start=1):
        assert re.fullmatch(
            rf"round {k}/2  loss {number}  validation nMAE {number}[* ] [\d.]+ k?B  \d+ s left",
            line,
        )
    assert re.fullmatch(rf"mlp · federated  test nMAE {number}", lines[3])
    assert len(lines) == 4
    assert "\x1b" not in answer.err
    # The bytes add up, from enrolment over the rounds, to what the table says was moved.
    sizes = [float(re.findall(r"([\d.]+) kB", line)[0]) for line in lines[1:3]]
    (path,) = (tmp_path / "runs").iterdir()
    moved = RunRecord.open(path).scores()[-1]["bytes"]
    assert 0 < sizes[0] < sizes[1] == pytest.approx(moved / 1000, abs=0.06)


@pytest.mark.parametrize(
    ("columns", "lang", "command", "words"),
    [
        (80, "en", "run", ("loss", "val. nMAE")),
        (80, "pt-BR", "compare", ("perda", "nMAE val.")),
        (120, "pt-BR", "run", ("perda", "nMAE de validação")),
    ],
)
def test_a_terminal_gets_a_bar_that_fits(tiny, tmp_path, columns, lang, command, words):
    more = ("--set", "federation.num-server-rounds=12", "--runs", tmp_path / "runs")
    lines = on_terminal(columns, command, tiny, *more, FL_INMETRO_LANG=lang)
    drawn = [line for line in lines if line.startswith("mlp · ")]
    assert drawn
    assert max(map(cell_len, drawn)) <= columns
    assert not [line for line in drawn if "…" in line]
    number = r"\d[.,]\d{4}"
    state = rf"{words[0]} {number}  {words[1]} {number}[* ] [\d.,]+ k?B"
    assert [line for line in drawn if re.search(rf" \d+/12 +{state} +(\d+:)?[-\d]+:[-\d]+", line)]
    table = lines[lines.index("Test window" if lang == "en" else "Janela de teste") + 1 :]
    rows = [line for line in table if re.match(r"(sn168|mlp)\b", line)]
    assert len(rows) == (4 if command == "compare" else 2)
    assert max(map(cell_len, rows)) <= columns


def test_no_progress_gives_a_terminal_the_lines_of_a_pipe(tiny, tmp_path):
    words = ("run", tiny, "--runs", tmp_path / "runs")
    lines = on_terminal(80, *words, FL_INMETRO_NO_PROGRESS="1")
    assert "mlp · federated: 3 clients" in lines
    assert [line for line in lines if line.startswith("round 2/2  loss ")]
    assert not [line for line in lines if "━" in line]


# ------------------------------------------------------------------------------ in process
def shown(capsys: pytest.CaptureFixture[str], *events: ev.Event) -> list[str]:
    with Display("en") as display:
        for event in events:
            display(event)
    return capsys.readouterr().err.splitlines()


def test_refused_replies_are_shown_five_times_at_most(capsys):
    refused = [ev.ClientRejected(0, 1, f"c{k}", "FL301", "it is NaN") for k in range(9)]
    lines = shown(capsys, *refused)
    assert lines[0] == "reply of c0 in round 1 refused: FL301 it is NaN"
    assert len(lines) == 5


def test_clients_left_out_are_named_five_times_and_warnings_always(capsys):
    notes = [ev.Note("info", f"client c{k} takes no part") for k in range(9)]
    lines = shown(capsys, *notes, ev.Note("warning", "look [here]"))
    assert lines == [*(n.text for n in notes[:5]), "…", "warning: look [here]"]


def test_bytes_and_rounds_begin_anew_with_each_model(capsys):
    lines = shown(
        capsys,
        ev.RunStarted("mlp", "federated", 3, 1, 2),
        ev.RoundFinished(0, 1, 0.5, 0.25, True, 1000, 500, 0.1),
        ev.RoundFinished(0, 2, 0.5, float("nan"), False, 1000, 500, 0.1),
        ev.RunStarted("mlp", "centralised", 3, 1, 2),
        ev.RoundFinished(0, 1, 0.5, 0.25, True, 10, 10, 0.1),
    )
    assert "validation nMAE 0.2500* 1.5 kB" in lines[1]
    assert "validation nMAE –  3.0 kB" in lines[2]
    assert lines[2].endswith("0 s left")
    assert lines[3] == "mlp · centralised: 3 clients"
    # A pooled client sends nothing round by round.
    assert "validation nMAE 0.2500*   0 s left" in lines[4]


def test_local_training_is_one_line_for_all_clients(capsys):
    lines = shown(
        capsys,
        ev.RunStarted("mlp", "local", 2, 2, 1),
        ev.RoundFinished(0, 1, 0.5, 0.25, True, 0, 0, 0.1),
        ev.GroupFinished(0, 1, 0.25),
        ev.RoundFinished(1, 1, 0.5, 0.25, True, 0, 0, 0.1),
        ev.GroupFinished(1, 1, 0.25),
        ev.ModelScored("mlp", "local", {"nmae": 0.3}),
        ev.ModelScored("sn24", "baseline", {"nmae": 0.4}),
    )
    assert lines == ["mlp · local-only: 2 clients", "mlp · local-only  test nMAE 0.3000"]

"""`fl-inmetro privacy ledger`: show, verify and export, with their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.ledger import Ledger, ledger_path
from fl_inmetro.privacy.mechanism import Gaussian
from tests.cli.command_line import call, documented
from tests.privacy.ledgers import FLEET, HOME, ledger, release


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    ledger(tmp_path / "books", 3)
    ledger(tmp_path / "books", 1, HOME)
    return tmp_path / "books"


def test_show(folder: Path) -> None:
    answer = call("privacy", "ledger", "show", folder)
    assert (answer.code, answer.err) == (0, "")
    assert "federation north, client house-7" in answer.out
    said = "spent: Gaussian noise, noise multiplier 1, each drawn by itself, rate 0.1: 3 times"
    assert said in answer.out
    whole = account((Gaussian(1.0, 0.1, 3),), 1e-5).epsilon
    assert f"together: epsilon {whole:.4g} at delta 1e-05 for a client" in answer.out
    lines = [line.split() for line in answer.out.splitlines()]
    (second,) = [line for line in lines if line[:1] == ["3"]]
    words = "r1 1 1 update of a model Gaussian noise 1 0.5 each by itself 0.1 1 client –"
    assert " ".join(second[2:]) == words
    short = call("privacy", "ledger", "show", ledger_path(folder, FLEET), "--last", 1)
    assert "2 earlier releases are not shown" in short.out
    assert not [line for line in short.out.splitlines() if line.split()[:1] == ["3"]]


def test_show_json(folder: Path) -> None:
    answer = call("privacy", "ledger", "show", folder, "--json")
    first, second = json.loads(answer.out)["ledgers"]
    assert sorted(first) == documented("privacy ledger show")
    assert sorted(first["releases"][0]) == documented("privacy ledger show.releases")
    assert (first["client"], second["client"]) == (None, "house-7")
    assert [row["round"] for row in first["releases"]] == [0, 1, 2]
    (whole,) = first["together"]
    assert whole["epsilon"] == account((Gaussian(1.0, 0.1, 3),), 1e-5).epsilon
    (spent,) = first["spent"]
    assert (spent["noise_multiplier"], spent["times"]) == (1.0, 3)


def test_verify(folder: Path) -> None:
    answer = call("privacy", "ledger", "verify", folder)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("unchanged: ") == 2
    found = json.loads(call("privacy", "ledger", "verify", folder, "--json").out)
    assert sorted(found) == documented("privacy ledger verify")
    assert found["ok"]


def test_verify_tells_of_each_broken_ledger(folder: Path) -> None:
    path = ledger_path(folder, FLEET)
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":9'))
    ledger_path(folder, HOME).unlink()
    answer = call("privacy", "ledger", "verify", folder, "--json")
    assert answer.code == 7
    assert [fault["code"] for fault in answer.faults] == ["FL420", "FL420"]
    assert "entry 3 does not follow" in answer.faults[0]["what"]
    found = json.loads(answer.out)
    assert (found["ok"], found["ledgers"], len(found["faults"])) == (False, [], 2)
    for command in ("show", "export"):
        assert call("privacy", "ledger", command, folder).code == 7


def test_a_torn_line_is_mentioned(folder: Path) -> None:
    path = ledger_path(folder, FLEET)
    path.write_bytes(path.read_bytes() + b"torn")
    for command in ("verify", "show"):
        answer = call("privacy", "ledger", command, path)
        assert answer.code == 0
        assert "4 bytes at the end were left by a crash" in answer.err


def test_export_verify_and_compare(folder: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out" / "export.json", tmp_path / "out" / "statement.md"
    answer = call("privacy", "ledger", "export", folder, "-o", out, "--statement", page)
    assert (answer.code, answer.err) == (0, "")
    key = answer.out.splitlines()[-1].removeprefix("Public key: ")
    assert key in page.read_text(encoding="utf-8")
    checked = call("privacy", "ledger", "verify", out, "--public-key", key)
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.count("unchanged: ") == 2
    unknown = call("privacy", "ledger", "verify", out)
    assert unknown.code == 0
    assert "whose key that is" in unknown.err
    found = json.loads(call("privacy", "ledger", "verify", out, "--json").out)
    assert (found["public_key"], len(found["ledgers"])) == (key, 2)
    wrong = call("privacy", "ledger", "verify", out, "--public-key", "A" * 43 + "=")
    assert (wrong.code, wrong.faults[0]["code"]) == (7, "FL425")
    # The ledger goes on; the export stays its beginning.
    Ledger(folder, FLEET).record(release(3))
    against = call("privacy", "ledger", "verify", folder, "--against", out)
    assert (against.code, against.err) == (0, "")
    assert "2 ledgers begin with what was exported" in against.out
    for path in folder.rglob("*.ledger*"):
        path.unlink()
    ledger(folder, 3)
    back = call("privacy", "ledger", "verify", folder, "--against", out)
    assert back.code == 7
    assert {fault["code"] for fault in back.faults} == {"FL428"}


def test_what_is_not_there(tmp_path: Path) -> None:
    for words in (["verify", tmp_path], ["show", tmp_path / "x.ledger"], ["verify", "x.json"]):
        answer = call("privacy", "ledger", *words)
        assert (answer.code, [fault["code"] for fault in answer.faults]) == (7, ["FL427"])


def test_in_portuguese(folder: Path) -> None:
    answer = call("privacy", "ledger", "verify", folder, FL_INMETRO_LANG="pt-BR")
    assert answer.out.count("intacto: ") == 2

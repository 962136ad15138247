"""The ledger: tampering, power cuts at every step, disks that are full or read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy import journal
from fl_inmetro.privacy.journal import head_path, read_chain
from fl_inmetro.privacy.ledger import Ledger, find_ledgers, read_ledger
from tests.cli.command_line import environment
from tests.privacy.ledgers import FLEET, ledger, release


def codes(error: pytest.ExceptionInfo[PrivacyError]) -> list[str]:
    return [fault.code for fault in error.value.faults]


# ------------------------------------------------------------------------------ tampering
def test_files_taken_away_or_set_back(tmp_path: Path) -> None:
    path = ledger(tmp_path).path
    old = tmp_path / "old"
    shutil.copytree(tmp_path, old)
    Ledger(tmp_path, FLEET).record(release(3))
    Ledger(tmp_path, FLEET).record(release(4))
    now = {p: p.read_bytes() for p in (path, head_path(path))}
    old_path = old / path.name

    def restored() -> None:
        for file, content in now.items():
            file.write_bytes(content)

    for spoil, words in (
        (lambda: head_path(path).unlink(), "checkpoint is missing"),
        (path.unlink, "6 entries were acknowledged, 0 are there"),
        (lambda: shutil.copy(old_path, path), "6 entries were acknowledged, 4 are there"),
        (lambda: shutil.copy(head_path(old_path), head_path(path)), "counts 4 entries, 6 are"),
    ):
        spoil()
        for reader in (
            lambda: read_ledger(find_ledgers(tmp_path)[0]),
            lambda: Ledger(tmp_path, FLEET),
        ):
            with pytest.raises(PrivacyError, match=words) as error:
                reader()
            assert codes(error) == ["FL420"]
        restored()
    assert len(read_ledger(path).entries) == 5
    # Both set back together cannot be seen from the two files.
    for file in (path, head_path(path)):
        shutil.copy(old / file.name, file)
    assert len(read_ledger(path).entries) == 3


def test_an_open_ledger_sees_that_it_was_set_back(tmp_path: Path) -> None:
    path = ledger(tmp_path, 1).path
    before = {p: p.read_bytes() for p in (path, head_path(path))}
    book = Ledger(tmp_path, FLEET)
    book.record(release(1))
    for file, content in before.items():
        file.write_bytes(content)
    with pytest.raises(PrivacyError, match="set back"):
        book.record(release(2))


def test_lines_that_chain_but_say_something_else_are_refused(tmp_path: Path) -> None:
    good = [dict(body) for body in read_ledger(ledger(tmp_path, 1).path).bodies]
    opened, released = good
    for number, bodies in enumerate(
        (
            [released],
            [opened, opened],
            [{**opened, "format": 2}],
            [{**opened, "client": 5}],
            [{"kind": "opened"}],
            [opened, {**released, "sequence": 7}],
            [opened, {**released, "federation": "south"}],
            [opened, {**released, "times": -5}],
            [opened, {**released, "more": 1}],
            [opened, {**released, "account": [{"epsilon": 1}]}],
            [opened, {**released, "account": 5}],
            [opened, {**released, "account": [5]}],
            [opened, {**released, "at_utc": 5}],
            [opened, {**released, "attempt": "x"}],
            [opened, {**released, "account": [{**NOTE, "scope": "house"}]}],
            [opened, {**released, "account": [{**NOTE, "epsilon": "x"}]}],
        )
    ):
        forged = journal.Journal(tmp_path / str(number) / "federation.ledger")
        with forged.writing():
            for body in bodies:
                forged.append(body)
        with pytest.raises(PrivacyError) as error:
            read_ledger(forged.path)
        assert codes(error) == ["FL420"], bodies


# ------------------------------------------------------------------------------ crashes
NOTE = {"accountant": "a", "delta": 0.1, "epsilon": 1.0, "limit": 2.0, "scope": "run"}


class PowerCutError(BaseException):
    """Nothing runs after it."""


def test_a_power_cut_at_every_step_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before each call that changes the disk, one after the other, until none is left."""
    calls = ("write", "fsync", "open", "truncate", "replace")
    for begun in (0, 2):
        step, done = 0, False
        while not done:
            folder = tmp_path / f"{begun}-{step}"
            if begun:
                ledger(folder, begun)
            left, acknowledged = step, begun

            def counted(name: str) -> Any:
                plain = getattr(os, name)

                def call(*args: Any, **kwargs: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        raise PowerCutError
                    left -= 1
                    return plain(*args, **kwargs)

                return call

            with monkeypatch.context() as patch:
                for name in calls:
                    patch.setattr(os, name, counted(name))
                try:
                    book = Ledger(folder, FLEET)
                    book.record(release(begun))
                    acknowledged += 1
                    done = True
                except PowerCutError:
                    pass
            after = Ledger(folder, FLEET)
            assert len(after.entries()) - acknowledged in (0, 1)
            after.record(release(begun))  # the resumed run: the same bits
            found = read_ledger(after.path)
            assert [e.release for e in found.entries] == [release(n) for n in range(begun + 1)]
            assert found.torn_bytes == 0
            step += 1
        assert step > 8


def test_all_is_synced_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line before checkpoint, each synced, and the folder that has its name: in this order."""
    book = ledger(tmp_path, 1)
    names: dict[int, str] = {}
    told: list[tuple[str, str]] = []
    plain = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}

    def opened(path: Any, *rest: Any, **more: Any) -> int:
        handle = plain["open"](path, *rest, **more)
        names[handle] = Path(path).name
        return int(handle)

    def write(handle: int, data: bytes) -> int:
        told.append(("write", names[handle]))
        return int(plain["write"](handle, data))

    def fsync(handle: int) -> None:
        told.append(("sync", names[handle]))
        plain["fsync"](handle)

    def moved(source: Any, target: Any, **more: Any) -> None:
        told.append(("move", Path(target).name))
        plain["replace"](source, target, **more)

    with monkeypatch.context() as patch:
        for name, call in (("open", opened), ("write", write), ("fsync", fsync)):
            patch.setattr(os, name, call)
        patch.setattr(os, "replace", moved)
        book.record(release(1))
    line, mark = book.path.name, head_path(book.path).name
    assert told == [
        ("write", line),
        ("sync", line),
        ("write", f"{mark}.tmp"),
        ("sync", f"{mark}.tmp"),
        ("move", mark),
        ("sync", tmp_path.name),
    ]


def test_a_torn_line_is_seen_and_dropped_by_the_next_writer(tmp_path: Path) -> None:
    path = ledger(tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(whole + b"abc")
    found = read_ledger(path)
    assert (len(found.entries), found.torn_bytes) == (3, 3)
    assert path.read_bytes() == whole + b"abc"  # readers change nothing
    assert len(Ledger(tmp_path, FLEET).entries()) == 3
    assert path.read_bytes() == whole


def test_a_program_that_takes_no_lock_is_noticed(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path / "x")
    with one.writing():
        one.append({"n": 1})
        with (tmp_path / "x").open("ab") as file:
            file.write(b"!")
        with pytest.raises(PrivacyError, match="takes no lock"):
            one.append({"n": 2})


def test_a_full_disk_is_an_error_and_the_next_writer_mends_it(tmp_path: Path) -> None:
    """A limit on the size of files cuts a write in two, as a full disk does."""
    path = ledger(tmp_path).path
    limit = path.stat().st_size + 100
    code = f"""
import resource
from pathlib import Path
from tests.privacy.ledgers import *
from fl_inmetro.errors import PrivacyError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
book = Ledger(Path({str(tmp_path)!r}), FLEET)
for number in (3, 4):
    try:
        book.record(release(number))
    except PrivacyError as error:
        print(error.faults[0].code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert done.stdout.split() == ["FL421", "FL421"], done.stderr
    assert (len(read_ledger(path).entries), read_ledger(path).torn_bytes) == (3, 100)
    assert Ledger(tmp_path, FLEET).record(release(3)).entry.sequence == 5
    assert read_ledger(path).torn_bytes == 0


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_failed_write_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    book = ledger(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(PrivacyError, match="No space left") as error:
            book.record(release(3))
        assert codes(error) == ["FL421"]
    # After a failed sync the line may be there: the same bits are found, and counted once.
    assert book.record(release(3)).entry.sequence == 5
    assert len(read_ledger(book.path).entries) == 4


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PrivacyError) as error:
        Ledger(tmp_path / "file", FLEET)
    assert codes(error) == ["FL421"]
    book = ledger(tmp_path / "books", 1)
    plain = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return plain(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        with pytest.raises(PrivacyError, match="Read-only") as error:
            book.record(release(1))
        assert codes(error) == ["FL421"]
        assert len(read_chain(book.path).lines) == 2  # reading still works


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_file(tmp_path: Path) -> None:
    book = ledger(tmp_path, 1)
    book.path.chmod(0o400)
    with pytest.raises(PrivacyError) as error:
        book.record(release(1))
    assert codes(error) == ["FL421"]


def test_a_writer_that_does_not_let_go(tmp_path: Path) -> None:
    one, two = (journal.Journal(tmp_path / "x") for _ in range(2))
    with one.writing(), pytest.raises(PrivacyError) as error, two.writing(0.05):
        pass
    assert codes(error) == ["FL424"]
    with two.writing(0.05):
        pass

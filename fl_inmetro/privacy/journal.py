"""The durable file of one chain: one writer at a time, readers that wait for nobody.

Beside `NAME` stand `NAME.head`, the checkpoint, and `NAME.lock`, whose lock the operating system
drops when a writer ends, however it ends. An append writes the line and syncs it, then replaces the
checkpoint and syncs that and the folder, and only then returns: what was acknowledged is in both.
A crash in between leaves a piece of a line, which the next writer drops, or one whole line behind
the checkpoint, which stays: nobody was told that it is there, but it may have been.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.chain import BrokenChainError, Head, Line, Scan, scan, write_line

#: How long a writer waits for another one, which holds the lock for one append.
PATIENCE_S = 30.0

#: A reader that comes while a torn line is being dropped looks again, this often.
_LOOKS = 3
_PAUSE_S = 0.02


class Journal:
    """The right to append to one chain; read it with `read_chain`.

    Attributes:
        path: The file.
        head: The last point of the chain that this object knows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = Head()

    @contextlib.contextmanager
    def writing(self, patience_s: float = PATIENCE_S) -> Iterator[tuple[Line, ...]]:
        """Hold the lock; give the lines that others have added since this object last looked.

        Raises:
            PrivacyError: FL420 when the chain is broken, FL421 when the place cannot be read or
                written, FL424 when another writer does not let go.
        """
        with _locked(self.path, patience_s):
            yield self._catch_up()

    def append(self, content: dict[str, Any]) -> Line:
        """Add a line, within `writing`; when this returns, the line is durable.

        Raises:
            PrivacyError: FL421 when it cannot be written. It may be there all the same: the next
                writer sees it.
        """
        data, line = write_line(self.head, content)
        try:
            if not self.path.exists():
                # First of all a checkpoint of nothing: a ledger without one was tampered with.
                _write_head(self.path, self.head)
                with _opened(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
                    pass
                _sync_folder(self.path.parent)
            with _opened(self.path, os.O_WRONLY | os.O_APPEND) as file:
                if os.fstat(file).st_size != self.head.size_bytes:
                    raise broken(self.path, "it was written to by a program that takes no lock")
                _write_all(file, data)
                os.fsync(file)
            _write_head(self.path, line.head)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self.head = line.head
        return line

    def _catch_up(self) -> tuple[Line, ...]:
        """Read what is new, and mend what a crash has left at the end."""
        data, mark = b"", Head()
        try:
            found = _read_head(self.path)
            if self.path.exists():
                with self.path.open("rb") as file:
                    file.seek(self.head.size_bytes)
                    data = file.read()
            if found is None and (data or self.head.entries):
                raise BrokenChainError("the checkpoint is missing")
            mark = found or mark
            if mark.entries < self.head.entries:
                raise BrokenChainError("the checkpoint was set back")
            seen = scan(data, self.head, mark, mark)
            if seen.torn_bytes:
                os.truncate(self.path, seen.head.size_bytes)
                with _opened(self.path, os.O_WRONLY) as handle:
                    os.fsync(handle)
            if seen.head != mark:
                _write_head(self.path, seen.head)
        except BrokenChainError as reason:
            raise broken(self.path, str(reason)) from None
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self.head = seen.head
        return seen.lines


def read_chain(path: Path) -> Scan:
    """Read and check a whole chain without a lock, also while others write.

    Raises:
        PrivacyError: FL420 when it is broken, FL421 when it cannot be read, FL427 when there is
            none.
    """
    for look in range(_LOOKS):
        try:
            low = _read_head(path)
            data = path.read_bytes() if path.exists() else None
            high = _read_head(path)
            if data is None and low is None:
                raise PrivacyError(
                    Fault("FL427", "there is no ledger", str(path), "name a ledger or its folder")
                )
            if low is None or high is None:
                raise BrokenChainError("the checkpoint is missing")
            return scan(data or b"", Head(), low, high)
        except BrokenChainError as reason:
            if look == _LOOKS - 1:
                raise broken(path, str(reason)) from None
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise PrivacyError(
                Fault("FL421", f"cannot read: {error.strerror or error}", str(path))
            ) from None
    raise AssertionError("unreachable: the last look returns or raises")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; a power cut leaves the old one or the new one.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        _write_all(file, content)
        os.fsync(file)
    temporary.replace(path)
    _sync_folder(path.parent)


def head_path(path: Path) -> Path:
    """Return where the checkpoint of a chain stands."""
    return path.with_name(path.name + ".head")


def broken(path: Path, reason: str) -> PrivacyError:
    """Return the FL420 error for a ledger that is not what it was."""
    return PrivacyError(
        Fault(
            "FL420",
            f"the ledger is broken: {reason}",
            str(path),
            "keep both files as they are, and put a copy back that verifies;\n"
            "what was spent since that copy has to be counted by hand",
        )
    )


def cannot_write(path: Path, error: OSError | str) -> PrivacyError:
    """Return the FL421 error for a place that cannot be written."""
    reason = error if isinstance(error, str) else error.strerror or str(error)
    return PrivacyError(
        Fault(
            "FL421",
            f"cannot write: {reason}",
            str(path),
            "free some disk space, or let this user write there; nothing may leave before",
        )
    )


# ------------------------------------------------------------------------------ internals
@contextlib.contextmanager
def _locked(path: Path, patience_s: float) -> Iterator[None]:
    """Hold the exclusive transaction on an empty SQLite file that stands for the right to write."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    connection = None
    try:
        with _opened(lock, os.O_WRONLY | os.O_CREAT):
            pass  # SQLite would make it for everybody to read
    except OSError as error:
        raise cannot_write(lock, error) from None
    try:
        connection = sqlite3.connect(lock, timeout=patience_s, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise PrivacyError(
                Fault(
                    "FL424",
                    f"another process has held this ledger for {patience_s:g} s",
                    str(path),
                    "stop the process that hangs, then go on",
                )
            ) from None
        raise cannot_write(lock, str(error)) from None
    try:
        yield
    finally:
        connection.close()


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file that only its owner may read: who took part in what is nobody else's affair."""
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _write_head(path: Path, head: Head) -> None:
    replace_file(head_path(path), head.to_bytes())


def _read_head(path: Path) -> Head | None:
    try:
        return Head.from_bytes(head_path(path).read_bytes())
    except FileNotFoundError:
        return None


def _sync_folder(path: Path) -> None:
    """Make names in a folder durable; only POSIX systems can open one."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

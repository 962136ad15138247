"""The lock that keeps a run to one writer, and tells a reader whether that writer lives.

The lock is an exclusive transaction on an empty SQLite file of its own. The operating system drops
it when the process ends, however it ends, so nothing stale is left behind; and it works wherever
SQLite works. Nobody may open `writer.lock` by other means: on POSIX, closing any other handle of
the file in the same process would release the lock.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fl_inmetro.errors import Fault, RunError
from fl_inmetro.runs.layout import LOCK, cannot_write

#: A reader that asks `writer_alive` holds a shared lock for an instant; a writer waits that out.
PATIENCE_S = 2.0


class WriterLock:
    """The right to write to one run; held until `release`, or until the process ends."""

    def __init__(self, run: Path, patience_s: float = PATIENCE_S) -> None:
        """Take the lock.

        Raises:
            RunError: FL702 when another writer has it; FL704 when the place cannot be written.
        """
        self._connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                run / LOCK, timeout=patience_s, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise cannot_write(run / LOCK, str(error)) from None
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            if not _is_busy(error):
                raise cannot_write(run / LOCK, str(error)) from None
            raise RunError(
                Fault(
                    "FL702",
                    "another process is writing to this run",
                    str(run),
                    f"wait until it ends, or stop it cleanly with: touch {run / 'STOP'}",
                )
            ) from None
        self._connection = connection

    def release(self) -> None:
        """Give the lock back; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def writer_alive(run: Path) -> bool:
    """Tell whether a live process holds the run's writer lock."""
    path = run / LOCK
    if not path.exists():
        return False
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.0)
        ) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.OperationalError as error:
        return _is_busy(error)
    return False


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

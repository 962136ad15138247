"""The one writer of a run directory: takes events, keeps weights, and winds back for a resume."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from fl_inmetro import events as ev
from fl_inmetro.config.load import config_hash, frozen_json, to_toml
from fl_inmetro.config.own_code import places
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.runs import database, layout, provenance, weights
from fl_inmetro.runs.lock import WriterLock
from fl_inmetro.runs.manifest import corrupt, read_checked
from fl_inmetro.runs.rows import PER_CLIENT, STATE, Statement, rows_of

#: Rows wait at most so long before they are committed, so that a reader sees a slow round grow.
FLUSH_S = 1.0

#: After these the rows are committed at once: one transaction per round, not per row.
_MILESTONES = (
    ev.RunStarted,
    ev.RoundFinished,
    ev.GroupFinished,
    ev.ModelScored,
    ev.RunFinished,
    ev.Note,
)


class Recorder:
    """The open run directory, as an `Emit`.

    Events may come from any thread. A `RunStarted` opens a stage, one per (model, training); the
    groups and rounds that follow belong to it. Rows of a killed process that were not committed
    are lost, in order: those that remain are the beginning of the run.

    Attributes:
        path: The run directory.
        resumed: True when the run was reopened.
    """

    def __init__(self, path: Path, lock: WriterLock, *, resumed: bool) -> None:
        """Take over a directory whose lock is held; use `create` or `reopen`."""
        self.path = path
        self.resumed = resumed
        self._lock = lock
        self._guard = threading.RLock()
        self._rows: list[Statement] = []
        self._flushed = time.monotonic()
        self._closed = False
        self._round: int | None = None
        self._group: int | None = None
        try:
            self._connection = database.open_writer(path / layout.DATABASE)
        except sqlite3.DatabaseError as error:
            lock.release()
            raise corrupt(path / layout.DATABASE, str(error)) from None
        self._stages: dict[tuple[str, str], int] = {
            (model, training): stage
            for stage, model, training in self._connection.execute(
                "SELECT stage, model, training FROM stage ORDER BY stage"
            )
        }
        self._stage: int | None = max(self._stages.values(), default=None)
        writer = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        self._rows += [(STATE, ("writer", writer)), (STATE, ("status", "running"))]
        self.flush()

    # ------------------------------------------------------------------------- open and close
    @classmethod
    def create(
        cls,
        root: Path,
        config: RunConfig,
        manifest: Mapping[str, Any],
        kind: layout.Kind,
        window: Mapping[str, Any],
    ) -> Self:
        """Make a run directory under `root` and open it.

        Args:
            root: Directory of all runs; made where it is absent.
            config: Effective configuration, frozen into the directory.
            manifest: What the data are: `Manifest.to_json()`, plus `clients`, see `docs/runs.md`.
            kind: `run` or `compare`.
            window: The resolved window, plain JSON types.

        Raises:
            RunError: FL704 when the place cannot be written.
        """
        created = datetime.now(UTC)
        path = layout.new_directory(root, layout.run_id(config, kind, created))
        lock = WriterLock(path)
        frozen = frozen_json(config)
        layout.write_whole(path / layout.CONFIG_TOML, to_toml(config).encode())
        layout.write_whole(path / layout.CONFIG_JSON, frozen.encode())
        recorder = cls(path, lock, resumed=False)
        # The manifest comes last: a directory that has one is a whole run directory.
        content = {
            "id": path.name,
            "kind": kind,
            "name": config.name,
            "seed": config.seed,
            "created_utc": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "config_hash": config_hash(config),
            "versions": provenance.versions(),
            "source": provenance.source_commit(),
            "machine": provenance.machine(),
            "window": dict(window),
            "data": dict(manifest),
        }
        if own := places(config):
            content["own_code"] = own
        text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
        layout.write_whole(path / layout.MANIFEST, text.encode())
        return recorder

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Open an existing run to go on with it; a pending STOP is cleared.

        Raises:
            RunError: FL702 when another process writes to it; FL703 when the directory is damaged
                or its configuration was edited.
        """
        manifest = read_checked(path)
        lock = WriterLock(path)
        (path / layout.STOP).unlink(missing_ok=True)
        recorder = cls(path, lock, resumed=True)
        began, now = manifest.get("versions", {}), provenance.versions()
        changed = [f"{n} {began[n]} -> {now[n]}" for n in now if n in began and began[n] != now[n]]
        if changed:
            recorder(ev.Note("warning", f"resumed with other versions: {', '.join(changed)}"))
        return recorder

    def close(self) -> None:
        """Commit what is waiting and give the run free; harmless when repeated."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            try:
                self.flush()
                # A run at rest is one plain file, readable from a medium that cannot be written.
                # Refused while somebody reads; then it stays in WAL mode, which readers cope with.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("PRAGMA journal_mode = DELETE")
            finally:
                self._connection.close()
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------- events
    def __call__(self, event: ev.Event) -> None:
        """Record an event.

        Raises:
            RunError: FL704 when the disk refuses.
        """
        # Rows per client carry no time of their own, and there are many of them.
        per_client = isinstance(event, PER_CLIENT)
        utc = "" if per_client else layout.now_utc()
        with self._guard:
            self._move(event)
            place = (self._stage, self._group, self._round)
            self._rows += rows_of(event, place, utc)
            if isinstance(event, _MILESTONES) or time.monotonic() - self._flushed > FLUSH_S:
                self.flush()

    def flush(self) -> None:
        """Commit the waiting rows, in one transaction.

        Raises:
            RunError: FL704 when the disk refuses.
        """
        with self._guard:
            self._flushed = time.monotonic()
            if not self._rows:
                return
            by_statement: dict[str, list[tuple[Any, ...]]] = {}
            for statement, row in self._rows:
                by_statement.setdefault(statement, []).append(row)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for statement, rows in by_statement.items():
                    self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException as error:  # a second Ctrl-C too must leave no open transaction
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise layout.cannot_write(self.path / layout.DATABASE, str(error)) from None
                raise
            self._rows.clear()

    def stop_requested(self) -> bool:
        """Tell whether somebody has put a file `STOP` into the directory."""
        return (self.path / layout.STOP).exists()

    # ------------------------------------------------------------------- checkpoint and resume
    def save_state(
        self, name: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, str]
    ) -> None:
        """Keep arrays under `name`, whole or not at all, after everything recorded so far.

        The rows before it are forced to disk first, so a checkpoint never knows more than the
        tables; `rewind` removes what the tables know beyond it.

        Raises:
            RunError: FL704 when the place cannot be written.
        """
        with self._guard:
            self._rows.append((STATE, (f"saved:{name}", layout.now_utc())))
            self._connection.execute("PRAGMA synchronous = FULL")
            try:
                self.flush()
            finally:
                self._connection.execute("PRAGMA synchronous = NORMAL")
            weights.save(self.path, name, arrays, meta)

    def load_state(self, name: str) -> tuple[weights.Arrays, dict[str, str]] | None:
        """Return the arrays and metadata kept under `name`; None when there are none.

        Raises:
            RunError: FL703 when the file is damaged.
        """
        return weights.load(self.path, name)

    def rewind(
        self, group: int, round: int, model: str | None = None, training: str | None = None
    ) -> None:
        """Remove what was recorded after `round` of `group`, so that the run can go on from there.

        Groups after `group`, and the stages after this one, go too, with the scores of the models
        they trained; the scores of baselines and of earlier stages stay.

        Args:
            group: Group of the checkpoint.
            round: Its last finished round; 0 = the group has not begun.
            model: Stage of the checkpoint; None = the last stage that was begun.
            training: The same.

        Raises:
            ValueError: The run has no such stage.
        """
        with self._guard:
            self.flush()
            stage = self._stage if model is None else self._stages.get((model, training or ""))
            if stage is None:
                raise ValueError(f"run {self.path.name} has no stage ({model}, {training})")
            after = (stage, stage, group, group, round)
            behind = 'stage > ? OR (stage = ? AND ("group" > ? OR ("group" = ? AND round > ?)))'
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            for table in database.ROUND_TABLES:
                execute(f"DELETE FROM {table} WHERE {behind}", after)
            gone = 'stage > ? OR (stage = ? AND "group" > ?)'
            execute(f"DELETE FROM federation WHERE {gone}", (stage, stage, group))
            execute(
                "UPDATE federation SET best_round = NULL, nmae = NULL "
                'WHERE stage = ? AND "group" = ?',
                (stage, group),
            )
            for table in ("score", "client_score"):
                execute(
                    f"DELETE FROM {table} WHERE (model, training) IN "
                    "(SELECT model, training FROM stage WHERE stage >= ?)",
                    (stage,),
                )
            execute("DELETE FROM stage WHERE stage > ?", (stage,))
            execute("COMMIT")
            self._stages = {key: s for key, s in self._stages.items() if s <= stage}
            self._stage, self._group, self._round = stage, group, round

    # ---------------------------------------------------------------------------- internals
    def _move(self, event: ev.Event) -> None:
        """Keep track of the place in the run, so that notes and rows know where they belong."""
        match event:
            case ev.RunStarted(model=model, training=training):
                known = self._stages.get((model, training))
                if known is None or known != self._stage:
                    self._group = self._round = None
                self._stage = len(self._stages) if known is None else known
                self._stages[model, training] = self._stage
            case ev.GroupStarted(group=group):
                if group != self._group:
                    self._group, self._round = group, 0
            case ev.RoundStarted(group=group, round=round_):
                self._group, self._round = group, round_
            case _:
                pass

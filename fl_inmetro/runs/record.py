"""What a reader sees of one run, finished or not, beside its writer or without one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fl_inmetro.runs import database, layout
from fl_inmetro.runs.lock import writer_alive
from fl_inmetro.runs.manifest import corrupt, read_checked, read_config

if TYPE_CHECKING:
    import pyarrow as pa

    from fl_inmetro.config.schema import RunConfig

Row = dict[str, Any]

#: Trainings that are no training: rows of the comparison that cost nothing.
BASELINE = "baseline"


@dataclass(frozen=True)
class RunRecord:
    """A run directory, opened for reading.

    Every method asks the database anew, so a record of a running run grows. Numbers that were not
    finite when they were recorded come back as None.

    Attributes:
        path: The run directory.
        manifest: Content of `manifest.json`.
    """

    path: Path
    manifest: Row

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run directory.

        Raises:
            RunError: FL703 when a file is missing, damaged or was edited.
        """
        manifest = read_checked(path)
        record = cls(path, manifest)
        found = record._version()
        if found not in database.READABLE:
            readable = " and ".join(str(version) for version in database.READABLE)
            raise corrupt(
                path / layout.DATABASE,
                f"the tables are of version {found}; this fl-inmetro reads versions {readable}",
            )
        return record

    # ------------------------------------------------------------------------- identification
    @property
    def id(self) -> str:
        """The run's identifier: the name of its directory."""
        return self.path.resolve().name

    @property
    def kind(self) -> str:
        """`run` or `compare`."""
        return str(self.manifest["kind"])

    @cached_property
    def config_raw(self) -> Row:
        """The frozen configuration as plain data, readable by any later version."""
        return read_config(self.path)

    @property
    def config(self) -> RunConfig:
        """The frozen configuration, checked by this version's schema.

        Raises:
            ConfigError: FL102 when the run was made by a version with other keys.
        """
        from fl_inmetro.config.load import check
        from fl_inmetro.config.own_code import search_again

        # Whoever asks for the configuration is about to make the model anew.
        search_again(self.manifest.get("own_code", {}))
        return check(self.config_raw, str(self.path / layout.CONFIG_JSON))

    @property
    def config_toml(self) -> str:
        """The text of `config.toml`."""
        return (self.path / layout.CONFIG_TOML).read_text(encoding="utf-8")

    @property
    def status(self) -> str:
        """`running`, `completed`, `interrupted` or `failed`.

        A run that says `running` while no process holds it was killed: `interrupted`.
        """
        status = self._state().get("status", "interrupted")
        if status == "running" and not writer_alive(self.path):
            # It may have ended between the two questions.
            status = self._state().get("status", "interrupted")
            return "interrupted" if status == "running" else status
        return status

    @property
    def reason(self) -> str:
        """Why the run ended as it did; empty when nothing was said."""
        return self._state().get("reason", "")

    @property
    def seconds(self) -> float | None:
        """Wall time of the run as it reported it; None while it has not ended."""
        value = self._state().get("seconds")
        return None if value is None else float(value)

    # --------------------------------------------------------------------------------- tables
    def stages(self) -> list[Row]:
        """One row per trained model: stage, model, training, clients, groups, rounds (planned)."""
        return self._query("SELECT * FROM stage ORDER BY stage")

    def federations(self, **where: Any) -> list[Row]:
        """One row per group: model, training, group, name, clients, best_round, nmae."""
        return self._joined("federation", '"group"', where)

    def rounds(self, **where: Any) -> list[Row]:
        """One row per finished round of a group, in order.

        Columns: stage, model, training, group, round, loss, nmae, is_best, bytes_down, bytes_up,
        seconds, utc, simulated_s. `where` narrows by column:
        `rounds(model="mlp", training="federated")`.
        """
        return self._joined("round", '"group", round', where)

    def client_rounds(self, **where: Any) -> list[Row]:
        """One row per accepted training reply; see `events.ClientReplied` for the columns."""
        return self._joined("client_round", '"group", round, client_id', where)

    def client_evals(self, **where: Any) -> list[Row]:
        """One row per client's validation after a round; see `events.ClientEvaluated`."""
        return self._joined("client_eval", '"group", round, client_id', where)

    def heterogeneity(self, **where: Any) -> list[Row]:
        """One row per measured round; see `events.HeterogeneityMeasured` for the columns."""
        return self._joined("heterogeneity", '"group", round', where)

    def client_drifts(self, **where: Any) -> list[Row]:
        """One row per accepted update of a measured round; see `events.ClientDrift`."""
        return self._joined("client_drift", '"group", round, client_id', where)

    def rejected(self, **where: Any) -> list[Row]:
        """One row per refused reply: …, group, round, client_id, code, reason."""
        return self._joined("rejection", "id", where)

    def scores(self) -> list[Row]:
        """One row per scored model: model, training, and the keys of `metrics.score_fleet`."""
        return [
            {"model": row["model"], "training": row["training"], **json.loads(row["scores"])}
            for row in self._query("SELECT * FROM score ORDER BY id")
        ]

    def client_scores(self, model: str | None = None, training: str | None = None) -> list[Row]:
        """One row per scored model and client: model, training, client_id, nmae, mae_kwh, …."""
        rows = self._query(
            "SELECT s.model, s.training, c.client_id, c.scores FROM client_score c "
            "JOIN score s USING (model, training) "
            "WHERE (?1 IS NULL OR s.model = ?1) AND (?2 IS NULL OR s.training = ?2) "
            "ORDER BY s.id, c.client_id",
            (model, training),
        )
        return [
            {**{k: row[k] for k in ("model", "training", "client_id")}, **json.loads(row["scores"])}
            for row in rows
        ]

    def notes(self) -> list[Row]:
        """The log: utc, level, text, with the stage, group and round it was written in."""
        return self._query("SELECT * FROM note ORDER BY id")

    def events(self, kind: str | None = None) -> list[Row]:
        """All events in the order they came, of one type when `kind` is given, as plain data.

        `ClientReplied` and `ClientEvaluated` are not among them: see `client_rounds`,
        `client_evals`.
        """
        rows = self._query("SELECT * FROM event WHERE ?1 IS NULL OR type = ?1 ORDER BY id", (kind,))
        return [{**row, "json": json.loads(row["json"])} for row in rows]

    def forecasts(
        self,
        model: str | None = None,
        training: str | None = None,
        clients: list[str] | None = None,
    ) -> pa.Table | None:
        """The test forecasts, or a part of them; None when the run has no forecast file.

        Columns: client_id, issue_time_utc, target_time_utc, mean (kWh), observed_kwh, model,
        training. In a run with a partition, client_id is the meter and a column `part` the client
        that holds the window; `clients` are then those.

        Raises:
            RunError: FL703 when the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path / layout.FORECASTS
        if not path.exists():
            return None
        try:
            holder = "part" if "part" in pq.read_schema(path).names else "client_id"
            wanted = [
                ("model", "==", model),
                ("training", "==", training),
                (holder, "in", clients),
            ]
            filters = [term for term in wanted if term[2] is not None]
            return pq.read_table(path, filters=filters or None)
        except (pa.ArrowException, OSError) as error:
            raise corrupt(path, f"the forecasts cannot be read: {error}") from None

    # ------------------------------------------------------------------------------ internals
    def _version(self) -> int:
        return int(self._query("PRAGMA user_version")[0]["user_version"])

    def _state(self) -> dict[str, str]:
        return {row["key"]: row["value"] for row in self._query("SELECT key, value FROM state")}

    def _joined(self, table: str, order: str, where: dict[str, Any]) -> list[Row]:
        if table in database.SINCE and self._version() < database.SINCE[table]:
            return []  # a run of before that table
        conditions = " AND ".join(f'"{column}" = ?' for column in where) or "1"
        return self._query(
            f"SELECT stage.model, stage.training, {table}.* FROM {table} JOIN stage USING (stage) "
            f"WHERE {conditions} ORDER BY stage, {order}",
            tuple(where.values()),
        )

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[Row]:
        path = self.path / layout.DATABASE
        try:
            with closing(database.open_reader(path)) as connection:
                return [dict(row) for row in connection.execute(statement, values)]
        except sqlite3.DatabaseError as error:
            raise corrupt(path, f"the tables cannot be read: {error}") from None

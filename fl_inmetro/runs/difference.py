"""Puts runs side by side: their scores, and only the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fl_inmetro.runs.record import RunRecord


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested tables as `{dotted key: value}`.

    >>> flatten({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_differences(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs: `{dotted key: value per run}`.

    A key that a run does not have counts as None there.
    """
    flats = [flatten(record.config_raw) for record in records]
    keys = sorted({key for flat in flats for key in flat})
    values = {key: [flat.get(key) for flat in flats] for key in keys}
    return {key: row for key, row in values.items() if any(v != row[0] for v in row[1:])}


def score_table(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row per (model, training) that any run has scored, with one entry per run.

    Each row is `{model, training, scores: [scores of run 1 or None, …]}`, in the order in which
    the runs scored them.
    """
    per_run = [{(row["model"], row["training"]): row for row in r.scores()} for r in records]
    keys = list(dict.fromkeys(key for rows in per_run for key in rows))
    return [
        {
            "model": model,
            "training": training,
            "scores": [
                {k: v for k, v in rows[model, training].items() if k not in ("model", "training")}
                if (model, training) in rows
                else None
                for rows in per_run
            ],
        }
        for model, training in keys
    ]


def best_rounds(record: RunRecord) -> list[dict[str, Any]]:
    """Return `{model, training, best_round, nmae}` of each finished stage with one group.

    Stages with many groups (local-only training) have a best round per client, not one.
    """
    single = {s["stage"] for s in record.stages() if s["groups"] == 1}
    return [
        {key: row[key] for key in ("model", "training", "best_round", "nmae")}
        for row in record.federations()
        if row["stage"] in single and row["best_round"] is not None
    ]

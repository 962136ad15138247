"""Everything a backtest has found so far, as plain data."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fl_inmetro.backtest.chance import pairs_of, tested
from fl_inmetro.backtest.folds import Fold, seeds_of
from fl_inmetro.backtest.scores import age_days_of, summarised
from fl_inmetro.backtest.study import Study
from fl_inmetro.backtest.sums import LEAD_H
from fl_inmetro.runs.record import RunRecord


def summary_of(study: Study) -> dict[str, Any]:
    """Return rows, slices, tests and folds of what is done; `rows` is empty where nothing is.

    Raises:
        FederationError: FL350, a fold was made of other data.
        RunError: FL703, a fold's run is damaged.
    """
    done = study.finished()
    runs: dict[int, list[tuple[Fold, RunRecord]]] = {}
    for step in study.steps():
        if step in done:
            runs.setdefault(step.seed, []).append((step.fold, done[step]))
    age_days = age_days_of(study.config.backtest.refit_days)
    rows, slices, cells = summarised(runs, age_days)
    settings, manifest = study.config.backtest, study.data.manifest
    first = next(iter(done.values()), None)
    window = first.manifest["window"] if first else {}
    return {
        "name": study.config.name,
        "seed": study.config.seed,
        "seeds": list(seeds_of(study.config)),
        "source": manifest.source,
        "simulated": manifest.simulated,
        "directory": str(study.path),
        "refit_days": settings.refit_days,
        "warm_start": settings.warm_start,
        "window": {
            "issue_time": window.get("issue_time"),
            "timezone": window.get("timezone"),
            "lead_h": study.config.window.lead_h,
            "horizon_h": study.config.window.horizon_h,
        },
        "lead_block_h": LEAD_H,
        "age_block_days": age_days,
        "folds": [_fold(fold, runs) for fold in study.folds],
        "rows": rows,
        "slices": slices,
        "tests": [tested(ours, theirs, cells) for ours, theirs in pairs_of(rows)],
        "seconds": sum(record.seconds or 0.0 for record in done.values()),
        "complete": len(done) == len(study.steps()),
    }


def _fold(fold: Fold, runs: dict[int, list[tuple[Fold, RunRecord]]]) -> dict[str, Any]:
    own = {seed: rec for seed, done in runs.items() for other, rec in done if other == fold}
    record = next(iter(own.values()), None)
    trained: dict[str, Any] = {"train_first": None, "train_last": None, "clients": None}
    if record is not None:
        window = record.manifest["window"]
        zone = ZoneInfo(window["timezone"])
        for key, name in (("train_first", "first_issue_utc"), ("train_last", "last_issue_utc")):
            instant = datetime.fromisoformat(window["train"][name]).astimezone(zone)
            trained[key] = instant.date().isoformat()
        manifest = record.manifest["data"]
        trained["clients"] = len(manifest["clients"])
    return {
        "number": fold.number,
        "first": fold.first.isoformat(),
        "last": fold.last.isoformat(),
        **trained,
        "runs": {str(seed): record.id for seed, record in own.items()},
    }

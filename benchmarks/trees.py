"""Federated trees on the demand of buildings, beside the libraries on the pooled rows.

    FL_INMETRO_DATA=… python benchmarks/trees.py [--trees 300] [--rows 0.25] [--json]

Rows, features and windows are those of `examples/cambridge-full.toml` (its MLP's). The target is
the deviation from the base profile in units of the client's own scale; the loss is the absolute
error. The federated trees equal those of the pooled rows to the last bit (a test), so one training
stands for both; LightGBM and XGBoost are trained on the pooled rows by their own bins and rules,
which is what a company would do that has all readings in one place.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine_rows.machine import machine, versions  # noqa: E402

from fl_inmetro.config import load  # noqa: E402
from fl_inmetro.metrics import ErrorSums, Forecast  # noqa: E402
from fl_inmetro.metrics.scores import score_fleet  # noqa: E402
from fl_inmetro.models.design import Design, row_design  # noqa: E402
from fl_inmetro.plan import prepare  # noqa: E402
from fl_inmetro.trees.boost import (  # noqa: E402
    Settings,
    Trained,
    agree,
    boosted,
    random_forest,
)
from fl_inmetro.trees.grow import Growth  # noqa: E402
from fl_inmetro.trees.rows import Loss  # noqa: E402

#: Name, rows [row, feature], targets [row].
Client = tuple[str, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One training on the test window."""

    model: str
    training: str
    nmae: float
    nrmse: float
    parameters: int
    bytes: int
    seconds: float


class Fleet:
    """The clients' training rows, and how a model of them is scored."""

    def __init__(self, config: Path) -> None:
        settings = load(config, [])
        features = settings.models.mlp.features
        prepared = prepare(settings)
        self.train: list[Client] = []
        self.tests: dict[str, list[tuple[Design, np.ndarray]]] = {}
        for name, data in sorted(prepared.clients.items()):
            parts = [row_design(w, features).trainable() for w in (*data.train, *data.validation)]
            known = [part.known.astype(bool) for part in parts]
            x = np.concatenate([part.x[mask] for part, mask in zip(parts, known, strict=True)])
            y = np.concatenate([p.residual[mask] for p, mask in zip(parts, known, strict=True)])
            self.train.append((name, x.astype(np.float32), y.astype(np.float64)))
            self.tests[name] = [
                (row_design(w, features, targets=False), w.target_kwh()) for w in data.test
            ]

    @property
    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows in one place."""
        return np.concatenate([x for _, x, _ in self.train]), np.concatenate(
            [y for _, _, y in self.train]
        )

    def scores(self, predict: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, float]:
        """Return the fleet's scores of a function of client and rows."""
        sums = {}
        for name, tests in self.tests.items():
            parts = []
            for design, target in tests:
                flat = np.asarray(design.x).reshape(-1, design.x.shape[-1])
                told = predict(name, flat.astype(np.float32)).reshape(target.shape)
                parts.append(ErrorSums.of(Forecast(design.to_kwh(told)), target))
            sums[name] = sum(parts, start=ErrorSums())
        return score_fleet(sums)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--rows", type=float, default=0.25)
    parser.add_argument("--depth", type=int, default=7)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--config", type=Path, default=HERE.parent / "examples/cambridge-full.toml")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    fleet = Fleet(asked.config)
    settings = Settings(
        trees=asked.trees,
        rate=asked.rate,
        growth=Growth(depth=asked.depth, least_rows=50, columns=0.6),
        bins=64,
        rows=asked.rows,
        loss=Loss(0.5),
    )
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(
            f"| {row.model} | {row.training} | {row.nmae:.4f} | {row.nrmse:.3f} | "
            f"{row.parameters:,} | {row.bytes / 1e6:,.0f} MB | {row.seconds:.0f} |",
            file=sys.stderr if asked.json else sys.stdout,
            flush=True,
        )

    if not asked.json:
        print("| model | training | nMAE | NRMSE | parameters | moved | s |")
        print("|---|---|---|---|---|---|---|")
    clients = fleet.train
    edges, agreed = agree(clients, settings.bins)
    for name, way, training in WAYS:
        if name in asked.skip:
            continue
        began = time.perf_counter()
        trained = way(clients, settings, edges)
        seconds = time.perf_counter() - began
        told = trained.ensemble.predict
        found = fleet.scores(lambda _, x, told=told: told(x))
        add(
            Row(
                name,
                training,
                found["nmae"],
                found["nrmse"],
                trained.ensemble.parameters,
                (trained.sent_bytes + agreed) * len(clients),
                seconds,
            )
        )
    x, y = fleet.pooled
    size = x.size * 4 + y.size * 4
    for name, library in (("lightgbm", _lightgbm), ("xgboost", _xgboost)):
        if name in asked.skip:
            continue
        began = time.perf_counter()
        predict = library(x, y, settings)
        seconds = time.perf_counter() - began
        found = fleet.scores(lambda _, rows, told=predict: told(rows))
        add(Row(name, "pooled", found["nmae"], found["nrmse"], 0, size, seconds))
    if "local" not in asked.skip:
        add(_local(fleet, settings))
    if asked.json:
        about: dict[str, Any] = {"machine": machine(), "versions": versions()}
        print(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=1))


def _boosted(clients: list[Client], settings: Settings, edges: list[np.ndarray]) -> Trained:
    return boosted(clients, settings, edges=edges)


def _forest(clients: list[Client], settings: Settings, edges: list[np.ndarray]) -> Trained:
    # Deeper trees have histograms of hundreds of megabytes.
    growth = Growth(depth=8, least_rows=20, columns=0.33, by_node=True)
    few = replace(settings, trees=max(settings.trees // 15, 1), growth=growth)
    return random_forest(clients, few, edges=edges)


WAYS = (
    ("gbdt", _boosted, "federated = pooled"),
    ("random forest", _forest, "federated = pooled"),
)


def _lightgbm(x: np.ndarray, y: np.ndarray, settings: Settings) -> Callable[..., np.ndarray]:
    import lightgbm

    chosen = {
        "objective": "l1",
        "learning_rate": settings.rate,
        "max_depth": settings.growth.depth,
        "num_leaves": 2**settings.growth.depth,
        "min_data_in_leaf": settings.growth.least_rows,
        "max_bin": settings.bins,
        "bagging_fraction": settings.rows,
        "bagging_freq": 1,
        "feature_fraction": settings.growth.columns,
        "lambda_l2": settings.growth.l2,
        "num_threads": 1,
        "seed": 0,
        "verbose": -1,
    }
    booster = lightgbm.train(chosen, lightgbm.Dataset(x, y), settings.trees)
    return lambda rows: np.asarray(booster.predict(rows, num_threads=1))


def _xgboost(x: np.ndarray, y: np.ndarray, settings: Settings) -> Callable[..., np.ndarray]:
    import xgboost

    chosen = {
        "objective": "reg:absoluteerror",
        "eta": settings.rate,
        "max_depth": settings.growth.depth,
        "min_child_weight": settings.growth.least_rows,
        "max_bin": settings.bins,
        "subsample": settings.rows,
        "colsample_bytree": settings.growth.columns,
        "lambda": settings.growth.l2,
        "tree_method": "hist",
        "nthread": 1,
        "seed": 0,
    }
    booster = xgboost.train(chosen, xgboost.DMatrix(x, y), settings.trees)
    return lambda rows: np.asarray(booster.predict(xgboost.DMatrix(rows)))


def _local(fleet: Fleet, settings: Settings) -> Row:
    """Each client alone, by LightGBM: a small part of the rows each, so fewer leaves."""
    growth = replace(settings.growth, depth=5, least_rows=20)
    own = replace(settings, trees=200, growth=growth, rows=0.8)
    began = time.perf_counter()
    models = {name: _lightgbm(x, y, own) for name, x, y in fleet.train}
    seconds = time.perf_counter() - began
    found = fleet.scores(lambda name, rows: models[name](rows))
    return Row("lightgbm", "local", found["nmae"], found["nrmse"], 0, 0, seconds)


if __name__ == "__main__":
    main()

"""From a run directory and a file of groups to forecasts that add up: the wiring of the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fl_inmetro.data.forecast_table import INSTANT
from fl_inmetro.data.load import load
from fl_inmetro.data.protocols import without_protocol
from fl_inmetro.data.splits import resolve
from fl_inmetro.errors import Fault, RunError
from fl_inmetro.forecasting import read_forecasts
from fl_inmetro.hierarchy.base import node_forecasts, node_series
from fl_inmetro.hierarchy.groups import read_groups
from fl_inmetro.hierarchy.study import Grid, Outcome, describe, grid_of, shifted, study
from fl_inmetro.hierarchy.tree import LEAF_LEVEL, Hierarchy
from fl_inmetro.metrics import Forecast, quantile_column
from fl_inmetro.metrics.points import Points
from fl_inmetro.runs.points import points_of
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.runs.versus import Entry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: (Issue, target) in epoch seconds to the forecasts of the nodes, (a,) kWh.
NodeForecasts = dict[tuple[int, int], Floats]


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be reconciled, and how.

    Attributes:
        entry: The row of the run.
        groups: The file of groups.
        methods: Names of `methods.METHODS`.
        calibration_days: Days of issue, from the first on, that errors are taken from.
        base: File of the nodes' forecasts; None = they are made with `node_model`.
        node_model: A name of `base.NODE_MODELS`.
    """

    entry: Entry
    groups: Path
    methods: tuple[str, ...]
    calibration_days: int
    base: Path | None
    node_model: str


@dataclass(frozen=True, eq=False)
class Reconciliation:
    """What came of it.

    Attributes:
        grid: The forecasts at common instants.
        outcome: The methods' forecasts and scores.
        left_out: Clients of the run that the groups do not name.
        filled: Node to the share of its clients' readings that were put in; empty with a file of
            forecasts.
    """

    grid: Grid
    outcome: Outcome
    left_out: tuple[str, ...]
    filled: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            **describe(self.grid, self.outcome),
            "left_out": list(self.left_out),
            "filled": dict(self.filled),
        }


def reconcile(record: RunRecord, request: Request) -> Reconciliation:
    """Reconcile a row of a run.

    Raises:
        RunError: FL703 a file of the run is damaged; FL708 the file of the nodes' forecasts; FL715
            the groups; FL716 there are no forecasts, or they do not meet.
        DataError: The data of the run cannot be read; FL219, nodes cannot be forecast from them.
    """
    entry = request.entry
    table = record.forecasts(entry.model, entry.training)
    if table is None or not table.num_rows:
        raise _fault(
            f"run `{record.id}` keeps no forecasts of {entry.model} ({entry.training})",
            str(record.path),
            "finish the run with --resume, or make it anew",
        )
    points = points_of(table, by_meter=True)
    tree, left_out = read_groups(request.groups, points.names)
    filled: Mapping[str, float] = {}
    if request.base is not None:
        nodes = _from_file(request.base, tree)
    else:
        nodes, filled = _from_readings(record, tree, points, request.node_model)
    grid = grid_of(tree, points, nodes)
    outcome = study(grid, request.methods, request.calibration_days)
    return Reconciliation(grid, outcome, tuple(left_out), filled)


def forecast_table(made: Reconciliation, method: str) -> pa.Table:
    """Return a method's forecasts after the calibration days, of nodes and clients, as a table.

    The columns are those of `forecast`, and `level`; nodes have no quantiles.
    """
    grid, tree = made.grid, made.grid.tree
    after = made.outcome.scored
    leaf_kwh = made.outcome.leaf_kwh[method]
    issue, target = grid.issue_utc_s[after], grid.target_utc_s[after]
    size = len(issue)
    parts = [
        _rows(
            [name for name in tree.nodes for _ in range(size)],
            [level for level in tree.levels for _ in range(size)],
            np.tile(issue, len(tree.nodes)),
            np.tile(target, len(tree.nodes)),
            Forecast(tree.sums(leaf_kwh)[after].T.ravel()),
        )
    ]
    points = shifted(grid, leaf_kwh, after)
    clients = [points.names[k] for k in points.client]
    levels = [LEAF_LEVEL] * len(points)
    forecast = points.forecast
    parts.append(_rows(clients, levels, points.issue_utc_s, points.target_utc_s, forecast))
    return pa.concat_tables(parts, promote_options="default")


# ------------------------------------------------------------------------------ internals
def _rows(
    clients: list[str], levels: list[str], issue: Ints, target: Ints, forecast: Forecast
) -> pa.Table:
    quantiles = {
        quantile_column(level): column
        for level in forecast.levels
        if (column := forecast.at(level)) is not None
    }
    return pa.table(
        {
            "client_id": pa.array(clients, type=pa.string()),
            "issue_time_utc": pa.array(issue, type=pa.int64()).cast(INSTANT),
            "target_time_utc": pa.array(target, type=pa.int64()).cast(INSTANT),
            "mean": forecast.mean_kwh,
            **quantiles,
            "level": pa.array(levels, type=pa.string()),
        }
    )


def _from_file(path: Path, tree: Hierarchy) -> NodeForecasts:
    """Read the nodes' forecasts; those of others in the file are not looked at."""
    table = read_forecasts(path)
    place = {name: v for v, name in enumerate(tree.nodes)}
    names = table["client_id"].to_pylist()
    if lost := sorted(set(place) - set(names)):
        have = ", ".join(sorted(set(names))[:5])
        raise _fault(
            f"the file has no forecasts of {len(lost)} nodes: {', '.join(lost[:5])}",
            f"{path}: client_id {have}",
            "nodes are called `total` and `level:name`, such as `feeder:F1`",
        )
    found: NodeForecasts = {}
    columns = (table[name].to_numpy() for name in ("issue_time_utc", "target_time_utc", "mean"))
    for name, issue, target, mean in zip(names, *columns, strict=True):
        if name in place:
            key = (int(issue), int(target))
            if key not in found:
                found[key] = np.full(len(tree.nodes), np.nan)
            if np.isfinite(found[key][place[name]]):
                raise _fault(
                    f"node `{name}` has two forecasts of one instant",
                    str(path),
                    "keep one model per file",
                )
            found[key][place[name]] = mean
    return found


def _from_readings(
    record: RunRecord, tree: Hierarchy, points: Points, model: str
) -> tuple[NodeForecasts, dict[str, float]]:
    """Forecast the nodes from the sums of the readings that the run was made of."""
    config = record.config
    data = load(config.data, config.seed)
    before = record.manifest["data"].get("files", {})
    now = dict(data.manifest.files)
    if before != now:
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        raise _fault(
            f"the data of run `{record.id}` have changed since it was made",
            "\n".join(changed[:5]),
            "restore them, or give the forecasts of the nodes with --base",
        )
    without_protocol(config.protocol, "`reconcile`")
    splits = resolve(config.window, data)
    own = node_series(tree, data)
    issues = np.unique(points.issue_utc_s)
    made = node_forecasts(model, config.models.ridge, own.series, splits, issues)
    step_s = own.series[0].resolution_s
    kwh = np.stack([one.mean_kwh for one in made], axis=2)  # (N, H, a)
    found = {
        (int(issue), int(issue) + (splits.lead + step) * step_s): kwh[row, step]
        for row, issue in enumerate(issues)
        for step in range(splits.horizon)
    }
    return found, dict(zip(tree.nodes, own.filled, strict=True))


def _fault(what: str, where: str, hint: str) -> RunError:
    return RunError(Fault("FL716", what, where, hint))

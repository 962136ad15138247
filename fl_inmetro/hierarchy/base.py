"""Forecasts of a feeder's own: from the sum of its clients' readings, which its meter measures.

A utility has meters at feeders and substations. Where the data have none, the sum of the clients'
readings stands for them. A missing reading of a client is put in from the same time of the latest
of the four weeks before, so that one silent meter does not silence a feeder; only what lies before
counts, and scores never use what was put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.models import Ridge
from fl_inmetro.data.calendar import steps_per_week
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.site import NOWHERE, Site
from fl_inmetro.data.splits import Splits
from fl_inmetro.data.windows import Windows, windows_at
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.hierarchy.tree import Hierarchy
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.metrics import Forecast
from fl_inmetro.models import ridge
from fl_inmetro.models.baselines import BASELINES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Models that a node can be forecast with.
NODE_MODELS = ("ridge", *BASELINES)

#: Weeks that a missing reading may be taken from.
_WEEKS = 4


@dataclass(frozen=True, eq=False)
class NodeSeries:
    """What the meters of the nodes would measure.

    Attributes:
        series: A series per node of the tree, in its order.
        filled: Share of the clients' readings in it that were put in.
    """

    series: tuple[ClientSeries, ...]
    filled: tuple[float, ...]


def node_series(tree: Hierarchy, data: Mapping[str, ClientSeries]) -> NodeSeries:
    """Add up the readings of the clients below each node; NaN where one has none, and none to put
    in.

    Raises:
        DataError: FL219, a client of the tree has no readings in the data.
    """
    lost = [name for name in tree.leaves if name not in data]
    if lost:
        raise DataError(
            Fault(
                "FL219",
                f"{len(lost)} clients of the groups have no readings in the data",
                "\n".join(f"client {name}" for name in lost[:5]),
                "give the forecasts of the nodes with --base, or restore the data of the run",
            )
        )
    own = [data[name] for name in tree.leaves]
    step_s = own[0].resolution_s
    start_s = min(one.start_utc_s for one in own)
    size = (max(one.end_utc_s for one in own) - start_s) // step_s
    a = len(tree.nodes)
    total, known, put_in = np.zeros((a, size)), np.zeros((a, size), dtype=np.int64), np.zeros(a)
    for leaf, one in enumerate(own):
        values = np.full(size, np.nan)
        first = (one.start_utc_s - start_s) // step_s
        values[first : first + len(one)] = one.energy_kwh
        whole = _filled(values, steps_per_week(step_s))
        there = np.isfinite(whole)
        for v in tree.ancestors(int(tree.leaf_parent[leaf])):
            total[v] += np.where(there, whole, 0.0)
            known[v] += there
            put_in[v] += (there & ~np.isfinite(values)).sum()
    members = tree.sums(np.ones(len(tree.leaves)))
    # Holidays are one calendar's or nobody's; a place and its weather are no sum's.
    holidays = own[0].site.holidays
    site = Site(holidays) if all(one.site.holidays is holidays for one in own) else NOWHERE
    series = tuple(
        ClientSeries(
            name, start_s, step_s, np.where(known[v] == members[v], total[v], np.nan), site
        )
        for v, name in enumerate(tree.nodes)
    )
    shares = put_in / np.maximum(known.sum(axis=1), 1)
    return NodeSeries(series, tuple(float(share) for share in shares))


def node_forecasts(
    name: str, settings: Ridge, series: tuple[ClientSeries, ...], splits: Splits, issues: Ints
) -> list[Forecast]:
    """Forecast every node, issued at `issues`; shape (N, H) each, kWh.

    `ridge` is one model for all nodes, fitted on the training days of the run; the others need no
    training.

    Raises:
        DataError: FL219, no node has a day to be trained on.
    """
    zone = splits.timezone
    lead = splits.lead
    known = [
        windows_at(one, issues, splits.horizon, zone, known=False, lead=lead) for one in series
    ]
    if name != "ridge":
        made = [BASELINES[name](windows) for windows in known]
        forecasts = [one if isinstance(one, Forecast) else Forecast(one) for one in made]
        return [_at(issues, w, one) for w, one in zip(known, forecasts, strict=True)]
    learner = RidgeLearner(settings)
    parts = [
        ridge.sufficient_statistics(learner.design(windows))
        for one in series
        if len(windows := windows_at(one, splits.train, splits.horizon, zone, lead=lead))
    ]
    points = sum(float(part["gram"][-1, -1]) for part in parts)
    if not points:
        raise DataError(
            Fault(
                "FL219",
                "no node has a day to be trained on: at no time of the training days is every "
                "client below a node measured",
                f"{len(series)} nodes",
                "leave clients that came late out of the groups, give the forecasts of the nodes "
                "with --base, or take --node-model ha4",
            )
        )
    state = ridge.solve(
        {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}, settings.alpha
    )
    return [
        _at(issues, windows, learner.forecast(dict(state), learner.design(windows, targets=False)))
        for windows in known
    ]


# ------------------------------------------------------------------------------ internals
def _filled(values: Floats, week: int) -> Floats:
    """Put in the same time of the latest of the weeks before; shape (T,)."""
    result = values.copy()
    for back in range(1, _WEEKS + 1):
        gap = np.flatnonzero(~np.isfinite(result))
        gap = gap[gap >= back * week]
        result[gap] = values[gap - back * week]
    return result


def _at(issues: Ints, windows: Windows, forecast: Forecast) -> Forecast:
    """Return the forecast at all issues, NaN at those before the series begins."""
    mean = np.full((len(issues), windows.horizon), np.nan)
    mean[np.isin(issues, windows.issue_utc_s)] = forecast.mean_kwh
    return Forecast(mean)

"""The ways to make forecasts add up, by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.hierarchy.mint import by_mint
from fl_inmetro.hierarchy.passes import by_passes
from fl_inmetro.hierarchy.tree import Hierarchy

Floats = NDArray[np.float64]

#: bottom-up: the clients' forecasts as they are. top-down: the total's, shared by mean loads, or by
#: the forecasts of each node's children (Athanasopoulos et al. 2009). ols, wls-struct, wls-var:
#: least squares with variances all alike, as the number of clients below, as measured. mint: with
#: the shrunken covariance of the errors.
METHODS = (
    "bottom-up",
    "top-down",
    "top-down-forecasts",
    "ols",
    "wls-struct",
    "wls-var",
    "mint",
)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Past days that say how large the errors are and how they go together.

    Attributes:
        leaf_errors_kwh: Shape (T, m), forecast − measured of the clients; NaN where not measured.
        node_errors_kwh: Shape (T, a), of the nodes; NaN where a client below was not measured.
        leaf_mean_kwh: Shape (m,), the clients' mean load.
    """

    leaf_errors_kwh: Floats
    node_errors_kwh: Floats
    leaf_mean_kwh: Floats

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Shape (T,): the instants at which everything was measured."""
        return np.asarray(np.isfinite(self.leaf_errors_kwh).all(axis=1), dtype=np.bool_)


def reconciled(
    method: str, tree: Hierarchy, leaf_kwh: Floats, node_kwh: Floats, past: Calibration
) -> tuple[Floats, float | None]:
    """Return the leaves' reconciled forecasts, (N, m) kWh, and the shrinkage λ of `mint`.

    The nodes' are their sums, `tree.sums(…)`, so the result adds up by construction.

    Args:
        method: One of METHODS.
        tree: The tree.
        leaf_kwh: Shape (N, m), the clients' forecasts.
        node_kwh: Shape (N, a), the nodes' own.
        past: The days that the errors are taken from; none of the N instants.

    Raises:
        ValueError: There is no such method.
    """
    if method == "bottom-up":
        return leaf_kwh.copy(), None
    if method == "top-down":
        share = past.leaf_mean_kwh / past.leaf_mean_kwh.sum()
        return node_kwh[:, :1] * share, None
    if method == "top-down-forecasts":
        return _by_forecast_shares(tree, leaf_kwh, node_kwh), None
    if method == "ols":
        ones = np.ones(len(tree.leaves)), np.ones(len(tree.nodes))
        return by_passes(tree, leaf_kwh, node_kwh, *ones), None
    if method == "wls-struct":
        ones_ = np.ones(len(tree.leaves))
        return by_passes(tree, leaf_kwh, node_kwh, ones_, tree.sums(ones_)), None
    if method == "wls-var":
        leaf_var = np.nanmean(past.leaf_errors_kwh**2, axis=0)
        node_var = np.nanmean(past.node_errors_kwh**2, axis=0)
        return by_passes(tree, leaf_kwh, node_kwh, leaf_var, node_var), None
    if method == "mint":
        whole = past.whole
        errors = past.leaf_errors_kwh[whole], past.node_errors_kwh[whole]
        return by_mint(tree, leaf_kwh, node_kwh, *errors)
    raise ValueError(f"there is no method `{method}`")


def _by_forecast_shares(tree: Hierarchy, leaf_kwh: Floats, node_kwh: Floats) -> Floats:
    """Share each node's energy among its children as their own forecasts stand to each other."""
    children_kwh = tree.direct_sums(leaf_kwh)
    count = tree.direct_sums(np.ones(len(tree.leaves)))
    for v in range(1, len(tree.nodes)):
        children_kwh[:, tree.parent[v]] += node_kwh[:, v]
        count[tree.parent[v]] += 1
    # Children whose forecasts sum to nothing have no shares: they get equal parts.
    some = children_kwh > 0
    ratio = np.zeros_like(children_kwh)
    even = np.zeros_like(children_kwh)
    for v in range(len(tree.nodes)):
        up = tree.parent[v]
        own = node_kwh[:, v] if v == 0 else node_kwh[:, v] * ratio[:, up] + even[:, up]
        ratio[:, v] = np.where(some[:, v], own / np.where(some[:, v], children_kwh[:, v], 1), 0.0)
        even[:, v] = np.where(some[:, v], 0.0, own / count[v])
    result: Floats = leaf_kwh * ratio[:, tree.leaf_parent] + even[:, tree.leaf_parent]
    return result

"""Weighted least squares on a tree by one pass up and one pass down.

With independent errors of variances w the reconciled forecasts minimise Σ (ỹ − ŷ)²/w over all
series, subject to ỹ of a node being the sum of ỹ of its children (Wickramasuriya et al. 2019, eq. 7
and 8, with a diagonal W; Hollyman et al. 2021 read it as a combination of forecasts). On a tree
the solution is that of a Gaussian model on it: what the children say of their sum has the variance
q = Σp, the node's own forecast has w, and the two are combined by their precisions.

    up    s = Σ μ_c,  q = Σ p_c,  μ = s + q/(q + w)·(ŷ − s),  p = q·w/(q + w);  leaf: μ = ŷ, p = w
    down  u = (ỹ − s)/q,  ỹ_c = μ_c + p_c·u

A leaf's adjustment is its own variance times one number of its feeder, and of its feeder's clients
only the sums of forecasts and of variances are needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.hierarchy.tree import Hierarchy

Floats = NDArray[np.float64]


def node_adjustments(
    tree: Hierarchy, direct_kwh: Floats, direct_var: Floats, node_kwh: Floats, node_var: Floats
) -> Floats:
    """Return what each node tells its leaves: the adjustment per unit of variance.

    Args:
        tree: The tree.
        direct_kwh: Shape (T, a), the sums of the forecasts of the clients right below each node.
        direct_var: Shape (a,), the sums of their error variances, kWh².
        node_kwh: Shape (T, a), the nodes' own forecasts.
        node_var: Shape (a,), their error variances, kWh².

    Returns:
        Shape (T, a), 1/kWh.
    """
    a = len(tree.nodes)
    below, spread = direct_kwh.astype(np.float64), direct_var.astype(np.float64)
    mean, variance = np.zeros_like(below), np.zeros(a)
    for v in range(a - 1, -1, -1):
        q, w = spread[v], node_var[v]
        # Two sides that are certain cannot both be right; the clients' sum counts.
        trust = q / (q + w) if q > 0 else 0.0
        mean[:, v] = below[:, v] + trust * (node_kwh[:, v] - below[:, v])
        variance[v] = trust * w
        if v:
            below[:, tree.parent[v]] += mean[:, v]
            spread[tree.parent[v]] += variance[v]
    unit = np.zeros_like(below)
    for v in range(a):
        up = tree.parent[v]
        own = mean[:, v] if v == 0 else mean[:, v] + variance[v] * unit[:, up]
        if spread[v] > 0:
            unit[:, v] = (own - below[:, v]) / spread[v]
    return unit


def by_passes(
    tree: Hierarchy, leaf_kwh: Floats, node_kwh: Floats, leaf_var: Floats, node_var: Floats
) -> Floats:
    """Return the reconciled forecasts of the leaves, (T, m) kWh; the nodes' are their sums.

    Shapes: forecasts (T, m) and (T, a), kWh; variances (m,) and (a,), in a common unit.
    """
    unit = node_adjustments(
        tree, tree.direct_sums(leaf_kwh), tree.direct_sums(leaf_var), node_kwh, node_var
    )
    result: Floats = leaf_kwh + leaf_var * unit[:, tree.leaf_parent]
    return result

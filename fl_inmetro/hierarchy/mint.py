"""MinT with a shrunken covariance from sums over clients: no client shows its errors.

With C = (I, −A), A the sums of clients at the nodes, the reconciled forecasts are
ŷ − W Cᵀ (C W Cᵀ)⁻¹ C ŷ (Wickramasuriya et al. 2019, eq. 9 in this form), and W is
λ·diag(Σ) + (1 − λ)·Σ with Σ = Σ_t e eᵀ/T, not centred. Then

    C W Cᵀ = λ (diag(w_A) + A diag(w) Aᵀ) + (1 − λ) Σ_t d dᵀ/T,    d = ŷ_A − A ŷ on past days,

needs the clients' variances w summed at the nodes and the nodes' past incoherences d, which come
from sums of forecasts. The row of W Cᵀ of client i needs its own errors and d: the client computes
it. λ of Schäfer & Strimmer (2005) needs Σ r² and Σ Var(r) over all pairs of series; with x the
errors over their root mean square, both follow from the T × T sum K = Σ_i x_i x_iᵀ and Σ x⁴.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.hierarchy.tree import Hierarchy

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ErrorMoments:
    """What the shrinkage needs of some series; those of two sets of series add up.

    Attributes:
        gram: Shape (T, T), Σ x xᵀ of the standardised errors.
        fourth: Σ x⁴ over series and instants.
        series: Series with any error.
    """

    gram: Floats
    fourth: float
    series: int

    def __add__(self, other: ErrorMoments) -> ErrorMoments:
        return ErrorMoments(
            self.gram + other.gram, self.fourth + other.fourth, self.series + other.series
        )


def moments(errors_kwh: Floats) -> ErrorMoments:
    """Return the moments of series without a gap; shape (T, k), kWh."""
    root = np.sqrt((errors_kwh**2).mean(axis=0))
    alive = root > 0
    x = errors_kwh[:, alive] / root[alive]
    return ErrorMoments(x @ x.T, float((x**4).sum()), int(alive.sum()))


def shrinkage(of: ErrorMoments) -> float:
    """Return λ = Σ Var(r_ij) / Σ r_ij² over all pairs i ≠ j, cut to [0, 1].

    Source: Schäfer & Strimmer (2005), target D; Var(r_ij) = (Σ_t x²y² − (Σ_t xy)²/T) / (T(T − 1)).
    One series, or correlations that are all zero, give 1.
    """
    steps = len(of.gram)
    square = float((of.gram**2).sum())
    # Σ over all pairs, then without i = j, where r = 1 and Σ_t x² = T.
    correlations = square / steps**2 - of.series
    products = float((np.diag(of.gram) ** 2).sum()) - of.fourth
    variances = (products - (square / steps - of.series * steps)) / (steps * (steps - 1))
    if correlations <= 1e-12 * max(of.series, 1):
        return 1.0
    return float(np.clip(variances / correlations, 0.0, 1.0))


def node_inverse(
    tree: Hierarchy, leaf_var_sums: Floats, node_var: Floats, past_gap_kwh: Floats, weight: float
) -> Floats:
    """Return (C W Cᵀ)⁻¹, shape (a, a), 1/kWh².

    Args:
        tree: The tree.
        leaf_var_sums: Shape (a,), the clients' error variances summed below each node.
        node_var: Shape (a,), the nodes' own.
        past_gap_kwh: Shape (T, a), forecasts of the nodes less the sums of the clients', on the
            days that the variances are of.
        weight: λ.
    """
    a = len(tree.nodes)
    common = np.zeros((a, a))
    for v in range(a):
        for u in tree.ancestors(v):
            common[u, v] = common[v, u] = leaf_var_sums[v]
    empirical = past_gap_kwh.T @ past_gap_kwh / len(past_gap_kwh)
    matrix = weight * (np.diag(node_var) + common) + (1 - weight) * empirical
    # Two nodes of the same clients and the same forecasts make it singular; they agree anyway.
    inverse = np.linalg.pinv(matrix, rcond=1e-12, hermitian=True)
    return np.asarray(inverse, dtype=np.float64)


def client_adjustment(
    ancestors: list[int],
    errors_kwh: Floats,
    past_gap_kwh: Floats,
    node_numbers: Floats,
    weight: float,
) -> Floats:
    """Return what one client adds to its forecasts, from its own errors and the nodes' numbers.

    Args:
        ancestors: The nodes above the client.
        errors_kwh: Shape (T,), its own past errors, forecast − measured.
        past_gap_kwh: Shape (T, a), as for `node_inverse`.
        node_numbers: Shape (N, a), (C W Cᵀ)⁻¹ (ŷ_A − A ŷ) of the instants to be reconciled.
        weight: λ.

    Returns:
        Shape (N,), kWh.
    """
    gain = -(1 - weight) * (errors_kwh @ past_gap_kwh) / len(errors_kwh)
    gain[ancestors] += weight * float((errors_kwh**2).mean())
    result: Floats = node_numbers @ gain
    return result


def by_mint(
    tree: Hierarchy,
    leaf_kwh: Floats,
    node_kwh: Floats,
    leaf_errors_kwh: Floats,
    node_errors_kwh: Floats,
) -> tuple[Floats, float]:
    """Return the reconciled forecasts of the leaves, (N, m) kWh, and λ.

    Shapes: forecasts (N, m) and (N, a); past errors, forecast − measured and without a gap, (T, m)
    and (T, a); kWh.
    """
    weight = shrinkage(moments(leaf_errors_kwh) + moments(node_errors_kwh))
    past_gap = node_errors_kwh - tree.sums(leaf_errors_kwh)
    inverse = node_inverse(
        tree,
        tree.sums((leaf_errors_kwh**2).mean(axis=0)),
        (node_errors_kwh**2).mean(axis=0),
        past_gap,
        weight,
    )
    numbers = (node_kwh - tree.sums(leaf_kwh)) @ inverse
    result = leaf_kwh.copy()
    for i, parent in enumerate(tree.leaf_parent):
        result[:, i] += client_adjustment(
            tree.ancestors(int(parent)), leaf_errors_kwh[:, i], past_gap, numbers, weight
        )
    return result, weight

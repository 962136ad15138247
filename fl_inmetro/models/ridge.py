"""Ridge regression on row features from sums that clients can add up.

With rows z = (x, 1) and targets r, the solution needs only A = Σzzᵀ and b = Σzr. Both add over
clients, so one round of sums gives the pooled solution exactly (to rounding), whatever the split.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.models.design import Design

Floats = NDArray[np.float64]

#: Rows are added up in blocks, so that a client's float64 copy stays small.
_BLOCK_ROWS = 65_536


def sufficient_statistics(design: Design) -> dict[str, Floats]:
    """Return a client's sums over its known points.

    Shapes: `gram` (F+1, F+1), `moment` (F+1,); the last row is the intercept, so gram[-1, -1] is
    the number of points.
    """
    known = design.known.astype(bool).ravel()
    x = design.x.reshape(-1, design.x.shape[-1])
    r = design.residual.ravel()
    size = x.shape[1] + 1
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for start in range(0, len(x), _BLOCK_ROWS):
        rows = known[start : start + _BLOCK_ROWS]
        block = x[start : start + _BLOCK_ROWS][rows].astype(np.float64)
        z = np.concatenate([block, np.ones((len(block), 1))], axis=1)
        gram += z.T @ z
        moment += z.T @ r[start : start + _BLOCK_ROWS][rows].astype(np.float64)
    return {"gram": gram, "moment": moment}


def solve(statistics: dict[str, Floats], alpha: float) -> dict[str, Floats]:
    """Solve (A + αn·diag(var x)) β = b; the intercept is not penalised.

    The penalty is that of standardised features: it does not depend on their units. A feature that
    never varies gets β = 0 by the minimum-norm solution.

    Shapes: `coefficients` (F+1,), intercept last.
    """
    gram, moment = statistics["gram"], statistics["moment"]
    n = gram[-1, -1]
    mean = gram[-1] / n
    variance = np.maximum(np.diag(gram) / n - mean**2, 0.0)
    variance[-1] = 0.0
    coefficients = np.linalg.lstsq(gram + alpha * n * np.diag(variance), moment, rcond=None)[0]
    return {"coefficients": coefficients}


def correction(state: dict[str, Floats], x: NDArray[np.float32]) -> Floats:
    """Return f(x) = x·β + intercept; shapes (N, H, F) → (N, H)."""
    coefficients = state["coefficients"]
    result: Floats = x.astype(np.float64) @ coefficients[:-1] + coefficients[-1]
    return result

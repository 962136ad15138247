"""Ridge regression on row features from sums that clients can add up.

With rows z = (x, 1) and targets r, the solution needs only A = Σzzᵀ and b = Σzr. Both add over
clients, so one round of sums gives the pooled solution exactly (to rounding), whatever the split.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.models.design import CLIP, Design

Floats = NDArray[np.float64]

#: Rows are added up in blocks, so that a client's float64 copy stays small.
_BLOCK_ROWS = 65_536

#: A feature whose variance is a smaller share of its mean square than this is a constant.
_VARIES = 1e-12


def sufficient_statistics(design: Design) -> dict[str, Floats]:
    """Return a client's sums over its known points.

    Shapes: `gram` (F+1, F+1), `moment` (F+1,), `square` (1,), Σr²; the last row is the intercept,
    so gram[-1, -1] is the number of points. The solution does not need Σr²: it lets the server see
    whether the sums can be those of any rows, and how a model fits them (`learning/sums.py`).
    """
    known = design.known.astype(bool).ravel()
    x = design.x.reshape(-1, design.x.shape[-1])
    r = design.residual.ravel()
    size = x.shape[1] + 1
    gram, moment, square = np.zeros((size, size)), np.zeros(size), np.zeros(1)
    for start in range(0, len(x), _BLOCK_ROWS):
        rows = known[start : start + _BLOCK_ROWS]
        block = x[start : start + _BLOCK_ROWS][rows].astype(np.float64)
        z = np.concatenate([block, np.ones((len(block), 1))], axis=1)
        gram += z.T @ z
        target = r[start : start + _BLOCK_ROWS][rows].astype(np.float64)
        moment += z.T @ target
        square += target @ target
    # The product of a block is symmetric in all but its last bits.
    return {"gram": (gram + gram.T) / 2, "moment": moment, "square": square}


def solve(statistics: dict[str, Floats], alpha: float) -> dict[str, Floats]:
    """Solve for standardised features u: (Σuuᵀ/n + αI) b = Σu(r − r̄)/n, then undo the scaling.

    The penalty does not depend on the features' units, and the intercept is not penalised. A
    feature that never varies gets β = 0; of features that depend on each other, α = 0 takes the
    solution of least norm.

    The state also keeps the mean and the standard deviation of the features, which the sums
    contain, for the forecast's guard against extrapolation.

    Shapes: `coefficients` (F+1,), intercept last; `x_mean` and `x_std` (F,).
    """
    gram, moment = statistics["gram"], statistics["moment"]
    n = gram[-1, -1]
    mean, mean_r = gram[-1, :-1] / n, moment[-1] / n
    square = np.diag(gram)[:-1] / n
    covariance = gram[:-1, :-1] / n - np.outer(mean, mean)
    variance = np.diag(covariance)
    # The difference of two sums cannot show a variance below their rounding errors.
    varies = variance > _VARIES * square
    std = np.sqrt(np.where(varies, variance, 1.0))
    kept = np.outer(varies, varies)
    correlation = np.where(kept, covariance / np.outer(std, std), 0.0)
    target = np.where(varies, (moment[:-1] / n - mean * mean_r) / std, 0.0)
    penalised = correlation + alpha * np.eye(len(std))
    solution = np.linalg.lstsq(penalised, target, rcond=None)[0]
    beta = np.where(varies, solution / std, 0.0)
    return {
        "coefficients": np.append(beta, mean_r - mean @ beta),
        "x_mean": mean,
        "x_std": np.where(varies, std, 0.0),
    }


def correction(state: dict[str, Floats], x: NDArray[np.float32]) -> Floats:
    """Return f(x) = x·β + intercept; shapes (N, H, F) → (N, H).

    A feature is cut at five standard deviations from its training mean, as in the MLP: a client
    that is unlike all others (days of missing readings, say) must not be thrown off by one slope.
    """
    coefficients = state["coefficients"]
    reach = CLIP * state["x_std"]
    seen = np.clip(x.astype(np.float64), state["x_mean"] - reach, state["x_mean"] + reach)
    result: Floats = seen @ coefficients[:-1] + coefficients[-1]
    return result

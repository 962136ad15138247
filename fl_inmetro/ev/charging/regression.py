"""Linear, quantile and logistic regression over clients, from sums that they add up.

Rows never leave a client. A mean takes one round (X'X, X'y). A quantile takes rounds of weighted
sums: the pinball loss is majorised by a square at the present coefficients (Hunter and Lange,
"Quantile regression via an MM algorithm", J. Comput. Graph. Stat. 9, 2000, eq. 2 to 5). A
probability takes Newton's rounds (iteratively reweighted least squares; McCullagh and Nelder,
*Generalized Linear Models*, 1989, section 4.4). The sums of clients are those of the pooled rows,
so the answers are the central ones. The first column is the intercept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError

Floats = NDArray[np.float64]

#: Least smoothing of |u|, and how it falls from round to round, in units of the mean |residual|.
SMOOTH_LAST, SMOOTH_FALL = 1e-4, 0.6

#: A mean loss that falls by less (relative) ends the rounds.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Rows:
    """A client's own rows.

    Attributes:
        x: [row, column], the first column all 1.
        y: [row].
    """

    x: Floats
    y: Floats

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Sums:
    """What leaves a client in a round; it adds up.

    Attributes:
        xx: X'WX [column, column].
        xy: X'Wz [column]; for a probability the gradient.
        loss: Sum of the loss at the coefficients that were sent.
        n: Rows.
    """

    xx: Floats
    xy: Floats
    loss: float
    n: int

    def __add__(self, other: Sums) -> Sums:
        """Return the sums of both.

        Raises:
            FederationError: FL373, they have other columns.
        """
        if self.xx.shape != other.xx.shape:
            raise FederationError(
                Fault(
                    "FL373",
                    f"sums of {len(self.xy)} columns cannot be added to those of {len(other.xy)}",
                )
            )
        return Sums(
            self.xx + other.xx, self.xy + other.xy, self.loss + other.loss, self.n + other.n
        )


def total(sums: Sequence[Sums]) -> Sums:
    """Add clients' sums up.

    Raises:
        FederationError: FL373, there is no row, or the columns differ.
    """
    if not sum(one.n for one in sums):
        raise FederationError(Fault("FL373", "no client has a row to learn from"))
    result = sums[0]
    for one in sums[1:]:
        result = result + one
    return result


def mean_sums(rows: Rows) -> Sums:
    """Return X'X, X'y and y'y (as the loss of coefficients of zero) of one client."""
    return Sums(rows.x.T @ rows.x, rows.x.T @ rows.y, float(rows.y @ rows.y), len(rows))


def quantile_sums(rows: Rows, beta: Floats, level: float, smoothing: float) -> Sums:
    """Return one client's weighted sums and pinball loss at β [column]."""
    u = rows.y - rows.x @ beta
    apart = smoothing + np.abs(u)
    response = rows.y + (2 * level - 1) * apart
    weighted = rows.x / apart[:, None]
    loss = float(np.maximum(level * u, (level - 1) * u).sum())
    return Sums(rows.x.T @ weighted, weighted.T @ response, loss, len(rows))


def logistic_sums(rows: Rows, beta: Floats) -> Sums:
    """Return one client's Hessian, gradient and negative log-likelihood at β; y is 0 or 1."""
    score = rows.x @ beta
    p = chance(score)
    weighted = rows.x * (p * (1 - p))[:, None]
    loss = float((np.logaddexp(0.0, score) - rows.y * score).sum())
    return Sums(rows.x.T @ weighted, rows.x.T @ (rows.y - p), loss, len(rows))


def chance(score: Floats) -> Floats:
    """Return 1 / (1 + e^−s), without overflow."""
    p: Floats = 0.5 * (1 + np.tanh(0.5 * score))
    return p


def mean_fit(clients: Sequence[Rows], ridge: float = 1e-6) -> Floats:
    """Return β of the mean [column], in one round.

    Args:
        clients: Each one's rows.
        ridge: Weight of β_j² in units of the column's mean square and the number of rows; the
            intercept is free.

    Raises:
        FederationError: FL373, no rows, or other columns.
    """
    sums = total([mean_sums(rows) for rows in clients])
    return _solve(sums, _penalty(sums.xx, ridge), sums.xy)


def quantile_fit(
    clients: Sequence[Rows], level: float, ridge: float = 1e-6, rounds: int = 200
) -> Floats:
    """Return β of one quantile [column]; begins at the mean's, one round of sums each.

    Args:
        clients: Each one's rows.
        level: τ.
        ridge: See `mean_fit`.
        rounds: At most.

    Raises:
        FederationError: FL373, no rows, or other columns.
    """
    first = total([mean_sums(rows) for rows in clients])
    penalty = _penalty(first.xx, ridge)
    beta = _solve(first, penalty, first.xy)
    # The size of y without a look at a row: its root mean square around the mean's answer.
    left = max(float(first.loss - 2 * beta @ first.xy + beta @ first.xx @ beta), 0.0)
    scale = max(float(np.sqrt(left / first.n)), 1e-12)
    # A square's weights are 1/|u|, a mean's 1: the penalty is brought to the same size.
    penalty /= scale
    smoothing, before = 0.1 * scale, np.inf
    for _ in range(rounds):
        sums = total([quantile_sums(rows, beta, level, smoothing) for rows in clients])
        loss = sums.loss + 0.25 * float(penalty @ beta**2)
        settled = smoothing <= SMOOTH_LAST * scale
        if settled and before - loss <= TOLERANCE * loss:
            break
        before = loss
        beta = _solve(sums, penalty, sums.xy)
        smoothing = max(smoothing * SMOOTH_FALL, SMOOTH_LAST * scale)
    return beta


def logistic_fit(clients: Sequence[Rows], ridge: float = 1e-4, rounds: int = 50) -> Floats:
    """Return β of the log-odds [column] by Newton's method, a step halved where it went too far.

    Args:
        clients: Each one's rows, y 0 or 1.
        ridge: See `mean_fit`; it keeps a column finite that tells every answer.
        rounds: At most.

    Raises:
        FederationError: FL373, no rows, or other columns.
    """
    penalty = _penalty(total([mean_sums(rows) for rows in clients]).xx, ridge)
    beta = np.zeros(len(penalty))
    sums = total([logistic_sums(rows, beta) for rows in clients])
    loss = sums.loss
    for _ in range(rounds):
        step = _solve(sums, penalty, sums.xy - penalty * beta)
        if np.abs(step).max() < 1e-10:
            break
        for _ in range(30):
            tried = total([logistic_sums(rows, beta + step) for rows in clients])
            penalised = tried.loss + 0.5 * float(penalty @ (beta + step) ** 2)
            if penalised <= loss * (1 + 1e-12):
                break
            step = 0.5 * step
        beta, sums, loss = beta + step, tried, penalised
    return beta


def _penalty(xx: Floats, ridge: float) -> Floats:
    # What a column never says (all zero) must not make the equations singular.
    penalty = np.full(len(xx), 1e-9)
    np.maximum(ridge * np.diag(xx), penalty, out=penalty)
    penalty[0] = 0.0
    return penalty


def _solve(sums: Sums, penalty: Floats, right: Floats) -> Floats:
    return np.linalg.solve(sums.xx + np.diag(penalty), right).astype(np.float64, copy=False)

"""Linear quantile regression on row features from sums that clients can add up, round by round.

The pinball loss of a level is majorised at the present coefficients by a square, whose weighted
normal equations are sums over points; their solution is the next iterate.
Source: Hunter & Lange (2000), "Quantile regression via an MM algorithm", Journal of Computational
and Graphical Statistics 9(1), eq. 2 to 5. Steps beyond the majoriser's minimum, but less than
twice as far, do not raise the loss either (de Leeuw & Heiser 1980, "Multidimensional scaling with
restrictions on the configuration", relaxed updates), and take about half the rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.models import ridge
from fl_inmetro.models.design import CLIP, Design

Floats = NDArray[np.float64]

#: Rows are added up in blocks that stay in a processor's cache.
_BLOCK_ROWS = 8_192

#: Length of a step; the minimum of the majoriser is at 1, beyond 2 descent is not sure.
RELAXATION = 1.9

#: The first smoothing, in standard deviations of what ridge leaves.
_SMOOTH_FIRST = 0.1

#: What becomes of it in each round.
_SMOOTH_FALL = 0.6

#: The last, in units of `_size`: the mean pinball loss, but for a factor between τ and 1 − τ.
_SMOOTH_LAST = 1e-3

#: Share of Σr² that is rounding.
_NOTHING = 1e-12

#: Gain of a level whose smoothing still falls: more than any tolerance.
_FALLING = 1.0


def pinball(residual: Floats, levels: Floats) -> Floats:
    """Return ρ_τ(u) = max(τu, (τ − 1)u) for u (P, L) and levels (L,); shape (P, L)."""
    result: Floats = np.maximum(levels * residual, (levels - 1) * residual)
    return result


def mean_pinball(design: Design, levels: Sequence[float], coefficients: Floats) -> float:
    """Return the mean of ρ_τ over the known points and the levels; NaN without a known point.

    Shapes: `coefficients` (L, F+1), intercept last.
    """
    tau, total, points = np.array(levels), 0.0, 0
    for z, r in _blocks(design):
        total += float(pinball(r[:, None] - z @ coefficients.T, tau).sum())
        points += len(r)
    return total / (points * len(tau)) if points else float("nan")


def weighted_statistics(
    design: Design, levels: Sequence[float], coefficients: Floats, smoothing: Floats
) -> tuple[dict[str, Floats], float]:
    """Return a client's sums over its known points at `coefficients`, and its mean pinball loss.

    With u = r − βz, w = 1 / (ε + |u|) and the response r̃ = r + (2τ − 1)(ε + |u|) the majoriser of
    ρ_τ(u) − (ε/2) ln(ε + |u|) is ¼ w (r̃ − βz)², but for a constant. So the sums are those of
    weighted least squares, and the server may ask of them what it asks of ridge's.

    Shapes: `coefficients` (L, F+1), `smoothing` (L,), ε > 0 → `gram` (L, F+1, F+1), Σw zzᵀ;
    `moment` (L, F+1), Σw z r̃; `points` (1,), the number of points; `square` (L,), Σw r̃².
    """
    tau = np.array(levels)
    size, count = coefficients.shape[1], len(tau)
    gram, moment = np.zeros((count, size, size)), np.zeros((count, size))
    square, points, loss = np.zeros(count), 0, 0.0
    for z, r in _blocks(design):
        u = r[:, None] - z @ coefficients.T
        loss += float(pinball(u, tau).sum())
        apart = smoothing + np.abs(u)
        response = r[:, None] + (2 * tau - 1) * apart
        for k in range(count):
            half = z / np.sqrt(apart[:, k, None])
            gram[k] += half.T @ half
            moment[k] += z.T @ (response[:, k] / apart[:, k])
            square[k] += response[:, k] @ (response[:, k] / apart[:, k])
        points += len(r)
    sums = {
        # Symmetric in all but the last bits.
        "gram": (gram + gram.transpose(0, 2, 1)) / 2,
        "moment": moment,
        "points": np.array([float(points)]),
        "square": square,
    }
    return sums, loss / (points * count) if points else float("nan")


def begin(
    statistics: dict[str, Floats], levels: Sequence[float], alpha: float
) -> dict[str, Floats]:
    """Return the first state from ridge's sums: its mean, and the levels where they would stand.

    Were what ridge leaves normal, level τ would lie σΦ⁻¹(τ) above the mean: a start, no more.

    Shapes: `coefficients` (1 + L, F+1), the mean's first; `x_mean` and `x_std` (F,); `smoothing`
    (L,), ε of the next round; `gain` (L,).
    """
    solved = ridge.solve(statistics, alpha)
    mean = solved["coefficients"]
    gram, moment, square = (statistics[name] for name in ("gram", "moment", "square"))
    left = float(square[0] - 2 * mean @ moment + mean @ gram @ mean)
    sigma = float(np.sqrt(max(left, 0.0) / gram[-1, -1]))
    # Where ridge leaves nothing, every level is the mean, and no round has anything to weigh.
    exact = left <= _NOTHING * float(square[0])
    coefficients = np.tile(mean, (1 + len(levels), 1))
    if not exact:
        coefficients[1:, -1] += [sigma * NormalDist().inv_cdf(level) for level in levels]
    return {
        "coefficients": coefficients,
        "x_mean": solved["x_mean"],
        "x_std": solved["x_std"],
        "smoothing": np.full(len(levels), _SMOOTH_FIRST * sigma),
        "gain": np.full(len(levels), 0.0 if exact else _FALLING),
    }


def improve(
    state: dict[str, Floats], statistics: dict[str, Floats], alpha: float
) -> dict[str, Floats]:
    """Return the state after a round, from the summed `weighted_statistics`.

    Level by level, with features u standardised by the first round's mean and deviation and γ their
    coefficients, it moves towards the minimum of the majoriser of

        Σ ρ_τ(r − γu) / n + (α/2) Σ_j γ_j²,    (Σw uuᵀ + 2αnI) γ = Σw u r̃,

    the intercept unpenalised, a feature that never varied left out; where features depend on each
    other and α = 0, by the solution of least norm. Then the smoothing falls.

    `gain` is what the minimum lies below the present value, as a share of Σw(r̃ − βz)² / 4n, which
    is the mean pinball loss but for a factor between min(τ, 1 − τ) and max(τ, 1 − τ); while the
    smoothing falls it is at least 1. Steps shrink slowly, so the loss is some times that much away
    from its minimum.
    """
    n = float(statistics["points"][0])
    beta, smoothing, gain = (state[name].copy() for name in ("coefficients", "smoothing", "gain"))
    scaling = _standardisation(state["x_mean"], state["x_std"])
    penalty = np.full(len(scaling), 2 * alpha * n)
    penalty[-1] = 0.0
    for k in range(len(smoothing)):
        own = beta[1 + k]
        gram, moment = statistics["gram"][k], statistics["moment"][k]
        error = float(statistics["square"][k] - 2 * own @ moment + own @ gram @ own)
        size = max(error, 0.0) / (4 * n)
        matrix = scaling @ gram @ scaling.T + np.diag(penalty)
        gamma = _standardised(own, state)
        slope = scaling @ (moment - gram @ own) - penalty * gamma
        step = np.linalg.lstsq(matrix, slope, rcond=None)[0]
        beta[1 + k] = own + RELAXATION * (scaling.T @ step)
        below = float(step @ slope) / (4 * n)
        last = min(smoothing[k], max(_SMOOTH_FALL * smoothing[k], _SMOOTH_LAST * size))
        falls = last < smoothing[k]
        gain[k] = max(below / size if size > 0 else 0.0, _FALLING if falls else 0.0)
        smoothing[k] = last
    return {**state, "coefficients": beta, "smoothing": smoothing, "gain": gain}


def correction(state: dict[str, Floats], x: NDArray[np.float32]) -> Floats:
    """Return the mean's and the levels' f(x) = x·β + intercept; (N, H, F) → (N, H, 1 + L).

    Features are cut as ridge's are. Levels may cross.
    """
    coefficients = state["coefficients"]
    reach = CLIP * state["x_std"]
    seen = np.clip(x.astype(np.float64), state["x_mean"] - reach, state["x_mean"] + reach)
    result: Floats = seen @ coefficients[:, :-1].T + coefficients[:, -1]
    return result


# ------------------------------------------------------------------------------ internals
def _blocks(design: Design) -> Iterator[tuple[Floats, Floats]]:
    """Yield rows z = (x, 1) and residuals of the known points, in float64: (P, F+1) and (P,)."""
    known = design.known.astype(bool).ravel()
    x = design.x.reshape(-1, design.x.shape[-1])
    residual = design.residual.ravel()
    for start in range(0, len(x), _BLOCK_ROWS):
        rows = known[start : start + _BLOCK_ROWS]
        block = x[start : start + _BLOCK_ROWS][rows].astype(np.float64)
        z = np.concatenate([block, np.ones((len(block), 1))], axis=1)
        yield z, residual[start : start + _BLOCK_ROWS][rows].astype(np.float64)


def _standardisation(mean: Floats, std: Floats) -> Floats:
    """Return M with Mz = (u, 1) of the V features that vary; shape (V+1, F+1)."""
    varies = np.flatnonzero(std > 0)
    result = np.zeros((len(varies) + 1, len(std) + 1))
    rows = np.arange(len(varies))
    result[rows, varies] = 1 / std[varies]
    result[rows, -1] = -mean[varies] / std[varies]
    result[-1, -1] = 1.0
    return result


def _standardised(beta: Floats, state: dict[str, Floats]) -> Floats:
    """Return the coefficients of (u, 1) of those of (x, 1); (F+1,) → (V+1,)."""
    varies = state["x_std"] > 0
    slopes = (beta[:-1] * state["x_std"])[varies]
    return np.append(slopes, beta[-1] + beta[:-1] @ state["x_mean"])

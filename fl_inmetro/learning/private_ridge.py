"""Ridge under differential privacy: noisy sufficient statistics, and a penalty that bears them.

Rows are brought to public units, u = (x − mean) / std of `data/public_scales.py` cut at five, with
z = (u, 1), and residuals r are cut at 1. What is asked of a record is how far its means over its
rows lie from what is known anyway, E[zzᵀ] − I and E[zr]. An entry beside the diagonal counts √2, so
that the L2 norm of the upper triangle is the Frobenius norm, and the noise is symmetric. Both parts
are clipped by norms of their own and divided by √2 of them: together at most 1 long. The moments
are a tenth as long as the matrix, so that one norm for both would drown them.

- `client`: the record is the client; the server adds noise to the sum and divides by K.
- `window`, `client-day`: it is each window; the client adds noise to their sum itself; the server
  divides by the number of all windows.

Noise in the matrix has eigenvalues up to about σ√(2d), by which the ridge is raised; a moment that
its noise may explain is moved towards zero (`privacy.sums.shrunk`). So what too much noise leaves
is the base profile, for which nothing is learned.
Source: Wang (2018), "Revisiting differentially private linear regression", algorithm 2 (AdaSSP),
for statistics and ridge; Tropp (2015), "An Introduction to Matrix Concentration Inequalities", 4.2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.models import Ridge
from fl_inmetro.data.features import feature_names
from fl_inmetro.data.public_scales import PublicScales, public_scales
from fl_inmetro.learning.closed_form import RidgeLearner
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.models.design import CLIP, Design
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import clipped, noised, shrunk

Floats = NDArray[np.float64]

#: Norms of the matrix and of the moments. Chosen on the validation windows of 85 buildings, whose
#: own have median norms of 9.1 and 0.11, their windows' 14.5 and 0.27.
CLIENT_NORMS, WINDOW_NORMS = (8.0, 0.3), (16.0, 1.0)

#: Residuals are cut here, in units of the client's scale.
_RESIDUAL = 1.0

#: Name of the statistic in a reply, and of what the server's noise makes of it.
NAME, DEVIATION = "statistic", "deviation"


class PrivateRidgeLearner(RidgeLearner):
    """Ridge whose clients send clipped statistics, with noise of their own where windows count.

    Args:
        settings: `[models.ridge]`.
        by_client: Whether a client is one record; else each of its windows is.
    """

    def __init__(self, settings: Ridge, *, by_client: bool) -> None:
        super().__init__(settings)
        self.by_client = by_client

    @property
    def norms(self) -> tuple[float, float]:
        """Norms that the matrix and the moments of a record are clipped to."""
        return CLIENT_NORMS if self.by_client else WINDOW_NORMS

    @property
    def scales(self) -> PublicScales:
        """Units of the features."""
        return public_scales(feature_names(self.settings.features))

    def update(
        self,
        state: Arrays,
        design: Design,
        work: LocalWork,
        seed: int,
        *,
        shift: Arrays | None = None,
        secret: Secret | None = None,
        debug: bool = False,
    ) -> tuple[Arrays, float]:
        """Return the clipped statistic, and no loss: that would have no noise.

        Where a record is a window, it has noise of `work.dp.noise_multiplier`.

        Raises:
            ValueError: Windows are protected, and the work says nothing of noise, or there is no
                secret to draw it from.
        """
        parts = window_statistics(design, self.scales)
        if self.by_client:
            parts = parts.mean(axis=0, keepdims=True) if len(parts) else parts
        total = self._short(parts).sum(axis=0)
        if not self.by_client:
            if secret is None or work.dp is None:
                raise ValueError("noise of a client's own needs `dp` and a secret to draw from")
            total = noised(total, 1.0, work.dp.noise_multiplier, secret, "statistic")
        return {NAME: total}, math.nan

    def sums_like(self, state: Arrays) -> Arrays:
        """Return zeros of the shape of a reply."""
        size = len(state["coefficients"])
        return {NAME: np.zeros(size * (size + 1) // 2 + size)}

    def finish(self, state: Arrays, merged: Arrays) -> Arrays:
        """Solve from the mean statistic and the deviation of the noise on each of its numbers."""
        matrix, moment = _split(merged[NAME])
        of_matrix, of_moment = (math.sqrt(2) * norm for norm in self.norms)
        deviation = float(merged[DEVIATION][0])
        return solve_noisy(
            matrix * of_matrix,
            shrunk(moment * of_moment, deviation * of_moment),
            deviation * of_matrix,
            self.scales,
            self.settings.alpha,
        )

    def _short(self, parts: Floats) -> Floats:
        """Return statistics of at most length 1: each part by its own norm."""
        matrix, moment = _split(parts)
        pairs = zip((matrix, moment), self.norms, strict=True)
        return np.concatenate(
            [clipped(part, norm) / (math.sqrt(2) * norm) for part, norm in pairs], axis=1
        )


def window_statistics(design: Design, scales: PublicScales) -> Floats:
    """Return E[zzᵀ] − I (upper triangle) and E[zr] of each window that is trained on.

    Shapes: (N, d(d+1)/2 + d), with d = F + 1.
    """
    trained = design.trainable()
    size = trained.x.shape[2] + 1
    upper, weight = _upper(size)
    result = np.empty((len(trained.x), len(weight) + size))
    for k, x in enumerate(trained.x):
        known = trained.known[k] > 0
        u = np.clip((x[known].astype(np.float64) - scales.mean) / scales.std, -CLIP, CLIP)
        z = np.concatenate([u, np.ones((len(u), 1))], axis=1)
        r = np.clip(trained.residual[k][known].astype(np.float64), -_RESIDUAL, _RESIDUAL)
        matrix = z.T @ z / len(z) - np.eye(size)
        result[k] = np.concatenate([matrix[upper] * weight, z.T @ r / len(z)])
    return result


def solve_noisy(
    matrix: Floats, moment: Floats, deviation: float, scales: PublicScales, alpha: float
) -> Arrays:
    """Return a state of ridge from noisy means.

    Args:
        matrix: E[zzᵀ] − I, upper triangle; shape (d(d+1)/2,).
        moment: E[zr], shape (d,).
        deviation: σ of the noise on each number of `matrix`.
        scales: Units of the features.
        alpha: Penalty besides that of the noise; the intercept has it, too.

    Returns:
        `coefficients` (F+1,), intercept last, in the features' own units; `x_mean`, `x_std` (F,).
    """
    size = len(moment)
    upper, weight = _upper(size)
    whole = np.zeros((size, size))
    whole[upper] = matrix / weight
    whole = whole + np.triu(whole, 1).T + np.eye(size)
    values, vectors = np.linalg.eigh(whole)
    # What noise has pushed below zero is lifted before the ridge is added.
    penalised = np.maximum(values, 0.0) + alpha + deviation * math.sqrt(2 * size)
    usable = penalised > size * np.finfo(np.float64).eps * penalised.max()
    inverse = np.divide(1.0, penalised, out=np.zeros(size), where=usable)
    solution = vectors @ (inverse * (vectors.T @ moment))
    beta = solution[:-1] / scales.std
    return {
        "coefficients": np.append(beta, solution[-1] - scales.mean @ beta),
        "x_mean": scales.mean.copy(),
        "x_std": scales.std.copy(),
    }


# ------------------------------------------------------------------------------ internals
def _split(vectors: Floats) -> tuple[Floats, Floats]:
    """Return matrix part and moment part of statistics; d(d+3)/2 numbers have d moments."""
    numbers = vectors.shape[-1]
    size = (math.isqrt(9 + 8 * numbers) - 3) // 2
    return vectors[..., : numbers - size], vectors[..., numbers - size :]


def _upper(size: int) -> tuple[tuple[NDArray[np.int64], ...], Floats]:
    """Return the places of the upper triangle, and the root of how often each counts."""
    upper = np.triu_indices(size)
    return upper, np.where(upper[0] == upper[1], 1.0, math.sqrt(2.0))

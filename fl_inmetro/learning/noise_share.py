"""A client's share of the noise on the sum of updates, added before its update leaves it.

The whole shared update is clipped to an L2 norm, and every number of it gets Gaussian noise of the
client's own. Added up over the clients that answer, the noise has the sum of the variances; who
does not answer takes its share away (`privacy.mechanism.noise_of_round`).
Source: Kairouz, Liu & Steinke (2021), "The Distributed Discrete Gaussian Mechanism", section 1, for
shares of noise; here without a grid and without secure aggregation.

An update that is not finite counts as zero: NaN would tell of it through any noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.update import Arrays, Layout
from fl_inmetro.learning.work import NoiseShare
from fl_inmetro.privacy.secret import Secret


def noised_rows(
    matrix: NDArray[np.float32], layout: Layout, share: NoiseShare, secrets: Sequence[Secret]
) -> None:
    """Clip and noise the updates of C clients in place.

    Noise is drawn in the order of the names and in plain shapes, so that it is the same however an
    executor keeps a matrix.

    Args:
        matrix: Updates, shape (C, P).
        layout: What stands where in a row.
        share: Clip and deviation.
        secrets: Of each client and this training alone.
    """
    for row, secret in zip(matrix, secrets, strict=True):
        norm = float(np.linalg.norm(row.astype(np.float64)))
        if np.isfinite(norm):
            row *= _factor(norm, share.clip)
        else:
            row[:] = 0  # zero times infinity is no zero
        generator = secret.generator("share")
        for part in layout.arrays(row).values():
            normal = generator.standard_normal(part.shape, dtype=np.float32)
            part += np.float32(share.sigma) * normal


def noised(arrays: Arrays, share: NoiseShare, secret: Secret) -> Arrays:
    """Return one client's shared update, clipped and noised."""
    layout = Layout.of(arrays)
    row = layout.flat(arrays).copy()
    noised_rows(row[None], layout, share, [secret])
    return layout.arrays(row)


def _factor(norm: float, clip: float) -> np.float32:
    """Return min(1, clip / norm)."""
    return np.float32(min(1.0, clip / max(norm, 1e-30)))

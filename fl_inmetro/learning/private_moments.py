"""Standardisation under differential privacy: what a client sends, and what the server makes of it.

Features are first brought to public units, u = (x − mean) / std of `data/public_scales.py`, and cut
where the models cut them. What is asked of a client is how far its moments lie from what is known
anyway, v = (E[u], E[u²] − 1): short vectors, so that clipping takes little and noise hides them. A
feature of calendar or weather alone is not asked for.

- `client`: v over all rows of the client, clipped; the server adds noise to the sum, and divides
  by the number of clients.
- `window`, `client-day`: v of each window, clipped; the client adds noise to their sum itself; the
  server divides the sum over clients by the number of all windows.

The server moves what has come back towards the public scales as far as noise says
(`privacy.sums.shrunk`), so that more noise means public units and never nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.features import feature_names
from fl_inmetro.data.public_scales import PublicScales, public_scales
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.models.design import CLIP, Design
from fl_inmetro.privacy.release import digest_of
from fl_inmetro.privacy.secret import Secret
from fl_inmetro.privacy.sums import PrivateSums, clipped, noised, shrunk

Floats = NDArray[np.float64]

#: C of a client's v, and of a window's. With the default features (v of 60 numbers) the norm of
#: 85 buildings' v has median 4.8 and 90th percentile 8.8; of their 22,683 windows', 4.9 and 8.8.
CLIENT_NORM, WINDOW_NORM = 5.0, 5.0

#: The variance of a feature is at least this share of the public one.
_LEAST_VARIANCE = 0.05

#: Name of v among the sums of an enrolment.
NAME = "moments"


@dataclass(frozen=True)
class MomentsAsked:
    """What is asked of a client that enrols.

    Attributes:
        unit: `nothing`: public constants do; `client`: its v, clipped; `window`: the sum of its
            windows' v, each clipped, with noise of its own.
        noise_multiplier: z of the noise that the client adds, in multiples of `WINDOW_NORM`.
    """

    unit: str
    noise_multiplier: float = 0.0

    @classmethod
    def of(cls, private: PrivateSums) -> MomentsAsked:
        """Return what a client is asked for under these settings."""
        if private.noise_multiplier is None:
            return cls("nothing")
        if private.by_client:
            return cls("client")
        return cls("window", private.noise_multiplier)


def row_names(learner: Learner) -> tuple[str, ...]:
    """Return the names of the row features that a learner standardises; empty where it does not."""
    groups = () if learner.closed_form else getattr(learner, "features", None)
    if groups is None:
        groups = getattr(getattr(learner, "settings", None), "features", ())
    return feature_names(groups)


def asked_of(
    learner: Learner, design: Design, asked: MomentsAsked, secret: Secret | None, client_id: str
) -> Arrays:
    """Return what leaves a client in the place of the learner's own sums.

    Args:
        learner: The learner.
        design: The client's training windows.
        asked: What is asked.
        secret: Of this training; for noise of the client's own.
        client_id: The client.

    Raises:
        PrivacyError: FL411, the learner enrols with sums that are no moments of row features.
        ValueError: Noise is asked for, and there is no secret.
    """
    names = row_names(learner)
    if not names and learner.enrol(design):
        raise _no_form(learner)
    if not names or asked.unit == "nothing":
        return {}
    parts = window_moments(design, names)
    if asked.unit == "client":
        whole = parts.mean(axis=0, keepdims=True) if len(parts) else np.zeros((1, parts.shape[1]))
        return {NAME: clipped(whole, CLIENT_NORM)[0]}
    if secret is None:
        raise ValueError("noise of a client's own needs a secret to draw from")
    total = clipped(parts, WINDOW_NORM).sum(axis=0)
    return {NAME: noised(total, WINDOW_NORM, asked.noise_multiplier, secret, client_id, "moments")}


def form_of(learner: Learner, asked: MomentsAsked) -> dict[str, int]:
    """Return the names and lengths of what a client sends."""
    names = row_names(learner)
    if not names or asked.unit == "nothing":
        return {}
    return {NAME: 2 * int(public_scales(names).of_readings.sum())}


def window_moments(design: Design, names: Sequence[str]) -> Floats:
    """Return v of each window that is trained on; (N, 2 · features of readings)."""
    scales = public_scales(names)
    kept = scales.of_readings
    trained = design.trainable()
    count, horizon = trained.base.shape
    rows = trained.x if trained.x.ndim == 3 else trained.x[:, -horizon * len(names) :]
    rows = rows.reshape(count, horizon, len(names))[:, :, kept]
    u = (rows.astype(np.float64) - scales.mean[kept]) / scales.std[kept]
    u = np.clip(u, -CLIP, CLIP)
    return np.concatenate([u.mean(axis=1), (u**2).mean(axis=1) - 1.0], axis=1)


def released(
    learner: Learner,
    parts: Sequence[Arrays],
    windows: Sequence[int],
    private: PrivateSums,
    width: int,
    horizon: int,
) -> Arrays:
    """Return sums as `learner.initial` takes them, from what the clients have sent.

    Args:
        learner: The learner.
        parts: By client, from `asked_of`.
        windows: Training windows by client.
        private: Noise of the server, and who notes what leaves.
        width: Numbers of the last axis of a client's inputs.
        horizon: Steps of a forecast.

    Raises:
        PrivacyError: What `private.release` says.
    """
    names = row_names(learner)
    if not names:
        return {}
    scales = public_scales(names)
    found = np.zeros(2 * int(scales.of_readings.sum()))
    z = private.noise_multiplier
    if z is not None and private.by_client:
        # Clipped once more: the promise to all must not hang on the program of one.
        own = np.stack([np.asarray(part[NAME], dtype=np.float64) for part in parts])
        total = clipped(own, CLIENT_NORM).sum(axis=0)
        found = noised(total, CLIENT_NORM, z, private.secret, "moments") / len(parts)
        private.release(0, CLIENT_NORM, digest_of([found.tobytes()]))
        found = shrunk(found, z * CLIENT_NORM / len(parts))
    elif z is not None:
        leaving = [np.asarray(part[NAME], dtype=np.float64) for part in parts]
        private.release(0, WINDOW_NORM, digest_of([one.tobytes() for one in leaving]))
        found = np.sum(leaving, axis=0) / sum(windows)
        found = shrunk(found, z * WINDOW_NORM * len(parts) ** 0.5 / sum(windows))
    return _as_sums(*_moments(found, scales), width, horizon)


# ------------------------------------------------------------------------------ internals
def _moments(found: Floats, scales: PublicScales) -> tuple[Floats, Floats]:
    """Return mean and variance in the features' own units, each (F,); a variance has a floor."""
    mean, variance = scales.mean.copy(), scales.std**2
    first, second = np.split(found, 2)
    kept = scales.of_readings
    mean[kept] += scales.std[kept] * first
    variance[kept] *= np.maximum(second + 1.0 - first**2, _LEAST_VARIANCE)
    return mean, variance


def _as_sums(mean: Floats, variance: Floats, width: int, horizon: int) -> Arrays:
    """Return the sums of one row that has these moments.

    Behind a context the rows of the horizon stand one after the other; what is before them is not
    standardised.
    """
    square = variance + mean**2
    if width != len(mean):
        before = np.zeros(width - horizon * len(mean))
        mean, square = (np.concatenate([before, np.tile(one, horizon)]) for one in (mean, square))
    return {"n": np.ones(1), "x_sum": mean, "x_sq_sum": square}


def _no_form(learner: Learner) -> PrivacyError:
    return PrivacyError(
        Fault(
            "FL411",
            f"`{learner.name}` begins from sums of the readings that have no private form",
            f"[models.{learner.name}], [privacy]",
            "take a model of the house, or let `enrol` return nothing and standardise by constants",
        )
    )

"""DP-SGD: what the plain loop and the cohort engine share of it.

A step draws each of a client's n_k windows by itself, with chance q_k; clips the gradient of each
drawn window to norm C; adds N(0, (zC)²) to every number of their sum; and divides by the batch that
is expected, q_k n_k. A batch that is drawn empty is noise alone. How many steps are made, and what
they are divided by, depends on n_k and on settings, never on a draw or a reading.
Source: Abadi et al. (2016), "Deep Learning with Differential Privacy", Algorithm 1.

Draws and noise come from a secret (`privacy/secret.py`): the seed of a run stands in its record,
so noise from it could be subtracted. One secret serves one training of one client from one state:
the same noise on two different sums would show their difference, so that name and round of the
training belong to the secret's name (`client_secret`).

All parameters are clipped together and get noise, also those that stay on the client. Were these
trained without noise, each step's shared gradient would be taken where the readings had led the
private ones, and the noise of a step would hide one window in that step, but not the path to it.
As it is, all that leaves a client, SCAFFOLD's control variates and FedDyn's included, is made of
noised sums and of public numbers; nothing that is made of them tells more. The loss of a training
is not, so it is not told. A window whose gradient is not finite counts nothing: NaN would tell of
it through any noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_inmetro.learning.work import DpSgd, LocalWork, sampling_rate, steps_of
from fl_inmetro.privacy.secret import Secret

Ints = NDArray[np.int64]


def client_secret(secret: Secret, client_id: str, round_: int) -> Secret:
    """Return the secret of a client's work in a round: it depends on nothing else."""
    return secret.child("client", client_id, "round", round_)


def checked(work: LocalWork, secret: Secret | None) -> Secret:
    """Return the secret.

    Raises:
        ValueError: The work needs one, and there is none.
    """
    if secret is None:
        what = "DP-SGD" if work.dp else "a share of the noise"
        raise ValueError(f"{what} needs a secret to draw from")
    return secret


class Draws:
    """The draws of one client's training.

    Args:
        secret: Of this client and this training.
        windows: n_k.
        size: Batch size B; 0 = all windows.

    Attributes:
        expected: Windows in a batch on average, q_k n_k: what a noised sum is divided by.
    """

    def __init__(self, secret: Secret, windows: int, size: int) -> None:
        self._count = windows
        self._rate = sampling_rate(windows, size)
        self.expected = self._rate * windows
        self._of_windows = secret.generator("windows")
        self._of_noise = secret.generator("noise")

    def windows(self) -> Ints:
        """Return the windows of the next step, ascending; perhaps none."""
        return poisson(self._of_windows, self._count, self._rate)

    def noise(self, room: NDArray[np.float32]) -> None:
        """Fill `room`, shape (P,), with standard normal numbers: of all parameters, in order."""
        self._of_noise.standard_normal(out=room, dtype=np.float32)


def batches(draws: Draws, windows: int, size: int, work: LocalWork) -> Iterator[Ints]:
    """Yield the windows of each step; as many steps as the plain training has."""
    for _ in range(steps_of(windows, size, work.epochs, work.steps)):
        yield draws.windows()


def poisson(generator: np.random.Generator, windows: int, rate: float) -> Ints:
    """Draw each of `windows` windows by itself, with chance `rate`."""
    if rate >= 1:
        return np.arange(windows)
    return np.flatnonzero(generator.random(windows) < rate)


def factors(norms: Tensor, clip: float) -> Tensor:
    """Return what gradients of these norms are multiplied by: min(1, C / norm), 0 if not finite."""
    cut = (clip / norms.clamp_min(1e-12)).clamp(max=1.0)
    return torch.where(torch.isfinite(norms), cut, torch.zeros_like(cut))


def noised(
    sums: Sequence[Tensor], normal: Sequence[Tensor], dp: DpSgd, expected: Tensor
) -> list[Tensor]:
    """Return (sum + zC · normal) / expected, parameter by parameter; the sums are overwritten.

    Args:
        sums: Σ clip(g_i, C).
        normal: Standard normal numbers of the same shapes.
        dp: C and z.
        expected: q_k n_k; a number, or (C, 1) for sums with a leading axis of C clients.
    """
    result = []
    for total, own in zip(sums, normal, strict=True):
        total.add_(own, alpha=dp.noise_multiplier * dp.clip)
        shape = (-1, *[1] * (total.dim() - 1)) if expected.dim() else ()
        result.append(total.div_(expected.view(shape)))
    return result


def parted(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return numbers (…, P) as views in the shapes of parameters, in their order."""
    parts = flat.split([p.numel() for p in parameters], dim=-1)
    lead = flat.shape[:-1]
    return [part.view(*lead, *p.shape) for part, p in zip(parts, parameters, strict=True)]

"""What a client is asked to do in one round, as data that every executor understands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

#: Control variates of clients: none, SCAFFOLD's c_k, or FedDyn's h_k.
Control = Literal["none", "scaffold", "feddyn"]

#: Before the names of arrays that belong to a control variate.
CONTROL = "control."


@dataclass(frozen=True)
class DpSgd:
    """Gradients clipped window by window, with noise on their sum (`learning/dp_sgd.py`).

    A step is (Σ clip(g_i, C) + N(0, (zC)²)) / (q_k n_k), over the windows that are drawn, each by
    itself with chance q_k = `sampling_rate`. The number of steps is fixed: `steps_of`. What it
    promises is accounted elsewhere (`privacy/`).
    Source: Abadi et al. (2016), "Deep Learning with Differential Privacy", Algorithm 1.

    Attributes:
        clip: C, the largest L2 norm of a window's gradient over all parameters.
        noise_multiplier: z.

    Raises:
        ValueError: A clip that is not above zero, a multiplier below it, or one not finite.
    """

    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        _check_noise(self.clip, self.noise_multiplier)


@dataclass(frozen=True)
class NoiseShare:
    """A client's part of the noise on the sum of updates (`learning/noise_share.py`).

    Attributes:
        clip: Largest L2 norm of the client's whole shared update.
        sigma: Standard deviation of what the client adds to each number of it.

    Raises:
        ValueError: A clip that is not above zero, a deviation below it, or one not finite.
    """

    clip: float
    sigma: float

    def __post_init__(self) -> None:
        _check_noise(self.clip, self.sigma)


def _check_noise(clip: float, noise: float) -> None:
    if not (0 < clip < math.inf and 0 <= noise < math.inf):
        raise ValueError(f"a clip of {clip:g} with noise of {noise:g} protects nobody")


@dataclass(frozen=True)
class LocalWork:
    """A round's local work, beside what the model's own settings say.

    Attributes:
        epochs: Passes over the client's windows.
        steps: At most so many steps of them; 0 = all.
        rate: The local learning rate, as a share of the model's own.
        mu: Weight of the proximal term (mu/2)·‖w − w_global‖² on the shared parameters.
            Source: Li et al. (2020), "Federated Optimization in Heterogeneous Networks", eq. 2.
        dp: Clip and noise the gradients, window by window.
        share: Clip and noise the update as a whole, before it leaves the client.
        control: What corrects the drift of a client's steps (`learning/control.py`).
        alpha: Weight α of FedDyn's regulariser; 0 for everything else.
        start_loss: Also answer with the mean loss over all known points at the received model.
        probe: Do not train: answer with the gradient there, and how far batches scatter around it.

    Raises:
        ValueError: Parts that do not go together.
    """

    epochs: int = 1
    mu: float = 0.0
    dp: DpSgd | None = None
    control: Control = "none"
    alpha: float = 0.0
    start_loss: bool = False
    probe: bool = False
    steps: int = 0
    rate: float = 1.0
    share: NoiseShare | None = None

    @property
    def tells_loss(self) -> bool:
        """Whether a reply may say the training loss: it has no noise."""
        return self.dp is None and self.share is None

    def __post_init__(self) -> None:
        if self.control not in get_args(Control):
            raise ValueError(f"there is no control variate `{self.control}`")
        if (self.control == "feddyn") != (self.alpha > 0):
            raise ValueError("`alpha` above 0 goes with `feddyn`, and with nothing else")
        if self.probe and (self.control != "none" or not self.tells_loss):
            # The whole gradient would leave the client neither clipped nor noised.
            raise ValueError("a probe has no control variate, and cannot keep to DP-SGD or noise")
        if self.start_loss and not self.tells_loss:
            raise ValueError("`start_loss` would leave the client without noise")
        if self.dp is not None and self.share is not None:
            raise ValueError("noise on the gradients and on the update: choose one of them")
        if self.share is not None and self.control == "scaffold":
            # With `dp` it may: it is the mean of gradients that are clipped and noised already.
            raise ValueError("SCAFFOLD's control variate would leave the client without noise")


class StepError(Exception):
    """A client's step that failed, in debug mode.

    Attributes:
        step: Its number, from 0.
        row: Place of the client in its chunk; 0 in the plain loop.
    """

    def __init__(self, step: int, why: str, row: int = 0) -> None:
        super().__init__(why)
        self.step = step
        self.row = row


class Watch:
    """Turns an exception into a `StepError` that says at which step it was raised (debug mode).

    Attributes:
        step: The step at hand.
    """

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug
        self.step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if self._debug and isinstance(error, Exception) and not isinstance(error, StepError):
            raise StepError(self.step, f"{type(error).__name__}: {error}") from error


def batches(n: int, size: int, epochs: int, seed: int, most: int = 0) -> Iterator[Ints]:
    """Yield the windows of each step: every epoch visits each of n windows once, in a drawn order.

    `size` 0 is one batch of all windows. The last batch of an epoch may be smaller. At most `most`
    steps are made; 0 = all.
    """
    whole = _whole_batches(n, size, epochs, seed)
    yield from islice(whole, most) if most else whole


def steps_of(windows: int, size: int, epochs: int, most: int = 0) -> int:
    """Return how many steps `batches` has.

    >>> steps_of(70, 32, 2), steps_of(70, 32, 2, 1), steps_of(70, 0, 2)
    (6, 1, 2)
    """
    if not windows:
        return 0
    whole = epochs * -(-windows // (size or windows))
    return min(whole, most) if most else whole


def sampling_rate(windows: int, size: int) -> float:
    """Return q_k = min(1, B / n_k): the chance of each window to be in a step's batch.

    >>> sampling_rate(64, 32), sampling_rate(20, 32), sampling_rate(20, 0)
    (0.5, 1.0, 1.0)
    """
    return min(1.0, size / windows) if size and windows else 1.0


def _whole_batches(n: int, size: int, epochs: int, seed: int) -> Iterator[Ints]:
    for epoch in range(epochs):
        order = window_orders(np.array([seed]), np.array([epoch]), np.array([n]))[0]
        for start in range(0, n, size or n):
            yield order[start : start + (size or n)]


def cosine(share: float) -> float:
    """Return (1 + cos π s) / 2 for the share s of the way, in [0, 1]: from 1 down to 0.

    Source: Loshchilov & Hutter (2017), "SGDR", eq. 5, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def window_orders(client_seeds: Ints, epochs: Ints, counts: Ints) -> Ints:
    """Draw the order in which each of C clients sees its n_k windows in an epoch.

    The order is that of the numbers that SplitMix64 gives for the windows: it depends on the seed,
    the epoch and n_k alone, and is drawn for many clients at once in a small part of the time that
    it takes to seed a generator for each.
    Source: Steele, Lea & Flood (2014), "Fast Splittable Pseudorandom Number Generators", fig. 17.

    Shapes: all (C,) → (C, max n_k); beyond n_k a row names places that are not the client's.
    """
    most = int(counts.max())
    place = np.arange(most, dtype=np.uint64)
    counter = (epochs.astype(np.uint64)[:, None] << np.uint64(32)) + place + np.uint64(1)
    z = client_seeds.astype(np.uint64)[:, None] + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z[place >= counts.astype(np.uint64)[:, None]] = np.iinfo(np.uint64).max
    return np.argsort(z, axis=1)

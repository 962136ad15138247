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
    """Gradients clipped example by example, with noise on their sum.

    A step is (Σ clip(g_i, C) + N(0, (σC)²)) / B, B the batch size that was asked for, also where a
    last batch is smaller. An example is one window. No guarantee is computed here.
    Source: Abadi et al. (2016), "Deep Learning with Differential Privacy", Algorithm 1.

    Attributes:
        clip: C, the largest L2 norm of an example's gradient over all parameters.
        noise_multiplier: σ.
    """

    clip: float
    noise_multiplier: float


@dataclass(frozen=True)
class LocalWork:
    """A round's local work, beside what the model's own settings say.

    Attributes:
        epochs: Passes over the client's windows.
        steps: At most so many steps of them; 0 = all.
        rate: The local learning rate, as a share of the model's own.
        mu: Weight of the proximal term (mu/2)·‖w − w_global‖² on the shared parameters.
            Source: Li et al. (2020), "Federated Optimization in Heterogeneous Networks", eq. 2.
        dp: Clip and noise the gradients.
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

    def __post_init__(self) -> None:
        if self.control not in get_args(Control):
            raise ValueError(f"there is no control variate `{self.control}`")
        if (self.control == "feddyn") != (self.alpha > 0):
            raise ValueError("`alpha` above 0 goes with `feddyn`, and with nothing else")
        if self.probe and (self.control != "none" or self.dp is not None):
            # The whole gradient would leave the client neither clipped nor noised.
            raise ValueError("a probe has no control variate, and cannot keep to DP-SGD")


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

"""What the server does with the one update of a round: a step of SGD, momentum or Adam's family.

The clients' mean change Δ plays the part of a negative gradient (Reddi et al. 2021, Algorithm 1).
An optimiser is a frozen value; what it remembers goes in and comes out as arrays, so a federation
that goes on from saved weights and memory ends in the same bits as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.strategy import ServerOptimizerName, Strategy
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import cosine

Floats = NDArray[np.float64]

#: `paper`: Reddi et al. (2021), Algorithm 2. `flower`: as Flower 1.41 has it (see `Adam`).
#: `corrected`: with the bias correction of Kingma & Ba (2015), Adam only.
Form = Literal["paper", "flower", "corrected"]

#: Prefixes of the moments in the memory, and the key of the number of steps made.
FIRST, SECOND, STEPS = "m.", "v.", "t"


class ServerOptimizer(Protocol):
    """How the aggregated update moves the model."""

    def begin(self, like: Arrays) -> Arrays:
        """Return the memory before the first step, float64; `like` has the shapes of Δ."""

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return what is added to the weights, and the memory after it.

        Args:
            delta: The aggregated Δ, float64, by name; it is not changed.
            memory: What `begin` or the last `step` returned; it is not changed.
        """


@dataclass(frozen=True)
class Sgd:
    """w ← w + η Δ; with η = 1 the server step of FedAvg.

    Source: Reddi et al. (2021), Algorithm 1 with SGD at the server; McMahan et al. (2017).

    Attributes:
        eta: Server learning rate η.
    """

    eta: float = 1.0

    def begin(self, like: Arrays) -> Arrays:
        """Return nothing: SGD has no memory."""
        return {}

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return η Δ."""
        return {name: self.eta * d for name, d in delta.items()}, memory


@dataclass(frozen=True)
class Momentum:
    """m ← β₁ m + Δ, w ← w + η m, m = 0 before the first round: FedAvgM.

    The weight of a new Δ is 1 and not 1 − β₁: with a steady Δ the step grows to η Δ / (1 − β₁).
    Source: Hsu, Qi & Brown (2019), "Measuring the Effects of Non-Identical Data Distribution
    for Federated Visual Classification", where η = 1.

    Attributes:
        eta: Server learning rate η.
        beta_1: Momentum β₁.
    """

    eta: float = 1.0
    beta_1: float = 0.9

    def begin(self, like: Arrays) -> Arrays:
        """Return m = 0."""
        return _filled(FIRST, like, 0.0)

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return η m."""
        m = {name: self.beta_1 * memory[FIRST + name] + d for name, d in delta.items()}
        return {name: self.eta * moment for name, moment in m.items()}, _named(FIRST, m)


@dataclass(frozen=True)
class Adagrad:
    """m ← β₁ m + (1 − β₁) Δ, v ← v + Δ², w ← w + η m / (√v + τ).

    Source: Reddi et al. (2021), Algorithm 2; in the paper's experiments β₁ = 0.

    Attributes:
        eta: Server learning rate η.
        beta_1: Decay β₁ of the first moment.
        tau: Adaptivity τ; a larger one adapts less.
        form: v begins at τ² (`paper`; it asks for v₋₁ ≥ τ²), or at 0 (`flower`).
    """

    eta: float = 0.01
    beta_1: float = 0.0
    tau: float = 1e-3
    form: Form = "paper"

    def begin(self, like: Arrays) -> Arrays:
        """Return m = 0 and the first v."""
        return _moments(like, self.tau, self.form)

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return η m / (√v + τ)."""
        return _adaptive(self.eta, self.beta_1, self.tau, delta, memory, self._next_v)

    def _next_v(self, v: Floats, square: Floats) -> Floats:
        return v + square


@dataclass(frozen=True)
class Adam:
    """m ← β₁ m + (1 − β₁) Δ, v ← β₂ v + (1 − β₂) Δ², w ← w + η m / (√v + τ).

    Source: Reddi et al. (2021), Algorithm 2. The paper has no bias correction. Flower 1.41 begins v
    at 0 and multiplies η of round r by √(1 − β₂^(r+1)) / (1 − β₁^(r+1)), which is that of Kingma &
    Ba (2015, section 2) one round further on; with `form = "flower"` r is the number of the step.

    Attributes:
        eta: Server learning rate η.
        beta_1: Decay β₁ of the first moment.
        beta_2: Decay β₂ of the second moment.
        tau: Adaptivity τ; a larger one adapts less.
        form: v begins at τ² and nothing is corrected (`paper`), or as Flower has it (`flower`), or
            v begins at 0 and w ← w + η m̂ / (√v̂ + τ) with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
            at step t (`corrected`; Kingma & Ba 2015, Algorithm 1).
    """

    eta: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    form: Form = "paper"

    def begin(self, like: Arrays) -> Arrays:
        """Return m = 0, the first v, and in the forms that need it the number of steps made."""
        memory = _moments(like, self.tau, self.form)
        return memory if self.form == "paper" else memory | {STEPS: np.zeros(1)}

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return η m / (√v + τ)."""
        if self.form == "paper":
            return _adaptive(self.eta, self.beta_1, self.tau, delta, memory, self._next_v)
        steps = memory[STEPS] + 1.0
        if self.form == "corrected":
            t = float(steps[0])
            root = (1.0 - self.beta_2**t) ** 0.5
            # η m̂ / (√v̂ + τ) with the corrections folded into η and τ.
            eta, tau = self.eta * root / (1.0 - self.beta_1**t), self.tau * root
            move, after = _adaptive(eta, self.beta_1, tau, delta, memory, self._next_v)
            return move, after | {STEPS: steps}
        power = float(steps[0]) + 1.0
        eta = self.eta * (1.0 - self.beta_2**power) ** 0.5 / (1.0 - self.beta_1**power)
        move, after = _adaptive(eta, self.beta_1, self.tau, delta, memory, self._next_v)
        return move, after | {STEPS: steps}

    def _next_v(self, v: Floats, square: Floats) -> Floats:
        return self.beta_2 * v + (1.0 - self.beta_2) * square


@dataclass(frozen=True)
class Yogi:
    """m ← β₁ m + (1 − β₁) Δ, v ← v − (1 − β₂) Δ² sign(v − Δ²), w ← w + η m / (√v + τ).

    v moves by (1 − β₂) Δ² at most, so it forgets large changes more slowly than Adam's.
    Source: Reddi et al. (2021), Algorithm 2.

    Attributes:
        eta: Server learning rate η.
        beta_1: Decay β₁ of the first moment.
        beta_2: Decay β₂ of the second moment.
        tau: Adaptivity τ; a larger one adapts less.
        form: v begins at τ² (`paper`), or at 0 (`flower`).
    """

    eta: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    form: Form = "paper"

    def begin(self, like: Arrays) -> Arrays:
        """Return m = 0 and the first v."""
        return _moments(like, self.tau, self.form)

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return η m / (√v + τ)."""
        return _adaptive(self.eta, self.beta_1, self.tau, delta, memory, self._next_v)

    def _next_v(self, v: Floats, square: Floats) -> Floats:
        return v - (1.0 - self.beta_2) * square * np.sign(v - square)


@dataclass(frozen=True)
class Falling:
    """Another optimiser whose steps fall to zero over the rounds, by half a cosine.

    Step t of T is multiplied by (1 + cos(π t / T)) / 2, t = 0 … T − 1.
    Source: Loshchilov & Hutter (2017), "SGDR", eq. 5, without restarts.

    Attributes:
        inner: The optimiser.
        rounds: T.
    """

    inner: ServerOptimizer
    rounds: int

    def begin(self, like: Arrays) -> Arrays:
        """Return the inner memory, and that no step was made."""
        return self.inner.begin(like) | {_FALLEN: np.zeros(1)}

    def step(self, delta: Arrays, memory: Arrays) -> tuple[Arrays, Arrays]:
        """Return the inner step times the factor."""
        done = memory[_FALLEN]
        move, after = self.inner.step(delta, memory)
        factor = cosine(float(done[0]) / self.rounds)
        moved = {name: factor * change for name, change in move.items()}
        return moved, after | {_FALLEN: done + 1.0}


#: Key of the number of steps made by `Falling`.
_FALLEN = "fallen"


_CLASSES: dict[ServerOptimizerName, type[Any]] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "adagrad": Adagrad,
    "adam": Adam,
    "yogi": Yogi,
}

#: Optimiser → the settings of `[strategy]` that it reads; any other has no effect on it.
SETTINGS_OF: Mapping[ServerOptimizerName, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(field.name for field in fields(made) if field.name != "form")
        for name, made in _CLASSES.items()
    }
)


def _factory(name: ServerOptimizerName) -> Callable[[Strategy], ServerOptimizer]:
    def make(settings: Strategy) -> ServerOptimizer:
        given = {key: getattr(settings, key) for key in SETTINGS_OF[name]}
        form = {"form": "corrected"} if name == "adam" and settings.bias_correction else {}
        made: ServerOptimizer = _CLASSES[name](
            **{key: value for key, value in given.items() if value is not None}, **form
        )
        return made

    return make


#: Name in the configuration → the optimiser; a number that is not given has the default above.
SERVER_OPTIMIZERS: Mapping[ServerOptimizerName, Callable[[Strategy], ServerOptimizer]] = (
    MappingProxyType({name: _factory(name) for name in _CLASSES})
)


# ------------------------------------------------------------------------------ internals
def _filled(prefix: str, like: Arrays, value: float) -> Arrays:
    return {prefix + name: np.full(array.shape, value) for name, array in like.items()}


def _named(prefix: str, arrays: Mapping[str, Floats]) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def _moments(like: Arrays, tau: float, form: Form) -> Arrays:
    first_v = tau**2 if form == "paper" else 0.0
    return _filled(FIRST, like, 0.0) | _filled(SECOND, like, first_v)


def _adaptive(
    eta: float,
    beta_1: float,
    tau: float,
    delta: Arrays,
    memory: Arrays,
    next_v: Callable[[Floats, Floats], Floats],
) -> tuple[Arrays, Arrays]:
    """Return the step that Adagrad, Adam and Yogi share, and the moments after it."""
    move: Arrays = {}
    after: Arrays = {}
    for name, d in delta.items():
        m = beta_1 * memory[FIRST + name] + (1.0 - beta_1) * d
        v = next_v(memory[SECOND + name], d**2)
        move[name] = eta * m / (np.sqrt(v) + tau)
        after[FIRST + name], after[SECOND + name] = m, v
    return move, after

"""What a network's raw outputs mean: a point, quantiles and a mean, or a distribution.

All numbers are in the network's own units, those of `Design.residual`: shares of the client's
scale, relative to the base profile (the hurdle's are absolute: a load of zero must be seen).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from math import lgamma, log, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fl_inmetro.config.models import Gradient, Loss
from fl_inmetro.models.design import Design

#: The smallest scale of a distribution: a share of the client's mean load.
MIN_SCALE = 1e-3
#: Student's t has a mean above one degree of freedom and a variance above two.
MIN_FREEDOM = 2.1
#: An energy of at most this share of the client's scale is no use at all.
NO_USE = 1e-3


class Head(ABC):
    """How raw outputs become a loss and a forecast.

    Attributes:
        outputs: Raw numbers per point, R.
        levels: Levels of the quantiles that it gives, ascending; empty for a point.
        absolute: Whether it wants targets as shares of the scale, not relative to the base.
    """

    outputs: int = 1
    levels: tuple[float, ...] = ()
    absolute: bool = False

    def seen(self, design: Design) -> Design:
        """Return a design with the targets that this head wants."""
        return design.absolute() if self.absolute else design

    @abstractmethod
    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each point.

        Shapes: raw (N, H) where R = 1, else (N, H, R); target (N, H) → (N, H).
        """

    def slope(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return ∂penalty/∂raw of each point, of raw's shape; `raw` is detached."""
        leaf = raw.detach().requires_grad_()
        with torch.enable_grad():
            total = self.penalty(leaf, target).sum()
        (slope,) = torch.autograd.grad(total, [leaf])
        return slope

    @abstractmethod
    def mean(self, raw: Tensor) -> Tensor:
        """Return the mean; shape (N, H)."""

    def quantiles(self, raw: Tensor) -> Tensor | None:
        """Return the quantiles, never falling along the last axis; shape (N, H, Q)."""
        return None


class PointHead(Head):
    """One number: the median with |e|, the mean with e²."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return |e|, e², or Huber's loss with its corner at 1."""
        return point_penalty(self.loss, raw - target)

    def slope(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return ρ'(e); 0 in the corner of |e|, as autograd has it."""
        error = raw.detach() - target
        if self.loss == "mae":
            return error.sign()
        if self.loss == "mse":
            return 2 * error
        return error.clamp(-1, 1)

    def mean(self, raw: Tensor) -> Tensor:
        """Return the number."""
        return raw


class QuantileHead(Head):
    """A mean and Q quantiles: R = 1 + Q.

    The penalty is the mean over the levels of twice the pinball loss ρ_τ(u) = max(τu, (τ − 1)u),
    u = y − q_τ (twice, so that the median's part is |u|), in which the median may count more than
    the others (`median_weight`), plus `mean_weight` times the squared
    error of the mean, or Huber's with the corner at `mean_corner`, which bounds the pull of single
    extreme hours. Quantiles are sorted before they are scored and given, so that they never cross,
    and no forecast gets worse by it.
    Sources: Koenker & Bassett (1978), "Regression quantiles"; Chernozhukov, Fernández-Val &
    Galichon (2010), "Quantile and probability curves without crossing" (sorting).

    Raises:
        ValueError: No level, or they do not rise.
    """

    def __init__(
        self,
        levels: Sequence[float],
        mean_weight: float,
        mean_corner: float | None = None,
        median_weight: float = 1.0,
    ) -> None:
        if not levels or list(levels) != sorted(set(levels)):
            raise ValueError("the levels of a quantile head are different and ascending")
        self.levels = tuple(levels)
        self.outputs = 1 + len(levels)
        self.mean_weight = mean_weight
        self.mean_corner = mean_corner
        self._levels = torch.tensor(self.levels, dtype=torch.float32)
        weights = [median_weight if level == 0.5 else 1.0 for level in self.levels]
        self._weights = torch.tensor(weights, dtype=torch.float32) / sum(weights)

    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the pinball losses' mean and the mean's own loss."""
        level = self._levels.to(raw.device)
        under = target.unsqueeze(-1) - raw[..., 1:].sort(dim=-1).values
        pinball = torch.maximum(level * under, (level - 1) * under) @ self._weights.to(raw.device)
        error = raw[..., 0] - target
        own = error.square()
        if (corner := self.mean_corner) is not None:
            size = error.abs()
            own = torch.where(size < corner, own, corner * (2 * size - corner))
        return 2 * pinball + self.mean_weight * own

    def mean(self, raw: Tensor) -> Tensor:
        """Return the first output."""
        return raw[..., 0]

    def quantiles(self, raw: Tensor) -> Tensor:
        """Return the others, sorted."""
        return raw[..., 1:].sort(dim=-1).values


class StudentTHead(Head):
    """Student's t: location, scale and degrees of freedom, R = 3; for heavy tails.

    The penalty is the negative log-likelihood. scale = softplus(r₁) + 0.001,
    n = softplus(r₂) + 2.1, so that mean and variance exist.
    Source: Salinas, Flunkert, Gasthaus & Januschowski (2020), DeepAR, for a network that gives the
    parameters of a likelihood; quantiles are taken from a table over n (`student_t_quantiles`).
    """

    outputs = 3

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target)."""
        location, scale, freedom = self._parameters(raw)
        z = (target - location) / scale
        half = 0.5 * (freedom + 1)
        log_norm = torch.lgamma(half) - torch.lgamma(0.5 * freedom)
        log_norm = log_norm - 0.5 * torch.log(freedom * pi) - torch.log(scale)
        return half * torch.log1p(z.square() / freedom) - log_norm

    def mean(self, raw: Tensor) -> Tensor:
        """Return the location."""
        return raw[..., 0]

    def quantiles(self, raw: Tensor) -> Tensor:
        """Return location + scale · t_τ(n)."""
        location, scale, freedom = self._parameters(raw)
        inverse, table = _student_t_table(self.levels)
        known = torch.from_numpy(table).to(raw)
        place = (1 / freedom) / float(inverse[-1]) * (len(inverse) - 1)
        low = place.floor().long().clamp(0, len(inverse) - 2)
        share = (place - low).unsqueeze(-1)
        t = known[low] * (1 - share) + known[low + 1] * share
        return location.unsqueeze(-1) + scale.unsqueeze(-1) * t

    @staticmethod
    def _parameters(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = functional.softplus(raw[..., 1]) + MIN_SCALE
        return raw[..., 0], scale, functional.softplus(raw[..., 2]) + MIN_FREEDOM


class HurdleHead(Head):
    """Use or none, and how much: P(use) and a log-normal amount, R = 3; for intermittent loads.

    r₀ is the logit of the probability p of any use, the amount given use is log-normal with
    μ = r₁ and σ = softplus(r₂) + 0.001. The penalty is the negative log-likelihood of the two parts
    (Cragg 1971, "Some statistical models for limited dependent variables"). The mean is
    p · exp(μ + σ²/2); the quantile τ is 0 up to τ = 1 − p, and above it the amount's quantile at
    (τ − 1 + p) / p.
    """

    outputs = 3
    absolute = True

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target); the target is a share of the scale."""
        used = target > NO_USE
        sigma = functional.softplus(raw[..., 2]) + MIN_SCALE
        amount = torch.log(torch.where(used, target, 1.0))
        z = (amount - raw[..., 1]) / sigma
        density = 0.5 * z.square() + torch.log(sigma) + 0.5 * log(2 * pi) + amount
        chance = functional.binary_cross_entropy_with_logits(
            raw[..., 0], used.to(raw), reduction="none"
        )
        return chance + torch.where(used, density, 0.0)

    def mean(self, raw: Tensor) -> Tensor:
        """Return p · exp(μ + σ²/2)."""
        sigma = functional.softplus(raw[..., 2]) + MIN_SCALE
        # An amount of e⁸ times the usual load is no forecast but an overflow on its way.
        size = (raw[..., 1] + 0.5 * sigma.square()).clamp(max=8.0)
        return raw[..., 0].sigmoid() * size.exp()

    def quantiles(self, raw: Tensor) -> Tensor:
        """Return the mixture's quantiles."""
        p = raw[..., :1].sigmoid()
        sigma = functional.softplus(raw[..., 2:3]) + MIN_SCALE
        level = torch.tensor(self.levels, dtype=raw.dtype, device=raw.device)
        inside = (level - 1 + p) / p
        # In float64, so that a level next to 1 does not become 1.
        z = torch.special.ndtri(inside.double().clamp(1e-12, 1 - 1e-12)).to(raw)
        amount = (raw[..., 1:2] + sigma * z).clamp(max=8.0).exp()
        return torch.where(inside > 0, amount, torch.zeros(()).to(raw))


class Copies(Head):
    """Another head on each of K networks side by side, R = K · R of that head.

    Each is trained for itself: the penalty is the mean of theirs, so that each has 1/K of the
    gradient that it would have alone (Adam does not see that; the rate of `sgd` is so much less,
    and a proximal term or weight decay so much stronger beside it). The forecast is the mean of
    their forecasts, quantiles level by level, so it is an ensemble of networks that differ in
    where they began (Lakshminarayanan, Pritzel & Blundell 2017, "Simple and scalable predictive
    uncertainty estimation using deep ensembles", without adversarial examples).
    """

    def __init__(self, inner: Head, copies: int) -> None:
        self.inner, self.copies = inner, copies
        self.outputs = copies * inner.outputs
        self.levels, self.absolute = inner.levels, inner.absolute

    def penalty(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the mean of the networks' penalties."""
        return torch.stack([self.inner.penalty(own, target) for own in self._each(raw)]).mean(0)

    def mean(self, raw: Tensor) -> Tensor:
        """Return the mean of the networks' means."""
        return torch.stack([self.inner.mean(own) for own in self._each(raw)]).mean(0)

    def quantiles(self, raw: Tensor) -> Tensor | None:
        """Return the mean of the networks' quantiles."""
        own = [q for one in self._each(raw) if (q := self.inner.quantiles(one)) is not None]
        return torch.stack(own).mean(0) if own else None

    def _each(self, raw: Tensor) -> list[Tensor]:
        parts = raw.chunk(self.copies, dim=-1)
        return [part.squeeze(-1) if self.inner.outputs == 1 else part for part in parts]


def point_penalty(loss: Loss, error: Tensor) -> Tensor:
    """Return ρ(e) of each point: |e|, e², or Huber's loss with its corner at 1."""
    if loss == "mae":
        return error.abs()
    if loss == "mse":
        return error.square()
    size = error.abs()
    return torch.where(size < 1, 0.5 * error.square(), size - 0.5)


def head_of(settings: Gradient) -> Head:
    """Return the head that the settings of a gradient model ask for."""
    one = _head_of_one(settings)
    copies = getattr(settings, "copies", 1)
    return one if copies == 1 else Copies(one, copies)


def _head_of_one(settings: Gradient) -> Head:
    if settings.loss == "quantile":
        return QuantileHead(
            settings.levels, settings.mean_weight, settings.mean_corner, settings.median_weight
        )
    if settings.loss == "student-t":
        return StudentTHead(settings.levels)
    if settings.loss == "hurdle":
        return HurdleHead(settings.levels)
    return PointHead(settings.loss)


def student_t_quantiles(level: float, freedom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantiles of Student's t with n > 2 degrees of freedom.

    The distribution function is integrated by Gauss–Legendre in θ = atan(t / √n), in which its
    density is proportional to cos^(n − 1) θ, and inverted by bisection.
    """
    if level == 0.5:
        return np.zeros_like(freedom)
    node, weight = np.polynomial.legendre.leggauss(200)
    log_norm = np.array([lgamma((v + 1) / 2) - lgamma(v / 2) - 0.5 * log(pi) for v in freedom])

    def beyond_centre(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return P(0 < T < t) for θ in (0, π/2)."""
        at = 0.5 * theta[:, None] * (node + 1)
        density = np.cos(at) ** (freedom[:, None] - 1)
        area: NDArray[np.float64] = 0.5 * theta * (density @ weight) * np.exp(log_norm)
        return area

    wanted = abs(level - 0.5)
    low, high = np.zeros_like(freedom), np.full_like(freedom, pi / 2)
    for _ in range(60):
        middle = 0.5 * (low + high)
        under = beyond_centre(middle) < wanted
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    t: NDArray[np.float64] = np.sqrt(freedom) * np.tan(0.5 * (low + high))
    return t if level > 0.5 else -t


@lru_cache(maxsize=16)
def _student_t_table(
    levels: tuple[float, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 1/n on an even grid from 0, shape (G,), and the quantiles there, (G, Q)."""
    inverse = np.linspace(0.0, 1 / MIN_FREEDOM, 400)
    freedom = 1 / np.maximum(inverse, 1e-4)  # the first is as good as normal
    table = np.stack([student_t_quantiles(level, freedom) for level in levels], axis=1)
    return inverse, table

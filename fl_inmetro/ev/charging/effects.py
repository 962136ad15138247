"""Means of users as random effects: variance components by sums, and means shrunk by them.

    y_it = μ + a_i + e_it,    a_i ~ (0, τ²),  e_it ~ (0, σ²)
    mean of user i = (Σ_t y_it + k·μ) / (n_i + k),    k = σ² / τ²

σ² and τ² are the analysis of variance's (unequal n: Searle, Casella and McCulloch, *Variance
Components*, 1992, section 3.6), so five sums over users give them in one round; μ weighs each
user's mean by 1 / (τ² + σ²/n_i), two sums of a second one. A user's own mean stays with the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import Fault, FederationError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UserSums:
    """What leaves a user in the first round; it adds up over users.

    Attributes:
        users: Number of them with a session.
        n: Sessions.
        squared_n: Σ n_i².
        total: Σ y.
        within: Σ (y − mean of its user)².
        means: Σ n_i · (mean of user)².
    """

    users: int = 0
    n: int = 0
    squared_n: int = 0
    total: float = 0.0
    within: float = 0.0
    means: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> UserSums:
        """Return the sums of one user's values [session]."""
        n = len(values)
        if not n:
            return cls()
        mean = float(values.mean())
        return cls(
            1, n, n * n, float(values.sum()), float(((values - mean) ** 2).sum()), n * mean**2
        )

    def __add__(self, other: UserSums) -> UserSums:
        """Return the sums of both."""
        return UserSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Effects:
    """What is known of all users.

    Attributes:
        mean: μ.
        between: τ², variance of users' means.
        within: σ², variance around them.
    """

    mean: float
    between: float
    within: float

    @property
    def strength(self) -> float:
        """Return k, how many sessions of one's own the others are worth."""
        return self.within / self.between

    def shrunk(self, total: Floats, n: Floats) -> Floats:
        """Return means of users from their own sums and counts, of any shape."""
        mean: Floats = (total + self.strength * self.mean) / (n + self.strength)
        return mean


def components(sums: UserSums) -> tuple[float, float]:
    """Return τ² and σ²; a τ² below a millionth of σ² counts as that much, so that k is a number.

    Raises:
        FederationError: FL373, fewer than two users, or no user with two sessions.
    """
    if sums.users < 2 or sums.n <= sums.users:
        raise FederationError(
            Fault(
                "FL373",
                f"{sums.n} sessions of {sums.users} users say nothing of how users differ",
                "",
                "two users, and one of them with two sessions, are the least",
            )
        )
    within = sums.within / (sums.n - sums.users)
    between = (sums.means - sums.total**2 / sums.n) / (sums.users - 1)
    sessions = (sums.n - sums.squared_n / sums.n) / (sums.users - 1)
    floor = max(1e-6 * within, 1e-12)
    return max((between - within) / sessions, floor), max(within, 1e-12)


def effects(users: Sequence[Floats]) -> Effects:
    """Return the random effects of users' values, each [session]; two rounds of sums.

    Raises:
        FederationError: FL373, see `components`.
    """
    between, within = components(sum((UserSums.of(own) for own in users), UserSums()))
    weight = total = 0.0
    for own in users:
        if len(own):
            weight += 1 / (between + within / len(own))
            total += float(own.mean()) / (between + within / len(own))
    return Effects(total / weight, between, within)

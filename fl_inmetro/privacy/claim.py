"""What a federation says with each request of the promise it is part of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import Subject, plain_name


@dataclass(frozen=True)
class Claim:
    """The promise of a request, with which a client keeps a ledger of its own.

    A client trusts it only where it must: where the noise is the server's. What a client noises
    itself, it knows.

    Attributes:
        federation: Name of the federation.
        run: Run and federation within it, as in the federation's ledger.
        subject: Whom it protects.
        token: Of the secret that the noise comes from, and says nothing of it: with another secret
            the same round is another release.
        noise_multiplier: z of the noise that the server adds.
        sensitivity: Largest norm of what one client adds to the sum.
        sampling_rate: Chance of each client to be drawn for a round.
        rounds: Rounds of the run.

    Raises:
        PrivacyError: FL423, it says what no release can.
    """

    federation: str
    run: str
    subject: Subject
    token: str
    noise_multiplier: float
    sensitivity: float
    sampling_rate: float
    rounds: int

    def __post_init__(self) -> None:
        sound = (
            all(plain_name(name) for name in (self.federation, self.run, self.token))
            and self.subject in get_args(Subject)
            and self.rounds >= 1
        )
        if not sound:
            raise PrivacyError(Fault("FL423", "a request claims a promise that cannot be"))

    @property
    def event(self) -> Gaussian:
        """What a round of whole clients spends, where the server's noise is as it says."""
        sampling = "all" if self.sampling_rate == 1 else "poisson"
        return Gaussian(self.noise_multiplier, self.sampling_rate, 1, sampling)  # type: ignore[arg-type]

    def to_plain(self) -> dict[str, str | float | int]:
        """Return it as it travels."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read it from a request.

        Raises:
            PrivacyError: FL423, a value is missing or of another type.
        """
        try:
            given: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
            return cls(**{name: _TYPES.get(name, str)(value) for name, value in given.items()})
        except (KeyError, TypeError, ValueError):
            raise PrivacyError(Fault("FL423", "a request claims a promise in no form")) from None


#: Fields that are no names.
_TYPES: dict[str, Callable[[Any], Any]] = {
    "noise_multiplier": float,
    "sensitivity": float,
    "sampling_rate": float,
    "rounds": int,
}

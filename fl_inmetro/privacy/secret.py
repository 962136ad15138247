"""The root of noise and secret draws: random bytes that no record of a run holds.

A run's seed stands in its configuration, so noise from it could be subtracted by whoever reads
that. This root comes from the system's own source of randomness, and is kept apart from the run
(`keep`, readable for its owner only) for one reason: a run that was killed comes to the very same
bits when it goes on, which its ledger then knows as paid for. Delete it when the run is done.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from fl_inmetro.errors import Fault, PrivacyError

_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """256 random bits, and independent streams that are derived from them by name.

    Attributes:
        key: The bits; never shown, logged or sent.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != _BYTES:
            raise ValueError(f"a secret has {_BYTES} bytes, not {len(self.key)}")

    @classmethod
    def fresh(cls) -> Self:
        """Draw a new one from the system."""
        return cls(secrets.token_bytes(_BYTES))

    @classmethod
    def kept(cls, path: Path) -> Self:
        """Return the secret in a file, which is made when there is none.

        Raises:
            PrivacyError: FL405, the file cannot be read or made, or is no secret.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                return cls(path.read_bytes())
            with os.fdopen(handle, "wb") as file:
                made = cls.fresh()
                file.write(made.key)
                file.flush()
                os.fsync(file.fileno())
            return made
        except (OSError, ValueError) as error:
            raise PrivacyError(
                Fault(
                    "FL405",
                    f"the secret that noise is drawn from cannot be used: {error}",
                    str(path),
                    "make the folder writable, or remove the file: a new one is drawn, and what is "
                    "released again pays again",
                )
            ) from None

    def child(self, *path: str | int) -> Secret:
        """Return the secret of a name such as `("client", "b12", "round", 3)`."""
        text = "\x1f".join(f"{type(part).__name__}:{part}" for part in path)
        return Secret(hmac.new(self.key, text.encode(), hashlib.sha256).digest())

    def generator(self, *path: str | int) -> np.random.Generator:
        """Return a NumPy generator (Philox, keyed by 128 bits) for a name under this secret.

        Philox is a counter-based generator made like a block cipher; it was never claimed to be
        one. `privacy/discrete.py` draws from a cipher instead.
        Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
        """
        key = self.child("generator", *path).key[:16]
        return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))

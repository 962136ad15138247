"""One root seed, and a generator of its own for everything random, derived by name.

A name is a path such as `("client", "b12", "round", 3)`. The generator depends on the root seed
and on the path alone: not on the order of calls, the process, or who answered first. That is what
makes a resumed run equal to an uninterrupted one.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(root: int, *path: str | int) -> int:
    """Return a 63-bit seed for `path` under `root` (SHA-256 of both; stable across machines)."""
    text = "\x1f".join([str(root), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive(root: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for `path` under `root`."""
    return np.random.default_rng(derive_seed(root, *path))

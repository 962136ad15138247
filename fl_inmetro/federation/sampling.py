"""Which clients take part in a round."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fl_inmetro import seeds


def sample_clients(client_ids: Sequence[str], fraction: float, seed: int, round_: int) -> list[str]:
    """Draw ⌈fraction · K⌉ clients without replacement, at least one, in the order of their names.

    The draw depends on the seed, the round and the names, not on node ids or arrival.

    >>> sample_clients(["a", "b", "c", "d"], 0.5, seed=0, round_=1) == sample_clients(
    ...     ["d", "c", "b", "a"], 0.5, seed=0, round_=1)
    True
    """
    names = sorted(client_ids)
    # The tolerance keeps 0.07 · 100 at 7 and not, by a rounding error, at 8.
    wanted = max(1, math.ceil(fraction * len(names) - 1e-9))
    if wanted == len(names):
        return names
    generator = seeds.derive(seed, "sample", round_)
    return sorted(generator.choice(names, size=wanted, replace=False).tolist())

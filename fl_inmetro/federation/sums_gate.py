"""The gate for sums: what a model in closed form is solved from may not be made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault
from fl_inmetro.learning.sums import NAMES, Sums, against_all, contradiction, far_off
from fl_inmetro.learning.update import UpdateBlock


def refused(
    blocks: Sequence[UpdateBlock], *, points: Mapping[str, int], gate: Gate
) -> dict[str, Fault]:
    """Return the clients whose sums may not touch the model, with the reason (FL301).

    First what a client's sums say by themselves, then beside those of all others that are sound.
    Sums of another kind than `gram`, `moment` and `square` are not looked at.

    Args:
        blocks: The cohort's sums.
        points: Client to its training points at enrolment, n_k.
        gate: `[gate]`; `enabled` is the caller's business.
    """
    blocks = [block for block in blocks if block.layout.names == NAMES and len(block)]
    if not blocks:
        return {}
    names = [name for block in blocks for name in block.client_ids]
    parts = [block.layout.stacked(block.matrix) for block in blocks]
    gram, moment, square = (np.concatenate([part[name] for part in parts]) for name in NAMES)
    sums = Sums(gram, moment, square[:, 0])
    found = {
        k: why
        for k, name in enumerate(names)
        if (why := contradiction(gram[k], moment[k], float(square[k, 0]), points.get(name, 0)))
    }
    sound = np.array([k for k in range(len(names)) if k not in found], dtype=np.int64)
    if len(sound):
        chosen = np.isin(np.arange(len(names)), sound)
        far, off = far_off(sums.take(chosen), gate.spread_factor)
        found |= {int(sound[k]): why for k, why in off.items()}
        near = np.array([k not in off for k in range(len(sound))])
        if gate.fit and near.any():
            against = against_all(sums.take(chosen).take(near), far[near])
            found |= {int(sound[near][k]): why for k, why in against.items()}
    return {names[k]: _refusal(names[k], why) for k, why in sorted(found.items())}


def _refusal(name: str, why: str) -> Fault:
    return Fault("FL301", f"a reply was refused: `{name}`: {why}", "", "")

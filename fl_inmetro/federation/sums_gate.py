"""The gate for sums: what a model in closed form is solved from may not be made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault
from fl_inmetro.learning.sums import (
    NAMES,
    WEIGHTED,
    Floats,
    Sums,
    against_all,
    contradiction,
    far_off,
    out_of_weight,
)
from fl_inmetro.learning.update import UpdateBlock


def refused(
    blocks: Sequence[UpdateBlock], *, points: Mapping[str, int], gate: Gate
) -> dict[str, Fault]:
    """Return the clients whose sums may not touch the model, with the reason (FL301).

    First what a client's sums say by themselves, then beside those of all others that are sound.
    Weighted sums (`models/quantile_linear.py`) are looked at level by level as ridge's are, and for
    what a client's points weigh beside those of the others.
    Sums of other names are not looked at.

    Args:
        blocks: The cohort's sums.
        points: Client to its training points at enrolment, n_k.
        gate: `[gate]`; `enabled` is the caller's business.
    """
    blocks = [block for block in blocks if block.layout.names in (NAMES, WEIGHTED) and len(block)]
    if not blocks:
        return {}
    names = [name for block in blocks for name in block.client_ids]
    enrolled = np.array([float(points.get(name, 0)) for name in names])
    parts = [block.layout.stacked(block.matrix) for block in blocks]
    gram, moment, square = (np.concatenate([part[name] for part in parts]) for name in NAMES)
    if blocks[0].layout.names == NAMES:
        found = _judged(Sums(gram, moment, square[:, 0]), enrolled, gate)
    else:
        claimed = np.concatenate([part["points"] for part in parts])[:, 0]
        found = {
            int(k): f"it sums {claimed[k]:.16g} points and claims {enrolled[k]:.16g}"
            for k in np.flatnonzero(claimed != enrolled)
        }
        for level in range(square.shape[1]):
            own = Sums(gram[:, level], moment[:, level], square[:, level])
            found = _judged(own, own.gram[:, -1, -1], gate) | found
            found = out_of_weight(own, enrolled, gate.spread_factor) | found
    return {names[k]: _refusal(names[k], why) for k, why in sorted(found.items())}


def _judged(sums: Sums, points: Floats, gate: Gate) -> dict[int, str]:
    """Return the places of clients whose sums of `points` rows cannot be, with the reason."""
    found = {
        k: why
        for k in range(len(sums))
        if (
            why := contradiction(
                sums.gram[k], sums.moment[k], float(sums.square[k]), float(points[k])
            )
        )
    }
    sound = np.array([k for k in range(len(sums)) if k not in found], dtype=np.int64)
    if len(sound):
        chosen = np.isin(np.arange(len(sums)), sound)
        far, off = far_off(sums.take(chosen), gate.spread_factor)
        found |= {int(sound[k]): why for k, why in off.items()}
        near = np.array([k not in off for k in range(len(sound))])
        if gate.fit and near.any():
            against = against_all(sums.take(chosen).take(near), far[near])
            found |= {int(sound[near][k]): why for k, why in against.items()}
    return found


def _refusal(name: str, why: str) -> Fault:
    return Fault("FL301", f"a reply was refused: `{name}`: {why}", "", "")

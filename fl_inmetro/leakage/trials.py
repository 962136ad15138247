"""Trials of membership in a run: losses of its windows, and rounds with and without a client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.data.windows import Windows
from fl_inmetro.leakage.membership import clients_told, loss_of_windows, windows_told
from fl_inmetro.leakage.results import Detection
from fl_inmetro.leakage.scene import Scene, clipped, flat, noisy
from fl_inmetro.learning.update import Arrays

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Clients that rounds are tried with, and how many rounds.
CLIENTS, ROUNDS = 40, 5

#: Fewest clients on each side of a comparison.
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Losses:
    """By how much the kept model misses more than the first one, window by window.

    How hard a window is by itself is taken off: the first model has seen none of them.

    Attributes:
        train: Client to the losses of its training windows, (N,).
        later: Client to those of its validation and test windows.
    """

    train: dict[str, Floats]
    later: dict[str, Floats]


def losses_of(scene: Scene) -> Losses:
    """Return what training took off the losses on the windows of the scene's clients."""

    def gained(parts: Sequence[Windows]) -> Floats:
        return _losses(scene, scene.last, parts) - _losses(scene, scene.first, parts)

    train, later = {}, {}
    for name in scene.names:
        data = scene.workers[name].data
        train[name] = gained(data.train)
        later[name] = gained((*data.validation, *data.test))
    return Losses(train, later)


def window_membership(losses: Losses, took_part: Sequence[str], seed: int) -> list[Detection]:
    """Tell windows that were trained on: from later ones, and from those of who never took part.

    Args:
        losses: Of the kept model.
        took_part: Clients that answered in some round of the run.
        seed: What intervals are drawn from.
    """
    ours = [name for name in losses.train if name in set(took_part)]
    others = [name for name in losses.train if name not in set(took_part)]
    members = _known(losses.train, ours)
    found = []
    if members and (later := _known(losses.later, ours)):
        found.append(windows_told(members, later, "later", seed))
    if len(others) >= FEWEST and members and (never := _known(losses.train, others)):
        found.append(windows_told(members, never, "others", seed))
    return found


def client_membership(scene: Scene, took_part: Sequence[str], seed: int) -> list[Detection]:
    """Tell who took part: in rounds of half of the clients, and in the run where not all did.

    The adversary has the readings of the client that it asks about, or of all, computes what they
    would send, and looks whether what was released leans that way.

    Args:
        scene: The run.
        took_part: Clients that answered in some round of the run.
        seed: What rounds and intervals are drawn from.
    """
    names = scene.names[:CLIENTS]
    references = np.stack([flat(scene.bare(name, 0)) for name in names])
    found = []
    if len(names) >= 2 * FEWEST:
        rng = seeds.derive(seed, "leakage", "rounds")
        rounds = []
        for round_ in range(1, ROUNDS + 1):
            drawn = np.zeros(len(names), dtype=bool)
            drawn[rng.permutation(len(names))[: len(names) // 2]] = True
            rounds.append((released(scene, [names[k] for k in drawn.nonzero()[0]], round_), drawn))
        found.append(clients_told(rounds, references, "not-drawn", seed))
        found.append(clients_told(rounds, references, "not-drawn-known", seed, all_known=True))
    took = np.array([name in set(took_part) for name in names])
    if min(int(took.sum()), int((~took).sum())) >= FEWEST and scene.at == "first":
        moved: Arrays = {
            name: scene.last[name] - scene.first[name] for name in scene.learner.shared(scene.state)
        }
        found.append(clients_told([(flat(moved), took)], references, "never", seed))
    return found


def released(scene: Scene, names: Sequence[str], round_: int) -> Floats:
    """Return the sum of a round's updates, each of them as it is seen; (P,).

    All count alike, whatever the run's weights or its rule: somebody who sees the single updates
    can add them up so.
    """
    if scene.seen != "update_in_sum":
        updates = np.stack([flat(scene.update(name, round_)) for name in names])
        whole: Floats = updates.sum(axis=0)
        if share := scene.share:
            # So few shares may be less than the promise: a run merges no round of so few.
            missing = (scene.z * scene.clip) ** 2 - len(names) * share.sigma**2
            rng = scene.secret.generator("leakage", "shares", round_)
            whole = whole + math.sqrt(max(missing, 0.0)) * rng.standard_normal(whole.shape)
        return whole
    # The server's noise stands on the sum once, however many are in it.
    bare = [clipped(scene.bare(name, round_), scene.clip) for name in names]
    total = {key: np.sum([one[key] for one in bare], axis=0) for key in bare[0]}
    rng = scene.secret.generator("leakage", "round", round_)
    return flat(noisy(total, scene.z * scene.clip, rng))


# ------------------------------------------------------------------------------ internals
def _losses(scene: Scene, state: Arrays, parts: Sequence[Windows]) -> Floats:
    lost = [
        loss_of_windows(
            scene.learner.forecast(state, scene.learner.design(part)).point_kwh,
            part.target_kwh(),
        )
        for part in parts
        if len(part)
    ]
    return np.concatenate(lost) if lost else np.zeros(0)


def _known(losses: dict[str, Floats], names: Sequence[str]) -> list[Floats]:
    """Return the losses that are known, of each client that has any."""
    found = [losses[name][np.isfinite(losses[name])] for name in names]
    return [one for one in found if one.size]

"""Membership: was this window trained on, did this client take part.

Windows are told by their loss (Yeom, Giacomelli, Fredrikson and Jha 2018): a model fits better what
it has seen. What the same windows cost before training is taken off, or easy windows would pass for
members (Watson, Guo, Cormode and Sablayrolles 2022, "On the importance of difficulty calibration in
membership inference attacks"). Clients are told by the direction of what a round released: the sum
of updates leans towards each update that is in it. The adversary of the second has the client's
readings and computes its update alone. Beside them it knows the mean update of the clients; or, the
strongest there is and the one that differential privacy speaks of, the readings of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro import seeds
from fl_inmetro.leakage.measure import auc, auc_interval, auc_interval_of_clients, tpr_at_fpr
from fl_inmetro.leakage.results import Detection

Floats = NDArray[np.float64]

#: The false positive rate at which attacks are compared (Carlini et al. 2022).
FPR = 0.01

#: Penalty of the regression on all clients' updates, as a share of their mean square length.
_PENALTY = 0.1


def loss_of_windows(mean_kwh: Floats, target_kwh: Floats) -> Floats:
    """Return what each window's forecast misses by, in units of what was used in it; (N,).

    The mean absolute error over the mean load of the window: large and small meters are then alike.

    Args:
        mean_kwh: Shape (N, H), what was forecast.
        target_kwh: Shape (N, H), what was used; NaN where it is not known. A window without any
            known step, or in which nothing was used, has no loss and is NaN.
    """
    known = np.isfinite(target_kwh) & np.isfinite(mean_kwh)
    missed = np.where(known, np.abs(mean_kwh - target_kwh), 0.0).sum(axis=1)
    used = np.where(known, target_kwh, 0.0).sum(axis=1)
    lost: Floats = np.divide(missed, used, out=np.full(len(used), np.nan), where=used > 0)
    return lost


def windows_told(
    member_loss: Sequence[Floats], other_loss: Sequence[Floats], what: str, seed: int
) -> Detection:
    """Return how well a low loss tells windows that were trained on.

    Windows of one client are alike, so the bootstrap draws clients, with all their windows.

    Args:
        member_loss: By client, the loss of windows that were trained on, finite, (N_k,).
        other_loss: The same of windows that were not.
        what: Whom the members are compared with: `later` or `others`.
        seed: What the interval is drawn from.

    Raises:
        ValueError: A group is empty.
    """
    up, down = ([-loss for loss in group] for group in (member_loss, other_loss))
    found = told("window-membership", what, np.concatenate(up), np.concatenate(down), seed)
    rng = seeds.derive(seed, "leakage", "window-membership", what)
    low, high = auc_interval_of_clients(up, down, rng)
    return replace(found, low=low, high=high)


def cosines(released: Floats, references: Floats) -> Floats:
    """Return the cosine of what was released with each client's own update; (K,).

    Args:
        released: Shape (P,), what a round moved the model by.
        references: Shape (K, P), the update that the adversary computed of each client. The cosine
            with a vector of zeros is 0: it points nowhere.
    """
    size = np.linalg.norm(references, axis=1) * np.linalg.norm(released)
    towards: Floats = np.divide(
        references @ released, size, out=np.zeros(len(references)), where=size > 0
    )
    return towards


def apart(references: Floats) -> Floats:
    """Return what sets each client's update apart from their mean, across its direction; (K, P).

    What all have in common tells nobody from nobody. Every round has it too, by far the largest
    part of it, so what a client has along it would only disturb.

    Args:
        references: Shape (K, P), each client's update.
    """
    mean = references.mean(axis=0)
    own: Floats = references - mean
    size = float(np.linalg.norm(mean))
    if not size:
        return own
    along: Floats = own - np.outer(own @ (mean / size), mean / size)
    return along


def coefficients(released: Floats, own: Floats) -> Floats:
    """Return how much of each client's update a round seems to hold; (K,), without a unit.

    Ridge regression of what was released on all clients' updates, with a tenth of their mean
    square length as penalty: what another client explains better is not put down to this one.

    Args:
        released: Shape (P,), what a round moved the model by.
        own: Shape (K, P), from `apart`.
    """
    gram = own @ own.T
    penalty = _PENALTY * float(np.trace(gram)) / len(gram)
    if not penalty:
        return np.zeros(len(own))
    solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), own @ released)
    return solved.astype(np.float64)


def clients_told(
    rounds: Sequence[tuple[Floats, NDArray[np.bool_]]],
    references: Floats,
    what: str,
    seed: int,
    *,
    all_known: bool = False,
) -> Detection:
    """Return how well the direction of a round tells who took part in it.

    Every round is a trial of its own, and its scores are ranked among themselves first: rounds of
    other lengths are not compared.

    Args:
        rounds: For each, what it released, (P,), and who was in it, (K,); both kinds are needed.
        references: Shape (K, P), each client's update.
        what: Whom those who took part are compared with: `not-drawn` or `never`, with `-known`
            where the adversary has the readings of all.
        seed: What the interval is drawn from.
        all_known: Whether it has. Else it knows one client's update and the mean, and takes the
            cosine.

    Raises:
        ValueError: No round, or nobody in it or everybody.
    """
    if not rounds:
        raise ValueError("no round to look at")
    own = apart(references)
    by = coefficients if all_known else cosines
    scores = [_ranked(by(released, own)) for released, _ in rounds]
    up = np.concatenate([s[took] for s, (_, took) in zip(scores, rounds, strict=True)])
    down = np.concatenate([s[~took] for s, (_, took) in zip(scores, rounds, strict=True)])
    return told("client-membership", what, up, down, seed)


def told(
    attack: str, what: str, up: Floats, down: Floats, seed: int, accuracy: float | None = None
) -> Detection:
    """Return how well a score tells `up` from `down`.

    Args:
        attack: Its name.
        what: Of what, or compared with whom.
        up: Scores of those that are.
        down: Scores of those that are not.
        seed: What the interval is drawn from.
        accuracy: How often a decision was right, where one was made.

    Raises:
        ValueError: A group is empty.
    """
    area = auc(up, down)
    low, high = auc_interval(up, down, seeds.derive(seed, "leakage", attack, what))
    both = up.size + down.size
    return Detection(
        attack=attack,
        what=what,
        auc=area,
        tpr=tpr_at_fpr(up, down, FPR),
        fpr=FPR,
        low=low,
        high=high,
        positives=int(up.size),
        negatives=int(down.size),
        prior=max(up.size, down.size) / both,
        accuracy=accuracy,
    )


# ------------------------------------------------------------------------------ internals
def _ranked(scores: Floats) -> Floats:
    """Return each score's rank among all, from 0 to 1; equal scores have their mean rank."""
    ordered = np.sort(scores)
    left = np.searchsorted(ordered, scores, side="left")
    right = np.searchsorted(ordered, scores, side="right")
    return (left + right) / (2.0 * scores.size)

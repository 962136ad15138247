"""Whom a plan of noise is made for: the client that spends most, and what the others spend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.learning.work import steps_of
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.mechanism import Gaussian, Relation
from fl_inmetro.privacy.plan import Planned, planned

#: Who spends so much of the most, by RDP, may spend the most by the other account.
_NEAR = 0.9


def steps_spent(
    z: float,
    count: int,
    batch_size: int,
    rounds: int,
    epochs: int,
    most: int,
    group: int,
    relation: Relation,
) -> Gaussian:
    """Return what a client of `count` windows spends when it is in every round."""
    rate = min(1.0, (batch_size or count) / count)
    times = rounds * steps_of(count, batch_size, epochs, most)
    return Gaussian(z, rate, times, "all" if rate == 1 else "poisson", group, relation)


def plan_for_the_worst(
    kinds: Iterable[Gaussian], wanted: Mapping[str, Any]
) -> tuple[Planned, float]:
    """Plan for the client that spends most, and return ε of the plan for it.

    Short histories mean large shares in each batch. Without groups RDP, which is quick, says who
    comes near the most; those are accounted as the promise is, for the order of the two may differ.
    With groups it may even be reversed, so there all are.

    Args:
        kinds: What clients spend in all rounds, a kind for each sort.
        wanted: Arguments of `privacy.plan.planned`, beside the kind.

    Raises:
        PrivacyError: FL404, no noise keeps such a promise; FL406, there are no kinds.
    """
    left = sorted(_undominated(kinds), key=lambda e: (-e.sampling_rate * e.times**0.5, e.times))
    if not left:
        raise PrivacyError(
            Fault(
                "FL406",
                "no client has a window to train on, so there is nothing to protect",
                "[window], [data]",
                "give more days of readings, or fewer to validation and test",
            )
        )
    delta, goal = wanted["delta"], wanted["epsilon"]
    worst = left[0]
    tried: set[Gaussian] = set()
    while True:
        tried.add(worst)
        plan = planned(worst, **wanted)
        beside = tuple(e for e in plan.events if e is not plan.update)
        own = [replace(kind, noise_multiplier=plan.update.noise_multiplier) for kind in left]
        costs = [accountant.epsilon_rdp((*beside, event), delta) for event in own]
        grouped = any(event.group > 1 or event.relation == "replace" for event in own)
        least = -math.inf if grouped else _NEAR * max(costs)
        near = [place for place, cost in enumerate(costs) if cost >= least]
        totals = {p: accountant.account((*beside, own[p]), delta).epsilon for p in near}
        most = max(totals, key=lambda place: totals[place])
        if goal is None or totals[most] <= goal or left[most] in tried:
            return replace(plan, update=own[most]), totals[most]
        worst = left[most]


def _undominated(kinds: Iterable[Gaussian]) -> list[Gaussian]:
    """Return the kinds of which no other is drawn at least as often in at least as many steps.

    An account of groups takes seconds, and most clients differ by a few windows.
    """
    left: list[Gaussian] = []
    for kind in sorted(kinds, key=lambda e: (-e.sampling_rate, -e.times)):
        if not left or kind.times > max(one.times for one in left):
            left.append(kind)
    return left


def counted(events: Sequence[Gaussian]) -> Counter[Gaussian]:
    """Return how often each single release is among the events."""
    counts: Counter[Gaussian] = Counter()
    for event in events:
        counts[replace(event, times=1)] += event.times
    return counts

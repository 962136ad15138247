"""The table of attacks: what each name does to updates, to training data, or to the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fl_inmetro.config.attack import Attack as Settings
from fl_inmetro.config.attack import AttackName
from fl_inmetro.federation.attacks import crude, forged_sums, omniscient
from fl_inmetro.federation.attacks.sight import Crafted, Sight
from fl_inmetro.learning.update import Arrays

Craft = Callable[[Sight, Settings], Crafted]
Forge = Callable[[Arrays, Settings], Arrays]
Data = Literal["label-flip", "backdoor"]


@dataclass(frozen=True)
class Attack:
    """One line of the table.

    Attributes:
        craft: What hostile clients send instead of their honest updates; None = what their (then
            poisoned) training gives.
        data: How their training windows are changed; None = they train honestly.
        malformed: They send messages of the wrong form.
        omniscient: They see the honest updates.
        enrols: What they say at enrolment instead of their own sums; None = the truth.
        sums: What they send instead of the sums of a model in closed form; None = the truth.
    """

    craft: Craft | None = None
    data: Data | None = None
    malformed: bool = False
    omniscient: bool = False
    enrols: Forge | None = None
    sums: Forge | None = None


def _seeing(craft: Craft) -> Attack:
    return Attack(craft, omniscient=True)


ATTACKS: dict[AttackName, Attack] = {
    "sign-flip": Attack(lambda sight, settings: crude.sign_flip(sight)),
    "scaled": Attack(lambda sight, settings: crude.scaled(sight, settings.factor)),
    "noise": _seeing(lambda sight, settings: crude.noise(sight, settings.noise)),
    "alie": _seeing(lambda sight, settings: omniscient.alie(sight, settings.z)),
    "ipm": _seeing(lambda sight, settings: omniscient.ipm(sight, settings.epsilon)),
    "min-max": _seeing(lambda sight, settings: omniscient.min_max(sight)),
    "min-sum": _seeing(lambda sight, settings: omniscient.min_sum(sight)),
    "free-rider": Attack(lambda sight, settings: crude.free_rider(sight)),
    "free-rider-disguised": Attack(
        lambda sight, settings: crude.disguised_free_rider(sight, settings.disguise)
    ),
    "nan": Attack(lambda sight, settings: crude.not_a_number(sight)),
    "garbage": Attack(lambda sight, settings: crude.garbage(sight)),
    "wrong-shape": Attack(malformed=True),
    "over-claim": Attack(lambda sight, settings: crude.over_claim(sight, settings.claim)),
    "replay": Attack(lambda sight, settings: crude.replay(sight)),
    "sybil": Attack(lambda sight, settings: crude.sybil(sight)),
    "sybil-jitter": Attack(lambda sight, settings: crude.sybil(sight, settings.jitter)),
    "label-flip": Attack(data="label-flip"),
    "backdoor": Attack(lambda sight, settings: crude.replacement(sight), data="backdoor"),
    "poisoned-enrolment": Attack(enrols=lambda sums, s: forged_sums.moved(sums, s.shift)),
    "poisoned-sums": Attack(sums=lambda sums, s: forged_sums.scaled(sums, s.moment)),
}

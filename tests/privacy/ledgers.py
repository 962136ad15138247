"""Releases and ledgers for the tests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fl_inmetro.privacy.budget import Accountant
from fl_inmetro.privacy.ledger import Ledger, Owner
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import Release, digest_of

FLEET = Owner("north")
HOME = Owner("north", "house-7")

#: A made account that can be followed by hand: epsilon = sqrt(sum of times / noise²), no sampling,
#: no delta. It grows with what is spent and falls with noise, as a real one does.
ROOT_SUM = Accountant("root-sum 1", lambda spent, _: math.sqrt(sum(map(_cost, spent))))


def _cost(part: Gaussian) -> float:
    if part.noise_multiplier == 0:
        return math.inf
    return part.times / part.noise_multiplier**2


def release(number: int = 0, bits: bytes = b"bits", **other: Any) -> Release:
    fields: dict[str, Any] = {
        "run": "r1",
        "round": number,
        "what": "update",
        "mechanism": "gaussian",
        "noise_multiplier": 1.0,
        "sensitivity": 0.5,
        "sampling": "poisson",
        "sampling_rate": 0.1,
        "times": 1,
        "group": 1,
        "relation": "add-remove",
        "subject": "client",
        "digest": digest_of([bits]),
    }
    return Release(**{**fields, **other})


def ledger(folder: Path, count: int = 3, owner: Owner = FLEET) -> Ledger:
    book = Ledger(folder, owner)
    for number in range(count):
        book.record(release(number))
    return book

"""What all releases of a ledger have cost those who are protected, counted together and anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.ledger import Contents
from fl_inmetro.privacy.mechanism import Events
from fl_inmetro.privacy.release import COUNTED, Release, Subject, spending

#: δ where no budget says one.
USUAL_DELTA = 1e-5


@dataclass(frozen=True)
class Total:
    """What releases that protect the same have cost together.

    Attributes:
        subject: Whom they protect.
        releases: How many they are.
        epsilon: Their ε at `delta`, an upper bound; infinite where one had no noise.
        delta: δ.
    """

    subject: Subject
    releases: int
    epsilon: float
    delta: float


def totals(ledger: Contents) -> tuple[Total, ...]:
    """Return what a ledger's releases cost, by whom they protect: other units do not add up.

    The δ is the one that was noted last, or `USUAL_DELTA`. What no accountant can count is left
    out.

    Raises:
        PrivacyError: FL403, `dp-accounting` is not installed.
    """
    noted = [one["delta"] for entry in ledger.entries for one in entry.account]
    delta = noted[-1] if noted else USUAL_DELTA
    by_subject: dict[Subject, list[Release]] = {}
    for entry in ledger.entries:
        if entry.release.mechanism == COUNTED:
            by_subject.setdefault(entry.release.subject, []).append(entry.release)
    found = []
    for subject, releases in by_subject.items():
        epsilon = _together(releases, delta)
        if epsilon is not None:
            found.append(Total(subject, len(releases), epsilon, delta))
    return tuple(found)


# ------------------------------------------------------------------------------ internals
def _together(releases: Sequence[Release], delta: float) -> float | None:
    """Return ε of all; None where no account joins them, as with draws of two kinds."""
    accountant.version()
    try:
        return _epsilon(spending(releases), delta)
    except PrivacyError as error:
        if error.faults[0].code == "FL402":
            return None
        raise


@lru_cache(maxsize=256)  # most clients of a federation have spent the same
def _epsilon(events: Events, delta: float) -> float:
    return accountant.account(events, delta).epsilon

"""What one noisy release says of itself, as far as an accountant and an officer need it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.mechanism import Events, Gaussian, Relation, Sampling

Subject = Literal["client", "client-day", "window"]

_CHOICES = {
    "sampling": get_args(Sampling),
    "relation": get_args(Relation),
    "subject": get_args(Subject),
}
_LONGEST_NAME = 200

#: Draws and relations that no account joins: a fixed number drawn hides nobody's absence.
_NO_ACCOUNT = (("without-replacement", "add-remove"),)

#: The mechanism that the accountants count.
COUNTED = "gaussian"


@dataclass(frozen=True, slots=True)
class Release:
    """One release: a mechanism applied to data, and the digest of the very bits that leave.

    Attributes:
        run: Identifier of the run.
        round: Round of the run, from 0.
        what: What leaves, for example `update`, `scaler`, `metric`.
        mechanism: Name of the mechanism, for example `gaussian`.
        noise_multiplier: Standard deviation of the noise over `sensitivity`; 0 is no noise.
        sensitivity: Most that one record more or less can change the sum (the clipping norm), in
            the unit of what leaves.
        sampling: How the records were drawn.
        sampling_rate: Chance of one record to be in the sum, in (0, 1].
        times: How often the mechanism ran for this release (steps of DP-SGD in one round).
        group: Records that belong to one who is protected; see `mechanism.Gaussian`.
        relation: Neighbouring data sets: one subject added or removed, or replaced.
        subject: Whom the noise protects.
        digest: SHA-256 of the bits that leave, 64 hexadecimal digits, from `digest_of`. Never
            of the noise or its seed: who knows the noise subtracts it.
    """

    run: str
    round: int
    what: str
    mechanism: str
    noise_multiplier: float
    sensitivity: float
    sampling: Sampling
    sampling_rate: float
    times: int
    group: int
    relation: Relation
    subject: Subject
    digest: str

    def __post_init__(self) -> None:
        faults = [*_faults(self)]
        if faults:
            raise PrivacyError(
                Fault("FL423", what, f"a release of run {self.run!r}, round {self.round!r}")
                for what in faults
            )
        for name in ("noise_multiplier", "sensitivity", "sampling_rate"):
            # One spelling of each number: 1 and 1.0, 0.0 and -0.0 would be two entries.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    def spent(self) -> Gaussian:
        """Return what an accountant needs of it.

        Raises:
            PrivacyError: FL431, its mechanism is none that an accountant here can count.
        """
        if self.mechanism != COUNTED:
            raise PrivacyError(
                Fault(
                    "FL431",
                    f"the mechanism `{self.mechanism}` has no account",
                    f"run {self.run}, round {self.round}, {self.what}",
                    f"only `{COUNTED}` can be held to a budget",
                )
            )
        return Gaussian(
            self.noise_multiplier,
            self.sampling_rate,
            self.times,
            self.sampling,
            self.group,
            self.relation,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def relation_under(subject: Subject) -> Relation:
    """Return which data sets are neighbours where a subject is protected.

    A client, or a window, is there or not. A day is in windows that stay when its readings are
    others, or missing: they are replaced.
    """
    return "replace" if subject == "client-day" else "add-remove"


#: Names of a release's fields, in order.
FIELDS = tuple(field.name for field in fields(Release))


def spending(releases: Iterable[Release]) -> Events:
    """Return what releases have spent together, for an accountant; equal events are joined.

    Raises:
        PrivacyError: FL431, a release of a mechanism that no accountant here can count.
    """
    times: dict[Gaussian, int] = {}
    for one in releases:
        event = replace(one.spent(), times=1)
        times[event] = times.get(event, 0) + one.times
    return tuple(replace(event, times=count) for event, count in times.items())


def digest_of(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of what leaves, each part with its length so that none can shift."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


# ------------------------------------------------------------------------------ internals
def plain_name(value: object) -> bool:
    """Tell whether a value can stand as a name: a line of at most 200 printable characters."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _faults(one: Release) -> Iterable[str]:
    for name in ("run", "what", "mechanism"):
        if not plain_name(getattr(one, name)):
            yield f"`{name}` is not a name of at most {_LONGEST_NAME} printable characters"
    if not _is_count(one.round, 0):
        yield f"`round` is not a whole number from 0: {one.round!r}"
    if not _is_count(one.times, 1):
        yield f"`times` is not a whole number from 1: {one.times!r}"
    if not _is_count(one.group, 1):
        yield f"`group` is not a whole number from 1: {one.group!r}"
    elif one.sampling == "without-replacement" and one.group != 1:
        yield "groups of records have no account where a fixed number of records is drawn"
    if (one.sampling, one.relation) in _NO_ACCOUNT:
        yield f"sampling `{one.sampling}` has no account under the relation `{one.relation}`"
    if not (_is_number(one.noise_multiplier) and one.noise_multiplier >= 0):
        yield f"`noise_multiplier` is not a number from 0: {one.noise_multiplier!r}"
    if not (_is_number(one.sensitivity) and one.sensitivity > 0):
        yield f"`sensitivity` is not a number above 0: {one.sensitivity!r}"
    if not (_is_number(one.sampling_rate) and 0 < one.sampling_rate <= 1):
        yield f"`sampling_rate` is not in (0, 1]: {one.sampling_rate!r}"
    elif one.sampling == "all" and one.sampling_rate != 1:
        yield f"with sampling `all` the rate is 1, not {one.sampling_rate!r}"
    for name, choices in _CHOICES.items():
        if getattr(one, name) not in choices:
            yield f"`{name}` is one of {', '.join(choices)}, not {getattr(one, name)!r}"
    if not (
        isinstance(one.digest, str)
        and len(one.digest) == 64
        and not set(one.digest) - set("0123456789abcdef")
    ):
        yield "`digest` is not a SHA-256 of 64 hexadecimal digits in lower case"

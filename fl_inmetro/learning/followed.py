"""What the clients of a run follow from: their errors, and the fleet's, on the validation days.

From here each client goes on by itself (`learning/adaptive_conformal.py`); nothing of what follows
leaves it. A client that the run has never seen begins with the fleet's errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.conformal import Conformal
from fl_inmetro.learning.adaptive_conformal import Adaptive, Followed
from fl_inmetro.learning.conformal import Arrays, Calibration, Scores, nothing_to_calibrate_by

Floats = NDArray[np.float64]

#: Prefix of the arrays of the fleet's errors.
_FLEET = "fleet."

#: The arrays of `Ended`, in its order.
_ENDED = ("heard", "asked", "place", "weight", "pending_utc_s", "offsets")


@dataclass(frozen=True, eq=False)
class Kept:
    """A client's counts of errors, without the bins that are empty.

    Attributes:
        place: Shape (P,), places in the flattened counts, ascending.
        count: Shape (P,).
    """

    place: NDArray[np.int32]
    count: NDArray[np.int32]

    @classmethod
    def of(cls, scores: Scores) -> Kept:
        """Return the counts of a client's errors."""
        place = np.flatnonzero(scores.counts)
        return cls(place.astype(np.int32), scores.counts.ravel()[place].astype(np.int32))

    def scores(self, like: Scores) -> Scores:
        """Return the errors, of the levels, blocks and bins of others."""
        counts = np.zeros(like.counts.size, dtype=np.int64)
        counts[self.place] = self.count
        return replace(like, counts=counts.reshape(like.counts.shape))


@dataclass(frozen=True, eq=False)
class Ended:
    """What a client has come to at its last calibrated issue, beside what it followed from.

    Its errors are those it began with, which have lost weight by every day that was heard of, and
    those of these days, with the weight that they have left.

    Attributes:
        heard: Shape (blocks,), days that it has heard of.
        asked: Shape (blocks, Q), the levels that it asks its errors for.
        place: Shape (P,), places in the flattened errors, ascending.
        weight: Shape (P,), what came since.
        pending_utc_s: Shape (M,), issues whose readings it has not heard of; the last is its last.
        offsets: Shape (M, blocks, Q), by what these forecasts were moved.
    """

    heard: NDArray[np.int64]
    asked: Floats
    place: NDArray[np.int32]
    weight: Floats
    pending_utc_s: NDArray[np.int64]
    offsets: Floats

    @classmethod
    def of(cls, done: Followed, issue_utc_s: NDArray[np.int64]) -> Ended:
        """Return where a client stands that has followed over the issues."""
        came = done.came.ravel()
        place = np.flatnonzero(came)
        offsets = np.stack([one.offsets for one in done.given])
        return cls(
            done.heard,
            done.adaptive.asked,
            place.astype(np.int32),
            came[place],
            issue_utc_s[-len(offsets) :],
            offsets,
        )

    def adaptive(self, start: Adaptive) -> Adaptive:
        """Return what the client knows at its last issue, to rounding."""
        mass = start.mass * _left(start, self.heard)
        mass.ravel()[self.place] += self.weight
        return replace(start, mass=mass, asked=self.asked)

    def given(self, start: Adaptive) -> tuple[Calibration, ...]:
        """Return by what the pending forecasts were calibrated."""
        return tuple(Calibration(start.levels, start.of_mean, own) for own in self.offsets)


def _left(start: Adaptive, heard: NDArray[np.int64]) -> Floats:
    """Return the share of its weight that an error has after the days heard of; (blocks, 1, 1)."""
    left: Floats = np.power(1 - start.forget, heard, dtype=np.float64)[:, None, None]
    return left


@dataclass(frozen=True, eq=False)
class FollowedFleet:
    """What each client of a run follows from.

    Attributes:
        settings: `[conformal]`.
        since_utc_s: The first issue that is calibrated: what comes after it is followed.
        fleet: The errors of all clients together; where nothing is shared, none.
        own: Client to its own errors.
        alone: Nothing is shared: a client without errors of its own is not calibrated.
        ended: Client to where it stands at its last calibrated issue.
    """

    settings: Conformal
    since_utc_s: int
    fleet: Scores
    own: Mapping[str, Kept]
    alone: bool = False
    ended: Mapping[str, Ended] = field(default_factory=dict)

    def of(self, client_id: str) -> Adaptive | None:
        """Return what a client knows before the first issue; None where there is nothing for it."""
        kept = self.own.get(client_id)
        own = None if kept is None else kept.scores(self.fleet)
        if self.alone and own is None:
            return None
        settings = self.settings
        fleet = own if self.alone and own is not None else self.fleet
        return Adaptive.start(own, fleet, settings, settings.gamma, 1 / settings.memory_days)

    def packed(self) -> tuple[Arrays, dict[str, str]]:
        """Return arrays and text that can be kept."""
        arrays = {_FLEET + name: array for name, array in self.fleet.to_arrays().items()}
        none = np.zeros(0, dtype=np.int32)
        own = list(self.own.values())
        arrays["place"] = np.concatenate([none, *(one.place for one in own)])
        arrays["count"] = np.concatenate([none, *(one.count for one in own)])
        arrays["size"] = np.array([one.place.size for one in own], dtype=np.int64)
        for key in _ENDED if self.ended else ():
            parts = [getattr(one, key) for one in self.ended.values()]
            arrays[f"ended.{key}"] = np.concatenate(parts)
            arrays[f"ended.{key}.size"] = np.array([len(part) for part in parts], dtype=np.int64)
        return arrays, {
            "clients": json.dumps(list(self.own)),
            "since_utc_s": json.dumps(self.since_utc_s),
            "alone": json.dumps(self.alone),
            "ended": json.dumps(list(self.ended)),
        }

    @classmethod
    def unpacked(
        cls, arrays: Arrays, meta: Mapping[str, str], settings: Conformal
    ) -> FollowedFleet:
        """Return what `packed` was made of; `settings` are the run's."""
        fleet = Scores.from_arrays(
            {n.removeprefix(_FLEET): a for n, a in arrays.items() if n.startswith(_FLEET)}
        )
        ends = np.cumsum(arrays["size"])[:-1]
        parts = zip(np.split(arrays["place"], ends), np.split(arrays["count"], ends), strict=True)
        # np.split makes one part of no client.
        own = {
            name: Kept(place, count)
            for name, (place, count) in zip(json.loads(meta["clients"]), parts, strict=False)
        }
        since_utc_s, alone = json.loads(meta["since_utc_s"]), json.loads(meta["alone"])
        # A run of before keeps none.
        names = json.loads(meta.get("ended", "[]"))
        split = [
            np.split(arrays[f"ended.{key}"], np.cumsum(arrays[f"ended.{key}.size"])[:-1])
            for key in (_ENDED if names else ())
        ]
        ended = {name: Ended(*(parts[k] for parts in split)) for k, name in enumerate(names)}
        return cls(settings, since_utc_s, fleet, own, alone, ended)


def followed(
    clients: Mapping[str, Callable[[], Scores | None]],
    settings: Conformal,
    since_utc_s: int,
    *,
    alone: bool = False,
) -> FollowedFleet:
    """Ask each client for its errors, and return what all follow from.

    Args:
        clients: Name to what counts the client's errors; None where it has no forecast.
        settings: `[conformal]`.
        since_utc_s: The first issue that is calibrated.
        alone: Nothing is shared: each client by its own errors only.

    Raises:
        DataError: FL218, nobody has an error that could be counted.
    """
    total: Scores | None = None
    own: dict[str, Kept] = {}
    for name, ask in clients.items():
        scores = ask()
        if scores is None:
            continue
        total = scores if total is None else total + scores
        if scores.n:
            own[name] = Kept.of(scores)
    if total is None or not total.n:
        raise nothing_to_calibrate_by()
    if alone:
        total = replace(total, counts=np.zeros_like(total.counts))
    return FollowedFleet(settings, since_utc_s, total, own, alone)

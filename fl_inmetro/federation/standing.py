"""What the server knows of its clients from earlier rounds: refusals, scores, what counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.strategy import Gate
from fl_inmetro.learning.update import Arrays

#: What stands of it in `Progress.memory`.
STANDING = "standing."

#: Updates of each client that are known again when they come once more.
_REMEMBERED = 8

#: Suspended for the rest of the run.
_FOR_GOOD = np.iinfo(np.int64).max


class Standing:
    """The clients' records, by name; arrays, so that they can be kept with a checkpoint.

    Args:
        client_ids: All clients, sorted.
        settings: `[gate]`.
        kept: What `to_arrays` gave, of the same clients; empty before the first round.
    """

    def __init__(
        self, client_ids: Sequence[str], settings: Gate, kept: Mapping[str, NDArray[np.float64]]
    ) -> None:
        self._settings = settings
        self._place = {name: k for k, name in enumerate(client_ids)}
        count = len(client_ids)
        begin: Arrays = {
            "strikes": np.zeros(count, np.int64),
            "struck_in": np.zeros(count, np.int64),
            "suspended_until": np.zeros(count, np.int64),
            "scores": np.full(count, np.nan),
            "counted_in": np.zeros(count, np.int64),
            "marks": np.zeros((count, _REMEMBERED), np.int64),
            "control_median": np.zeros(1),
        }
        self._arrays: Arrays = {name: np.array(kept.get(name, a)) for name, a in begin.items()}

    def eligible(self, round_: int) -> list[str]:
        """Return those who are not suspended in this round, sorted."""
        until = self._arrays["suspended_until"]
        return [name for name, k in self._place.items() if until[k] < round_]

    def strike(self, name: str, round_: int) -> int | None:
        """Note that a reply was refused.

        In one round it counts once, however often that round is repeated.

        Returns:
            None; where that suspends the client, the last round of it (0 = the rest of the run).
        """
        place = self._place.get(name)
        if place is None or not self._settings.strikes:
            return None
        if self._arrays["struck_in"][place] == round_:
            return None
        self._arrays["struck_in"][place] = round_
        strikes = self._arrays["strikes"]
        strikes[place] += 1
        if strikes[place] < self._settings.strikes:
            return None
        strikes[place] = 0
        rounds = self._settings.suspended_rounds
        self._arrays["suspended_until"][place] = round_ + rounds if rounds else _FOR_GOOD
        return round_ + rounds if rounds else 0

    def has_sent(self, name: str, mark: int) -> bool:
        """Tell whether a client has sent an update with this mark."""
        place = self._place.get(name)
        return place is not None and bool((self._arrays["marks"][place] == mark).any())

    def sent(self, client_ids: Iterable[str], marks: NDArray[np.int64]) -> None:
        """Remember the marks of updates that were merged."""
        places = [self._place[name] for name in client_ids]
        kept = self._arrays["marks"]
        kept[places] = np.concatenate([marks[:, None], kept[places][:, :-1]], axis=1)

    @property
    def counted(self) -> dict[str, int]:
        """Client to the last round whose merge its reply was part of; 0 before any."""
        return dict(zip(self._place, self._arrays["counted_in"].tolist(), strict=True))

    def count(self, rounds: Mapping[str, int]) -> None:
        """Note whose replies were merged; `rounds` are those of the requests that they answer."""
        for name, round_ in rounds.items():
            self._arrays["counted_in"][self._place[name]] = round_

    @property
    def control_median(self) -> float:
        """The largest median norm of control variates in any round so far.

        A client's first change of its control variate is a whole gradient, later ones are small:
        one that comes late is no offender because the others have settled.
        """
        return float(self._arrays["control_median"][0])

    def controls_sent(self, median: float) -> None:
        """Note the median norm of the control variates of a round that was merged."""
        known = self._arrays["control_median"]
        # A small round of hostile clients must not open the limit of all that follow.
        known[0] = max(known[0], min(median, 10 * known[0]) if known[0] else median)

    @property
    def scores(self) -> dict[str, float]:
        """Client to its last validation nMAE; without those that have none."""
        scores = self._arrays["scores"]
        return {name: float(scores[k]) for name, k in self._place.items() if np.isfinite(scores[k])}

    def scored(self, nmae: Mapping[str, float]) -> None:
        """Remember the clients' validation nMAE; a client that has none counts as an easy one."""
        for name, value in nmae.items():
            if name in self._place:
                known = value if np.isfinite(value) else 0.0
                self._arrays["scores"][self._place[name]] = known

    def to_arrays(self) -> Arrays:
        """Return everything as arrays that can be kept."""
        return {name: array.copy() for name, array in self._arrays.items()}

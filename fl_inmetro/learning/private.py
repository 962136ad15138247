"""What a client keeps to itself from round to round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import CONTROL

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PrivateState:
    """A client's private parameters: after its latest training, and as they were at the best round.

    Its control variate is kept beside them; only the next training needs it, and no forecast.
    The client is told the federation's best round with every request, so it needs no history: when
    that number rises, the round it names is the one before this request.

    What a training leaves is pending until the server says that its round counted: a reply may be
    lost or refused, and a round may be repeated. Every request names the last round whose merge
    this client's reply was part of. Before and after stay both until the next training, so that
    a server that died and goes on from an earlier round is believed, too.

    Attributes:
        latest: Values after the client's latest training; empty before the first.
        best: Values at the best round.
        best_round: That round; 0 before any.
        control: SCAFFOLD's c_k or FedDyn's h_k (`learning/control.py`); empty before the first
            training that asked for one.
        pending: Private values after a training of which the server has not spoken for good.
        pending_control: Control variate after it.
        pending_round: The round of that training; 0 without one.
        counted_round: The last round that counted for this client, as it has heard.
    """

    latest: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)
    best_round: int = 0
    control: Arrays = field(default_factory=dict)
    pending: Arrays = field(default_factory=dict)
    pending_control: Arrays = field(default_factory=dict)
    pending_round: int = 0
    counted_round: int = 0

    @property
    def current(self) -> PrivateState:
        """The state by what was heard last: what is pending has counted, or was never done."""
        if not self.pending_round:
            return self
        before = replace(self, pending={}, pending_control={}, pending_round=0)
        if self.pending_round != self.counted_round:
            return before
        return replace(
            before,
            latest=self.pending or self.latest,
            control=self.pending_control or self.control,
        )

    def told(self, best_round: int, counted_round: int | None = None) -> PrivateState:
        """Return the state after hearing which round is the best so far, and which counted last.

        A server that says nothing of the second (None) leaves the client with what it has heard.
        """
        heard = self if counted_round is None else replace(self, counted_round=counted_round)
        if best_round <= self.best_round:
            return heard
        return replace(heard, best=heard.current.latest, best_round=best_round)

    def trained(self, values: Arrays, control: Arrays, round_: int | None = None) -> PrivateState:
        """Return the state after a training; what is empty stays as it was.

        Args:
            values: Private parameters after it.
            control: Control variate after it.
            round_: The round, of which the server will say whether it counted; None = it does.
        """
        now = self.current
        if round_ is None:
            return replace(now, latest=values or now.latest, control=control or now.control)
        return replace(now, pending=values, pending_control=control, pending_round=round_)


class PrivateFleet:
    """The private parameters of K clients, stacked; the same rules as `PrivateState`.

    A client that has not trained yet has the values of the first state.

    Attributes:
        latest: Each (K, …).
        best: Each (K, …).
        best_round: The best round that the clients have been told.
    """

    def __init__(self, initial: Mapping[str, NDArray[Any]], clients: int) -> None:
        self.latest: Arrays = {n: np.repeat(a[None], clients, axis=0) for n, a in initial.items()}
        self.best: Arrays = {n: a.copy() for n, a in self.latest.items()}
        self.best_round = 0

    def tell(self, best_round: int) -> None:
        """Hear which round is the best so far."""
        if best_round > self.best_round:
            self.best = {name: values.copy() for name, values in self.latest.items()}
            self.best_round = best_round

    def state_of(self, place: int) -> PrivateState:
        """Return one client's."""
        latest = {name: values[place] for name, values in self.latest.items()}
        best = {name: values[place] for name, values in self.best.items()}
        return PrivateState(latest, best, self.best_round)

    def set(self, place: int, private: PrivateState) -> None:
        """Set one client's."""
        for own, values in ((self.latest, private.latest), (self.best, private.best)):
            for name, value in values.items():
                own[name][place] = value
        self.best_round = max(self.best_round, private.best_round)

    def to_arrays(self) -> Arrays:
        """Return everything as arrays that can be kept."""
        arrays = {_LATEST + name: values for name, values in self.latest.items()}
        arrays |= {_BEST + name: values for name, values in self.best.items()}
        return arrays | {_TOLD: np.array([self.best_round], dtype=np.int64)}

    @staticmethod
    def best_of(arrays: Arrays) -> Arrays:
        """Return the values of the best round, each (K, …), from what `to_arrays` gave."""
        return _with_prefix(arrays, _BEST)

    def restore(self, arrays: Arrays) -> None:
        """Take what `to_arrays` gave."""
        self.latest = _with_prefix(arrays, _LATEST)
        self.best = _with_prefix(arrays, _BEST)
        self.best_round = int(arrays[_TOLD][0])


class PendingRows:
    """What stacked values of clients were before trainings of which it is not known if they count.

    The same rules as `PrivateState`, the other way round: the values are those after the training,
    and rows of clients whose round did not count are put back.
    """

    def __init__(self) -> None:
        self._before: list[tuple[int, Ints, Arrays]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is pending."""
        return not self._before

    def begin(self, round_: int, places: Ints, values: Arrays) -> None:
        """Remember the rows of clients that are about to train in a round."""
        self.forget(places)
        if values and len(places):
            self._before.append((round_, places, {n: a[places] for n, a in values.items()}))

    def forget(self, places: Ints) -> None:
        """Let the last training of clients count."""
        self._drop(places)

    def settle(self, counted: Mapping[int, int], values: Arrays) -> None:
        """Hear which round counted last, by place of the client; undo trainings that did not.

        Args:
            counted: Place to round; of clients that are not named nothing is known yet.
            values: Where the rows are put back, each (K, …).
        """
        for round_, places, before in self._before:
            undone = np.array([counted.get(k, round_) != round_ for k in places.tolist()])
            for name, rows in before.items():
                values[name][places[undone]] = rows[undone]
        named = np.fromiter(counted, np.int64, len(counted))
        self._drop(named)

    def _drop(self, decided: Ints) -> None:
        kept = []
        for round_, places, before in self._before:
            stay = ~np.isin(places, decided)
            if stay.any():
                rows = {name: values[stay] for name, values in before.items()}
                kept.append((round_, places[stay], rows))
        self._before = kept


_LATEST, _BEST, _TOLD = "latest.", "best.", "told"


def stacked_controls(states: Sequence[PrivateState]) -> Arrays:
    """Return the control variates of K clients under `CONTROL`, each (K, …).

    Those of a client that has none yet are zero; empty where nobody has any.
    """
    like = next((state.control for state in states if state.control), {})
    return {
        CONTROL + name: np.stack([state.control.get(name, np.zeros_like(a)) for state in states])
        for name, a in like.items()
    }


def controls_of(arrays: Arrays) -> Arrays:
    """Return the control variates among arrays that were kept, by plain name."""
    return _with_prefix(arrays, CONTROL)


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(prefix): a.copy() for n, a in arrays.items() if n.startswith(prefix)}

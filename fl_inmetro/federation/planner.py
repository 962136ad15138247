"""Plan the rounds of a federation in virtual time: what they ask of each device, who is in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from fl_inmetro.federation.merge import BUFFERS
from fl_inmetro.federation.roster import Roster
from fl_inmetro.federation.rules import Merge
from fl_inmetro.federation.virtual_time import (
    Fleet,
    Load,
    RoundPlan,
    contact_order,
    fate_of,
    mean_duration_s,
    plan_round,
    sums_flop,
    training_flop,
    uses_per_point,
)
from fl_inmetro.learning.update import Arrays, Layout

#: A client that works on its own time and is out of reach is tried again so often, so long apart.
_TRIES, _RETRY_S = 1000, 60.0


class RoundPlanner:
    """Plans rounds.

    Args:
        fleet: The devices.
        roster: The clients.
        merge: What a reply holds.
        closed_form: Whether clients send sums.
        epochs: Local epochs.
        share_of: The share of them that a client works through, where its steps are bounded.
        min_clients: Replies without which a round is worth nothing.
    """

    def __init__(
        self,
        fleet: Fleet,
        roster: Roster,
        merge: Merge,
        *,
        closed_form: bool,
        epochs: int,
        min_clients: int,
        share_of: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        self._fleet = fleet
        self._roster = roster
        self._merge = merge
        self._closed_form = closed_form
        self._epochs = epochs
        self._min_clients = min_clients
        self._share_of = share_of

    def reachable(self, number: int) -> Callable[[str], bool]:
        """Return whether a client can be reached when round `number` starts."""
        fleet = self._fleet

        def look(name: str) -> bool:
            profile = fleet.settings.profiles[fleet.profile_of[name]]
            return fate_of(profile, fleet.seed, name, number).available

        return look

    def work_of(self, name: str, begun: int, state: Arrays) -> tuple[float, bool]:
        """Return how long a client takes when it works on its own time, and whether it vanishes.

        One that is out of reach is tried again every minute.

        Args:
            name: The client.
            begun: How often it has begun by now; what chance does depends on it.
            state: The model it is sent.
        """
        fleet = self._fleet
        profile = fleet.settings.profiles[fleet.profile_of[name]]
        tries = 1
        fate = fate_of(profile, fleet.seed, name, begun)
        while not fate.available and tries < _TRIES:
            fate = fate_of(profile, fleet.seed, name, begun * _TRIES + tries)
            tries += 1
        rate = fleet.settings.reference_gflop_per_s
        due_s = mean_duration_s(profile, rate, self.load_of(state)(name)) * fate.pace
        return due_s + (tries - 1) * _RETRY_S, fate.drops_out or not fate.available

    def plan(
        self,
        number: int,
        drawn: Sequence[str],
        state: Arrays,
        eligible: Iterable[str] | None = None,
        sent_beside: int = 0,
    ) -> RoundPlan:
        """Return what happens in round `number` to those whom the sampler drew.

        Args:
            number: The round.
            drawn: Who was drawn.
            state: The model.
            eligible: Who may take the place of one that cannot be reached; None = everybody.
            sent_beside: Bytes that are sent beside the model.
        """
        load_of = self.load_of(state, sent_beside)
        names = self._roster.nodes if eligible is None else eligible
        order = contact_order(names, drawn, self._fleet.seed, number)
        return plan_round(self._fleet, number, order, len(drawn), self._min_clients, load_of)

    def load_of(self, state: Arrays, sent_beside: int = 0) -> Callable[[str], Load]:
        """Return what a round asks of each client."""
        roster = self._roster
        down = sum(array.nbytes for array in state.values()) + sent_beside
        like = self._merge.reply_like(state)
        up = Layout.of(like).n_bytes
        # Private parameters are trained too; buffers are not.
        trained = {n: a.shape for n, a in state.items() if n not in BUFFERS}
        size = sum(math.prod(shape) for shape in trained.values())
        uses = uses_per_point(trained, roster.x_shape, roster.horizon)

        def load_of(name: str) -> Load:
            points = roster.points[name]
            if self._closed_form:
                width = roster.x_shape[-1] + 1
                matrices = like["gram"].size // width**2  # one for each level that is solved for
                return Load(matrices * sums_flop(points, width), down, up)
            flop = training_flop(points, self._epochs, size, uses) * self._share_of(name)
            return Load(flop, down, up)

        return load_of

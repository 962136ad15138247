"""When a round closes: one rule for virtual time and for the clock on the wall."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fl_inmetro.config.federation import Federation
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault
from fl_inmetro.federation.selection import wanted_clients

#: Keeps 1.1 · 10 at 11 and not, by a rounding error, at 12.
_ROUNDING = 1e-9


def at_least(number: float) -> int:
    """Return the least whole number that is not below `number`, 1 or more.

    >>> at_least(1.1 * 10), at_least(10.2), at_least(0.0)
    (11, 11, 1)
    """
    return max(1, math.ceil(number - _ROUNDING))


def replies_of(quorum: float, wanted: int) -> int:
    """Return how many replies a quorum is: up to 1 a share of those wanted, above 1 a number.

    >>> replies_of(0.5, 7), replies_of(1.0, 7), replies_of(3, 7), replies_of(0.0, 7)
    (4, 7, 3, 0)
    """
    return int(quorum) if quorum > 1 else math.ceil(quorum * wanted - _ROUNDING)


@dataclass(frozen=True)
class Closing:
    """When the server stops waiting for the replies of a round.

    A round closes with the reply that makes `enough`; at the deadline, or later with the reply that
    makes the quorum; at the timeout in any case. (Bonawitz et al. 2019, "Towards Federated Learning
    at Scale", section 2.2: a goal count, a minimum and a time-out for each round.)

    Attributes:
        enough: Replies that close the round at once, at least 1.
        timeout_s: Nobody is waited for any longer, seconds from the round's start.
        deadline_s: From here on the quorum is enough; None = only `enough` and the timeout count.
        quorum: Replies with which the round may close at the deadline.
    """

    enough: int
    timeout_s: float
    deadline_s: float | None = None
    quorum: int = 0

    def moment_s(self, arrivals_s: Iterable[float]) -> float:
        """Return when the round closes if no other replies come, seconds from its start.

        Only the moments count, not their order. Replies that come in the closing moment count.
        """
        arrived_s = sorted(arrivals_s)
        moments_s = [self.timeout_s]
        if len(arrived_s) >= self.enough:
            moments_s.append(arrived_s[self.enough - 1])
        if self.deadline_s is not None and len(arrived_s) >= self.quorum:
            quorum_s = arrived_s[self.quorum - 1] if self.quorum else 0.0
            moments_s.append(max(self.deadline_s, quorum_s))
        return min(moments_s)


class Quorum:
    """How many good replies a round needs.

    Args:
        settings: `[federation]`.
        gate: `[gate]`, whose quorum counts where `settings` has none.
        closed_form: Replies are sums: without a quorum of its own, `min_clients` are enough.
        drawn: Clients are drawn each by itself, perhaps few or none: only those who were count.
    """

    def __init__(
        self, settings: Federation, gate: Gate, *, closed_form: bool, drawn: bool = False
    ) -> None:
        self._settings = settings
        #: Whether clients are drawn each by itself.
        self.drawn = drawn
        share = 0.0 if closed_form else gate.quorum
        self._quorum = share if settings.quorum is None else settings.quorum

    def aims(self, members: int, eligible: int) -> tuple[int, int]:
        """Return how many replies are wanted of a round, and how many clients are asked for them.

        Args:
            members: Clients of the federation, whose share is wanted.
            eligible: Those of them who may be asked.
        """
        wanted = min(wanted_clients(self._settings.fraction_fit, members), eligible)
        return wanted, min(at_least(self._settings.over_selection * wanted), eligible)

    def needed(self, wanted: int) -> int:
        """Return the good replies without which a round of `wanted` replies is repeated."""
        least = self._settings.min_clients
        # To draw again until there are `min_clients` would not be the draw that is accounted.
        least = min(least, wanted) if self.drawn else least
        return max(least, replies_of(self._quorum, wanted))

    def closing(self, wanted: int, timeout_s: float) -> Closing:
        """Return when the server stops waiting for `wanted` replies."""
        needed = self.needed(wanted)
        return Closing(max(wanted, needed, 1), timeout_s, self._settings.deadline_s, needed)

    def evaluation(self, nodes: int, timeout_s: float) -> Closing | None:
        """Return when the server goes on without the scores of the others; None = at the timeout.

        Without a deadline all of them are waited for, over-selection or not.
        """
        return None if self._settings.deadline_s is None else self.closing(nodes, timeout_s)

    def fault(
        self, number: int, good: int, wanted: int, selected: int | None = None
    ) -> Fault | None:
        """Return what is wrong with `good` good replies in round `number`; None where enough.

        Of `selected` clients as many replies as are `wanted` are aimed at; all, where each is drawn
        by itself. None = as many are selected as are wanted.
        """
        if selected is not None:
            wanted = selected if self.drawn else min(wanted, selected)
        needed = self.needed(wanted) if self.drawn else max(self.needed(wanted), 1)
        if good >= needed:
            return None
        return Fault(
            "FL302",
            f"round {number} has {good} good replies, it needs {needed}",
            "[federation] min-clients, quorum, [gate] quorum",
            "see the rejected replies of the run; then continue it with --resume",
        )

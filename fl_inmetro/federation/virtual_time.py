"""Virtual time: what would happen in a round on real devices, known before anybody trains.

Everything is a function of the settings, the root seed, the client's name and the round: no clock
is read, and only + − · / of doubles are used, so a plan has the same bits on every machine. Rules:

- Clients are contacted in a given order; those out of reach are passed over, until
  ⌈over_selection · wanted⌉ have been asked or nobody is left (Bonawitz et al. 2019, section 9).
- A client that was asked answers after its duration, or vanishes and never answers. The server
  hears nothing of that.
- The round closes when ⌈quorum · wanted⌉ replies are there (all, where fewer were asked; never
  fewer than `min_clients`), at the deadline otherwise. Without a deadline the server gives a client
  up when its reply was due. Replies that come later are not used.

FedScale (Lai et al. 2022) plans its simulated rounds ahead in the same manner.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fl_inmetro import seeds
from fl_inmetro.config.virtual_time import DeviceProfile, VirtualTime
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.closing import Closing, at_least, replies_of

#: Why the reply of a client that could have taken part is not there.
DROPPED_OUT, LATE, NOT_REACHABLE = "FL309", "FL310", "FL311"

_STREAM = "virtual time"
_BITS_PER_MBIT = 1e6
_FLOP_PER_GFLOP = 1e9


# ---------------------------------------------------------------------------------- work
@dataclass(frozen=True)
class Load:
    """What a round asks of one client.

    Attributes:
        flop: Floating point operations of its training.
        bytes_down: Bytes sent to it.
        bytes_up: Bytes it sends.
    """

    flop: float
    bytes_down: int
    bytes_up: int


def training_flop(points: int, epochs: int, parameters: int, uses_per_point: float = 1.0) -> float:
    """Return the floating point operations of local training by gradient.

    Six for each use of a parameter: a multiplication and an addition forward, and twice that
    backward (Kaplan et al. 2020, section 2.1; FedScale takes three times the forward pass, too).
    Activations, products without a parameter, optimiser and reading of data are not counted.

    Args:
        points: Training points n_k of the client.
        epochs: Passes over them.
        parameters: Parameters of the network.
        uses_per_point: How often a parameter is used for one point, on average.
    """
    return 6.0 * points * epochs * parameters * uses_per_point


def uses_per_point(
    shapes: Mapping[str, Sequence[int]], x_shape: Sequence[int], horizon: int
) -> float:
    """Return how often a network's parameters are used for one training point, on average.

    A model of rows uses each of them once per point. One of contexts gives the H points of a window
    in one pass, in which a recurrent layer (`rnn.…`) is used in every step, an encoder over tokens
    with a table of positions for every token, and everything else (a head, a perceptron) once.

    Args:
        shapes: Shapes of the trained parameters by name.
        x_shape: Shape of one window's inputs: (H, features), or (context,).
        horizon: Points of a window, H.
    """
    if len(x_shape) > 1:
        return 1.0
    table = shapes.get("positions.table")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    used = 0
    for name, size in sizes.items():
        layer = name.partition(".")[0]
        if layer == "rnn":
            size *= x_shape[0]
        elif table and layer not in ("head", "positions"):
            size *= table[0]
        used += size
    return used / (sum(sizes.values()) * horizon)


def sums_flop(points: int, columns: int) -> float:
    """Return the operations of the sums Σ zzᵀ of closed-form models: 2 · columns² per point."""
    return 2.0 * points * columns * columns


# ------------------------------------------------------------------------------- devices
@dataclass(frozen=True)
class Fleet:
    """The devices of a federation.

    Attributes:
        settings: The `[virtual_time]` table.
        seed: Root seed of the run.
        profile_of: Client to the name of its profile.
    """

    settings: VirtualTime
    seed: int
    profile_of: Mapping[str, str]


@dataclass(frozen=True)
class Fate:
    """What chance does to one client in one round.

    Attributes:
        available: It can be reached when the round starts.
        drops_out: It vanishes after it was asked.
        pace: Factor on its mean duration, in 1 ± `spread`.
    """

    available: bool
    drops_out: bool
    pace: float


def fleet_of(client_ids: Collection[str], settings: VirtualTime, seed: int) -> Fleet:
    """Give every client its device: the one that names it, else one drawn by the shares.

    The draw depends on the seed and the client's name alone, so a client keeps its device when
    others come or go.

    Raises:
        FederationError: FL313, a profile names a client that is not there, or a client that no
            profile names is left without one; all of them at once.
    """
    # By name: a mapping may come back from a file in another order.
    profiles = sorted(settings.profiles.items())
    named = {client: name for name, profile in profiles for client in profile.clients}
    drawn_from = [(name, profile.share) for name, profile in profiles if profile.share > 0]
    bounds = list(accumulate(share for _, share in drawn_from))[:-1]
    profile_of: dict[str, str] = {}
    faults = [
        Fault(
            "FL313",
            f"there is no client `{client}` in this federation",
            f"[virtual_time.profiles.{named[client]}] clients",
            "`fl-inmetro data describe` lists the clients",
        )
        for client in sorted(set(named) - set(client_ids))
    ]
    for client in sorted(client_ids):
        if client in named:
            profile_of[client] = named[client]
        elif drawn_from:
            number = seeds.derive(seed, _STREAM, "profile", client).random()
            profile_of[client] = drawn_from[bisect_right(bounds, number)][0]
        else:
            faults.append(
                Fault(
                    "FL313",
                    f"client `{client}` has no device profile",
                    "[virtual_time.profiles]",
                    "name it in the `clients` of a profile, or give the profiles shares",
                )
            )
    if faults:
        raise FederationError(faults)
    return Fleet(settings, seed, profile_of)


def fate_of(profile: DeviceProfile, seed: int, client_id: str, round_: int) -> Fate:
    """Draw what happens to a client in a round.

    The numbers drawn do not depend on the profile: with a higher availability the clients that
    were available still are, so studies of one setting compare the same luck.
    """
    reach, vanish, pace = seeds.derive(seed, _STREAM, client_id, round_).random(3).tolist()
    return Fate(
        available=reach < profile.availability,
        drops_out=vanish < profile.dropout,
        pace=1.0 + profile.spread * (2.0 * pace - 1.0),
    )


def mean_duration_s(profile: DeviceProfile, reference_gflop_per_s: float, load: Load) -> float:
    """Return latency + download + work + upload, in seconds, on such a device."""
    rate = reference_gflop_per_s * _FLOP_PER_GFLOP * profile.compute_factor
    return (
        profile.latency_s
        + 8 * load.bytes_down / (profile.down_mbit_per_s * _BITS_PER_MBIT)
        + load.flop / rate
        + 8 * load.bytes_up / (profile.up_mbit_per_s * _BITS_PER_MBIT)
    )


# --------------------------------------------------------------------------------- round
@dataclass(frozen=True)
class Absence:
    """A client whose reply the round does without, and why (`code` and `reason` as in a fault)."""

    client_id: str
    code: str
    reason: str


@dataclass(frozen=True)
class RoundPlan:
    """What happens in one round; all clients in the order of their names.

    Attributes:
        asked: Who receives the model. They are `accepted`, `late` and `dropped`.
        accepted: Whose reply is there when the round closes.
        late: Whose reply comes later.
        dropped: Who vanishes.
        unavailable: Who was out of reach, and so was not asked.
        arrival_s: When the replies of `accepted` and `late` arrive, seconds from the round's start.
        duration_s: When the round closes, seconds from its start.
        needed: Replies that close the round before its deadline.
        min_clients: Replies without which the round is worth nothing.
    """

    asked: tuple[str, ...]
    accepted: tuple[str, ...]
    late: tuple[str, ...]
    dropped: tuple[str, ...]
    unavailable: tuple[str, ...]
    arrival_s: Mapping[str, float]
    duration_s: float
    needed: int
    min_clients: int

    @property
    def is_enough(self) -> bool:
        """Tell whether `min_clients` replies are there when the round closes."""
        return len(self.accepted) >= self.min_clients

    @property
    def to_train(self) -> tuple[str, ...]:
        """Who has to train: the accepted, or nobody in a round that is worth nothing."""
        return self.accepted if self.is_enough else ()

    def worth_nothing(self, number: int) -> str:
        """Return what is said of round `number` when its replies are not enough."""
        return (
            f"round {number} is worth nothing: {len(self.accepted)} replies after "
            f"{self.duration_s:.4g} s (virtual time), min-clients is {self.min_clients}"
        )

    def absences(self) -> list[Absence]:
        """Return why each client that was out of reach, vanished or came late is missing."""
        closed = f"the round closed after {self.duration_s:.4g} s"
        found = [
            Absence(name, NOT_REACHABLE, "out of reach when the round started (virtual time)")
            for name in self.unavailable
        ]
        found += [
            Absence(name, DROPPED_OUT, "vanished during the round (virtual time)")
            for name in self.dropped
        ]
        found += [
            Absence(
                name, LATE, f"its reply takes {self.arrival_s[name]:.4g} s, {closed} (virtual time)"
            )
            for name in self.late
        ]
        return sorted(found, key=lambda absence: absence.client_id)


def contact_order(
    client_ids: Iterable[str], drawn: Sequence[str], seed: int, round_: int
) -> list[str]:
    """Return all clients: first those that the sampler drew, then the others in a seeded order.

    With devices that are always there and no over-selection exactly `drawn` are asked.
    """
    first = sorted(drawn)
    others = sorted(set(client_ids) - set(first))
    generator = seeds.derive(seed, _STREAM, "order", round_)
    return first + [others[k] for k in generator.permutation(len(others)).tolist()]


def plan_round(
    fleet: Fleet,
    round_: int,
    order: Iterable[str],
    wanted: int,
    min_clients: int,
    load_of: Callable[[str], Load],
) -> RoundPlan:
    """Work out who takes part in a round and how long it lasts.

    Args:
        fleet: The devices.
        round_: Number of the round, from 1.
        order: Clients in the order in which they are contacted (see `contact_order`).
        wanted: Replies aimed at: the number that the sampler draws.
        min_clients: Replies without which the round is worth nothing.
        load_of: What the round asks of a client.
    """
    settings = fleet.settings
    places = at_least(settings.over_selection * wanted)
    due_s: dict[str, float] = {}
    unavailable: list[str] = []
    dropped: list[str] = []
    for name in order:
        if len(due_s) == places:
            break
        profile = settings.profiles[fleet.profile_of[name]]
        fate = fate_of(profile, fleet.seed, name, round_)
        if not fate.available:
            unavailable.append(name)
            continue
        mean_s = mean_duration_s(profile, settings.reference_gflop_per_s, load_of(name))
        due_s[name] = mean_s * fate.pace
        if fate.drops_out:
            dropped.append(name)
    asked = sorted(due_s)
    gone = set(dropped)
    arrival_s = {name: due_s[name] for name in asked if name not in gone}
    needed = max(min_clients, 1, min(replies_of(settings.quorum, wanted), len(asked)))
    # Nobody asked and no deadline: nothing is waited for, the server begins the next round.
    given_up_s = settings.deadline_s or max(due_s.values(), default=0.0)
    duration_s = Closing(needed, given_up_s).moment_s(arrival_s.values())
    return RoundPlan(
        asked=tuple(asked),
        accepted=tuple(name for name, moment_s in arrival_s.items() if moment_s <= duration_s),
        late=tuple(name for name, moment_s in arrival_s.items() if moment_s > duration_s),
        dropped=tuple(sorted(dropped)),
        unavailable=tuple(sorted(unavailable)),
        arrival_s=arrival_s,
        duration_s=duration_s,
        needed=needed,
        min_clients=min_clients,
    )


@dataclass(frozen=True)
class VirtualClock:
    """Simulated time since the federation began; its one number is all that a resumed run needs."""

    elapsed_s: float = 0.0

    def after(self, plan: RoundPlan) -> VirtualClock:
        """Return the clock when the round has closed. The server's own work takes no time."""
        return VirtualClock(self.elapsed_s + plan.duration_s)

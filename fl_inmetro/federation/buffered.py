"""FedBuff: the server makes a step whenever enough updates have come, and nobody waits for anybody.

The order of events is that of virtual time (`[virtual_time]`): when a client's update arrives does
not depend on what is in it, so clients are trained when their updates arrive, as one batch for each
version of the model they began from. A "round" is one step of the server.
Source: Nguyen et al. (2022), "Federated Learning with Buffered Asynchronous Aggregation".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fl_inmetro import events, seeds
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.engines import Digested, InProcessEngine
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.progress import with_prefix
from fl_inmetro.federation.sent import arrays_bytes, version_of
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.federation.virtual_time import DROPPED_OUT
from fl_inmetro.federation.weighing import ByAge
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays

_FLIGHT, _MODEL = "flight.", "model."

#: Arrivals waited for, per place of the buffer: devices that always vanish would never fill it.
_PATIENCE = 100


@dataclass
class _Flight:
    """Who is at work, since when, and on which version of the model.

    Attributes:
        clock_s: Virtual time.
        begun: Times that each client was started, shape (K,).
        finish_s: When it is done; infinite for those who are idle, shape (K,).
        version: The version it works on, shape (K,).
        drops: Whether it will vanish, shape (K,).
    """

    clock_s: float
    begun: np.ndarray[Any, np.dtype[np.int64]]
    finish_s: np.ndarray[Any, np.dtype[np.float64]]
    version: np.ndarray[Any, np.dtype[np.int64]]
    drops: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def of(cls, memory: Arrays, clients: int) -> _Flight:
        kept = with_prefix(_FLIGHT, memory)
        if not kept:
            return cls(
                0.0,
                np.zeros(clients, np.int64),
                np.full(clients, np.inf),
                np.zeros(clients, np.int64),
                np.zeros(clients, np.bool_),
            )
        return cls(
            float(kept["clock_s"][0]),
            kept["begun"].copy(),
            kept["finish_s"].copy(),
            kept["version"].copy(),
            kept["drops"].astype(np.bool_),
        )

    def to_arrays(self) -> Arrays:
        return {
            _FLIGHT + "clock_s": np.array([self.clock_s]),
            _FLIGHT + "begun": self.begun,
            _FLIGHT + "finish_s": self.finish_s,
            _FLIGHT + "version": self.version,
            _FLIGHT + "drops": self.drops.astype(np.int64),
        }


class BufferedStrategy(FederatedStrategy):
    """FedBuff in virtual time.

    Args:
        buffer: Updates that make a step of the server, B.
        concurrency: Clients at work at the same time.
        options: As for `FederatedStrategy`; `planner` is needed.
    """

    def __init__(self, *args: Any, buffer: int, concurrency: int, **options: Any) -> None:
        super().__init__(*args, **options)
        assert self._planner is not None  # the configuration was checked
        self._clients = list(self._roster.nodes)
        self._wanted = min(buffer, len(self._clients))
        self._concurrency = max(concurrency, 1)
        self._models: dict[int, Arrays] = {}

    def _trained(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> tuple[Arrays, float, float]:
        """Collect updates until the buffer is full, and make a step.

        Raises:
            FederationError: FL302, too few good updates in every attempt, or nobody is left.
        """
        memory = self._memory
        flight = _Flight.of(memory, len(self._clients))
        self._models = _models_of(memory) | {number - 1: state}
        began_s = flight.clock_s
        self._state = state
        for attempt in range(self._gate.attempts):
            self._inbox = self._new_inbox(number, state, arrays_bytes(state))
            arrived = self._arrived(number, flight)
            names = [self._clients[place] for place in sorted(arrived)]
            self._emit(events.RoundStarted(self._group, number, tuple(names)))
            age = {name: number - 1 - arrived[self._clients.index(name)] for name in names}
            assert isinstance(self._merge, DeltaMerge)
            self._merge = self._inbox.merge = replace(self._merge, weighing=ByAge(age))
            self._inbox.answers = {name: number - old for name, old in age.items()}
            self._settle(grid)
            received = self._receive(self._replies(grid, number, arrived, timeout))
            fault = self._merge.needs(received.good)
            fault = self._quorum.fault(number, received.good, len(names)) or fault
            if fault is None:
                break
            if attempt + 1 == self._gate.attempts:
                raise FederationError(fault)
            text = f"{fault.what}: attempt {attempt + 2} of {self._gate.attempts}"
            self._emit(events.Note("warning", text))
        after, loss = self._merged(number, state, received)
        at_work = set(flight.version[np.isfinite(flight.finish_s)].tolist())
        self._memory = {
            n: a for n, a in self._memory.items() if not n.startswith((_FLIGHT, _MODEL))
        }
        self._memory |= flight.to_arrays()
        self._memory |= {
            f"{_MODEL}{version}.{name}": array
            for version, model in self._models.items()
            if version in at_work
            for name, array in model.items()
        }
        return after, loss, flight.clock_s - began_s

    def _arrived(self, number: int, flight: _Flight) -> dict[int, int]:
        """Let time pass until the buffer is full; return place of the client to its version."""
        assert self._inbox is not None
        arrived: dict[int, int] = {}
        for _ in range(_PATIENCE * self._wanted):
            if len(arrived) == self._wanted:
                break
            self._start(number, flight, arrived)
            place = int(np.argmin(flight.finish_s))
            if not np.isfinite(flight.finish_s[place]):
                break  # nobody is at work, and nobody can be started
            flight.clock_s = float(flight.finish_s[place])
            flight.finish_s[place] = np.inf
            if flight.drops[place]:
                why = "vanished at work (virtual time)"
                self._inbox.reject(self._clients[place], Fault(DROPPED_OUT, why))
                continue
            arrived[place] = int(flight.version[place])
        return arrived

    def _start(self, number: int, flight: _Flight, arrived: Iterable[int]) -> None:
        """Start idle clients, drawn at random, until enough are at work."""
        assert self._planner is not None
        eligible = set(self._standing.eligible(number))
        busy = set(np.flatnonzero(np.isfinite(flight.finish_s)).tolist()) | set(arrived)
        idle = [k for k, name in enumerate(self._clients) if k not in busy and name in eligible]
        free = self._concurrency - int(np.isfinite(flight.finish_s).sum())
        if free <= 0 or not idle:
            return
        draw = seeds.derive(self._seed, "buffer", int(flight.begun.sum()))
        for place in draw.permutation(idle)[:free].tolist():
            flight.begun[place] += 1
            name = self._clients[place]
            due_s, drops = self._planner.work_of(name, int(flight.begun[place]), self._state)
            flight.finish_s[place] = flight.clock_s + due_s
            flight.version[place] = number - 1
            flight.drops[place] = drops
            self._round_bytes_down += arrays_bytes(self._state)

    def _replies(
        self, grid: Grid, number: int, arrived: dict[int, int], timeout: float
    ) -> Iterator[Digested | ClientFailure]:
        """Train those whose updates arrived, version by version."""
        assert self._inbox is not None
        for version in sorted(set(arrived.values())):
            names = sorted(self._clients[p] for p, v in arrived.items() if v == version)
            model = self._models[version]
            request = self._request(version + 1, version_of(version + 1, model))
            if isinstance(grid, InProcessEngine):
                yield from grid.train_blocks(model, names, request, self._inbox.digest)
                continue
            nodes = {name: self._roster.nodes[name] for name in names}
            asked = messages.train_requests(
                messages.pack(model), request, None, nodes, self._standing.counted
            )
            replies = grid.send_and_receive(asked, timeout=timeout)
            yield from self._inbox.read(replies, request, {self._roster.nodes[n]: n for n in names})


def _models_of(memory: Arrays) -> dict[int, Arrays]:
    models: dict[int, Arrays] = {}
    for key, array in with_prefix(_MODEL, memory).items():
        version, name = key.split(".", 1)
        models.setdefault(int(version), {})[name] = array
    return models

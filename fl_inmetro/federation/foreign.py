"""Any Flower `Strategy` of the user's own, with our gate before it and our record behind it.

The strategy selects the clients, asks them and merges their weights, as under Flower itself. Every
reply passes the gate first; validation, checkpoints and events are the product's.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_inmetro import events, seeds
from fl_inmetro.config.strategy import Strategy as StrategySettings
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.engines import Digested
from fl_inmetro.federation.inbox import Inbox
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.robust import imported
from fl_inmetro.federation.sent import arrays_bytes
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.learning.update import Arrays, Layout, Update, UpdateBlock

#: Where a strategy of the user's own is named.
_WHERE = "[strategy] name"


def strategy_of(settings: StrategySettings) -> Strategy:
    """Return the user's strategy, made with `[strategy.arguments]`.

    Raises:
        FederationError: FL315, it cannot be imported; FL320, it is no strategy, or cannot be made.
    """
    made = imported(settings.name)
    if not (inspect.isclass(made) and issubclass(made, Strategy)):
        raise _fault(f"`{settings.name}` is no class that derives from Flower's `Strategy`")
    try:
        return made(**settings.arguments)
    except Exception as error:  # a constructor of the user's may raise anything
        raise _fault(f"`{settings.name}` cannot be made: {error}") from error


class ForeignStrategy(FederatedStrategy):
    """Rounds of a Flower `Strategy`.

    Args:
        inner: The strategy.
        options: As for `FederatedStrategy`.
    """

    def __init__(self, *args: Any, inner: Strategy, **options: Any) -> None:
        super().__init__(*args, **options)
        self._inner = inner

    def _trained(
        self, grid: Grid, number: int, state: Arrays, timeout: float
    ) -> tuple[Arrays, float, float]:
        """Let the strategy ask and merge.

        Raises:
            FederationError: FL302, too few good replies; FL321, the strategy failed.
        """
        self._state = state
        for attempt in range(self._gate.attempts):
            requests = self._asks(grid, number, state, timeout)
            names = sorted(requests)
            self._emit(events.RoundStarted(self._group, number, tuple(names)))
            down = arrays_bytes(state)
            self._round_bytes_down += down * len(names)
            self._inbox = inbox = self._new_inbox(number, state, down)
            kept: dict[str, Message] = {}
            replies = grid.send_and_receive(list(requests.values()), timeout=timeout)
            received = self._receive(self._deltas(inbox, replies, state, requests, kept))
            fault = self._quorum.fault(number, received.good, len(names))
            if fault is None:
                break
            if attempt + 1 == self._gate.attempts:
                raise FederationError(fault)
            text = f"{fault.what}: attempt {attempt + 2} of {self._gate.attempts}"
            self._emit(events.Note("warning", text))
        inbox.accept(received)
        good = sorted(name for digest in received.digests for name in digest.client_ids)
        merged, _ = self._called("aggregate_train", number, [kept[name] for name in good])
        if merged is None:
            text = f"round {number}: `{type(self._inner).__name__}` returned no model"
            self._emit(events.Note("warning", text))
            return state, received.loss, 0.0
        return self._checked(merged, state), received.loss, 0.0

    def _asks(self, grid: Grid, number: int, state: Arrays, timeout: float) -> dict[str, Message]:
        """Return the strategy's requests by client; the suspended are not there for it."""
        eligible = self._standing.eligible(number)
        config = self._request(number).to_config()
        del config["reply"]  # Flower's strategies merge weights
        nodes = _Patient(grid, [self._roster.nodes[name] for name in eligible], timeout)
        asked = self._called("configure_train", number, messages.pack(state), config, nodes)
        requests = {self._names.get(m.metadata.dst_node_id, ""): m for m in asked}
        counted = self._standing.counted
        return {
            name: messages.with_counted(requests[name], counted[name])
            for name in eligible
            if name in requests
        }

    def _deltas(
        self,
        inbox: Inbox,
        replies: Iterable[Message],
        state: Arrays,
        asked: Mapping[str, Message],
        kept: dict[str, Message],
    ) -> Iterator[Digested]:
        """Read replies of weights and judge what they change.

        What the strategy will merge is made anew from what was judged, and put into `kept`: nothing
        else that a client sends can reach it.
        """
        request = messages.TrainRequest(inbox.number, delta=False)
        names = {message.metadata.dst_node_id: name for name, message in asked.items()}
        trained = DeltaMerge().shared(state)
        updates: dict[str, Update] = {}
        silent = set(asked)
        for reply in replies:
            node = reply.metadata.src_node_id
            name = names.get(node, "unknown")
            silent.discard(name)
            try:
                if node not in names:
                    raise FederationError(messages.malformed(node, "it was not asked"))
                update = messages.read_update(reply, name, state, request)
                if name in updates:
                    raise FederationError(Fault("FL301", f"`{name}` answered twice"))
                for buffer in sorted(set(state) - set(trained)):
                    if not np.array_equal(update.arrays[buffer], state[buffer]):
                        why = f"`{name}` changed `{buffer}`, which is not trained"
                        raise FederationError(messages.malformed(node, why))
            except FederationError as error:
                inbox.reject(name, error.faults[0])
                continue
            deltas = {n: update.arrays[n] - value for n, value in trained.items()}
            updates[name] = Update(name, deltas, update.weight, update.loss, update.seconds)
            content = messages.update_reply(update, update.arrays, request)
            kept[name] = Message(content, reply_to=asked[name])
        for name in sorted(silent):
            inbox.reject(name, Fault("FL303", f"`{name}` did not answer in time"))
        if updates:
            ordered = [updates[name] for name in sorted(updates)]
            yield inbox.digest(UpdateBlock.stack(ordered, Layout.of(trained)))

    def _called(self, method: str, number: int, *args: Any) -> Any:
        """Call the user's strategy; its draws from the global generator follow the root seed."""
        before = random.getstate()
        random.seed(seeds.derive_seed(self._seed, "foreign", method, number))
        try:
            result = getattr(self._inner, method)(number, *args)
            return list(result) if method == "configure_train" else result
        except FederationError:
            raise
        except Exception as error:
            what = f"{type(self._inner).__name__}.{method} failed: {type(error).__name__}: {error}"
            raise FederationError(Fault("FL321", what, f"round {number}")) from error
        finally:
            random.setstate(before)

    def _checked(self, merged: ArrayRecord, state: Arrays) -> Arrays:
        """Return the strategy's model if it has the form of ours and finite values."""
        arrays = messages.unpack(merged)
        wanted = {name: array.shape for name, array in state.items()}
        if {name: array.shape for name, array in arrays.items()} != wanted:
            raise FederationError(Fault("FL321", "the strategy's model has other arrays than ours"))
        after = {name: arrays[name].astype(value.dtype) for name, value in state.items()}
        if not all(np.isfinite(array).all() for array in after.values()):
            raise FederationError(Fault("FL321", "the strategy's model has values not finite"))
        return after


class _Patient:
    """The clients at hand; Flower's strategies ask for them without end while they are too few."""

    def __init__(self, grid: Grid, nodes: list[int], timeout: float) -> None:
        self._grid = grid
        self._nodes = nodes
        self._end = time.monotonic() + timeout
        self._asked = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes.

        Raises:
            FederationError: FL302, the strategy still waits for more nodes when the time is over.
        """
        nodes = self._nodes
        self._asked += 1
        # Flower's own wait sleeps between two looks; in one process nobody will ever join.
        if self._asked > _LOOKS or time.monotonic() > self._end:
            raise FederationError(
                Fault(
                    "FL302",
                    f"the strategy waits for more than the {len(nodes)} nodes there are",
                    "[strategy.arguments]",
                    "lower `min_available_nodes` and its like",
                )
            )
        return nodes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)


#: So often may a strategy look for nodes in one round.
_LOOKS = 5


def _fault(what: str) -> FederationError:
    hint = "`examples/own_strategy.py` is one"
    return FederationError(Fault("FL320", what, _WHERE, hint))

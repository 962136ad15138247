"""Enrolment: which node is which client, what it weighs, and the first state of the model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config.strategy import Gate
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation import messages
from fl_inmetro.federation.cohort_grid import CohortGrid
from fl_inmetro.learning.client import Enrolment
from fl_inmetro.learning.enrolment import combined, contradiction, far_off
from fl_inmetro.learning.private_moments import MomentsAsked, form_of, released
from fl_inmetro.learning.trainer import ClientFailure
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.privacy.sums import PrivateSums


@dataclass(frozen=True)
class Roster:
    """The clients of a federation.

    Attributes:
        nodes: Client to node id, in the order of the clients' names. Node ids differ between
            engines and runs; names do not, so every draw and every sum goes by name.
        points: Client to its training points, n_k.
        n_bytes: Bytes of the sums sent at enrolment.
        x_shape: Shape of one window's inputs.
        horizon: Points of a window, H.
        windows: Client to its training windows.
    """

    nodes: Mapping[str, int]
    points: Mapping[str, int]
    n_bytes: int
    x_shape: tuple[int, ...]
    horizon: int
    windows: Mapping[str, int]

    def as_in(self, before: Roster) -> Roster:
        """Return those of the clients that enrolled before with as many windows.

        Raises:
            FederationError: FL304, there is none.
        """
        names = [n for n in self.nodes if before.windows.get(n) == self.windows[n]]
        if not names:
            raise FederationError(
                Fault(
                    "FL304",
                    "no client enrolled twice with the same training windows",
                    f"{len(self.nodes)} clients",
                    "let nodes keep their readings while a run lasts",
                )
            )
        return replace(
            self,
            nodes={n: self.nodes[n] for n in names},
            points={n: self.points[n] for n in names},
            windows={n: self.windows[n] for n in names},
        )


def enrol(
    grid: Grid,
    learner: Learner,
    seed: int,
    timeout: float,
    group: int = 0,
    emit: events.Emit = lambda event: None,
    most_points: int | None = None,
    gate: Gate | None = None,
    private: PrivateSums | None = None,
) -> tuple[Roster, Arrays]:
    """Ask every node who it is, and build the first state from the clients' sums.

    A client that claims more training points than `most_points` is refused: what it enrols is what
    its updates may weigh from then on.

    Two nodes that claim one name are refused both, and so are clients whose windows have another
    shape than those of most: one node must not be able to end everybody's run. Left out are also
    clients whose standardisation sums cannot be, or lie too far from the others' (FL305).

    With `private` no sum leaves as it is (`learning/private_moments.py`), and nobody's sums decide
    about anybody: what is known of all clients is their form.

    Raises:
        PrivacyError: What `private.release` says.
        FederationError: FL304 when no client enrols or no shape is that of most, FL305 when every
            name is claimed by several nodes.
    """
    entries: dict[str, tuple[int, Enrolment]] = {}
    claimed: dict[str, list[int]] = {}
    refused: list[str] = []
    asked = 0
    of_sums = None if private is None else MomentsAsked.of(private)

    def refuse(who: str, fault: Fault) -> None:
        emit(events.ClientRejected(group, 0, who, fault.code, fault.reason()))
        refused.append(fault.reason())

    for node, enrolment in _answers(grid, timeout, of_sums):
        asked += 1
        if most_points is not None and isinstance(enrolment, Enrolment):
            enrolment = _within(enrolment, node, most_points)
        if of_sums is not None and isinstance(enrolment, Enrolment):
            enrolment = _of_form(enrolment, node, form_of(learner, of_sums))
        if isinstance(enrolment, Fault):
            refuse(f"node {node}", enrolment)
            continue
        claimed.setdefault(enrolment.client_id, []).append(node)
        entries[enrolment.client_id] = (node, enrolment)
    several = [_claimed(name, nodes) for name, nodes in claimed.items() if len(nodes) > 1]
    for name, nodes in claimed.items():
        if len(nodes) > 1:
            refuse(name, _claimed(name, nodes))
            del entries[name]
    if not entries:
        if several:
            raise FederationError(several)
        raise FederationError(
            Fault(
                "FL304",
                "no client could enrol",
                "\n".join([f"{asked} nodes were asked", *refused[:3]]),
                "the reasons of all nodes are in the run directory",
            )
        )
    every = [entries[name] for name in sorted(entries)]
    shape, count = Counter(_shape(e) for _, e in every).most_common(1)[0]
    if 2 * count <= len(every):
        raise FederationError(
            Fault(
                "FL304",
                "the clients' windows differ in shape",
                "\n".join(f"client {e.client_id}: {e.x_shape}" for _, e in every[:5]),
                "all clients need the same resolution, horizon and model settings",
            )
        )
    ordered = [entry for entry in every if _shape(entry[1]) == shape]
    for _, enrolment in every:
        if _shape(enrolment) != shape:
            what = f"its windows are of shape {enrolment.x_shape}, those of most of {shape[0]}"
            refuse(enrolment.client_id, Fault("FL304", what))
    gate = gate or Gate()
    if gate.enabled and private is None:
        untrue = _untrue([e for _, e in ordered], gate.spread_factor)
        for name, why in untrue.items():
            what = f"a client could not enrol: `{name}`: {why}"
            refuse(name, Fault("FL305", what))
        ordered = [entry for entry in ordered if entry[1].client_id not in untrue]
        if not ordered:
            raise FederationError(
                Fault(
                    "FL304",
                    "no client could enrol",
                    "\n".join(refused[:3]),
                    "the reasons of all nodes are in the run directory",
                )
            )
    first = ordered[0][1]
    own_sums = [e.sums for _, e in ordered]
    if private is None:
        by_median = gate.statistics == "median"
        sums = combined(own_sums, by_median=by_median, max_share=gate.max_share)
    else:
        own_windows = [e.windows for _, e in ordered]
        width = first.x_shape[-1]
        sums = released(learner, own_sums, own_windows, private, width, first.horizon)
    roster = Roster(
        nodes={e.client_id: node for node, e in ordered},
        points={e.client_id: e.points for _, e in ordered},
        n_bytes=sum(a.nbytes for _, e in ordered for a in e.sums.values()),
        x_shape=first.x_shape,
        horizon=first.horizon,
        windows={e.client_id: e.windows for _, e in ordered},
    )
    return roster, learner.initial(sums, seed, first.x_shape, first.horizon)


def _untrue(enrolments: Sequence[Enrolment], limit: float) -> dict[str, str]:
    """Return clients whose sums cannot be those of their windows, or are unlike the others'."""
    found: dict[str, str] = {}
    for e in enrolments:
        rows = e.windows * math.prod(e.x_shape[:-1])  # a row for each step, or for each window
        why = contradiction(e.sums, rows, e.x_shape[-1] if e.x_shape else 0)
        if why:
            found[e.client_id] = why
    sound = [e for e in enrolments if e.client_id not in found]
    far = far_off([e.sums for e in sound], limit)
    return found | {sound[k].client_id: why for k, why in far.items()}


def _claimed(name: str, nodes: Sequence[int]) -> Fault:
    return Fault(
        "FL305",
        f"{'two' if len(nodes) == 2 else len(nodes)} nodes say they are client `{name}`",
        f"nodes {' and '.join(map(str, nodes))}",
        "give every node its own `partition-id`",
    )


def _shape(enrolment: Enrolment) -> tuple[Any, ...]:
    sums = tuple(sorted((name, a.shape) for name, a in enrolment.sums.items()))
    return (enrolment.x_shape, enrolment.horizon, sums)


def _within(enrolment: Enrolment, node: int, most_points: int) -> Enrolment | Fault:
    most_windows = most_points // max(enrolment.horizon, 1)
    if enrolment.points <= most_points and enrolment.windows <= most_windows:
        return enrolment
    claim = f"client `{enrolment.client_id}` claims {enrolment.points} training points"
    if enrolment.points <= most_points:
        claim = f"client `{enrolment.client_id}` claims {enrolment.windows} training windows"
        return messages.malformed(node, f"{claim}, the most a client may have is {most_windows}")
    return messages.malformed(node, f"{claim}, the most a client may have is {most_points}")


def _of_form(enrolment: Enrolment, node: int, form: Mapping[str, int]) -> Enrolment | Fault:
    sent = {name: array.shape for name, array in enrolment.sums.items()}
    if sent == {name: (size,) for name, size in form.items()}:
        return enrolment
    what = f"client `{enrolment.client_id}` sends other sums than it was asked for"
    return messages.malformed(node, what)


def _answers(
    grid: Grid, timeout: float, asked: MomentsAsked | None
) -> Iterator[tuple[int, Enrolment | Fault]]:
    """Yield each node's enrolment, or why there is none."""
    if isinstance(grid, CohortGrid):
        for node, answer in grid.enrolments(asked):
            if isinstance(answer, ClientFailure):
                yield (
                    node,
                    messages.client_failed(node, f"client `{answer.client_id}`: {answer.reason}"),
                )
                continue
            try:
                messages.check_enrolment(answer)
            except ValueError as error:
                yield node, messages.malformed(node, str(error))
            else:
                yield node, answer
        return
    requests = [
        Message(messages.enrol_request(asked), node, messages.ENROL, group_id="0")
        for node in sorted(grid.get_node_ids())
    ]
    for reply in grid.send_and_receive(requests, timeout=timeout):
        node = reply.metadata.src_node_id
        try:
            yield node, messages.read_enrolment(reply)
        except FederationError as error:
            yield node, error.faults[0]

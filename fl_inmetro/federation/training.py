"""Train one federation on a grid, from its checkpoint if it has one, to its best model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from flwr.serverapp import Grid

from fl_inmetro import events
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.errors import ConfigError, Fault, PrivacyError, RunError
from fl_inmetro.federation.booked_grid import BookedGrid
from fl_inmetro.federation.buffered import BufferedStrategy
from fl_inmetro.federation.engines import InProcessEngine
from fl_inmetro.federation.foreign import ForeignStrategy, strategy_of
from fl_inmetro.federation.grids import LoopGrid
from fl_inmetro.federation.group_account import GroupAccount
from fl_inmetro.federation.heterogeneity import Heterogeneity
from fl_inmetro.federation.ifca import IfcaStrategy
from fl_inmetro.federation.joint import Choices
from fl_inmetro.federation.merge import DeltaMerge
from fl_inmetro.federation.planner import RoundPlanner
from fl_inmetro.federation.progress import Progress, bare, begin, unpacked
from fl_inmetro.federation.protection import (
    drowned,
    of_scaler,
    plan_of,
    private_sums,
    protected,
)
from fl_inmetro.federation.recipes import compose, merge_for
from fl_inmetro.federation.requests import ENROL, TRAIN
from fl_inmetro.federation.roster import Roster, enrol
from fl_inmetro.federation.selection import SAMPLERS
from fl_inmetro.federation.strategies import FederatedStrategy
from fl_inmetro.federation.validation import EVERYTHING, Hearing
from fl_inmetro.federation.virtual_time import fleet_of
from fl_inmetro.i18n.said import said
from fl_inmetro.learning.private import PrivateFleet
from fl_inmetro.learning.private_moments import row_names
from fl_inmetro.learning.quantile_linear import is_done, rounds_of
from fl_inmetro.learning.update import Arrays, Learner
from fl_inmetro.learning.work import LocalWork, cosine, steps_of
from fl_inmetro.metrics import ErrorSums
from fl_inmetro.privacy.plan import Planned

#: Prefix of the clients' private parameters on the shelf.
_OWN = "own."

#: Key of their names, in the order of the rows.
_CLIENTS = "own-clients"


class Shelf(Protocol):
    """Where arrays are kept by name; a run directory."""

    def save_state(self, name: str, arrays: Arrays, meta: Mapping[str, str]) -> None:
        """Keep arrays whole or not at all."""

    def load_state(self, name: str) -> tuple[Arrays, dict[str, str]] | None:
        """Return what was kept, or None."""


@dataclass(frozen=True)
class Group:
    """One federation of a run.

    Attributes:
        key: Name of its final weights, for example `mlp-federated-g0000`.
        number: Its number within its model and training.
        name: `federation`, `pooled`, or the client that trains alone.
        checkpointed: Save after every round; small federations are simply done again.
    """

    key: str
    number: int
    name: str
    checkpointed: bool


@dataclass(frozen=True)
class Outcome:
    """A trained federation.

    Attributes:
        state: The model of the best round.
        sums: Error sums on the test windows, by meter.
        n_bytes: Bytes of arrays and sums exchanged.
        seconds: Wall time of training; of both parts, for a run that was resumed.
        simulated_s: Virtual time of training; 0 without `[virtual_time]`.
        clients: Who enrolled, in the order of a joint state's `cluster_of`.
    """

    state: Arrays
    sums: dict[str, ErrorSums]
    n_bytes: int
    seconds: float
    simulated_s: float = 0.0
    clients: tuple[str, ...] = ()


def train_group(
    grid: Grid,
    group: Group,
    learner: Learner,
    config: RunConfig,
    shelf: Shelf,
    emit: events.Emit,
    rewind: Callable[[int], None] = lambda round_: None,
    most_points: int | None = None,
    start: Arrays | None = None,
    choices: Choices | None = None,
    spending: GroupAccount | None = None,
) -> Outcome:
    """Train, keep the best model on the shelf, and score it on the test windows.

    A group that is already on the shelf is only scored; one with a checkpoint goes on from there,
    after `rewind(round)` has removed what was recorded beyond it. No client may claim more than
    `most_points` training points. With `start`, the first round begins from that model as it is,
    its standardisation included, and not from one that is drawn; sums in closed form need none.
    With `choices` the clients train several models, and the state is a joint one. With `spending`
    what leaves the clients is clipped and noised as `[privacy]` says, and noted before it counts.

    Raises:
        PrivacyError: FL418, `[privacy]` protects somebody, and there is no account.
    """
    settings = config.federation
    if config.privacy.enabled and spending is None:
        raise PrivacyError(
            Fault(
                "FL418",
                "this trains without noise, and `[privacy]` protects somebody",
                f"[privacy] protect = {config.privacy.protect!r}",
                "`--set privacy.protect=nobody`, where the readings may be used so",
            )
        )
    started = time.perf_counter()
    entry = partial(
        enrol,
        learner=learner,
        seed=config.seed,
        timeout=settings.timeout_s,
        group=group.number,
        most_points=most_points,
        gate=config.gate,
    )
    on_nodes = not isinstance(grid, (LoopGrid, InProcessEngine))
    plan: Planned | None = None
    if spending is None:
        roster, initial = entry(grid, emit=emit)
    else:
        # First who there is, then what all of it will cost, and only then a sum of readings.
        scaler = spending.scaler() if row_names(learner) else None
        roster, initial = entry(grid, emit=emit, private=private_sums(spending, None))
        plan = plan_of(spending, config, learner, roster, scaler, on_nodes=on_nodes)
        if config.privacy.delta * len(roster.nodes) >= 1:
            about_delta = {"delta": f"{config.privacy.delta:g}", "clients": len(roster.nodes)}
            emit(events.Note("warning", said("privacy_delta", **about_delta)))
        if scaler is not None:
            booked = on_nodes and config.privacy.by_example
            noisy = private_sums(spending, scaler, booked=booked)
            books = {ENROL: of_scaler(spending, scaler)} if booked else {}
            told = BookedGrid(grid, books, spending.claims(scaler)) if on_nodes else grid
            planned_for, (roster, initial) = roster, entry(told, private=noisy)
            roster = roster.as_in(planned_for)  # the noise was made for these windows
    checkpoint_key = f"{group.key}-checkpoint"
    private = _private_names(learner, config, initial)
    done = shelf.load_state(group.key)
    kept = done or (shelf.load_state(checkpoint_key) if group.checkpointed else None)
    first = initial if start is None or learner.closed_form else _fitting(start, initial)
    if choices:
        first = choices.first(first, list(DeltaMerge().shared(first)), list(roster.nodes))
    progress, spent_before = unpacked(*kept) if kept else (begin(first, roster.n_bytes), 0.0)
    work = LocalWork(settings.local_epochs, steps=settings.local_steps)
    if not learner.closed_form:
        work = compose(config.strategy).work(settings.local_epochs, settings.local_steps)
    remembers = bool(private) or work.control != "none"
    nodes_here = grid if remembers and isinstance(grid, LoopGrid) else None
    if kept and nodes_here:
        apart = shelf.load_state(own_key(group.key)) if done and spending else None
        nodes_here.restore_private(initial, _own((apart or kept)[0]))

    def seconds() -> float:
        return spent_before + time.perf_counter() - started

    def keep(progress: Progress) -> None:
        if group.checkpointed:
            save(checkpoint_key, progress, seconds())

    def save(key: str, progress: Progress, spent: float) -> None:
        # What is kept is handed out: of readings it may say what the model says, and no more.
        kept = bare(progress, done=key == group.key) if spending else progress
        arrays, meta = kept.packed(spent)
        if nodes_here:
            stacked = nodes_here.private_arrays(initial)
            own_arrays = {_OWN + name: array for name, array in stacked.items()}
            told = {_CLIENTS: json.dumps(nodes_here.client_ids)}
            if spending and key == group.key:
                # What clients keep to themselves has no noise, and no place in what is handed out.
                shelf.save_state(own_key(key), own_arrays, told)
            else:
                arrays, meta = arrays | own_arrays, meta | told
        shelf.save_state(key, arrays, meta)

    own = config.strategy
    idle = [n for n in (own.name, own.rule, own.server_optimizer) if n not in (None, "fedavg")]
    if learner.closed_form and (idle or own.average):
        named = ", ".join(f"`{name}`" for name in idle) or "`average`"
        text = (
            f"{named} has no part in {learner.name}: its sums are added as they "
            "are, and the gate asks whether they can be those of any rows"
        )
        emit(events.Note("warning", text))
    merge = merge_for(
        learner,
        config.strategy,
        private,
        roster,
        settings.local_epochs,
        settings.local_steps,
        settings.num_server_rounds,
    )
    hearing = EVERYTHING
    gate, sampler = config.gate, SAMPLERS[config.selection.sampler](config.selection)
    if spending:
        assert plan is not None
        about = (spending, plan, config, learner, roster)
        parts = protected(*about, merge, work, on_nodes=on_nodes)
        merge, work, gate, sampler = parts.merge, parts.work, parts.gate, parts.sampler
        hearing = Hearing(
            parts.metric,
            remembered=False,
            asked=not (on_nodes and config.privacy.unheard),
        )
        if on_nodes:
            grid = BookedGrid(grid, {TRAIN: parts.book} if parts.book else {}, spending.claims())
        if not learner.closed_form:
            many = sum(array.size for array in DeltaMerge(private=private).shared(initial).values())
            if doubt := drowned(config.privacy, plan, learner, roster, many):
                emit(events.Note("warning", doubt))
        settings = settings.model_copy(update={"keep": "last"})
    planner = None
    if config.virtual_time.enabled:
        planner = RoundPlanner(
            fleet_of(roster.nodes, config.virtual_time, config.seed),
            roster,
            merge,
            closed_form=learner.closed_form,
            epochs=settings.local_epochs,
            min_clients=settings.min_clients,
            share_of=_share_of(learner, roster, settings.local_epochs, settings.local_steps),
        )
    heterogeneity = None
    if config.diagnostics.heterogeneity and not learner.closed_form:
        heterogeneity = Heterogeneity(roster.nodes, group.number, emit)
    strategy = _strategy(config, learner, choices)(
        roster,
        merge,
        closed_form=learner.closed_form,
        settings=settings,
        seed=config.seed,
        work=work,
        gate=gate,
        hearing=hearing,
        sampler=sampler,
        may_repeat=_may_repeat(learner, roster),
        planner=planner,
        heterogeneity=heterogeneity,
        group=group.number,
        emit=emit,
        after_round=keep,
        rate_of=_rate_of(learner, settings.num_server_rounds),
        sum_rounds=(rounds_of(learner, 1), partial(is_done, learner)),
    )
    spent = spent_before
    if not done:
        rewind(progress.round)
        members = len(roster.nodes)
        emit(events.GroupStarted(group.number, group.name, members, progress.n_bytes))
        progress = strategy.run(grid, progress, settings.num_server_rounds, settings.timeout_s)
        several = rounds_of(learner, 1) > 1 and learner.closed_form
        if several and group.checkpointed and not is_done(learner, progress.state):
            text = f"{learner.name} had not converged after {progress.round} rounds: raise `rounds`"
            emit(events.Note("warning", text))
        spent = seconds()
        # The event first: a crash in between repeats it, and never loses it.
        emit(events.GroupFinished(group.number, progress.best_round, progress.best_nmae))
        if nodes_here:
            nodes_here.tell(initial, progress.best_round)
        save(group.key, progress, spent)
    sums = strategy.score(grid, progress, settings.timeout_s)
    cost = (progress.n_bytes, spent, progress.simulated_s)
    return Outcome(progress.best_state, sums, *cost, tuple(roster.nodes))


def own_key(key: str) -> str:
    """Return the name under which a private run keeps what its clients keep to themselves."""
    return f"{key}-own"


def _fitting(start: Arrays, drawn: Arrays) -> Arrays:
    shapes = {name: array.shape for name, array in drawn.items()}
    if {name: array.shape for name, array in start.items()} != shapes:
        raise ValueError("a start is of another model than the one that is trained")
    return start


def _share_of(learner: Learner, roster: Roster, epochs: int, most: int) -> Callable[[str], float]:
    """Return the share of the steps of its local epochs that a client makes."""
    size = getattr(getattr(learner, "settings", None), "batch_size", 0)

    def share_of(name: str) -> float:
        whole = steps_of(roster.windows[name], size, epochs)
        return steps_of(roster.windows[name], size, epochs, most) / whole if whole else 1.0

    return share_of


def _rate_of(learner: Learner, rounds: int) -> Callable[[int], float]:
    """Return the share of the local learning rate in each round, from 1."""
    schedule = getattr(getattr(learner, "settings", None), "eta_l_schedule", "constant")
    if schedule == "cosine":
        return lambda number: cosine((number - 1) / rounds)
    return lambda number: 1.0


def _may_repeat(learner: Learner, roster: Roster) -> frozenset[str]:
    """Return the clients that train on all their windows in one batch, or send sums."""
    size = getattr(getattr(learner, "settings", None), "batch_size", 0)
    return frozenset(n for n, windows in roster.windows.items() if not size or windows <= size)


def _strategy(
    config: RunConfig, learner: Learner, choices: Choices | None
) -> Callable[..., FederatedStrategy]:
    """Return what drives the rounds."""
    settings = config.strategy
    if choices:
        return partial(IfcaStrategy, **choices.arguments)
    if learner.closed_form:
        return FederatedStrategy
    if settings.is_foreign:
        return partial(ForeignStrategy, inner=strategy_of(settings))
    if compose(settings).is_asynchronous:
        sizes = {"buffer": settings.buffer, "concurrency": settings.concurrency}
        return partial(BufferedStrategy, **sizes)
    return FederatedStrategy


def _private_names(learner: Learner, config: RunConfig, state: Arrays) -> frozenset[str]:
    """Return the parameters that stay on the clients.

    Raises:
        ConfigError: FL103, patterns were given and no parameter has such a name, or all have.
    """
    private = learner.private(state)
    settings = getattr(config.models, learner.name)
    trained = DeltaMerge().shared(state)
    if getattr(settings, "private", ()) and not 0 < len(private) < len(trained):
        found = "none" if not private else "all"
        raise ConfigError(
            Fault(
                "FL103",
                f"{found} of the model's parameters would be private",
                f"[models.{learner.name}] private = {list(settings.private)}; "
                f"it has {', '.join(sorted(trained))}",
                'name some of them by a pattern, and leave some to share; `training = "local"` '
                "shares none",
            )
        )
    return private


def _own(arrays: Arrays) -> Arrays:
    return {n.removeprefix(_OWN): a for n, a in arrays.items() if n.startswith(_OWN)}


def best_private(kept: tuple[Arrays, dict[str, str]] | None) -> dict[str, Arrays]:
    """Return each client's private parameters of the best round; empty where nothing is private."""
    if kept is None or _CLIENTS not in kept[1]:
        return {}
    stacked = PrivateFleet.best_of(_own(kept[0]))
    if not stacked:  # control variates alone: no forecast needs them
        return {}
    return {
        client_id: {name: values[place] for name, values in stacked.items()}
        for place, client_id in enumerate(json.loads(kept[1][_CLIENTS]))
    }


def best_state(kept: tuple[Arrays, dict[str, str]] | None, run: str) -> Arrays:
    """Return the best model among the arrays kept of a finished group.

    Raises:
        RunError: FL703, the weights are not there.
    """
    if kept is None:
        raise RunError(
            Fault("FL703", f"run `{run}` has lost weights of a finished model", run, "run it again")
        )
    return unpacked(*kept)[0].best_state

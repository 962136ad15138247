"""Rows that are made of trained models: ensembles, and models fitted to each client.

Everything here happens on the client, with its own windows; nothing new leaves it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.config.schema import ENSEMBLE, RunConfig
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.blend import best_weights, blended
from fl_inmetro.learning.client import ClientData, ClientWorker, added_up, past_scale
from fl_inmetro.learning.gradient import GradientLearner
from fl_inmetro.learning.trainer import available_cores, in_order
from fl_inmetro.learning.update import Arrays
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import ErrorSums, Forecast, joined_forecasts, score_fleet
from fl_inmetro.metrics.protocol import ProtocolSums, Yardstick
from fl_inmetro.plan import Job

Floats = NDArray[np.float64]

#: A client's forecasts of one split, one for each of its parts.
Parts = tuple[Forecast, ...]

_TUNED = "tuned."


@dataclass
class Done:
    """What a job has come to, so far.

    Attributes:
        sums: Error sums on the test windows, by meter.
        n_bytes: Bytes of arrays and sums exchanged.
        seconds: Wall time.
        simulated_s: Virtual time.
        states: Client to the model that serves it.
        validation: Client to its forecasts of the validation windows.
        test: Client to its forecasts of the test windows.
        measured: Client to the sums of a protocol's test, where one decides.
    """

    sums: dict[str, ErrorSums] = field(default_factory=dict)
    n_bytes: int = 0
    seconds: float = 0.0
    simulated_s: float = 0.0
    states: dict[str, Arrays] = field(default_factory=dict)
    validation: dict[str, Parts] = field(default_factory=dict)
    test: dict[str, Parts] = field(default_factory=dict)
    measured: dict[str, tuple[Yardstick, ProtocolSums]] = field(default_factory=dict)


#: The jobs that are done.
Dones = Mapping[Job, Done]


@dataclass(frozen=True, eq=False)
class Blend:
    """Each client's weights of some components.

    Attributes:
        components: Their names: learners of an ensemble, or those of `[personalisation]`.
        clients: The clients, K.
        weights: Shape (K, M).
        tuned: Client to its tuned model, where there is one.
    """

    components: tuple[str, ...]
    clients: tuple[str, ...]
    weights: Floats
    tuned: Mapping[str, Arrays] = field(default_factory=dict)

    def weights_of(self, client_id: str) -> Floats | None:
        """Return a client's weights, shape (M,); None for a client that has none."""
        place = self._places.get(client_id)
        return None if place is None else self.weights[place]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {client: place for place, client in enumerate(self.clients)}

    def packed(self) -> tuple[Arrays, dict[str, str]]:
        """Return arrays and text that can be kept."""
        arrays: Arrays = {"weights": self.weights}
        tuned = [name for name in self.clients if name in self.tuned]
        if tuned:
            for name in self.tuned[tuned[0]]:
                arrays[_TUNED + name] = np.stack([self.tuned[client][name] for client in tuned])
        return arrays, {
            "components": json.dumps(self.components),
            "clients": json.dumps(self.clients),
            "tuned": json.dumps(tuned),
        }

    @classmethod
    def unpacked(cls, arrays: Arrays, meta: Mapping[str, str]) -> Blend:
        """Return what `packed` was made of."""
        stacked = {n.removeprefix(_TUNED): a for n, a in arrays.items() if n.startswith(_TUNED)}
        tuned = {
            client: {name: values[k] for name, values in stacked.items()}
            for k, client in enumerate(json.loads(meta["tuned"]))
        }
        components, clients = (tuple(json.loads(meta[key])) for key in ("components", "clients"))
        return cls(components, clients, arrays["weights"], tuned)


def derive(
    job: Job,
    config: RunConfig,
    workers: Sequence[ClientWorker],
    done: Dones,
    should_stop: Callable[[], None],
) -> tuple[Done, Blend]:
    """Make an ensemble of the members' forecasts, or each client's own blend.

    Args:
        job: What is made.
        config: The run's.
        workers: The clients, with the job's learner (of an ensemble: with any).
        done: The jobs before it.
        should_stop: Called between clients; may raise.
    """
    if job.model == ENSEMBLE:
        names: tuple[str, ...] = config.ensemble.members
        sources = [done[Job(name, job.training)] for name in names]
        moved = sum(source.n_bytes for source in sources)
        even = np.full(len(names), 1 / len(names))
        simulated_s = sum(source.simulated_s for source in sources)
        return _blended(names, sources, workers, lambda worker: even, moved, simulated_s)
    return _personalised(job, config, workers, done, should_stop)


def score(worker: ClientWorker, forecasts: Parts) -> dict[str, ErrorSums]:
    """Return the error sums of a client's test windows, by the meter they are scored as."""
    parts = zip(worker.windows("test"), forecasts, strict=True)
    return added_up((part.scored_as, scored(part, forecast)) for part, forecast in parts)


def scored(part: Windows, forecast: Forecast) -> ErrorSums:
    """Return the error sums of one meter's test windows."""
    return ErrorSums.of(forecast, part.target_kwh(), past_scale(part))


def validation_nmae(done: Done, clients: Mapping[str, ClientData]) -> float:
    """Return the nMAE of a job on the validation windows, by which a row may be chosen.

    NaN where no validation window has both a forecast and a reading.
    """
    parts = [
        (windows.scored_as, ErrorSums.of(forecast, windows.target_kwh()))
        for name, client in clients.items()
        for windows, forecast in zip(client.validation, done.validation.get(name, ()), strict=False)
        if len(windows)
    ]
    return score_fleet(added_up(parts))["nmae"] if parts else math.nan


def doubts_of(
    job: Job, config: RunConfig, clients: Mapping[str, ClientData], done: Dones
) -> list[str]:
    """Return what a reader of a derived row should know and would not see.

    Quantiles that an ensemble has lost, because a member forecasts a mean alone or other levels;
    clients whose blend was to be chosen by validation days that they do not have.
    """
    doubts: list[str] = []
    row = f"{job.model} ({job.training})"
    if job.model == ENSEMBLE and not config.conformal.enabled:
        members = [Job(name, job.training) for name in config.ensemble.members]
        levels = {one.model: _levels(done[one]) for one in members}
        lost = sorted(set().union(*levels.values()) - _levels(done[job]))
        if lost:
            lacking = [name for name, own in levels.items() if not set(lost) <= own]
            doubts.append(
                f"{row}: no quantiles at {', '.join(f'{level:g}' for level in lost)}, as "
                f"{', '.join(lacking)} has none there; give all members the same `levels`, or use "
                "`[conformal] enabled = true`"
            )
    if job.training == "personalised" and config.personalisation.weights == "validation":
        blind = [
            name
            for name, client in clients.items()
            if not any(np.isfinite(part.target_kwh()).any() for part in client.validation)
        ]
        if blind:
            names = ", ".join(blind[:3]) + (" …" if len(blind) > 3 else "")
            doubts.append(
                f"{row}: {len(blind)} of {len(clients)} clients have no reading on the validation "
                f"days that were to choose their weights; theirs are even: {names}"
            )
    return doubts


# ------------------------------------------------------------------------------ internals
def _levels(done: Done) -> set[float]:
    """Return the levels of a job's forecasts; those of one client are those of all."""
    first = next((part for parts in done.test.values() for part in parts), None)
    return set() if first is None else set(first.levels)


def _blended(
    names: tuple[str, ...],
    sources: Sequence[Done],
    workers: Sequence[ClientWorker],
    weights_of: Callable[[ClientWorker], Floats],
    n_bytes: int,
    simulated_s: float,
    tuned: Mapping[str, Arrays] | None = None,
) -> tuple[Done, Blend]:
    result, clients, rows = Done(), [], []
    for worker in workers:
        name = worker.client_id
        weights = weights_of(worker)
        # A component may lack a client: one that could not be trained alone, say.
        have = [k for k, source in enumerate(sources) if name in source.test]
        if not have:
            continue
        weights = np.where(np.isin(np.arange(len(names)), have), weights, 0.0)
        weights = weights / weights.sum() if weights.sum() else _even(have, len(names))
        own = weights[have]

        def made(split: str, have: list[int] = have, own: Floats = own, name: str = name) -> Parts:
            found = [getattr(sources[k], split)[name] for k in have]
            return tuple(blended(parts, own) for parts in zip(*found, strict=True))

        result.validation[name], result.test[name] = made("validation"), made("test")
        result.sums |= score(worker, result.test[name])
        clients.append(name)
        rows.append(weights)
    result.n_bytes = n_bytes
    result.simulated_s = simulated_s
    result.seconds = sum(source.seconds for source in sources)
    weights = np.stack(rows) if rows else np.zeros((0, len(names)))
    return result, Blend(names, tuple(clients), weights, tuned or {})


def _even(have: Sequence[int], count: int) -> Floats:
    weights = np.zeros(count)
    weights[list(have)] = 1 / len(have)
    return weights


def _personalised(
    job: Job,
    config: RunConfig,
    workers: Sequence[ClientWorker],
    done: Dones,
    should_stop: Callable[[], None],
) -> tuple[Done, Blend]:
    settings = config.personalisation
    shared = done[Job(job.model, "federated")]
    learner = workers[0].learner
    names = [c for c in settings.components if c != "tuned" or isinstance(learner, GradientLearner)]
    tuned = _tuned(config, workers, shared, should_stop) if "tuned" in names else Done()
    have = {name: done.get(Job(job.model, name)) for name in ("clustered", "local")}
    have |= {"federated": shared, "tuned": tuned}
    sources = [one for name in names if (one := have[name]) is not None]

    def weights_of(worker: ClientWorker) -> Floats:
        name = worker.client_id
        known = [k for k, source in enumerate(sources) if name in source.validation]
        weights = np.zeros(len(sources))
        if settings.weights == "even":
            return weights  # of those that can serve it: see `_blended`
        if known and (parts := worker.windows("validation")):
            target_kwh = np.concatenate([part.target_kwh() for part in parts])
            found = [joined_forecasts(sources[k].validation[name]) for k in known]
            weights[known] = best_weights(found, target_kwh, settings.parts)
        return weights

    parted = have["clustered"] if "clustered" in names else None
    exchanged = [one for one in (shared, parted) if one is not None]
    cost = (sum(one.n_bytes for one in exchanged), sum(one.simulated_s for one in exchanged))
    return _blended(tuple(names), sources, workers, weights_of, *cost, tuned.states)


def _tuned(
    config: RunConfig,
    workers: Sequence[ClientWorker],
    shared: Done,
    should_stop: Callable[[], None],
) -> Done:
    """Train the federation's model on, at each client, and forecast with it."""
    settings = config.personalisation
    learner = workers[0].learner
    assert isinstance(learner, GradientLearner)
    slower = learner.slower(settings.eta_l_factor)
    result = Done()

    def tune(worker: ClientWorker) -> Arrays | None:
        should_stop()
        state = shared.states.get(worker.client_id)
        if state is None:
            return None
        update, kept = worker.with_learner(slower).train(
            state, LocalWork(settings.epochs, mu=settings.mu), config.seed, _TUNING_ROUND
        )
        moved = {name: state[name] + delta for name, delta in update.arrays.items()}
        return state | moved | kept.private

    for worker, state in zip(workers, in_order(tune, workers, available_cores()), strict=True):
        # A client whose numbers are not finite keeps the federation's model.
        if state is None or not all(np.isfinite(array).all() for array in state.values()):
            continue
        result.states[worker.client_id] = state
        for split in ("validation", "test"):
            forecasts = tuple(learner.forecast(state, d) for _, d in worker.evaluated(split))
            getattr(result, split)[worker.client_id] = forecasts
    return result


#: Round whose draws tuning uses: none that a federation has.
_TUNING_ROUND = 1_000_003

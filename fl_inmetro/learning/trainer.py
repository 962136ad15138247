"""Train any number of clients in this process: in chunks, on all cores, in bounded memory.

Chunks are cut by settings alone and merged in order, so neither the number of threads nor their
timing can change a bit of the result. A chunk's updates are digested where they are made; what is
kept of them is the caller's choice, so memory need not grow with the number of clients.
Threads, not processes: PyTorch works without the interpreter's lock, and they share the data.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fl_inmetro.config.schema import Execution
from fl_inmetro.learning import dp_sgd, noise_share
from fl_inmetro.learning.cohort import Trained, train_chunk
from fl_inmetro.learning.control import kept_after, shift_of
from fl_inmetro.learning.gradient import GradientLearner, client_seed
from fl_inmetro.learning.lift import Lifted, NotLiftable
from fl_inmetro.learning.probe import Probed, probe_chunk
from fl_inmetro.learning.rows import Rows
from fl_inmetro.learning.update import Arrays, Layout, UpdateBlock
from fl_inmetro.learning.work import LocalWork, StepError
from fl_inmetro.privacy.secret import Secret

Ints = NDArray[np.int64]
Item = TypeVar("Item")
Result = TypeVar("Result")
Digest = TypeVar("Digest")

#: Seconds after which a chunk that is still at work looks whether it should stop.
_LOOK_S = 0.5

#: What is done with a chunk's updates, in the thread that made them.
MakeDigest = Callable[[UpdateBlock], Digest]


class Population(Protocol):
    """The clients' training windows, by place; kept, mapped, or made when they are asked for."""

    client_ids: Sequence[str]
    #: n_k of each client, shape (K,).
    points: NDArray[np.float64]
    #: Shape of one window's input.
    row_shape: tuple[int, ...]

    def rows(self, members: Ints) -> Rows:
        """Return the windows of some clients."""


@dataclass(frozen=True)
class ClientFailure:
    """A client whose work raised; the others are not concerned."""

    client_id: str
    reason: str


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """A chunk saw that it should stop."""


class _Abandoned(BaseException):
    """The round was given up while a chunk was at work."""


class ClientError(Exception):
    """Work that raised in debug mode, and whose it was."""

    def __init__(self, client_id: str, error: Exception) -> None:
        super().__init__(f"client `{client_id}`: {error}")
        self.client_id = client_id
        self.error = error


def available_cores() -> int:
    """Return the cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@lru_cache(maxsize=4)
def _threads(workers: int) -> ThreadPoolExecutor:
    # One torch thread each: small matrices are several times slower when two threads share them.
    return ThreadPoolExecutor(workers, "cohort", initializer=torch.set_num_threads, initargs=(1,))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield `function(item)` in the order of the items, with few results waiting."""
    if workers == 1:
        torch.set_num_threads(1)
        yield from map(function, items)
        return
    pool, waiting = _threads(workers), deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class CohortTrainer:
    """One learner's clients.

    Args:
        learner: A gradient learner.
        population: Its clients.
        execution: Threads, chunk, device.
        debug: Stop at the first failure and name it.
    """

    def __init__(
        self,
        learner: GradientLearner,
        population: Population,
        execution: Execution,
        *,
        debug: bool = False,
    ) -> None:
        self._learner = learner
        self._population = population
        self._execution = execution
        self._device = torch.device(execution.device)
        # A GPU is fed by one thread: several would only take turns.
        on_cpu = self._device.type == "cpu"
        self._workers = (execution.workers or available_cores()) if on_cpu else 1
        self._stepped = not on_cpu
        self._debug = debug
        # Networks that are not at work: each has room for the parameters of one chunk.
        self._idle: deque[Lifted] = deque()

    def can_batch(self, state: Arrays) -> bool:
        """Tell whether the learner's network has a batched form that agrees with it."""
        module = self._learner.loaded(state).to(self._device)
        module.eval()
        try:
            network = Lifted(module)
        except NotLiftable:
            return False
        network.load_buffers(state, self._device)
        return network.agrees(module, self._population.row_shape)

    def train(
        self,
        state: Arrays,
        members: Ints,
        work: LocalWork,
        root_seed: int,
        round_: int,
        digest: MakeDigest[Digest],
        *,
        epochs: Ints | None = None,
        private: Mapping[str, NDArray[np.float32]] | None = None,
        control: Arrays | None = None,
        own_controls: Mapping[str, NDArray[np.float32]] | None = None,
        secret: Secret | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Digest | ClientFailure]:
        """Train the clients at `members` and yield what `digest` makes of each chunk's updates.

        Args:
            state: The shared state.
            members: Places in the population, shape (M,).
            work: What is asked.
            root_seed: Root seed.
            round_: Number of the round.
            digest: Called with the block of every chunk.
            epochs: Epochs of each member, shape (M,); None = those of `work`.
            private: Private parameters of the whole population, each (K, …); changed in place.
            control: The server's control variate, for SCAFFOLD.
            own_controls: Control variates of the whole population, each (K, …); changed in place.
            secret: What `work.dp` and `work.share` draw from, by client and round; of this
                training alone.
            should_stop: Looked at now and then between steps of a long chunk.

        Raises:
            Stopped: `should_stop` said so.
            ClientError: In debug mode, the first failure.
            ValueError: Noise is asked for, and there is no secret to draw it from.
        """
        if not work.tells_loss:
            secret = dp_sgd.checked(work, secret)
        private, own_controls = private or {}, own_controls or {}
        network = self._network(state, stepped=False)
        shared = {name: state[name] for name in network.names if name not in private}
        layout = Layout.of(shared, network.turned)
        self._idle.append(network)
        sent = layout.with_control() if work.control == "scaffold" else layout
        epochs = np.full(len(members), work.epochs) if epochs is None else epochs
        stepped = work.dp is not None or self._stepped

        over = threading.Event()
        next_look = time.monotonic() + _LOOK_S

        def check() -> None:
            nonlocal next_look
            if over.is_set():
                raise _Abandoned
            if time.monotonic() > next_look:
                next_look = time.monotonic() + _LOOK_S
                if should_stop():
                    raise Stopped

        def chunk(places: slice) -> list[Digest | ClientFailure]:
            started = time.perf_counter()
            chosen = members[places]
            names = [self._population.client_ids[k] for k in chosen]
            rows = self._population.rows(chosen).to(self._device)
            client_seeds = [client_seed(root_seed, name, round_) for name in names]
            secrets = [dp_sgd.client_secret(secret, name, round_) for name in names if secret]
            own = {name: values[chosen] for name, values in private.items()}
            own_control = {name: values[chosen] for name, values in own_controls.items()}

            def looked(network: Lifted, part: slice, *, gradients: bool) -> Probed:
                return probe_chunk(
                    self._learner,
                    network,
                    state,
                    rows.part(part),
                    client_seeds[part],
                    layout,
                    private=_part(own, part),
                    gradients=gradients,
                    debug=self._debug,
                    check=check,
                )

            def trained(network: Lifted, part: slice) -> Trained:
                before = _part(own_control, part)
                result = train_chunk(
                    self._learner,
                    network,
                    state,
                    rows.part(part),
                    work,
                    epochs[places][part],
                    client_seeds[part],
                    private=_part(own, part),
                    shift=shift_of(work, before, control, stacked=True),
                    secrets=secrets[part] if work.dp else None,
                    layout=layout,
                    debug=self._debug,
                    check=check,
                )
                after = kept_after(work, before, sent.stacked(result.matrix))
                if result.private or after:
                    # What has noise in it tells nothing by being sound; a loss would.
                    sound = _sound(result, after, losses=work.dp is None)
                    for memory, kept in ((private, result.private), (own_controls, after)):
                        for name, values in kept.items():
                            memory[name][chosen[part][sound]] = values[sound]
                if work.share:
                    noise_share.noised_rows(result.matrix, layout, work.share, secrets[part])
                    result = replace(result, losses=np.full_like(result.losses, np.nan))
                return result

            def block(part: slice) -> UpdateBlock:
                network = self._network(state, stepped)
                looks: Probed | None = None
                try:
                    if work.probe or work.start_loss:
                        looks = looked(network, part, gradients=work.probe)
                    result = None if work.probe else trained(network, part)
                finally:
                    self._idle.append(network)
                ids, points = tuple(names[part]), self._population.points[chosen[part]]
                columns = {"start_losses": looks.losses} if looks and work.start_loss else {}
                if result is None:
                    assert looks is not None
                    matrix, losses, steps = looks.gradients, looks.losses, looks.steps
                    columns["spreads"] = looks.spreads
                else:
                    matrix, losses, steps = result.matrix, result.losses, result.steps
                seconds = (time.perf_counter() - started) * steps / max(int(steps.sum()), 1)
                return UpdateBlock(ids, sent, matrix, points, losses, seconds, **columns)

            try:
                return [digest(block(slice(None)))]
            except _Abandoned:
                return []
            except Stopped:
                raise
            except StepError as error:  # in debug mode only
                raise ClientError(names[error.row], error) from error
            except Exception as error:
                if len(names) == 1 and not self._debug:
                    return [ClientFailure(names[0], f"{type(error).__name__}: {error}")]
            # One client's fault is nobody else's: do them one by one.
            results: list[Digest | ClientFailure] = []
            for k, name in enumerate(names):
                try:
                    results.append(digest(block(slice(k, k + 1))))
                except Exception as error:
                    if self._debug:
                        raise ClientError(name, error) from error
                    results.append(ClientFailure(name, f"{type(error).__name__}: {error}"))
            return results

        size = self._chunk(state, work)
        try:
            for results in in_order(chunk, _even(len(members), size), self._workers):
                yield from results
        finally:
            over.set()  # nobody waits for chunks still at work: they end before their next step

    def _network(self, state: Arrays, stepped: bool) -> Lifted:
        try:
            while (network := self._idle.pop()).stepped != stepped:
                pass
            return network
        except IndexError:  # none is idle
            pass
        return Lifted(self._learner.module(state).to(self._device), stepped=stepped)

    def _chunk(self, state: Arrays, work: LocalWork) -> int:
        # Each window's gradient is taken from recurrent layers that step through time.
        network = self._network(state, stepped=work.dp is not None or self._stepped)
        self._idle.append(network)
        return self._execution.chunk or network.clients_at_once(
            self._population.row_shape, tapped=work.dp is not None
        )


def _part(stacked: Mapping[str, NDArray[np.float32]], part: slice) -> Arrays:
    return {name: values[part] for name, values in stacked.items()}


def _sound(result: Trained, control: Arrays, *, losses: bool) -> NDArray[np.bool_]:
    """Tell whose numbers are finite: a client whose are not keeps the values it had."""
    sound: NDArray[np.bool_] = np.isfinite(result.losses) | (not losses)
    sound &= np.isfinite(result.matrix).all(axis=1)
    for values in (*result.private.values(), *control.values()):
        sound &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return sound


def _even(count: int, size: int) -> Iterator[slice]:
    """Cut `count` clients into an even number of chunks of at most `size`, all about as large.

    Two cores are then busy to the end, and more of them nearly so; the number of threads itself
    must have no say in how the sums are added.
    """
    chunks = min(2 * math.ceil(count / (2 * size)), count)
    for k in range(chunks):
        yield slice(count * k // chunks, count * (k + 1) // chunks)

"""LSTM and Transformer over a drive's steps, alone, told what physics expects, or correcting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_inmetro import seeds
from fl_inmetro.ev.drives import Floats
from fl_inmetro.ev.family import Fleet, Training, no_own_model
from fl_inmetro.ev.physics_family import FittedPhysics, PhysicsFamily
from fl_inmetro.ev.trips import Trips
from fl_inmetro.ev_study.car_correction import Correction, spreads
from fl_inmetro.ev_study.networks import RESIDUAL_KW, Kind, network
from fl_inmetro.ev_study.signals import POWER_KW, Chunks, chunks_of, joined, width_of
from fl_inmetro.federation.server_optimizers import Adam, Falling

#: What a network has to do with the physics.
Physics = Literal["none", "input", "residual"]

#: Steps whose powers are averaged before they are compared: a second's error levels out.
_POOL = 6

Arrays = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class SequenceSettings:
    """How a network is trained.

    Attributes:
        width: Of its layers.
        rounds: Steps of the server's optimiser, each by one gradient of every client.
        alone: Steps of a car that trains alone: each sees all of its trips.
        batch: Chunks of all clients behind a step, at most.
        rate: Of Adam at the server; it falls to zero over the rounds.
    """

    width: int = 32
    rounds: int = 150
    alone: int = 60
    batch: int = 96
    rate: float = 0.01


@dataclass(frozen=True, eq=False)
class FittedSequence:
    """A network of a fleet, or of each car.

    Attributes:
        networks: By car for local training; under the name "" the fleet's.
        mode: What it has to do with the physics.
        physics: The calibrated one; None where it has no part.
        corrections: Of the training cars: they stay on them. None for local training.
        before: Correction of a car that nobody knows.
        moved_bytes: See `Fitted`.
    """

    networks: Mapping[str, nn.Module]
    mode: Physics
    physics: FittedPhysics | None
    corrections: Mapping[str, Correction] | None
    before: Correction
    moved_bytes: int

    @property
    def parameters(self) -> int:
        """Return the weights of one network, and the physics' factors."""
        one = next(iter(self.networks.values()))
        weights = sum(parameter.numel() for parameter in one.parameters())
        return weights + (self.physics.parameters if self.physics else 0)

    def predict(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return kWh [trip]; see `Fitted.predict`."""
        told = self.told_kwh(car, trips, own)
        if self.corrections is None:
            return told
        correction = self.corrections.get(car, self.before)
        if own is not None:
            known = self.told_kwh(car, own, own) / own.distance_km
            correction = correction.after_all(
                known.tolist(), (own.terminal_kwh / own.distance_km).tolist()
            )
        kwh: Floats = correction.applied(told / trips.distance_km) * trips.distance_km
        return kwh

    def told_kwh(self, car: str, trips: Trips, own: Trips | None = None) -> Floats:
        """Return the network's own answer, uncorrected [trip]."""
        name = car if self.corrections is None else ""
        if name not in self.networks:
            raise no_own_model(car)
        chunks = chunks_of(trips, self.physics, car, own, as_input=self.mode == "input")
        return energies(self.networks[name], chunks, self.mode, len(trips.names))


@dataclass(frozen=True)
class SequenceFamily:
    """Networks that tell the power of each ten seconds of a drive; a trip's energy is their sum.

    A federated step: each client's gradient of the summed loss over its share of a batch goes up,
    the server adds them, divides by all steps, and Adam moves the weights (FedSGD, McMahan et al.
    2017, with the server optimiser of Reddi et al. 2021). That is the gradient of the pooled batch,
    so `central` differs by which chunks fall into a batch alone.

    Attributes:
        kind: Of the network.
        physics: Whether it is told the calibrated physics' power, or corrects it.
        settings: Of the training.
    """

    kind: Kind = "lstm"
    physics: Physics = "none"
    settings: SequenceSettings = SequenceSettings()

    @property
    def name(self) -> str:
        """Return the family's name."""
        begin = {"none": "", "input": "physics_into_", "residual": "physics_"}[self.physics]
        return f"{begin}{self.kind}"

    def fit(self, fleet: Fleet, training: Training, seed: int) -> FittedSequence:
        """Train; see `Family.fit`."""
        known = None
        if self.physics != "none":
            known = PhysicsFamily().fit(fleet, training, seed)
        chunks = {
            car: chunks_of(trips, known, car, as_input=self.physics == "input")
            for car, trips in fleet.items()
        }
        nobody = Correction.before(0.0, 1.0)
        if training == "local":
            steps = min(self.settings.alone, self.settings.rounds)
            alone = {car: self.trained([one], seed, steps) for car, one in chunks.items()}
            return FittedSequence(alone, self.physics, known, None, nobody, 0)
        clients = list(chunks.values())
        model = self.trained([joined(clients)] if training == "central" else clients, seed)
        told: Arrays = {}
        true: Arrays = {}
        for car, trips in fleet.items():
            kwh = energies(model, chunks[car], self.physics, len(trips.names))
            told[car] = kwh / trips.distance_km
            true[car] = trips.terminal_kwh / trips.distance_km
        between, within = spreads(true[car] - told[car] for car in fleet)
        before = Correction.before(between, within)
        own = {car: before.after_all(told[car].tolist(), true[car].tolist()) for car in fleet}
        moved = 0
        if training == "federated":
            weights = sum(parameter.numel() for parameter in model.parameters())
            # Weights down and a gradient up in each round, then three numbers for the spreads.
            moved = (2 * 4 * weights * self.settings.rounds + 3 * 8) * len(fleet)
            moved += known.moved_bytes if known else 0
        return FittedSequence({"": model}, self.physics, known, own, before, moved)

    def trained(self, clients: Sequence[Chunks], seed: int, steps: int | None = None) -> nn.Module:
        """Return a network that was trained on clients' chunks, in so many steps."""
        settings = self.settings
        rounds = settings.rounds if steps is None else steps
        model = network(self.kind, width_of(self.physics == "input"), settings.width, seed)
        names = [name for name, _ in model.named_parameters()]
        optimizer = Falling(Adam(settings.rate, tau=1e-8, form="corrected"), rounds)
        memory = optimizer.begin(_weights(model))
        orders = [
            _Order(len(chunks), seeds.derive(seed, "ev", "batches", str(number)))
            for number, chunks in enumerate(clients)
        ]
        whole = sum(len(chunks) for chunks in clients)
        share = min(1.0, settings.batch / whole)
        for _ in range(rounds):
            total: Arrays = {}
            weight = 0.0
            for chunks, order in zip(clients, orders, strict=True):
                part = chunks.part(order.next(max(1, round(share * len(chunks)))))
                gradient, points = summed_gradient(model, part, self.physics)
                weight += points
                for name in names:
                    before = total.get(name, np.zeros(()))
                    total[name] = np.asarray(before + gradient[name])
            delta = {name: -value / weight for name, value in total.items()}
            move, memory = optimizer.step(delta, memory)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.add_(torch.from_numpy(move[name]).to(parameter.dtype))
        return model


def summed_gradient(model: nn.Module, chunks: Chunks, mode: Physics) -> tuple[Arrays, float]:
    """Return what leaves a client: the gradient of its summed loss, and the steps behind it.

    The loss of a pooled step is Huber's (δ = 1) of the error in units of `RESIDUAL_KW`.
    """
    model.zero_grad()
    told, measured, weight = _pooled(model, chunks, mode)
    error = nn.functional.huber_loss(told, measured, reduction="none")
    loss = (error * weight).sum()
    loss.backward()
    gradient = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        gradient[name] = parameter.grad.numpy().astype(np.float64)
    return gradient, float(weight.sum())


def _pooled(
    model: nn.Module, chunks: Chunks, mode: Physics
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return told and measured powers of pooled steps, in `RESIDUAL_KW`, and their weights."""
    power = power_kw(model, chunks, mode)
    hours = torch.from_numpy(chunks.hours)
    pad = -chunks.hours.shape[1] % _POOL

    def sums(values: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(values * hours, (0, pad))
        pooled: torch.Tensor = padded.reshape(len(padded), -1, _POOL).sum(-1)
        return pooled

    span = sums(torch.ones_like(hours))
    safe = span.clamp(min=1e-9) * RESIDUAL_KW
    weight = span * (3600 / 10)
    return sums(power) / safe, sums(torch.from_numpy(chunks.measured_kw)) / safe, weight


def power_kw(model: nn.Module, chunks: Chunks, mode: Physics) -> torch.Tensor:
    """Return the power that is told for each step [chunk, step]."""
    real = torch.from_numpy(chunks.hours > 0).float()
    unit = RESIDUAL_KW if mode == "residual" else POWER_KW
    told: torch.Tensor = model(torch.from_numpy(chunks.x), real) * unit
    return told + torch.from_numpy(chunks.physics_kw) if mode == "residual" else told


def energies(model: nn.Module, chunks: Chunks, mode: Physics, trips: int) -> Floats:
    """Return the energy that is told for each trip, in kWh [trip]."""
    result = np.zeros(trips)
    with torch.no_grad():
        for begin in range(0, len(chunks), 256):
            part = chunks.part(np.arange(begin, min(begin + 256, len(chunks))))
            kwh = (power_kw(model, part, mode).double().numpy() * part.hours).sum(axis=1)
            np.add.at(result, part.trip, kwh)
    return result


class _Order:
    """Which chunks come next: all once, in a drawn order, then all again."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        self._left: list[int] = []

    def next(self, size: int) -> NDArray[np.int64]:
        """Return so many, or all there are."""
        size = min(size, self._count)
        taken: list[int] = []
        while len(taken) < size:
            if not self._left:
                self._left = self._rng.permutation(self._count).tolist()
            taken += [self._left.pop()]
        return np.array(sorted(set(taken)), dtype=np.int64)


def _weights(model: nn.Module) -> Arrays:
    return {
        name: parameter.detach().numpy().astype(np.float64)
        for name, parameter in model.named_parameters()
    }

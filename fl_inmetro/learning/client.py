"""A client at work: its windows, what it was asked to do, and what it answers.

The same object answers in this process, in a Ray actor and on a device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fl_inmetro.data.calendar import steps_per_week
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning.gradient import client_seed
from fl_inmetro.learning.update import Arrays, Floats, Learner, Update
from fl_inmetro.metrics import ErrorSums, naive_scale
from fl_inmetro.models.design import Design, joined


@dataclass(frozen=True, eq=False)
class ClientData:
    """A client's windows, by use.

    A meter has one `Windows` per split. The pooled client of centralised training holds those of
    all meters; its scores stay apart by meter.

    Attributes:
        client_id: Name of the client.
        train: Windows to train on.
        validation: Windows that choose the round.
        test: Windows that are scored once, at the end.
    """

    client_id: str
    train: tuple[Windows, ...]
    validation: tuple[Windows, ...]
    test: tuple[Windows, ...]


def pooled(client_id: str, clients: Sequence[ClientData]) -> ClientData:
    """Return one client that holds everything: centralised training as a federation of one."""
    return ClientData(
        client_id,
        tuple(w for c in clients for w in c.train),
        tuple(w for c in clients for w in c.validation),
        tuple(w for c in clients for w in c.test),
    )


@dataclass(frozen=True)
class Enrolment:
    """What a client says of itself before the first round.

    Attributes:
        client_id: Its name.
        points: Its training points, n_k.
        x_shape: Shape of one window's input.
        horizon: Steps of a forecast.
        sums: The learner's `enrol` arrays.
    """

    client_id: str
    points: int
    x_shape: tuple[int, ...]
    horizon: int
    sums: Arrays


class ClientWorker:
    """One client with its data and its learner; designs are built once and kept."""

    def __init__(self, data: ClientData, learner: Learner) -> None:
        self.data = data
        self.learner = learner

    @property
    def client_id(self) -> str:
        """Name of the client."""
        return self.data.client_id

    def enrol(self) -> Enrolment:
        """Describe the client to the server."""
        design = self._train_design
        return Enrolment(
            self.client_id,
            design.points,
            design.x.shape[1:],
            design.base.shape[1],
            self.learner.enrol(design),
        )

    def train(self, state: Arrays, epochs: int, root_seed: int, round_: int) -> Update:
        """Do the local work of one round."""
        started = time.perf_counter()
        design = self._train_design
        seed = client_seed(root_seed, self.client_id, round_)
        arrays, loss = self.learner.update(state, design, epochs, seed)
        return Update(
            self.client_id, arrays, float(design.points), loss, time.perf_counter() - started
        )

    def evaluate(self, state: Arrays, split: str) -> dict[str, ErrorSums]:
        """Return the error sums of `validation` or `test`, by meter."""
        windows = self.data.validation if split == "validation" else self.data.test
        result: dict[str, ErrorSums] = {}
        for part, design in zip(windows, self._designs(split), strict=True):
            forecast = self.learner.forecast_kwh(state, design)
            scale = past_scale(part) if split == "test" else None
            result[part.series.client_id] = ErrorSums.of(forecast, part.target_kwh(), scale)
        return result

    def test_forecasts(self, state: Arrays) -> list[tuple[Windows, Floats]]:
        """Return the test windows of each meter with their forecasts, shape (N, H), kWh."""
        return [
            (part, self.learner.forecast_kwh(state, design))
            for part, design in zip(self.data.test, self._test_designs, strict=True)
        ]

    @cached_property
    def _train_design(self) -> Design:
        return joined([self.learner.design(part).trainable() for part in self.data.train])

    def _designs(self, split: str) -> tuple[Design, ...]:
        return self._test_designs if split == "test" else self._validation_designs

    @cached_property
    def _validation_designs(self) -> tuple[Design, ...]:
        return tuple(self.learner.design(part, targets=False) for part in self.data.validation)

    @cached_property
    def _test_designs(self) -> tuple[Design, ...]:
        return tuple(self.learner.design(part, targets=False) for part in self.data.test)


def past_scale(windows: Windows) -> ErrorSums:
    """Return the MASE scale: weekly changes of everything before the first issue of `windows`."""
    first = int(windows.issue_index[0]) if len(windows) else 0
    past = windows.series.energy_kwh[:first]
    return naive_scale(past, steps_per_week(windows.series.resolution_s))

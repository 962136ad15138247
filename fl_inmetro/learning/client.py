"""A client at work: its windows, what it was asked to do, and what it answers.

The same object answers in this process, in a Ray actor and on a device.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from fl_inmetro.data.calendar import steps_per_week
from fl_inmetro.data.windows import Windows
from fl_inmetro.learning import dp_sgd, noise_share
from fl_inmetro.learning.alone import update_alone
from fl_inmetro.learning.conformal import Scores, scores_of
from fl_inmetro.learning.control import kept_after, shift_of, zero_controls
from fl_inmetro.learning.exposure import windows_of_a_day
from fl_inmetro.learning.gradient import GradientLearner, client_seed
from fl_inmetro.learning.private_moments import MomentsAsked, asked_of
from fl_inmetro.learning.private_ridge import PrivateRidgeLearner
from fl_inmetro.learning.update import Arrays, Learner, Update
from fl_inmetro.learning.work import LocalWork
from fl_inmetro.metrics import ErrorSums, Forecast, naive_scale
from fl_inmetro.models.design import Design, joined
from fl_inmetro.privacy.secret import Secret


@dataclass(frozen=True, eq=False)
class ClientData:
    """A client's windows, by use.

    A meter has one `Windows` per split, a client of a partition one for each meter it has a part
    of. The pooled client of centralised training holds those of all; its scores stay apart by the
    client that holds them otherwise.

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
        windows: Its training windows, each with at least one of the points.
    """

    client_id: str
    points: int
    x_shape: tuple[int, ...]
    horizon: int
    sums: Arrays
    windows: int


@dataclass(frozen=True)
class Kept:
    """What a client keeps to itself of a round; empty where there is nothing new to keep.

    Attributes:
        private: Its private parameters after the round.
        control: Its control variate after the round, by name of the shared parameters.
    """

    private: Arrays = field(default_factory=dict)
    control: Arrays = field(default_factory=dict)


class ClientWorker:
    """One client with its data and its learner; designs are built once and kept."""

    def __init__(self, data: ClientData, learner: Learner) -> None:
        self.data = data
        self.learner = learner

    @property
    def client_id(self) -> str:
        """Name of the client."""
        return self.data.client_id

    def enrol(self, asked: MomentsAsked | None = None, secret: Secret | None = None) -> Enrolment:
        """Describe the client to the server.

        Args:
            asked: What of its sums leaves it under `[privacy]`; None = as they are.
            secret: What noise of its own is drawn from, by client.

        Raises:
            PrivacyError: FL411, the learner's sums have no private form.
        """
        design = self.train_design
        if asked is None:
            sums = self.learner.enrol(design)
        else:
            sums = asked_of(self.learner, design, asked, secret, self.client_id)
        return Enrolment(
            self.client_id,
            design.points,
            design.x.shape[1:],
            design.base.shape[1],
            sums,
            len(design.x),
        )

    def train(
        self,
        state: Arrays,
        work: LocalWork,
        root_seed: int,
        round_: int,
        *,
        control: Arrays | None = None,
        own_control: Arrays | None = None,
        secret: Secret | None = None,
        batched: bool = False,
        debug: bool = False,
    ) -> tuple[Update, Kept]:
        """Do the local work of one round; return the update, and what the client keeps of it.

        A client whose numbers are not finite keeps what it had: its reply will be refused, too.
        Where noise is asked for, the reply tells no loss. It does tell how long the work took, as
        anybody sees who waits for it: that depends on which windows were drawn, and no promise is
        made of it.

        Args:
            state: The shared state, with the client's own values of the private parameters.
            work: What is asked.
            root_seed: Root seed.
            round_: Number of the round.
            control: The server's control variate, for SCAFFOLD.
            own_control: The client's; empty or None before its first training.
            secret: What `work.dp` and `work.share` draw from, by client and round; of this
                training alone.
            batched: Take the windows' gradients of `work.dp` together, not one by one.
            debug: Look at every loss.

        Raises:
            StepError: In debug mode, a step that failed.
            TypeError: A closed-form model was asked for what only local steps have.
            ValueError: SCAFFOLD without the server's control variate, or with one of other shapes;
                noise without a secret.
        """
        started = time.perf_counter()
        design = self.train_design
        seed = client_seed(root_seed, self.client_id, round_)
        own_secret: Secret | None = None
        if not work.tells_loss:
            root = dp_sgd.checked(work, secret)
            own_secret = dp_sgd.client_secret(root, self.client_id, round_)
        start_loss = spread = math.nan
        if work.probe:
            arrays, loss, spread = self._gradients().probe(state, design, seed, debug=debug)
            start_loss, kept = loss if work.start_loss else math.nan, Kept()
        else:
            if work.start_loss:
                start_loss = self._gradients().mean_loss(state, design)
            arrays, loss, kept = self._trained(
                state,
                work,
                seed,
                control,
                own_control or {},
                own_secret,
                batched=batched,
                debug=debug,
            )
        seconds = time.perf_counter() - started
        if not work.tells_loss:
            loss = math.nan
        points = float(design.points)
        return Update(self.client_id, arrays, points, loss, seconds, start_loss, spread), kept

    def _trained(
        self,
        state: Arrays,
        work: LocalWork,
        seed: int,
        control: Arrays | None,
        own: Arrays,
        secret: Secret | None,
        *,
        batched: bool,
        debug: bool,
    ) -> tuple[Arrays, float, Kept]:
        """Return what is sent, the loss, and what is kept."""
        design, names = self.train_design, self.learner.private(state)
        if isinstance(self.learner, PrivateRidgeLearner):
            arrays, loss = self.learner.update(state, design, work, seed, secret=secret)
            return arrays, loss, Kept()
        if work.control == "none" and work.tells_loss:
            arrays, loss = self.learner.update(state, design, work, seed, debug=debug)
        else:
            learner = self._gradients()
            shift: Arrays = {}
            if work.control != "none":
                own = own or zero_controls(state, learner.shared(state))
                shift = shift_of(work, own, control)
            update = partial(update_alone, learner) if batched and work.dp else learner.update
            arrays, loss = update(
                state, design, work, seed, shift=shift, secret=secret, debug=debug
            )
        private = {name: state[name] + arrays.pop(name) for name in names}
        after = kept_after(work, own, arrays)
        kept = Kept(private, after)
        numbers = [*arrays.values(), *private.values(), *after.values()]
        # What has noise in it tells nothing by being sound; a loss would.
        sound = work.dp is not None or math.isfinite(loss)
        if (private or after) and not (sound and all(np.isfinite(a).all() for a in numbers)):
            kept = Kept({n: state[n] for n in names}, own if after else {})
        if work.share and secret:
            arrays = noise_share.noised(arrays, work.share, secret)
        return arrays, loss, kept

    def _gradients(self) -> GradientLearner:
        if not isinstance(self.learner, GradientLearner):
            raise TypeError(
                f"{self.learner.name} is solved in closed form: there is no gradient to ask for"
            )
        return self.learner

    def mean_loss(self, state: Arrays) -> float:
        """Return the mean loss over all known training points; only for gradient models."""
        return self._gradients().mean_loss(state, self.train_design)

    def evaluate(self, state: Arrays, split: str) -> dict[str, ErrorSums]:
        """Return the error sums of `validation` or `test`, by the client they are scored as."""

        def sums(part: Windows, design: Design) -> ErrorSums:
            forecast = self.learner.forecast(state, design)
            scale = past_scale(part) if split == "test" else None
            return ErrorSums.of(forecast, part.target_kwh(), scale)

        parts = self.evaluated(split)
        return added_up((part.scored_as, sums(part, design)) for part, design in parts)

    def test_forecasts(self, state: Arrays) -> list[tuple[Windows, Forecast]]:
        """Return the test windows of each meter with their forecasts."""
        return [
            (part, self.learner.forecast(state, design)) for part, design in self.evaluated("test")
        ]

    def validation_forecasts(self, state: Arrays) -> list[Forecast]:
        """Return the forecasts of each meter's validation windows."""
        return [self.learner.forecast(state, design) for _, design in self.evaluated("validation")]

    def calibrate(self, state: Arrays, blocks: int) -> Scores | None:
        """Count the errors of the validation windows; None where there is no window."""
        total: Scores | None = None
        for (windows, _), forecast in zip(
            self.evaluated("validation"), self.validation_forecasts(state), strict=True
        ):
            if len(windows):
                own = scores_of(windows, forecast, blocks)
                total = own if total is None else total + own
        return total

    def with_learner(self, learner: Learner) -> ClientWorker:
        """Return the client with a learner that sees the same: the designs are shared."""
        other = copy.copy(self)
        other.learner = learner
        return other

    def release(self, split: str) -> None:
        """Forget the design of a split; it is built again when it is needed."""
        self.__dict__.pop(_DESIGN_OF[split], None)

    @cached_property
    def train_design(self) -> Design:
        """The windows to train on, as the learner sees them; built once and kept."""
        return joined([self.learner.design(part).trainable() for part in self.data.train])

    @cached_property
    def windows_of_a_day(self) -> int:
        """How many of its training windows a day of readings is in, at most."""
        return windows_of_a_day(self.learner, self.data.train)

    def windows(self, split: str) -> tuple[Windows, ...]:
        """Return the windows of `validation` or `test`, by meter."""
        return self.data.test if split == "test" else self.data.validation

    def evaluated(self, split: str) -> list[tuple[Windows, Design]]:
        """Return the windows of `validation` or `test` and their designs, by meter."""
        designs = self._test_designs if split == "test" else self._validation_designs
        return list(zip(self.windows(split), designs, strict=True))

    @cached_property
    def _validation_designs(self) -> tuple[Design, ...]:
        return tuple(self.learner.design(part, targets=False) for part in self.data.validation)

    @cached_property
    def _test_designs(self) -> tuple[Design, ...]:
        return tuple(self.learner.design(part, targets=False) for part in self.data.test)


#: Split to the attribute that keeps its designs.
_DESIGN_OF = {
    "train": "train_design",
    "validation": "_validation_designs",
    "test": "_test_designs",
}


def added_up(sums: Iterable[tuple[str, ErrorSums]]) -> dict[str, ErrorSums]:
    """Add up the sums of each name, in their order; those of one part stay as they are."""
    result: dict[str, ErrorSums] = {}
    for name, part in sums:
        result[name] = result[name] + part if name in result else part
    return result


def past_scale(windows: Windows) -> ErrorSums:
    """Return the MASE scale: weekly changes of everything before the first issue of `windows`."""
    first = int(windows.issue_index[0]) if len(windows) else 0
    past = windows.series.energy_kwh[:first]
    return naive_scale(past, steps_per_week(windows.series.resolution_s))

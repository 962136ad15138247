"""The shape of a run: one frozen value per table of the TOML file.

Keys may be written `num-server-rounds` or `num_server_rounds`. Unknown keys are errors. Defaults
are stated here and nowhere else; `fl-inmetro run --set table.key=value` overrides any of them.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from fl_inmetro.config.attack import Attack
from fl_inmetro.config.backtest import Backtest
from fl_inmetro.config.clusters import Clusters
from fl_inmetro.config.coldstart import ColdStart
from fl_inmetro.config.conformal import Conformal
from fl_inmetro.config.data import Cleaning as Cleaning
from fl_inmetro.config.data import Columns as Columns
from fl_inmetro.config.data import Data as Data
from fl_inmetro.config.data import FileFormat as FileFormat
from fl_inmetro.config.data import Simulator as Simulator
from fl_inmetro.config.diagnostics import Diagnostics
from fl_inmetro.config.fallback import Fallback
from fl_inmetro.config.federation import Federation as Federation
from fl_inmetro.config.models import Models
from fl_inmetro.config.partition import Partition
from fl_inmetro.config.personalisation import Ensemble, Personalisation
from fl_inmetro.config.privacy import Privacy
from fl_inmetro.config.protocol import Protocol
from fl_inmetro.config.strategy import Gate, Selection, Strategy
from fl_inmetro.config.table import Positive, Table
from fl_inmetro.config.virtual_time import VirtualTime
from fl_inmetro.config.zones import Zone

Learner = Literal[
    "ridge",
    "quantile_linear",
    "nlinear",
    "mlp",
    "window_mlp",
    "gru",
    "lstm",
    "patchtst",
    "dlinear",
    "sparsetsf",
    "cyclenet",
    "tide",
    "nhits",
    "segrnn",
    "tsmixer",
    "own",
]
Training = Literal["local", "federated", "clustered", "personalised", "centralised"]
Baseline = Literal[
    "sn24",
    "sn168",
    "ha4",
    "persistence_ensemble",
    "day_type_mean",
    "median_28d",
    "ewma_slot",
    "slot_quantiles",
]
Ensembled = Literal["ensemble"]
Trained = Literal[Learner, Ensembled]
Model = Literal[Baseline, Trained]

BASELINES: tuple[Baseline, ...] = get_args(Baseline)
#: Those that are scored beside a model where nobody chose.
USUAL_BASELINES: tuple[Baseline, ...] = ("sn24", "sn168", "ha4", "persistence_ensemble")
LEARNERS: tuple[Learner, ...] = get_args(Learner)
TRAININGS: tuple[Training, ...] = get_args(Training)
ENSEMBLE: Ensembled = "ensemble"
#: What can be trained: learners, and the mean of several.
TRAINED: tuple[str, ...] = (*LEARNERS, ENSEMBLE)


# -------------------------------------------------------------------------------- window
class Window(Table):
    """Which forecasts are made and which past may be used for them.

    A forecast is issued on each day at `issue_time` of `timezone` for `horizon_h` hours, which
    begin `lead_h` hours later. Days are days of issue, inclusive. The order is training,
    validation, test; nothing is ever fitted on later data.

    Attributes:
        horizon_h: Length of a forecast in hours.
        lead_h: Hours between the issue, until which readings are known, and the first hour that is
            forecast; 18 for the whole of the next day from 06:00 on.
        issue_time: Local time of issue, HH:MM; None = the source's own, else 00:00.
        timezone: Clock of `issue_time`, of the days below, and of the calendar features; None = the
            source's own.
        train_start: First day of issue in training; None = as early as `train_days` allows.
        train_days: Length of training in days, when `train_start` is not given; 0 = all there is.
        validation_days: Days before the test window that choose the best round.
        test_start: First test day. Without test days and without `test_days`: the source's
            reference window, else the last 28 days of the data.
        test_end: Last test day.
        test_days: The test window is the last so many days of the data, unless `test_start` says
            otherwise.
    """

    horizon_h: float = Field(24.0, gt=0, le=24 * 60)
    lead_h: float = Field(0.0, ge=0, le=24 * 14)
    issue_time: str | None = Field(None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    timezone: Zone | None = None
    train_start: date | None = None
    train_days: int = Field(365, ge=0)
    validation_days: Positive = 14
    test_start: date | None = None
    test_end: date | None = None
    test_days: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if (self.test_start is None) != (self.test_end is None):
            raise ValueError("give both `test_start` and `test_end`, or neither")
        if self.test_start and self.test_end and self.test_end < self.test_start:
            raise ValueError("`test_end` is before `test_start`")
        if (
            self.train_start
            and self.test_start
            and self.train_start + timedelta(days=self.validation_days) >= self.test_start
        ):
            raise ValueError("`train_start` leaves no training day before validation and test")
        return self


# ----------------------------------------------------------------------------- execution
class Execution(Table):
    """How the cohort engine uses this machine; it changes the time a run takes, not what it finds.

    Attributes:
        workers: Threads that train chunks of clients at the same time; 0 = one per core.
        chunk: Clients trained as one batch; 0 = as measured for each kind of model. (Sums are added
            chunk by chunk, so another size may change the last bits.)
        memory_mb: Windows beyond this are kept in a temporary file that is read as needed.
        device: Where gradient models are trained.
    """

    workers: int = Field(0, ge=0, le=256)
    chunk: int = Field(0, ge=0)
    memory_mb: Positive = 4096
    device: Literal["cpu", "cuda"] = "cpu"


class Compare(Table):
    """Which rows `fl-inmetro compare` prints.

    Attributes:
        models: Baselines, learners, and `ensemble` (see `[ensemble]`).
        training: How each learner is trained; without any, only baselines are scored.
            `personalised` needs what it is made of: see `[personalisation]`.
    """

    models: tuple[Model, ...] = (*USUAL_BASELINES, "ridge", "nlinear", "mlp")
    training: tuple[Training, ...] = ("local", "federated", "centralised")

    @field_validator("models", "training")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({one for one in value if value.count(one) > 1})
        if twice:
            raise ValueError(f"{', '.join(f'`{one}`' for one in twice)} is named more than once")
        return value

    @model_validator(mode="after")
    def _something(self) -> Compare:
        baselines = [name for name in self.models if name in BASELINES]
        learners = [name for name in self.models if name in TRAINED]
        if not baselines and not (learners and self.training):
            raise ValueError(
                "there is nothing to compare: name a baseline, or a learner and a training"
            )
        return self


class RunConfig(Table):
    """One run, whole: everything that decides its result.

    Attributes:
        name: Short name; part of the run's identifier.
        seed: Root of all randomness.
        engine: `cohort` = in this process, many clients as one batch; `loop` = in this process, one
            client after the other (the specification); `flower` = Flower's simulation (Ray).
        model: The learner that `run` trains, or `ensemble`.
        training: How `run` trains it.
    """

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")
    seed: int = Field(0, ge=0)
    engine: Literal["cohort", "loop", "flower"] = "cohort"
    model: Trained = "mlp"
    training: Training = "federated"
    data: Data = Data()
    window: Window = Window()
    protocol: Protocol = Protocol()
    partition: Partition = Partition()
    models: Models = Models()
    federation: Federation = Federation()
    strategy: Strategy = Strategy()
    selection: Selection = Selection()
    gate: Gate = Gate()
    privacy: Privacy = Privacy()
    attack: Attack = Attack()
    coldstart: ColdStart = ColdStart()
    backtest: Backtest = Backtest()
    diagnostics: Diagnostics = Diagnostics()
    compare: Compare = Compare()
    ensemble: Ensemble = Ensemble()
    personalisation: Personalisation = Personalisation()
    clusters: Clusters = Clusters()
    conformal: Conformal = Conformal()
    fallback: Fallback = Fallback()
    execution: Execution = Execution()
    virtual_time: VirtualTime = VirtualTime()

    @model_validator(mode="after")
    def _made_of_what_is_there(self) -> RunConfig:
        if ENSEMBLE in (self.model, *self.compare.models):
            self.ensemble.check(LEARNERS)
        if ENSEMBLE in self.compare.models:
            before = self.compare.models[: self.compare.models.index(ENSEMBLE)]
            missing = [name for name in self.ensemble.members if name not in before]
            if missing:
                raise ValueError(
                    f"`[compare] models` names `ensemble` before its members {', '.join(missing)}"
                )
        if "personalised" in self.compare.training:
            needed = [c for c in self.personalisation.components if c != "tuned"]
            missing = [name for name in needed if name not in self.compare.training]
            if missing:
                raise ValueError(
                    f"`personalised` blends {', '.join(needed)}: add {', '.join(missing)} to "
                    "`[compare] training`, or leave it out of `[personalisation] components`"
                )
        return self

    @model_validator(mode="after")
    def _by_a_protocol(self) -> RunConfig:
        self.protocol.check(
            {
                "[window]": self.window != Window(),
                "[partition]": self.partition != Partition(),
                "[conformal] enabled": self.conformal.enabled,
                'the model "ensemble"': self.model == ENSEMBLE or ENSEMBLE in self.compare.models,
                'training "personalised"': "personalised"
                in (self.training, *self.compare.training),
            }
        )
        return self

    @model_validator(mode="after")
    def _by_the_clock(self) -> RunConfig:
        self.federation.check_clock(
            self.engine,
            in_virtual_time=self.virtual_time.enabled,
            is_foreign=self.strategy.is_foreign,
        )
        return self

    @model_validator(mode="after")
    def _in_virtual_time(self) -> RunConfig:
        if self.virtual_time.enabled:
            return self._asynchronous()
        if self.selection.sampler == "availability":
            raise ValueError(
                '`[selection] sampler = "availability"` asks the devices of `[virtual_time]`; '
                "give it `enabled = true`"
            )
        if self.strategy.name == "fedbuff":
            raise ValueError(
                '`[strategy] name = "fedbuff"` orders replies by the devices of `[virtual_time]`; '
                "give it `enabled = true`"
            )
        return self

    def _asynchronous(self) -> RunConfig:
        """Refuse what has no part where nobody waits, or where a strategy chooses by itself."""
        if self.strategy.is_foreign:
            raise ValueError("a Flower strategy of your own does not run in `[virtual_time]`")
        if self.strategy.name != "fedbuff":
            return self
        time = self.virtual_time
        useless = {
            "[federation] fraction-fit": self.federation.fraction_fit != 1,
            "[selection] sampler": self.selection.sampler != "uniform",
            "[virtual_time] deadline-s": time.deadline_s is not None,
            "[virtual_time] quorum": time.quorum != 1,
            "[virtual_time] over-selection": time.over_selection != 1,
        }
        if named := [key for key, is_set in useless.items() if is_set]:
            raise ValueError(
                f"`fedbuff` waits for `buffer` updates of `concurrency` clients: "
                f"{', '.join(named)} has no part in it"
            )
        return self
